//! The entry of a change of a record.

use rotacast_protocol::record::{Label, RecordChange, SecretRecord};
use rotacast_protocol::{OperatorName, Outcome, RotationNumber, Version};

use super::Entry;

impl Entry {
    /// A change of `record`, which it has been applied to or is about to be, as part of the rotation with a number, and as the
    /// act of the operator who ordered it, if one did. `None`: bookkeeping that the log leaves out.
    #[must_use]
    pub fn of_change(
        record: &SecretRecord,
        rotation: Option<RotationNumber>,
        change: &RecordChange,
        operator: Option<&OperatorName>,
    ) -> Option<Self> {
        let entry = match change {
            RecordChange::TermBegan { .. } => taken_over(record),
            RecordChange::RetireFinished { version } => ended(record, *version),
            RecordChange::RotationEnded { outcome, .. } => rotation_ended(record, rotation, *outcome),
            change => of(change)?,
        };
        let entry = entry.secret(record.secret.clone()).rotation(rotation).detail("epoch", record.epoch.0);
        Some(match operator {
            Some(operator) => entry.by(operator.as_str()),
            None => entry,
        })
    }
}

/// What a leader found in the record. This entry stands in for those that its predecessor had no time to write: it
/// names the rotation in flight and how the last ones ended.
fn taken_over(record: &SecretRecord) -> Entry {
    let ended = record.history.iter().map(|ended| {
        serde_json::json!({
            "rotation": ended.number.0,
            "outcome": ended.outcome,
            "new": ended.new.get(),
            "ended": ended.ended.to_string(),
        })
    });
    let entry = Entry::new("broadcaster", "taken_over")
        .detail("revision", record.revision.0)
        .detail("current", record.current.map(Version::get))
        .detail("ended", ended.collect::<Vec<_>>());
    match &record.rotation {
        None => entry,
        Some(rotation) => entry
            .detail("phase", rotation.phase.as_str())
            .detail("old", rotation.old.map(Version::get))
            .detail("new", rotation.new.get()),
    }
}

/// The end of a version: `retired` only if its provider has ended the credential.
fn ended(record: &SecretRecord, version: Version) -> Entry {
    let by_us = |action| Entry::new("broadcaster", action).detail("version", version.get());
    match record.versions.get(&version).and_then(|version| version.unproven) {
        None => by_us("retired"),
        Some(why) => by_us("ended_unproven").detail("why", why.as_str()),
    }
}

fn rotation_ended(record: &SecretRecord, rotation: Option<RotationNumber>, outcome: Outcome) -> Entry {
    let entry = Entry::new("broadcaster", "rotation_ended");
    let finished = record.history.iter().rev().find(|finished| Some(finished.number) == rotation);
    let old = finished.and_then(|finished| finished.old).and_then(|old| record.versions.get(&old));
    match outcome {
        Outcome::Retired if old.is_some_and(|old| old.unproven.is_some()) => {
            entry.detail("outcome", Label::Unproven.as_str())
        }
        outcome => entry.detail("outcome", outcome.as_str()),
    }
}

fn of(change: &RecordChange) -> Option<Entry> {
    let by_us = |action| Entry::new("broadcaster", action);
    Some(match change {
        RecordChange::RetireFinished { .. }
        | RecordChange::RotationEnded { .. }
        | RecordChange::TermBegan { .. }
        | RecordChange::TimingSet { .. }
        | RecordChange::LeaseBoundLowered { .. }
        | RecordChange::MayBeInUse { .. }
        | RecordChange::ClockNoted { .. } => {
            return None;
        }
        RecordChange::VersionAdded { version, origin, .. } => {
            by_us("version_added").detail("version", version.get()).detail("origin", origin.as_str())
        }
        // The effect that left it alone has told why.
        RecordChange::LeftAlone { .. } => return None,
        RecordChange::VersionSkipped { version, by, .. } => {
            by_us("version_skipped").detail("version", version.get()).detail("by", by.get())
        }
        RecordChange::RotationStarted { new, trigger, provider, .. } => Entry::new(trigger, "rotation_started")
            .detail("new", new.get())
            .detail("provider", provider.as_ref().map(ToString::to_string)),
        RecordChange::CredentialCreated { .. } => by_us("credential_created"),
        RecordChange::PreparingBegan { .. } => by_us("preparing"),
        RecordChange::Approved { by } => Entry::new(by.as_str(), "approved"),
        RecordChange::Excused { instance } => by_us("excused").detail("instance", instance.clone()),
        RecordChange::Activated { .. } => by_us("activated"),
        RecordChange::DrainingBegan { .. } => by_us("draining"),
        RecordChange::RollbackStarted { reason, .. } => by_us("rollback_started").detail("reason", reason.clone()),
        RecordChange::Sealed { version } => by_us("sealed").detail("version", version.get()),
        RecordChange::Overridden { version, word } => Entry::new(word.by.as_str(), "override")
            .detail("version", version.get())
            .detail("reason", word.reason.clone())
            .detail("instances", word.instances.iter().cloned().collect::<Vec<_>>())
            .detail("sessions", word.sessions),
        RecordChange::GivenUp { version, word } => Entry::new(word.by.as_str(), "given_up")
            .detail("version", version.get())
            .detail("reason", word.reason.clone()),
        RecordChange::SaidGone { instance, word } => Entry::new(word.by.as_str(), "said_gone")
            .detail("instance", instance.full_name())
            .detail("reason", word.reason.clone()),
        RecordChange::GoneForgotten { instance } => by_us("gone_forgotten").detail("instance", instance.clone()),
        RecordChange::RetireBegan { version, .. } => by_us("retire_began").detail("version", version.get()),
        RecordChange::RetireAdvanced { version, step } => {
            by_us("retire_advanced").detail("version", version.get()).detail("next", step.as_str())
        }
        RecordChange::Paused(pause) => Entry::new(pause.by.as_str(), "paused").detail("reason", pause.reason.clone()),
        RecordChange::Resumed => by_us("resumed"),
        RecordChange::SafeModeEntered(mode) => by_us("safe_mode_entered").detail("reason", mode.reason.clone()),
        RecordChange::SafeModeLeft => by_us("safe_mode_left"),
        RecordChange::VersionProved { version } => by_us("version_proved").detail("version", version.get()),
        RecordChange::ProofFailed { version, reason } => {
            by_us("proof_failed").detail("version", version.get()).detail("reason", reason.clone())
        }
        RecordChange::NumbersLost { last } => by_us("numbers_lost").detail("last", last.get()),
    })
}
