//! What is written on a role: whose it is, and since when it is disabled.

use rotacast_protocol::{SecretName, Version};
use serde::{Deserialize, Serialize};

use super::foreign;

/// The format below. A newer one is not understood, and the role not touched.
const FORMAT: u32 = 1;

/// The comment on a role. Every login can read comments: nothing in here is derived from the password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// Says that the comment is a mark, and its format.
    rotacast: u32,
    /// The name of the cluster whose broadcasters look after the role. None: an unknown one, and not ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) cluster: Option<String>,
    pub(super) secret: SecretName,
    pub(super) version: Version,
    /// Of which drawn value; none where Rotacast did not make the role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) draw: Option<String>,
    /// When Rotacast made the role, or set its password again: in seconds since the Unix epoch by the server's clock, as below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) made_at: Option<i64>,
    /// Since when no login is possible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) disabled_at: Option<i64>,
    /// When a login was tried since then, and failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) proved_at: Option<i64>,
    /// The comment that was there before, which Rotacast did not write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) earlier: Option<String>,
    /// What later releases add.
    #[serde(flatten)]
    unknown: serde_json::Map<String, serde_json::Value>,
}

/// What a role's comment says.
pub(super) enum Comment {
    /// It is Rotacast's.
    Mark(Mark),
    /// Nothing, or something people wrote.
    Other(Option<String>),
    /// A mark that this release cannot read.
    Unreadable,
}

/// Whose a role has to be.
#[derive(Clone, Copy)]
pub(super) struct Owner<'a> {
    pub(super) cluster: &'a str,
    pub(super) secret: &'a SecretName,
    pub(super) version: Version,
    /// Of which drawn value. None: Rotacast did not draw it, and so has not made the role.
    pub(super) draw: Option<&'a str>,
}

impl Mark {
    pub(super) fn of(owner: Owner<'_>) -> Self {
        Self {
            rotacast: FORMAT,
            cluster: Some(owner.cluster.to_owned()),
            secret: owner.secret.clone(),
            version: owner.version,
            draw: owner.draw.map(ToOwned::to_owned),
            made_at: None,
            disabled_at: None,
            proved_at: None,
            earlier: None,
            unknown: serde_json::Map::new(),
        }
    }

    /// Why it is not the owner's, or `None` when it is. The same at the role's making and at its end.
    pub(super) fn objection(&self, owner: Owner<'_>) -> Option<String> {
        if self.cluster.as_deref() != Some(owner.cluster)
            || self.secret != *owner.secret
            || self.version != owner.version
        {
            let cluster = foreign::name(self.cluster.as_deref().unwrap_or("of an unknown name"));
            return Some(format!("is the credential of {} version {}, cluster {cluster}", self.secret, self.version));
        }
        (self.draw.as_deref() != owner.draw)
            .then(|| "was made for another value of this version, which an instance may be using".into())
    }

    pub(super) fn write(&self) -> String {
        serde_json::to_string(self).expect("text and numbers always serialise")
    }
}

impl Comment {
    pub(super) fn read(text: Option<String>) -> Self {
        let Some(text) = text else { return Self::Other(None) };
        let object: Option<serde_json::Map<String, serde_json::Value>> = serde_json::from_str(&text).ok();
        if !object.is_some_and(|object| object.contains_key("rotacast")) {
            return Self::Other(Some(text));
        }
        match serde_json::from_str::<Mark>(&text) {
            Ok(mark) if mark.rotacast == FORMAT => Self::Mark(mark),
            _ => Self::Unreadable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Comment {
        Comment::read(Some(text.into()))
    }

    #[test]
    fn a_mark_reads_back_with_what_it_does_not_know() {
        let text = r#"{"rotacast":1,"cluster":"one","secret":"payments/db","version":3,"draw":"ff","colour":"red"}"#;
        let Comment::Mark(mark) = read(text) else { panic!("no mark") };
        assert_eq!(mark.write(), text);
    }

    #[test]
    fn a_mark_is_the_owners_only_if_cluster_secret_version_and_draw_are() {
        let (ours, theirs) = (SecretName::new("payments/db").unwrap(), SecretName::new("billing/db").unwrap());
        let (one, two) = (Version::new(1).unwrap(), Version::new(2).unwrap());
        let owner = Owner { cluster: "one", secret: &ours, version: one, draw: Some("ff") };
        let mark = Mark::of(owner);
        assert_eq!(mark.objection(owner), None);
        for other in [
            Owner { cluster: "two", ..owner },
            Owner { secret: &theirs, ..owner },
            Owner { version: two, ..owner },
            Owner { draw: Some("fe"), ..owner },
            Owner { draw: None, ..owner },
        ] {
            assert!(mark.objection(other).is_some());
        }
        let Comment::Mark(unknown) = read(r#"{"rotacast":1,"secret":"payments/db","version":1,"draw":"ff"}"#) else {
            panic!("no mark")
        };
        assert!(unknown.objection(owner).is_some(), "a mark without a cluster is not ours");
    }

    #[test]
    fn what_people_wrote_is_no_mark_and_a_newer_mark_is_not_guessed_at() {
        assert!(matches!(read("ask Billing first"), Comment::Other(Some(_))));
        assert!(matches!(read("[1]"), Comment::Other(Some(_))));
        assert!(matches!(Comment::read(None), Comment::Other(None)));
        assert!(matches!(read(r#"{"rotacast":2,"secret":"a","version":3}"#), Comment::Unreadable));
        assert!(matches!(read(r#"{"rotacast":1,"secret":"a","version":0}"#), Comment::Unreadable));
    }
}
