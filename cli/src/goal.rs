//! What can be waited for, and how to tell that it has come.

use std::fmt;
use std::str::FromStr;

use rotacast_protocol::Version;

use rotacast_admin::view::{FinishedView, SecretView};

/// What `rotacast wait --for` waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Goal {
    Retired,
    RolledBack,
    Idle,
    Current(Version),
}

impl FromStr for Goal {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "retired" => Ok(Goal::Retired),
            "rolled-back" => Ok(Goal::RolledBack),
            "idle" => Ok(Goal::Idle),
            _ => match text.strip_prefix("current=") {
                Some(version) => version.parse().map(Goal::Current).map_err(|error| format!("{error}")),
                None => Err("expected retired, rolled-back, idle or current=N".into()),
            },
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Goal::Retired => f.write_str("retired"),
            Goal::RolledBack => f.write_str("rolled-back"),
            Goal::Idle => f.write_str("idle"),
            Goal::Current(version) => write!(f, "current={version}"),
        }
    }
}

/// Which rotation's end is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Which {
    /// The one in flight or about to start when it is first looked at; else the last one.
    Newest,
    /// The one that this generation opened.
    Generation(u64),
    /// The one that moves to this version.
    To(u64),
}

/// What is to be seen of the rotation that is waited for.
#[derive(Clone, PartialEq)]
pub(crate) enum Seen {
    /// It goes on.
    NotYet,
    /// It is over.
    Ended(FinishedView),
    /// There will never be one, and why.
    Never(String),
}

impl Which {
    /// Looks for the end. A `Newest` settles on one rotation as soon as it can be told.
    pub(crate) fn look(&mut self, status: &SecretView) -> Seen {
        if *self == Which::Newest {
            match (&status.rotation, status.waiting_version(), status.history.first()) {
                (Some(rotation), ..) => *self = Which::Generation(rotation.generation),
                (None, Some(version), _) => *self = Which::To(version),
                (None, None, Some(last)) => *self = Which::Generation(last.generation),
                (None, None, None) => return Seen::Never("no rotation is in flight, and there never was one".into()),
            }
        }
        let in_flight = status.rotation.as_ref();
        match *self {
            Which::Newest => Seen::NotYet,
            Which::Generation(wanted) => {
                if in_flight.is_some_and(|rotation| rotation.generation == wanted) {
                    return Seen::NotYet;
                }
                if let Some(ended) = status.history.iter().find(|ended| ended.generation == wanted) {
                    return Seen::Ended(ended.clone());
                }
                if status.generation < wanted {
                    return Seen::NotYet;
                }
                Seen::Never(format!(
                    "rotation {wanted} is neither in flight nor among the last {}",
                    status.history.len()
                ))
            }
            Which::To(wanted) => {
                if in_flight.is_some_and(|rotation| rotation.new == wanted) {
                    return Seen::NotYet;
                }
                if let Some(ended) = status.history.iter().find(|ended| ended.new == wanted) {
                    return Seen::Ended(ended.clone());
                }
                match status.versions.iter().find(|it| it.version == wanted) {
                    Some(it) if it.label == "rejected" || it.label == "retired" => Seen::Never(format!(
                        "version {wanted} is {} and was never rotated to: a newer version took its place",
                        it.label
                    )),
                    _ => Seen::NotYet,
                }
            }
        }
    }
}

/// How a wait stands.
#[derive(Clone, PartialEq)]
pub(crate) enum Verdict {
    /// Not decided yet.
    Wait,
    /// It has come. With the rotation that brought it, if one was waited for.
    Reached(Option<FinishedView>),
    /// It will not come: the rotation went back.
    RolledBack(FinishedView),
    /// It will not come: why.
    Missed(String, Option<FinishedView>),
}

