//! What can be waited for, and how to tell that it has come.

use std::fmt;
use std::str::FromStr;

use rotacast_protocol::record::Label;
use rotacast_protocol::status::{FinishedStatus, SecretStatus};
use rotacast_protocol::{Outcome, RotationNumber, Version};

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
            "idle" => Ok(Goal::Idle),
            _ => match (text.parse(), text.strip_prefix("current=")) {
                (Ok(Outcome::Retired), _) => Ok(Goal::Retired),
                (Ok(Outcome::RolledBack), _) => Ok(Goal::RolledBack),
                (_, Some(version)) => version.parse().map(Goal::Current).map_err(|error| format!("{error}")),
                (Ok(Outcome::Superseded) | Err(_), None) => {
                    Err(format!("expected {}, {}, idle or current=N", Outcome::Retired, Outcome::RolledBack))
                }
            },
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Goal::Retired => f.write_str(Outcome::Retired.as_str()),
            Goal::RolledBack => f.write_str(Outcome::RolledBack.as_str()),
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
    /// The one of this number.
    Rotation(RotationNumber),
    /// The one that moves to this version.
    To(Version),
}

/// What is to be seen of the rotation that is waited for.
#[derive(Clone, PartialEq)]
pub(crate) enum Seen {
    /// It goes on.
    NotYet,
    /// It is over.
    Ended(FinishedStatus),
    /// There will never be one, and why.
    Never(String),
}

