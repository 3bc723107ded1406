//! What an input changes.

use thiserror::Error;

use super::{Change, CommandKind, Coordinator, Evidence, Input, MAX_MEMBERS, Member};
use crate::id::{Epoch, InstanceKey, ReportSequence, Revision, Version};
use crate::message::{MAX_FAILURE_TEXT_BYTES, MAX_HELD_VERSIONS, SecretReport};
use crate::phase::{Outcome, Phase};
use crate::record::{Label, MAX_RECORD_BYTES, Origin, RecordChange, RetireStep, SafeMode, Timing, Unknown};
use crate::time::{Instant, Now};

/// More versions than a secret gets between a backup and its restoration. A bound on what instances can claim, all in all.
const LOST_VERSIONS: u64 = 10_000;

/// Why an input changes nothing, by whose fault it is.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Error)]
pub enum Rejection {
    /// It is older than what is known, or known already.
    #[error("stale {what}: expected {expected}, found {found}")]
    Stale {
        /// What kind of input.
        what: &'static str,
        /// What would have counted.
        expected: String,
        /// What came.
        found: String,
    },
    /// A version number that leaves a gap.
    #[error("version {found} leaves a gap: expected version {expected}")]
    Gap {
        /// The next number.
        expected: Version,
        /// What came.
        found: Version,
    },
    /// This leader's term is over.
    #[error("epoch {epoch} no longer leads")]
    Deposed {
        /// Its term.
        epoch: Epoch,
    },
    /// The sender breaks a bound or speaks after it left.
    #[error("message of {key}: {problem}")]
    Sender {
        /// Who.
        key: InstanceKey,
        /// What is wrong.
        problem: String,
    },
    /// The operator's order cannot be carried out.
    #[error("{problem}")]
    Operator {
        /// Why, and what can be done.
        problem: String,
    },
}

pub(super) fn stale(what: &'static str, expected: impl ToString, found: impl ToString) -> Rejection {
    Rejection::Stale { what, expected: expected.to_string(), found: found.to_string() }
}

pub(super) fn operator(problem: impl Into<String>) -> Rejection {
    Rejection::Operator { problem: problem.into() }
}

impl Coordinator {
    /// What an input changes, in the order to apply it.
    ///
    /// # Errors
    /// [`Rejection`] when it changes nothing, and whose fault that is.
    pub fn decide(&self, now: Now, input: Input) -> Result<Vec<Change>, Rejection> {
        if let Input::LeadershipExtended { until } = input {
            return Ok(vec![Change::LeadershipExtended { until }]);
        }
        if !self.leads(now.instant) {
            return Err(Rejection::Deposed { epoch: self.tenure.epoch });
        }
        match input {
            Input::Tick => Ok(self.advance(now)),
            Input::LeadershipExtended { until } => Ok(vec![Change::LeadershipExtended { until }]),
            Input::VersionSeen { version } => self.version_seen(now, version),
            Input::Created { version, origin } => self.created(version, origin),
            Input::Verified { version } => self.verified(now, version),
            Input::VerifyFailed { version, reason } => self.verify_failed(now, version, &reason),
            Input::Registered { key, exclusive, live } => {
                self.registered(now, key, proves_earlier_lives_over(exclusive, live))
            }
            Input::RosterRead if self.roster_read => {
                Err(stale("roster", "a first reading in this term", "a further one"))
            }
            Input::RosterRead => Ok(vec![Change::RosterRead]),
            Input::Left { key } => self.left(now, key),
            Input::Report { key, sequence, report } => self.report(now, key, sequence, report),
            Input::Sync { key, sequence, report } => self.sync(now, key, sequence, report),
            Input::BarrierPassed { version, revision } => self.barrier_passed(version, revision),
            Input::UsageRead { version, sent, evidence } => self.usage_read(version, sent, evidence),
            Input::Audited { version, revision } => self.audited(now, version, revision),
            Input::StepDone { version, step } => self.step_done(version, step),
            Input::Published { revision } => Ok(vec![Change::Published { revision }]),
            Input::Troubled { command, problem } => self.troubled(now, command, problem),
            Input::StoreWentBack { reason } => self.store_went_back(now, reason),
            Input::Operator { by, order } => self.operator(now, by, order),
            Input::PolicyChanged(policy) => Ok(vec![Change::PolicySet(policy)]),
        }
    }

