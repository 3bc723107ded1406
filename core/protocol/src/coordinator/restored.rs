//! A store whose history broke: what a leader answers it with, what safe mode holds, and what follows it.

#[cfg(test)]
mod tests;

use std::fmt::Display;

use super::condition::{Condition, ConditionName};
use super::decide::{bounded, operator, stale};
use super::{Change, Coordinator, Reason, Rejection, lease};
use crate::id::Version;
use crate::message::SecretReport;
use crate::phase::{Outcome, Phase};
use crate::record::{Doubt, Origin, RecordChange, Rotation, SafeMode, SecretRecord, Timing, Unknown, VersionRecord};
use crate::time::Now;

/// More versions than a secret gets between a backup and its restoration. A bound on what instances can claim, all in all.
const LOST_VERSIONS: u64 = 10_000;

impl Coordinator {
    /// A break is one however often it happens: in safe mode too, everything lost is waited for anew.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(LeapAgain, if self.record.safe_mode.is_some() { Err(stale("store warning", "no safe mode yet", reason)) } else { Ok(self.enter_safe_mode(now, reason)) }))]
    pub(super) fn store_went_back(&self, now: Now, reason: String) -> Result<Vec<Change>, Rejection> {
        Ok(self.enter_safe_mode(now, reason))
    }

    fn enter_safe_mode(&self, now: Now, reason: String) -> Vec<Change> {
        let safe_mode = SafeMode { reason: bounded(reason), at: now.wall, unknown: Unknown::new() };
        // In the history that was lost, leases as long as the policy allows may have been granted.
        let timing = Timing::of(&self.policy);
        let mut changes = vec![RecordChange::TimingSet { timing }, RecordChange::SafeModeEntered(safe_mode)];
        if let Some(version) = self.unmade() {
            let reason = format!(
                "the store's history broke while version {version} was still to be made: in what was lost it may have been \
                 made, and be in use"
            );
            changes.push(RecordChange::RollbackStarted { reason, at: now.wall });
            changes.push(RecordChange::RotationEnded { outcome: Outcome::RolledBack, at: now.wall });
        }
        changes.into_iter().map(Change::Record).collect()
    }

    /// The version whose credential is still to be made. When the history breaks it is given up: a credential that the lost
    /// history made under this number would be made once more, with another value.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(UnmadeGivenUp, None))]
    fn unmade(&self) -> Option<Version> {
        self.record.rotation.as_ref().filter(|rotation| !rotation.created).map(|rotation| rotation.new)
    }

    /// A version that is used and that the record does not know is of the history that was lost: its number is taken.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(NumbersLost, None))]
    pub(super) fn numbers_lost(&self, report: &SecretReport) -> Option<RecordChange> {
        let lost = self.record.lost_history?;
        let last = report.held.last().copied().filter(|last| Some(*last) > self.record.last_version)?;
        let kept = lost.kept_to.map_or(0, Version::get);
        (last.get().saturating_sub(kept) <= LOST_VERSIONS).then_some(RecordChange::NumbersLost { last })
    }

    /// The store lost a part of its history: an instance may act on a grant or a read from it, whatever the record says of
    /// such waits.
    pub(super) fn wait_anew(&mut self, now: Now) {
        let over = now.instant + lease::outlast(self.record.bounds.lease) + lease::use_time(&self.record);
        self.inherited_over = self.inherited_over.max(over);
        self.lost_over = self.lost_over.max(now.instant + lease::longest(&self.record));
        self.short_since = now.instant;
        let revision = self.record.revision;
        for (version, progress) in &mut self.retiring {
            let sealed = self.record.versions.get(version).is_some_and(|version| version.sealed);
            progress.sealed = sealed.then_some(now.instant);
            // What is under way from before that is about what was.
            progress.sealed_at = revision;
            progress.audited = false;
        }
    }