impl Goal {
    /// Judges a status. `which` is kept from one to the next.
    pub(crate) fn judge(self, which: &mut Which, status: &SecretView) -> Verdict {
        match self {
            Goal::Idle if status.rotation.is_none() && status.waiting_version().is_none() => Verdict::Reached(None),
            Goal::Idle => Verdict::Wait,
            Goal::Current(version) => judge_current(version.get(), status),
            Goal::Retired | Goal::RolledBack => match which.look(status) {
                Seen::NotYet => Verdict::Wait,
                Seen::Never(why) => Verdict::Missed(why, None),
                Seen::Ended(ended) => match (self, ended.outcome.as_str()) {
                    (Goal::Retired, "retired") | (Goal::RolledBack, "rolled_back") => Verdict::Reached(Some(ended)),
                    (_, "rolled_back") => Verdict::RolledBack(ended),
                    (_, outcome) => {
                        Verdict::Missed(format!("rotation {} ended {outcome}", ended.generation), Some(ended))
                    }
                },
            },
        }
    }
}

fn judge_current(wanted: u64, status: &SecretView) -> Verdict {
    if status.current == Some(wanted) {
        return Verdict::Reached(None);
    }
    let label = status.versions.iter().find(|it| it.version == wanted).map(|it| it.label.as_str());
    match label {
        Some("rejected") => {
            match status.history.iter().find(|ended| ended.new == wanted && ended.outcome == "rolled_back") {
                Some(ended) => Verdict::RolledBack(ended.clone()),
                None => Verdict::Missed(format!("version {wanted} is rejected"), None),
            }
        }
        Some(label @ ("retired" | "previous")) => {
            Verdict::Missed(format!("version {wanted} is {label}: it will not be current again"), None)
        }
        _ => Verdict::Wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rotacast_proto::v1;

    fn status(wire: v1::SecretStatus) -> SecretView {
        SecretView::from(wire)
    }

    fn rotation(generation: u64, new: u64) -> Option<v1::RotationInfo> {
        Some(v1::RotationInfo { generation, new, phase: v1::Phase::Draining.into(), ..Default::default() })
    }

    fn ended(generation: u64, new: u64, outcome: &str) -> v1::FinishedRotation {
        v1::FinishedRotation { generation, new, outcome: outcome.into(), ..Default::default() }
    }

    fn version(version: u64, label: &str) -> v1::VersionInfo {
        v1::VersionInfo { version, label: label.into(), ..Default::default() }
    }

    #[test]
    fn a_wait_stays_with_the_rotation_it_first_saw() {
        let mut which = Which::Newest;
        let flying = status(v1::SecretStatus { generation: 3, rotation: rotation(3, 2), ..Default::default() });
        assert!(Goal::Retired.judge(&mut which, &flying) == Verdict::Wait);
        let next = status(v1::SecretStatus {
            generation: 5,
            rotation: rotation(5, 3),
            history: vec![ended(3, 2, "rolled_back")],
            ..Default::default()
        });
        assert!(matches!(Goal::Retired.judge(&mut which, &next), Verdict::RolledBack(_)));
        assert!(matches!(Goal::RolledBack.judge(&mut which, &next), Verdict::Reached(Some(_))));
    }

    #[test]
    fn a_version_that_waits_is_waited_for() {
        let mut which = Which::Newest;
        let pending = status(v1::SecretStatus {
            versions: vec![version(1, "current"), version(2, "pending")],
            history: vec![ended(1, 1, "retired")],
            ..Default::default()
        });
        assert!(Goal::Retired.judge(&mut which, &pending) == Verdict::Wait);
        assert!(Goal::Idle.judge(&mut which, &pending) == Verdict::Wait);
        assert_eq!(which, Which::To(2));
    }

    #[test]
    fn a_version_that_never_was_current_is_missed() {
        let collapsed = status(v1::SecretStatus {
            current: 3,
            versions: vec![version(2, "rejected"), version(3, "current")],
            history: vec![ended(4, 3, "retired")],
            ..Default::default()
        });
        assert!(matches!(Which::To(2).look(&collapsed), Seen::Never(_)));
        assert!(matches!(Which::To(4).look(&collapsed), Seen::NotYet));
        let two = Goal::Current(Version::new(2).unwrap());
        assert!(matches!(two.judge(&mut Which::Newest, &collapsed), Verdict::Missed(..)));
    }
}