    fn version_seen(&self, now: Now, version: Version) -> Result<Vec<Change>, Rejection> {
        if let Some(last) = self.record.last_version {
            if version <= last {
                return Err(stale("version", last.next(), version));
            }
            if !follows(last, version) {
                return Err(Rejection::Gap { expected: last.next(), found: version });
            }
        }
        self.fitting(vec![Change::Record(RecordChange::VersionAdded {
            version,
            origin: Origin::Watched,
            at: now.wall,
        })])
    }

    /// What comes from outside may fill a third of the record: what follows from it, such as the retirement of each
    /// skipped version, still fits.
    pub(super) fn fitting(&self, changes: Vec<Change>) -> Result<Vec<Change>, Rejection> {
        let size = self.record_after(&changes).map_or(0, |record| record.encode().len());
        if size > MAX_RECORD_BYTES / 3 {
            return Err(operator(format!(
                "the record would have {size} bytes, expected at most {}: wait until versions that are on their way \
                 out are retired, or name fewer instances",
                MAX_RECORD_BYTES / 3
            )));
        }
        Ok(changes)
    }

    fn verifying(&self, version: Version) -> Result<&crate::record::Rotation, Rejection> {
        self.record
            .rotation
            .as_ref()
            .filter(|rotation| rotation.phase == Phase::Verifying && rotation.new == version)
            .ok_or_else(|| stale("verification", "a rotation that verifies it", format!("version {version}")))
    }

    fn created(&self, version: Version, origin: Origin) -> Result<Vec<Change>, Rejection> {
        let rotation = self.verifying(version)?;
        if rotation.created {
            return Err(stale("creation", "a credential still to be made", format!("version {version}")));
        }
        Ok(vec![Change::Record(RecordChange::CredentialCreated { origin })])
    }

    fn verified(&self, now: Now, version: Version) -> Result<Vec<Change>, Rejection> {
        let rotation = self.verifying(version)?;
        let at = now.wall;
        // A first version has nobody to prepare: there is nothing they could keep using meanwhile.
        Ok(vec![Change::Record(match rotation.old {
            Some(_) => RecordChange::PreparingBegan { at },
            None => RecordChange::Activated { at },
        })])
    }

    /// A version that fails its test login is never activated.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(TestLogin, self.verified(now, version)))]
    fn verify_failed(&self, now: Now, version: Version, reason: &str) -> Result<Vec<Change>, Rejection> {
        self.verifying(version)?;
        let reason = bounded(format!("version {version} failed its test login: {reason}"));
        Ok(vec![self.roll_back(now, reason)])
    }

    pub(super) fn roll_back(&self, now: Now, reason: String) -> Change {
        Change::Record(RecordChange::RollbackStarted { reason, at: now.wall })
    }

    fn registered(&self, now: Now, key: InstanceKey, exclusive: bool) -> Result<Vec<Change>, Rejection> {
        match self.members.find(&key) {
            Some(member) if member.registered || member.left => Err(stale("registration", "a new process life", &key)),
            None if self.is_full() => Err(Rejection::Sender {
                key,
                problem: format!("{MAX_MEMBERS} process lives are tracked already; it runs on self-leases"),
            }),
            // A life that was heard before its registration did not begin with it: it was forgotten and registers
            // again. It proves nothing about a life of its name that began later.
            Some(_) => Ok(vec![Change::MemberRegistered { key, exclusive: false, at: now }]),
            None => Ok(vec![Change::MemberRegistered { key, exclusive, at: now }]),
        }
    }

