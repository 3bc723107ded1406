//! One secret on one line.

use rotacast_protocol::coordinator::ConditionName;
use rotacast_protocol::message::Stage;
use rotacast_protocol::status::{FinishedStatus, RotationStatus, SecretStatus};
use rotacast_protocol::{Outcome, Phase, Version};

use crate::output::shown;

/// `1 → 2`, or `first version 1`.
pub(crate) fn direction(old: Option<Version>, new: Version) -> String {
    match old {
        Some(old) => format!("{old} → {new}"),
        None => format!("first version {new}"),
    }
}

/// `members_released` as people write it behind the instance that blocks.
pub(crate) fn spaced(condition: ConditionName) -> String {
    condition.as_str().replace('_', " ")
}

/// `1 warning`, `2 warnings`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// How far the members of the rotation are, in the terms of its phase; empty where no instance is waited for.
pub(crate) fn progress(rotation: &RotationStatus, status: &SecretStatus) -> String {
    // A follower does not know.
    let known = status.progress().filter(|_| status.record_read_at.is_none());
    match (known, status.members()) {
        (None, _) => String::new(),
        (Some(_), 0) => "no instances".into(),
        (Some((stage, done)), total) => format!("{done} of {total} {}", reached(rotation.phase, stage)),
    }
}

/// A stage as people write it of those that have reached it.
pub(crate) const fn reached(phase: Phase, stage: Stage) -> &'static str {
    match phase {
        Phase::RollingBack => "switched back",
        _ => stage.words(),
    }
}

/// Who or what is waited for, without what changes by the second; empty: nothing.
pub(crate) fn waits_for(status: &SecretStatus) -> String {
    let Some(first) = status.blockers.first() else { return String::new() };
    let mut text = match &first.who {
        Some(who) => format!("{who} ({})", spaced(first.condition)),
        None => first.condition.words().to_owned(),
    };
    if status.blockers.len() > 1 {
        text.push_str(&format!(" and {} more", status.blockers.len() - 1));
    }
    text
}

/// How a rotation ended, as a sentence without its subject and full stop.
pub(crate) fn ending(ended: &FinishedStatus) -> String {
    let direction = direction(ended.old, ended.new);
    let took = ended.took_ms.map(|took| format!(" after {}", crate::human_time::span(took))).unwrap_or_default();
    let mut text = match (ended.outcome, ended.old) {
        (Outcome::Retired, Some(old)) if ended.is_unproven() => {
            format!("rotation {}: {direction} done{took}, the end of version {old} is unproven", ended.number)
        }
        (Outcome::Retired, Some(old)) => {
            format!("rotation {}: {direction} done{took}, version {old} is retired", ended.number)
        }
        (Outcome::Retired, None) => format!("rotation {}: {direction} is current{took}", ended.number),
        (Outcome::RolledBack, _) => {
            format!("rotation {}: {direction} rolled back{took}, version {} is rejected", ended.number, ended.new)
        }
        (Outcome::Superseded, _) => {
            format!("rotation {}: {direction} {}{took}", ended.number, ended.outcome.words())
        }
    };
    if let Some(reason) = &ended.reason {
        text.push_str(&format!(": {reason}"));
    }
    shown(&text)
}

/// The secret as it stands, escaped. Equal texts mean that nothing worth telling has changed.
pub(crate) fn line(status: &SecretStatus) -> String {
    let mut text = format!("{}  ", status.secret);
    match &status.rotation {
        Some(rotation) => {
            text.push_str(&format!(
                "rotation {}: {}  {}",
                rotation.number,
                direction(rotation.old, rotation.new),
                rotation.phase.words()
            ));
            let progress = progress(rotation, status);
            if !progress.is_empty() {
                text.push_str(&format!("  {progress}"));
            }
        }
        None => {
            text.push_str(&match status.current {
                Some(current) => format!("idle  current {current}"),
                None => "idle  no current version".to_owned(),
            });
            if let Some(version) = status.waiting_version() {
                text.push_str(&format!("  version {version} pending"));
            }
            if let Some(last) = status.history.first() {
                text.push_str(&format!("  last: rotation {} {}", last.number, last.words()));
            }
        }
    }
    for overlay in &status.overlays {
        text.push_str(&format!("  [{}]", overlay.words()));
    }
    let waits_for = waits_for(status);
    if !waits_for.is_empty() {
        text.push_str(&format!("  waits for {waits_for}"));
    }
    shown(&text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rotacast_protocol::{RotationNumber, WallTime};

    #[test]
    fn a_version_that_was_given_up_is_not_called_retired() {
        let version = |number| Some(Version::new(number).unwrap());
        let proved = FinishedStatus {
            number: RotationNumber(2),
            outcome: Outcome::Retired,
            old: version(1),
            new: version(2).unwrap(),
            started_at: WallTime(0),
            ended_at: WallTime(1000),
            took_ms: None,
            reason: None,
            phases: Vec::new(),
        };
        assert_eq!(ending(&proved), "rotation 2: 1 → 2 done, version 1 is retired");
        let given_up = FinishedStatus { reason: Some("an operator gave it up".into()), ..proved };
        assert_eq!(
            ending(&given_up),
            "rotation 2: 1 → 2 done, the end of version 1 is unproven: an operator gave it up"
        );
        assert_eq!(given_up.words(), "unproven");
    }
}
