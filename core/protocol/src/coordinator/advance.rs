//! What can go on by itself: one step at a time, until nothing more can.

use super::decide::bounded;
use super::{Change, Coordinator};
use crate::phase::{Outcome, Phase};
use crate::policy::{OnDeadline, OnFailure};
use crate::record::{Label, RecordChange, Rotation, Timing};
use crate::time::Now;

impl Coordinator {
    /// The next step that can be taken now; empty when everything waits.
    pub(super) fn advance(&self, now: Now) -> Vec<Change> {
        let changes = self.begin_term();
        if !changes.is_empty() {
            return changes.into_iter().map(Change::Record).collect();
        }
        if let Some(change) = self.lower_lease_bound(now) {
            return vec![Change::Record(change)];
        }
        if let Some(rotation) = &self.record.rotation {
            let changes = self.advance_rotation(rotation, now);
            if !changes.is_empty() {
                return changes;
            }
        } else if let Some(changes) = self.start_rotation(now) {
            return changes;
        }
        let changes = self.seal(now);
        if changes.is_empty() { self.lengthen_leases() } else { changes }
    }

    /// A leader signs the record before it grants or moves anything, and makes the policy's times durable before it
    /// goes by them.
    fn begin_term(&self) -> Vec<RecordChange> {
        let mut changes = Vec::new();
        if !self.is_signed() {
            changes.push(RecordChange::TermBegan { epoch: self.tenure.epoch });
        }
        let timing = Timing::of(&self.policy);
        if !self.record.goes_by(&timing) {
            changes.push(RecordChange::TimingSet { timing });
        }
        changes
    }

    /// Safe mode holds the start of a rotation.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(SafeModeStart, true))]
    fn may_start(&self) -> bool {
        self.record.safe_mode.is_none()
    }

    fn start_rotation(&self, now: Now) -> Option<Vec<Change>> {
        let new = self.waiting_version()?;
        if !self.may_start() || !self.has_room() {
            return None;
        }
        let mut changes = self.skip_older(new, now);
        changes.push(Change::Record(RecordChange::RotationStarted { new, trigger: "store".into(), at: now.wall }));
        Some(changes)
    }

    /// Intermediate versions collapse; each is revoked all the same.
    fn skip_older(&self, new: crate::Version, now: Now) -> Vec<Change> {
        let in_flight = self.record.rotation.as_ref().map(|rotation| rotation.new);
        self.record
            .versions
            .iter()
            .filter(|(number, version)| {
                version.label == Label::Pending && **number != new && Some(**number) != in_flight
            })
            .map(|(number, _)| Change::Record(RecordChange::VersionSkipped { version: *number, by: new, at: now.wall }))
            .collect()
    }

    fn advance_rotation(&self, rotation: &Rotation, now: Now) -> Vec<Change> {
        let at = now.wall;
        let record = |change| vec![Change::Record(change)];
        let ended = |outcome| vec![Change::Record(RecordChange::RotationEnded { outcome, at })];
        if let Some(changes) = self.supersede(rotation, now) {
            return changes;
        }
        if let Some(change) = self.give_up(rotation, now) {
            return vec![change];
        }
        match rotation.phase {
            Phase::Verifying => Vec::new(),
            Phase::Preparing if self.phase_met(now) => record(RecordChange::Activated { at }),
            // A first version replaces nothing: there is nobody to wait for and nothing to retire.
            Phase::Activating if rotation.old.is_none() => ended(Outcome::Retired),
            Phase::Activating if self.phase_met(now) => record(RecordChange::DrainingBegan { at }),
            Phase::Draining | Phase::Retiring
                if rotation.old.is_none_or(|old| !self.record.retirements.contains_key(&old)) =>
            {
                ended(Outcome::Retired)
            }
            Phase::RollingBack if !self.record.retirements.contains_key(&rotation.new) || self.nobody_goes_back() => {
                ended(Outcome::RolledBack)
            }
            _ => self.deadline_passed(rotation, now),
        }
    }