    /// Ordered once more, it has logins tried again that failed, and ends the staying that safe mode has left behind, if nothing
    /// is there to wait for.
    pub(super) fn order_leave_safe_mode(&self) -> Result<Vec<Change>, Rejection> {
        let SecretRecord { safe_mode, stay, current, .. } = &self.record;
        let failed = self.matters().any(|version| self.record.doubt(version) == Some(Doubt::Failed));
        match (safe_mode, stay) {
            (None, _) if failed || self.wants_word() => Ok(vec![Change::Record(RecordChange::SafeModeLeft)]),
            (None, false) => Err(operator("it is not in safe mode")),
            (None, true) if self.record.waits() || current.is_none() => Err(operator(
                "safe mode is left already, and instances stay with what they serve until the next version is current: \
                 wait for it, or write one",
            )),
            (None, true) if self.record.doubts_current() && self.current_can_log_in() => Err(operator(format!(
                "safe mode is left already, and instances stay with what they serve: {}: wait for what `rotacast why` names",
                self.doubt_of_current(),
            ))),
            _ => Ok(vec![Change::Record(RecordChange::SafeModeLeft)]),
        }
    }

    /// Whether a rotation goes on once an operator says that its version works, since no login can show it.
    fn wants_word(&self) -> bool {
        let preparing = self.record.rotation.as_ref().filter(|rotation| rotation.phase == Phase::Preparing);
        let wants = |new| self.record.doubt(new) == Some(Doubt::Untested) && !self.can_log_in(new);
        self.waiting_version().is_none() && preparing.is_some_and(|rotation| wants(rotation.new))
    }