    fn left(&self, now: Now, key: InstanceKey) -> Result<Vec<Change>, Rejection> {
        match self.members.find(&key) {
            Some(member) if member.left => Err(stale("leave", "an instance that has not left yet", &key)),
            None if self.is_full() => {
                Err(Rejection::Sender { key, problem: format!("{MAX_MEMBERS} process lives are tracked already") })
            }
            _ => Ok(vec![Change::MemberLeft { key, at: now }]),
        }
    }

    /// Whether there is no room for a further process life, not even in place of one that is over.
    fn is_full(&self) -> bool {
        self.members.len() >= MAX_MEMBERS && !self.members.iter().any(Member::is_gone)
    }

    pub(super) fn report(
        &self,
        now: Now,
        key: InstanceKey,
        sequence: ReportSequence,
        report: SecretReport,
    ) -> Result<Vec<Change>, Rejection> {
        if report.held.len() > MAX_HELD_VERSIONS {
            let problem = format!("holds {} versions, expected at most {MAX_HELD_VERSIONS}", report.held.len());
            return Err(Rejection::Sender { key, problem });
        }
        match self.members.find(&key) {
            Some(member) if member.left => Err(Rejection::Sender { key, problem: "it has left".into() }),
            Some(member) if !member.is_news(sequence) => {
                Err(stale("report", format!("above {}", member.sequence), sequence))
            }
            None if self.is_full() => {
                Err(Rejection::Sender { key, problem: format!("{MAX_MEMBERS} process lives are tracked already") })
            }
            _ => {
                let lost = self.numbers_lost(&report).map(Change::Record);
                Ok([Change::ReportFolded { key, sequence, report, at: now }].into_iter().chain(lost).collect())
            }
        }
    }

    /// A version that is used and that the record does not know is of the history that was lost: its number is taken.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(NumbersLost, None))]
    fn numbers_lost(&self, report: &SecretReport) -> Option<RecordChange> {
        let lost = self.record.lost_history?;
        let last = report.held.last().copied().filter(|last| Some(*last) > self.record.last_version)?;
        let kept = lost.kept_to.map_or(0, Version::get);
        (last.get().saturating_sub(kept) <= LOST_VERSIONS).then_some(RecordChange::NumbersLost { last })
    }

    fn barrier_passed(&self, version: Version, revision: Revision) -> Result<Vec<Change>, Rejection> {
        match self.retiring.get(&version) {
            // A reading that began before the seal may have missed whoever read the version just before it.
            Some(progress) if progress.sealed.is_some() && progress.sealed_before(revision) => {
                Ok(vec![Change::BarrierPassed { version }])
            }
            _ => Err(stale("barrier", "a reading that began after the seal", format!("revision {revision}"))),
        }
    }

    fn usage_read(&self, version: Version, sent: Instant, evidence: Evidence) -> Result<Vec<Change>, Rejection> {
        if !self.record.retirements.contains_key(&version) {
            return Err(stale("usage reading", "a version on its way out", format!("version {version}")));
        }
        if let Some((known, _)) = self.usage.get(&version)
            && *known >= sent
        {
            return Err(stale("usage reading", format!("after {known:?}"), format!("{sent:?}")));
        }
        Ok(vec![Change::UsageRead { version, sent, evidence }])
    }

    /// The record's revision at the seal. An entry that took so long that a rollback and a further rotation went by is
    /// about another retirement.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(AuditOfSeal, Revision(0)))]
    fn sealed_at(&self, version: Version) -> Revision {
        self.retiring.get(&version).map_or(Revision(0), |progress| progress.sealed_at)
    }

    /// The guard is checked once more, at the moment of no return: what the entry says must hold now.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(GuardTwice, true))]
    fn still_holds(&self, version: Version, now: Now) -> bool {
        self.guard_holds(version, now)
    }