    /// After history was lost everybody may stay with the very version that is rolled back until the one that waits is
    /// current: that one cannot wait for them. The rejected version goes on to wait for its own guard.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(StayMakesWay, false))]
    fn nobody_goes_back(&self) -> bool {
        let stays = self.record.stay && self.record.safe_mode.is_none();
        stays && self.waiting_version().is_some() && self.has_room()
    }

    /// A newer version replaces the new one before it is activated. Not while the credential is being made: the
    /// provider may be in the middle of it.
    fn supersede(&self, rotation: &Rotation, now: Now) -> Option<Vec<Change>> {
        let open = matches!(rotation.phase, Phase::Verifying | Phase::Preparing) && rotation.created;
        let newer = self.waiting_version().filter(|newer| *newer > rotation.new)?;
        // The replaced one goes on being valid until it is retired.
        if !open || self.record.safe_mode.is_some() || !self.has_room_beside(1) {
            return None;
        }
        let at = now.wall;
        let mut changes = self.skip_older(newer, now);
        changes.push(Change::Record(RecordChange::RotationEnded { outcome: Outcome::Superseded, at }));
        changes.push(Change::Record(RecordChange::RotationStarted { new: newer, trigger: "store".into(), at }));
        Some(changes)
    }

    /// Too many instances refuse the new version, or cannot log in with it.
    fn give_up(&self, rotation: &Rotation, now: Now) -> Option<Change> {
        let open = matches!(rotation.phase, Phase::Preparing | Phase::Activating | Phase::Draining);
        if !open || self.policy.on_failure == OnFailure::Hold || self.holds_rollback() {
            return None;
        }
        let refusals = self.tally.refusals;
        if refusals > usize::try_from(self.policy.failure_budget).unwrap_or(usize::MAX) {
            let text = self.first_refusal(rotation.new);
            return Some(
                self.roll_back(now, bounded(format!("{refusals} instances refuse version {}: {text}", rotation.new))),
            );
        }
        let failures = self.tally.auth_failures();
        (failures > self.policy.auth_failure_budget).then(|| {
            self.roll_back(now, format!("{failures} failed logins with version {} were reported", rotation.new))
        })
    }

    /// Nothing goes back by itself in a pause, nor in safe mode: what the record calls new may be what everybody uses, and
    /// what it would go back to may have ended.
    fn holds_rollback(&self) -> bool {
        self.record.paused.is_some() || self.safe_mode_holds_rollback()
    }

    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(SafeModeRollback, false))]
    fn safe_mode_holds_rollback(&self) -> bool {
        self.record.safe_mode.is_some()
    }

    fn first_refusal(&self, version: crate::Version) -> String {
        self.members
            .iter()
            .filter_map(|member| Some((member, member.report()?.failure.as_ref()?)))
            .find(|(_, failure)| failure.version == version)
            .map_or_else(String::new, |(member, failure)| {
                format!("{}: {} ({})", member.key, failure.kind.words(), failure.text)
            })
    }

    fn deadline_passed(&self, rotation: &Rotation, now: Now) -> Vec<Change> {
        let Some((deadline, over)) = self.deadline() else { return Vec::new() };
        if now.instant < over {
            return Vec::new();
        }
        match deadline.then {
            OnDeadline::Extend => vec![Change::DeadlineExtended { at: now }],
            OnDeadline::Hold => Vec::new(),
            // It is reported, and applied once nothing holds it.
            OnDeadline::RollBack
                if self.holds_rollback() || matches!(rotation.phase, Phase::Retiring | Phase::RollingBack) =>
            {
                Vec::new()
            }
            OnDeadline::RollBack => {
                vec![self.roll_back(
                    now,
                    format!("{} lasted longer than its deadline of {:?}", rotation.phase.words(), deadline.after),
                )]
            }
        }
    }

    fn seal(&self, now: Now) -> Vec<Change> {
        self.record
            .retirements
            .iter()
            .filter(|(_, retirement)| retirement.step.is_none())
            .filter(|(version, _)| self.record.versions.get(version).is_some_and(|version| !version.sealed))
            .filter(|(version, _)| self.may_seal(**version, now))
            .map(|(version, _)| Change::Record(RecordChange::Sealed { version: *version }))
            .collect()
    }
}