    /// What instances follow, are about to follow, or would go back to.
    fn matters(&self) -> impl Iterator<Item = Version> + '_ {
        let rotation = self.record.rotation.as_ref();
        let new = rotation.filter(|it| matches!(it.phase, Phase::Verifying | Phase::Preparing)).map(|it| it.new);
        [self.record.current, new, self.way_back()].into_iter().flatten()
    }

    /// Versions from before the store lost history, of which a test login is to show whether they still work. What waits has
    /// its own when its rotation begins.
    pub(super) fn to_prove(&self) -> impl Iterator<Item = Version> + '_ {
        self.matters().filter(|version| {
            let known = self.record.versions.get(version);
            let verifies = self.verifying(*version).is_ok();
            !verifies && known.is_some_and(|it| it.doubt == Some(Doubt::Untested) && it.can_log_in())
        })
    }

    /// A login that failed is tried again only by an operator's order.
    pub(super) fn may_test(&self, version: Version) -> bool {
        self.record.doubt(version) != Some(Doubt::Failed)
    }

    /// What a rollback would make current again in the place of the new version.
    fn way_back(&self) -> Option<Version> {
        let rotation = self.record.rotation.as_ref()?;
        rotation.old.filter(|_| matches!(rotation.phase, Phase::Activating | Phase::Draining))
    }

    pub(super) fn proved(&self, version: Version) -> Option<RecordChange> {
        let known = self.record.versions.get(&version)?;
        // Of a value that nothing can log in with, only the shape was looked at.
        (known.doubt? == Doubt::Untested && known.can_log_in()).then_some(RecordChange::VersionProved { version })
    }

    pub(super) fn proof_failed(&self, version: Version, reason: &str) -> Result<RecordChange, Rejection> {
        if !self.may_test(version) {
            return Err(stale("failed login", "a version that is to be tested", format!("version {version}")));
        }
        Ok(RecordChange::ProofFailed { version, reason: bounded(reason.to_owned()) })
    }

    /// Whether a version is to be given up whose test login has failed since the store lost history: instances that do not stay
    /// would follow it, and the next version waits for the end of its rotation.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(ProofGivesUp, false))]
    pub(super) fn gives_up(&self, rotation: &Rotation) -> bool {
        let open = match rotation.phase {
            Phase::Verifying => true,
            Phase::Preparing | Phase::Activating | Phase::Draining => rotation.old.is_some(),
            Phase::Retiring | Phase::RollingBack => false,
        };
        open && self.record.doubt(rotation.new) == Some(Doubt::Failed) && !self.holds_failed_proof()
    }

    /// A login may fail for a reason that is not the credential's. Where nothing goes back by itself, a failed one is only noted.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(ProofHeld, false))]
    fn holds_failed_proof(&self) -> bool {
        self.holds_rollback()
    }

    /// The numbers that the lost history may have had: as long as an instance may use what it got from it.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(LostAnnounced, self.record.stay.then_some(RecordChange::MayBeInUse { version })))]
    pub(super) fn may_be_in_use(&self, version: Version, now: Now) -> Option<RecordChange> {
        let lost = self.record.lost_history.is_some() && (self.record.stay || now.instant < self.lost_over);
        lost.then_some(RecordChange::MayBeInUse { version })
    }

    /// While instances stay, a rollback that is under way waits for them, and they for the next version: an operator may order
    /// that one.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(RotateMakesWay, false))]
    pub(super) fn rotate_makes_way(&self, rotation: &Rotation) -> bool {
        rotation.phase == Phase::RollingBack && self.record.stay && self.record.safe_mode.is_none()
    }

    /// No version from before the store lost history is activated until a test login has worked since.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(ActivatesProved, true))]
    pub(super) fn is_proved(&self, version: Version) -> bool {
        self.record.doubt(version).is_none()
    }

    pub(super) fn proof_condition(&self, rotation: &Rotation) -> Option<Condition> {
        let known = self.record.versions.get(&rotation.new)?;
        let (why, next) = match known.doubt? {
            Doubt::Failed => {
                let next = if self.record.safe_mode.is_some() {
                    "an operator leaves safe mode, and the leader tries the login again"
                } else {
                    "the rotation rolls back once an operator resumes the secret"
                };
                let ended = if rotation.phase == Phase::Verifying { "does not work" } else { "no longer works" };
                (format!("version {} {ended}: its test login fails: {}", rotation.new, known.note), next)
            }
            Doubt::Untested if known.can_log_in() => (
                format!(
                    "version {} is from before the store lost history and may have ended in it: the new test login has not \
                     come back yet",
                    rotation.new
                ),
                "the provider answers",
            ),
            // Its shape is looked at all the same.
            Doubt::Untested if rotation.phase == Phase::Verifying => return None,
            Doubt::Untested if self.wants_word() => (no_login(rotation.new), self.next_of_word()),
            Doubt::Untested => {
                (no_login(rotation.new), "a newer version takes its place, or an operator rolls the rotation back")
            }
        };
        let mut condition = Condition::waiting(ConditionName::Verified, &why, rotation.phase_since, next);
        if self.wants_word() {
            let command = self.leave_safe_mode();
            condition.blockers.iter_mut().for_each(|blocker| blocker.command = Some(command.clone()));
        }
        Some(condition)
    }

    /// What follows for a version that no login can show to work.
    fn next_of_word(&self) -> &'static str {
        match self.record.safe_mode {
            Some(_) => {
                "an operator compares it with what instances use, then leaves safe mode, which says that it works"
            }
            None => {
                "an operator compares it with what instances use, then leaves safe mode once more, which says that it works"
            }
        }
    }

    /// Whether what a rollback would make current may have ended in the history that was lost.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(RollbackProved, false))]
    pub(super) fn doubts_way_back(&self) -> bool {
        self.way_back().is_some_and(|old| self.record.doubt(old).is_some())
    }

    /// In safe mode an operator gives no version up whose place a version would take that may have ended: what the record calls
    /// new may be what all instances use.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(AbandonProved, { let _ = version; false }))]
    pub(super) fn safe_mode_keeps(&self, version: Version) -> bool {
        let moves_to = self.record.rotation.as_ref().is_some_and(|rotation| rotation.new == version);
        moves_to && self.record.safe_mode.is_some() && self.doubts_way_back()
    }

    /// While instances stay, a rollback sends none of them anywhere, and may be what makes way for the next version. Where no login
    /// can show whether the old version works, the order says so.
    pub(super) fn may_order_way_back(&self) -> bool {
        let said = self.way_back().is_some_and(|old| !self.can_log_in(old));
        self.record.stay || said || !self.doubts_way_back()
    }

    pub(super) fn doubted_way_back(&self) -> String {
        let old = self.way_back().map_or_else(String::new, |old| old.to_string());
        let note = |version| self.record.versions.get(&version).map_or("", |it| it.note.as_str());
        match self.way_back().map(|old| (old, self.record.doubt(old))) {
            Some((version, Some(Doubt::Failed))) => format!(
                "version {old} no longer works: since the store lost history, its test login fails: {}; write the next \
                 version, which is rotated to once this rotation has ended",
                note(version)
            ),
            Some((version, _)) if !self.can_log_in(version) => {
                format!(
                    "{}: write the next version, which is rotated to once this rotation has ended",
                    no_login(version)
                )
            }
            _ => format!(
                "version {old} is from before the store lost history and may have ended in it: wait for the answer to its \
                 test login, which is under way"
            ),
        }
    }

    fn can_log_in(&self, version: Version) -> bool {
        self.record.versions.get(&version).is_some_and(VersionRecord::can_log_in)
    }

    fn current_can_log_in(&self) -> bool {
        self.record.current.is_some_and(|current| self.can_log_in(current))
    }

    /// Why instances stay that wait for no version, and what follows. In safe mode the answer to the test login is not
    /// waited for: an operator looks first.
    pub(super) fn stays_in_doubt(&self) -> Option<(String, &'static str)> {
        let doubt = self.record.doubt(self.record.current?)?;
        let preparing = |rotation: &Rotation| matches!(rotation.phase, Phase::Verifying | Phase::Preparing);
        if self.waiting_version().is_some() || self.record.rotation.as_ref().is_some_and(preparing) {
            return None;
        }
        let next = match (doubt, self.is_managed(), &self.record.safe_mode) {
            (Doubt::Untested, ..) if !self.current_can_log_in() => self.next_of_word(),
            (Doubt::Untested, _, Some(_)) => return None,
            (Doubt::Untested, _, None) => "the provider answers to the test login; if it works, instances follow again",
            (Doubt::Failed, _, Some(_)) => "an operator leaves safe mode, and the leader tries the login again",
            (Doubt::Failed, _, None) if self.pause_holds_failed_proof() => {
                "the rotation rolls back once an operator resumes the secret"
            }
            (Doubt::Failed, true, None) if self.is_moving() => {
                "an operator rolls the rotation back, then orders the next one; or leaves safe mode once more, and the leader \
                 tries the login again"
            }
            (Doubt::Failed, true, None) => {
                "an operator orders a rotation; or leaves safe mode once more, and the leader tries the login again"
            }
            (Doubt::Failed, false, None) => {
                "an operator writes the next version; or leaves safe mode once more, and the leader tries the login again"
            }
        };
        Some((format!("instances stay with what they serve: {}", self.doubt_of_current()), next))
    }

    /// Whether a rotation is in flight that an order to rotate waits for.
    fn is_moving(&self) -> bool {
        self.record.rotation.as_ref().is_some_and(|rotation| !self.rotate_makes_way(rotation))
    }

    /// Whether Rotacast makes the secret's credentials, as the newest version that is or was moved to says.
    fn is_managed(&self) -> bool {
        let newest = self.record.rotation.as_ref().map(|rotation| rotation.new).or(self.record.current);
        newest.and_then(|newest| self.record.versions.get(&newest)).is_some_and(|it| it.origin == Origin::Managed)
    }

    /// Whether nothing but a pause keeps a rotation from going back from a version that does not work.
    fn pause_holds_failed_proof(&self) -> bool {
        self.record.paused.is_some()
            && self.record.safe_mode.is_none()
            && self.way_back().is_some()
            && !self.doubts_way_back()
    }

    /// Why the current version is not known to work.
    fn doubt_of_current(&self) -> String {
        let Some((version, known)) = self.record.current.and_then(|it| Some((it, self.record.versions.get(&it)?)))
        else {
            return String::new();
        };
        match known.doubt {
            Some(Doubt::Failed) => {
                format!("version {version}, which is current, no longer works: its test login fails: {}", known.note)
            }
            _ if !known.can_log_in() => no_login(format_args!("{version}, which is current,")),
            _ => format!(
                "version {version}, which is current, is from before the store lost history and may have ended in it"
            ),
        }
    }

    /// What an operator can do about it; none: nothing is in doubt.
    pub(super) fn remedy_of_doubt(&self) -> Option<Option<String>> {
        let secret = &self.record.secret;
        let doubt = self.record.doubt(self.record.current?)?;
        Some(match (doubt, self.is_managed(), &self.record.safe_mode) {
            (Doubt::Untested, ..) if !self.current_can_log_in() => Some(self.leave_safe_mode()),
            (Doubt::Untested, ..) => None,
            (Doubt::Failed, _, Some(_)) => Some(self.leave_safe_mode()),
            (Doubt::Failed, _, None) if self.pause_holds_failed_proof() => Some(format!("rotacast resume {secret}")),
            (Doubt::Failed, true, None) if self.is_moving() => {
                Some(format!("rotacast rollback {secret} --reason '{}'", Reason::PLACEHOLDER))
            }
            (Doubt::Failed, true, None) => Some(format!("rotacast rotate {secret}")),
            (Doubt::Failed, false, None) => Some(format!("rotacast put {secret}")),
        })
    }

    /// A credential is made only once the bus has taken a state of this term: if it has a newer one, the store was restored,
    /// and a credential of this number may be in use.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(CreateKnowsBus, true))]
    pub(super) fn knows_bus(&self) -> bool {
        self.published.is_some()
    }

    /// Safe mode holds the start of a rotation.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(SafeModeStart, true))]
    pub(super) fn may_start(&self) -> bool {
        self.record.safe_mode.is_none()
    }

    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(SafeModeRollback, false))]
    pub(super) fn safe_mode_holds_rollback(&self) -> bool {
        self.record.safe_mode.is_some()
    }

    /// After history was lost, every instance may stay with the very version that is rolled back until the one that waits is
    /// current: that one cannot wait for them. The rejected version goes on to wait for its own guard.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(StayMakesWay, false))]
    pub(super) fn no_instance_goes_back(&self) -> bool {
        let stays = self.record.stay && self.record.safe_mode.is_none();
        stays && self.waiting_version().is_some() && self.has_room()
    }

    /// After a break in the store's history, what an instance holds is leased although the record does not list it.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(StayLeased, false))]
    pub(super) fn is_of_lost_history(&self, version: Version) -> bool {
        self.record.stay && !self.record.versions.contains_key(&version)
    }

    /// Of the lost history, and then nothing here can end it; what ended before it is not taken for such a version.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(EndedUnleased, true))]
    pub(super) fn may_be_running(&self, version: Version) -> bool {
        Some(version) > self.record.ended_to
    }

    /// Safe mode holds the activation.
    #[cfg_attr(
        rotacast_mutants,
        rotacast_mutate::rule(SafeModeActivation, Condition::met(ConditionName::NotInSafeMode))
    )]
    pub(super) fn safe_mode_gate(&self) -> Condition {
        match &self.record.safe_mode {
            None => Condition::met(ConditionName::NotInSafeMode),
            Some(mode) => Condition::waiting(
                ConditionName::NotInSafeMode,
                &mode.reason,
                mode.at,
                "an operator checks the store and leaves safe mode",
            ),
        }
    }

    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(GuardNotInSafeMode, true))]
    pub(super) fn is_not_in_safe_mode(&self) -> bool {
        self.record.safe_mode.is_none()
    }

    pub(super) fn safe_mode_condition(&self) -> Condition {
        let Some(safe_mode) = &self.record.safe_mode else {
            return Condition::judged(ConditionName::NotInSafeMode, true, "store continuous");
        };
        Condition::judged(ConditionName::NotInSafeMode, self.is_not_in_safe_mode(), safe_mode.reason.clone()).or(
            "",
            format!("safe mode: {}", safe_mode.reason),
            Some(safe_mode.at),
            "an operator checks the store and leaves safe mode",
        )
    }
}

/// Why a rotation is rolled back.
pub(super) fn failed_login(version: Version, reason: &str) -> String {
    bounded(format!("version {version} failed its test login: {reason}"))
}

/// A version whose doubt only an operator can end.
fn no_login(version: impl Display) -> String {
    format!("no login can show whether version {version} still works")
}
