//! What is written on a role: whose it is, and since when it is disabled.

use rotacast_protocol::{SecretName, Version};
use serde::{Deserialize, Serialize};

/// The format below. A newer one is not understood, and the role not touched.
const FORMAT: u32 = 1;

/// The comment on a role. Every login can read comments: nothing in here is derived from the password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// Says that the comment is a mark, and its format.
    rotacast: u32,
    pub(super) secret: SecretName,
    pub(super) version: Version,
    /// Of which drawn value; none where Rotacast did not make the role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) draw: Option<String>,
    /// Since when no login is possible, in seconds since the Unix epoch by the server's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) disabled_at: Option<i64>,
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

impl Mark {
    pub(super) fn new(secret: &SecretName, version: Version, draw: Option<String>) -> Self {
        let (secret, unknown) = (secret.clone(), serde_json::Map::new());
        Self { rotacast: FORMAT, secret, version, draw, disabled_at: None, earlier: None, unknown }
    }

    pub(super) fn is_of(&self, secret: &SecretName, version: Version) -> bool {
        self.secret == *secret && self.version == version
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
        let text = r#"{"rotacast":1,"secret":"payments/db","version":3,"draw":"ff","colour":"red"}"#;
        let Comment::Mark(mark) = read(text) else { panic!("no mark") };
        assert!(mark.is_of(&SecretName::new("payments/db").unwrap(), Version::new(3).unwrap()));
        assert_eq!(mark.write(), text);
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
