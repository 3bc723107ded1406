//! One secret on one line.

use rotacast_admin::view::{FinishedView, RotationView, SecretView};
use rotacast_protocol::coordinator::ConditionName;

use crate::output::shown;

/// `1 → 2`, or `first version 1`.
pub(crate) fn direction(old: Option<u64>, new: u64) -> String {
    match old {
        Some(old) => format!("{old} → {new}"),
        None => format!("first version {new}"),
    }
}

/// `rolling_back` as people write it.
pub(crate) fn words(word: &str) -> String {
    word.replace('_', " ")
}

/// A condition in a few words; a name of a later release as it stands.
pub(crate) fn condition(name: &str) -> String {
    name.parse::<ConditionName>().map_or_else(|_| words(name), |name| name.words().to_owned())
}

/// `1 warning`, `2 warnings`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// How far the members of the rotation are, in the terms of its phase; empty where nobody is waited for.
pub(crate) fn progress(rotation: &RotationView, status: &SecretView) -> String {
    if status.record_read_at.is_some() {
        // Only the leader knows.
        return String::new();
    }
    let total: u32 = status.services.iter().map(|it| it.members).sum();
    if total == 0 && rotation.phase != "verifying" {
        return "no instances".into();
    }
    let sum = |of: fn(&rotacast_admin::view::ServiceView) -> u32| status.services.iter().map(of).sum::<u32>();
    match rotation.phase {
        "preparing" => format!("{} of {total} prepared", sum(|it| it.prepared)),
        "activating" => format!("{} of {total} switched", sum(|it| it.switched)),
        "draining" | "retiring" => format!("{} of {total} released", sum(|it| it.released)),
        "rolling_back" => format!("{} of {total} switched back", sum(|it| it.switched)),
        _ => String::new(),
    }
}

/// Who or what is waited for, without what changes by the second; empty: nothing.
pub(crate) fn waits_for(status: &SecretView) -> String {
    let Some(first) = status.blockers.first() else { return String::new() };
    let mut text = match &first.who {
        Some(who) => format!("{who} ({})", words(&first.condition)),
        None => condition(&first.condition),
    };
    if status.blockers.len() > 1 {
        text.push_str(&format!(" and {} more", status.blockers.len() - 1));
    }
    text
}

/// How a rotation ended, as a sentence without its subject and full stop.
pub(crate) fn ending(ended: &FinishedView) -> String {
    let direction = direction(ended.old, ended.new);
    let took = ended.took_ms.map(|took| format!(" after {}", crate::human_time::span(took))).unwrap_or_default();
    let mut text = match (ended.outcome.as_str(), ended.old) {
        ("retired", Some(old)) => {
            format!("rotation {}: {direction} done{took}, version {old} is retired", ended.generation)
        }
        ("retired", None) => format!("rotation {}: {direction} is current{took}", ended.generation),
        ("rolled_back", _) => {
            format!("rotation {}: {direction} rolled back{took}, version {} is rejected", ended.generation, ended.new)
        }
        (outcome, _) => format!("rotation {}: {direction} {}{took}", ended.generation, words(outcome)),
    };
    if let Some(reason) = &ended.reason {
        text.push_str(&format!(": {reason}"));
    }
    shown(&text)
}

/// The secret as it stands, escaped. Equal texts mean that nothing worth telling has changed.
pub(crate) fn line(status: &SecretView) -> String {
    let mut text = format!("{}  ", status.secret);
    match &status.rotation {
        Some(rotation) => {
            text.push_str(&format!(
                "rotation {}: {}  {}",
                rotation.generation,
                direction(rotation.old, rotation.new),
                words(rotation.phase)
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
                text.push_str(&format!("  last: rotation {} {}", last.generation, words(&last.outcome)));
            }
        }
    }
    for overlay in &status.overlays {
        text.push_str(&format!("  [{}]", words(overlay)));
    }
    let waits_for = waits_for(status);
    if !waits_for.is_empty() {
        text.push_str(&format!("  waits for {waits_for}"));
    }
    shown(&text)
}