    fn audited(&self, now: Now, version: Version, revision: Revision) -> Result<Vec<Change>, Rejection> {
        let sealed_at = self.sealed_at(version);
        if revision < sealed_at {
            return Err(stale("audit entry", format!("revision {sealed_at} or later"), format!("revision {revision}")));
        }
        let waiting = self.record.retirements.get(&version).is_some_and(|retirement| retirement.step.is_none());
        if waiting && self.still_holds(version, now) {
            return Ok(vec![
                Change::Audited { version },
                Change::Record(RecordChange::RetireBegan { version, at: now.wall }),
            ]);
        }
        Err(stale("audit entry", "a guard that holds", format!("version {version}")))
    }

    fn step_done(&self, version: Version, step: RetireStep) -> Result<Vec<Change>, Rejection> {
        let owed = self.record.retirements.get(&version).and_then(|retirement| retirement.step);
        if !is_owed(owed, step) {
            return Err(stale("retire step", owed.map_or("none", RetireStep::as_str), step));
        }
        Ok(vec![Change::Record(match step {
            RetireStep::Disable => RecordChange::RetireAdvanced { version, step: RetireStep::Destroy },
            RetireStep::Destroy => RecordChange::RetireAdvanced { version, step: RetireStep::Erase },
            RetireStep::Erase => RecordChange::RetireFinished { version },
        })])
    }

    fn troubled(&self, now: Now, command: CommandKind, problem: String) -> Result<Vec<Change>, Rejection> {
        if !self.commands(now).iter().any(|owed| owed.kind == command) {
            return Err(stale("trouble", "a command that is owed", format!("{command:?}")));
        }
        Ok(vec![Change::Troubled { command, problem: bounded(problem), at: now }])
    }

    /// A break is one however often it happens: in safe mode too, everything lost is waited for anew.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(LeapAgain, if self.record.safe_mode.is_some() { Err(stale("store warning", "no safe mode yet", reason)) } else { Ok(self.enter_safe_mode(now, reason)) }))]
    fn store_went_back(&self, now: Now, reason: String) -> Result<Vec<Change>, Rejection> {
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

    /// The newest version that waits for its rotation.
    pub(super) fn waiting_version(&self) -> Option<Version> {
        let in_flight = self.record.rotation.as_ref().map(|rotation| rotation.new);
        self.record
            .versions
            .iter()
            .rev()
            .find(|(number, version)| version.label == Label::Pending && Some(**number) != in_flight)
            .map(|(number, _)| *number)
    }

    /// Whether one more version may become valid. Versions that only wait are not counted.
    pub(super) fn has_room(&self) -> bool {
        self.has_room_beside(0)
    }

    /// The same, with so many of the waiting ones counted.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(LiveVersions, true))]
    pub(super) fn has_room_beside(&self, counted: usize) -> bool {
        let waiting = self.record.versions.values().filter(|version| version.label == Label::Pending).count();
        let live = self.record.live_versions().count();
        (live + counted).saturating_sub(waiting) < self.policy.max_live_versions
    }
}

/// Whether a registration may later prove that earlier incarnations of its name are over: the name is exclusive, and it was
/// published just now, since the order of a listing proves nothing.
#[cfg_attr(rotacast_mutants, rotacast_mutate::rule(ExclusiveOnly, live))]
#[cfg_attr(rotacast_mutants, rotacast_mutate::rule(LiveOnly, exclusive))]
fn proves_earlier_lives_over(exclusive: bool, live: bool) -> bool {
    exclusive && live
}

/// No version is left out.
#[cfg_attr(rotacast_mutants, rotacast_mutate::rule(VersionGap, true))]
fn follows(last: Version, version: Version) -> bool {
    version == last.next()
}

/// Disable, destroy, erase, in this order, each once it is owed.
#[cfg_attr(rotacast_mutants, rotacast_mutate::rule(StepOrder, true))]
fn is_owed(owed: Option<RetireStep>, step: RetireStep) -> bool {
    owed == Some(step)
}

/// Words from outside are kept short: records have a bound.
pub(super) fn bounded(mut text: String) -> String {
    if text.len() > MAX_FAILURE_TEXT_BYTES {
        let end = (0..=MAX_FAILURE_TEXT_BYTES).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
    }
    text
}