impl Which {
    /// Looks for the end. A `Newest` settles on one rotation as soon as it can be told.
    pub(crate) fn look(&mut self, status: &SecretStatus) -> Seen {
        if *self == Which::Newest {
            match (&status.rotation, status.waiting_version(), status.history.first()) {
                (Some(rotation), ..) => *self = Which::Rotation(rotation.number),
                (None, Some(version), _) => *self = Which::To(version),
                (None, None, Some(last)) => *self = Which::Rotation(last.number),
                (None, None, None) => return Seen::Never("no rotation is in flight, and there never was one".into()),
            }
        }
        let in_flight = status.rotation.as_ref();
        match *self {
            Which::Newest => Seen::NotYet,
            Which::Rotation(wanted) => {
                if in_flight.is_some_and(|rotation| rotation.number == wanted) {
                    return Seen::NotYet;
                }
                if let Some(ended) = status.history.iter().find(|ended| ended.number == wanted) {
                    return Seen::Ended(ended.clone());
                }
                if status.newest_rotation() < wanted {
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
                match status.version(wanted) {
                    Some(it) if matches!(it.label, Label::Rejected | Label::Retired | Label::Unproven) => {
                        Seen::Never(format!(
                            "version {wanted} is {} and was never rotated to: a newer version took its place",
                            it.label
                        ))
                    }
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
    Reached(Option<FinishedStatus>),
    /// It will not come: the rotation went back.
    RolledBack(FinishedStatus),
    /// It will not come: why.
    Missed(String, Option<FinishedStatus>),
}

impl Goal {
    /// Judges a status. `which` is kept from one to the next.
    pub(crate) fn judge(self, which: &mut Which, status: &SecretStatus) -> Verdict {
        match self {
            Goal::Idle if status.rotation.is_none() && status.waiting_version().is_none() => Verdict::Reached(None),
            Goal::Idle => Verdict::Wait,
            Goal::Current(version) => judge_current(version, status),
            Goal::Retired | Goal::RolledBack => match which.look(status) {
                Seen::NotYet => Verdict::Wait,
                Seen::Never(why) => Verdict::Missed(why, None),
                Seen::Ended(ended) => match (self, ended.outcome) {
                    (Goal::Retired, Outcome::Retired) | (Goal::RolledBack, Outcome::RolledBack) => {
                        Verdict::Reached(Some(ended))
                    }
                    (_, Outcome::RolledBack) => Verdict::RolledBack(ended),
                    (_, Outcome::Retired | Outcome::Superseded) => {
                        let why = format!("rotation {} ended {}", ended.number, ended.words());
                        Verdict::Missed(why, Some(ended))
                    }
                },
            },
        }
    }
}

fn judge_current(wanted: Version, status: &SecretStatus) -> Verdict {
    if status.current == Some(wanted) {
        return Verdict::Reached(None);
    }
    match status.version(wanted).map(|it| it.label) {
        Some(Label::Rejected) => {
            match status.history.iter().find(|ended| ended.new == wanted && ended.outcome == Outcome::RolledBack) {
                Some(ended) => Verdict::RolledBack(ended.clone()),
                None => Verdict::Missed(format!("version {wanted} is rejected"), None),
            }
        }
        Some(label @ (Label::Retired | Label::Unproven | Label::Previous)) => {
            Verdict::Missed(format!("version {wanted} is {label}: it will not be current again"), None)
        }
        Some(Label::Pending | Label::Current) | None => Verdict::Wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rotacast_protocol::status::{RotationStatus, VersionStatus};
    use rotacast_protocol::{Generation, Phase, WallTime};

    const AT: WallTime = WallTime(1_795_392_000_000);

    fn v(number: u64) -> Version {
        Version::new(number).unwrap()
    }

    fn status() -> SecretStatus {
        SecretStatus::new("payments/db".parse().unwrap())
    }

    fn rotation(number: u64, new: u64) -> Option<RotationStatus> {
        Some(RotationStatus {
            number: RotationNumber(number),
            phase: Phase::Draining,
            old: None,
            new: v(new),
            started_at: AT,
            phase_since: AT,
            trigger: "store".into(),
            rollback_reason: None,
            phases: Vec::new(),
        })
    }

    fn ended(number: u64, new: u64, outcome: Outcome) -> FinishedStatus {
        FinishedStatus {
            number: RotationNumber(number),
            outcome,
            old: None,
            new: v(new),
            started_at: AT,
            ended_at: AT,
            took_ms: Some(0),
            reason: None,
            phases: Vec::new(),
        }
    }

    fn version(number: u64, label: Label) -> VersionStatus {
        VersionStatus { version: v(number), label, sealed: false, seen_at: AT }
    }

    #[test]
    fn a_wait_stays_with_the_rotation_it_first_saw() {
        let mut which = Which::Newest;
        let flying = SecretStatus { generation: Generation(3), rotation: rotation(3, 2), ..status() };
        assert!(Goal::Retired.judge(&mut which, &flying) == Verdict::Wait);
        let next = SecretStatus {
            generation: Generation(5),
            rotation: rotation(5, 3),
            history: vec![ended(3, 2, Outcome::RolledBack)],
            ..status()
        };
        assert!(matches!(Goal::Retired.judge(&mut which, &next), Verdict::RolledBack(_)));
        assert!(matches!(Goal::RolledBack.judge(&mut which, &next), Verdict::Reached(Some(_))));
    }

    #[test]
    fn a_version_that_waits_is_waited_for() {
        let mut which = Which::Newest;
        let pending = SecretStatus {
            versions: vec![version(1, Label::Current), version(2, Label::Pending)],
            history: vec![ended(1, 1, Outcome::Retired)],
            ..status()
        };
        assert!(Goal::Retired.judge(&mut which, &pending) == Verdict::Wait);
        assert!(Goal::Idle.judge(&mut which, &pending) == Verdict::Wait);
        assert_eq!(which, Which::To(v(2)));
    }

    #[test]
    fn a_version_that_never_was_current_is_missed() {
        let collapsed = SecretStatus {
            current: Some(v(3)),
            versions: vec![version(2, Label::Rejected), version(3, Label::Current)],
            history: vec![ended(4, 3, Outcome::Retired)],
            ..status()
        };
        assert!(matches!(Which::To(v(2)).look(&collapsed), Seen::Never(_)));
        assert!(matches!(Which::To(v(4)).look(&collapsed), Seen::NotYet));
        let two = Goal::Current(v(2));
        assert!(matches!(two.judge(&mut Which::Newest, &collapsed), Verdict::Missed(..)));
    }
}
