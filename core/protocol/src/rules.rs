//! The rules of the protocol by name, so that a test build can switch them off one by one.
//!
//! A promise that no test can break is not tested. The simulator compiles these very sources a second time, as a package of
//! its own with the feature `mutants` (`tests/simulator/mutable`); this package does not declare that feature, so that no build of
//! the broadcaster can contain the switch, whatever is built beside it. Without it [`Broken`] holds nothing, says `false`,
//! and is compiled away.

use crate::coordinator::ConditionName;
#[cfg(feature = "mutants")]
use crate::id::Revision;
#[cfg(feature = "mutants")]
use crate::phase::Outcome;
use crate::record::{RecordChange, SecretRecord};

/// One rule.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(not(feature = "mutants"), allow(dead_code, unreachable_pub))]
pub enum Rule {
    /// A condition of the retire guard.
    Guard(ConditionName),
    /// Lease rule 3: whoever does not surely lead decides nothing.
    Leads,
    /// Lease rule 6: waits outlast clocks that drift.
    Drift,
    /// Lease rule 2: waits include the time a use may outlast its checkout.
    UseTime,
    /// Under `fence`, a silent member holds the retire back until its lease is over.
    FenceWaits,
    /// Under `hold`, silence never counts.
    HoldWaits,
    /// Under `presume_dead_after`, the silence is waited for.
    SilenceWaits,
    /// A release was said of a desired state that no longer asks for the version.
    ReleaseRevision,
    /// A release was said of a state that this record has had.
    ReleaseKnown,
    /// A release holds the version no more.
    ReleaseHeld,
    /// Lease rule 5: a release has heard of the last grant.
    ReleaseLease,
    /// The newest report counts, whatever the order of arrival.
    ReportOrder,
    /// Only an exclusive name proves earlier lives over.
    ExclusiveOnly,
    /// A listing's order proves nobody over.
    LiveOnly,
    /// A registration alone proves nobody over: it may be older than the life that is heard.
    ProvenOnly,
    /// Whoever speaks lives.
    HeardLives,
    /// A grant does not end the wait for a longer one before it.
    LongerGrant,
    /// Only the acknowledged grant replaces earlier ones, and only for what it names.
    AcknowledgedGrant,
    /// Grant numbers only grow, over all terms.
    GrantNumbers,
    /// The seal: no lease for a sealed version.
    SealedUnleased,
    /// After a break in the store's history, what an instance holds is leased although nobody knows it.
    StayLeased,
    /// What has ended and is no longer listed is not taken for a version of the lost history.
    EndedUnleased,
    /// Grants of versions that nobody knows are bounded.
    GrantsBounded,
    /// Numbers of the lost history that somebody uses never come again.
    NumbersLost,
    /// A number that is taken in after a break may have been leased in the lost history.
    LostAnnounced,
    /// A break is one however often it happens: in safe mode too, everything lost is waited for anew.
    LeapAgain,
    /// What is leapt to is above every earlier leap, of whatever history.
    LeapAbove,
    /// A break ends an operator's word.
    LeapVoidsWords,
    /// After safe mode whoever stays goes on doing so while a version waits.
    StayWaits,
    /// The joiner's barrier: no lease before the registration was read.
    RegisteredOnly,
    /// The record carries a leader's term before it grants.
    TermFirst,
    /// Long leases only where the record says that they may be running.
    TierBound,
    /// Longer times are durable before anybody goes by them.
    BoundRaised,
    /// The bound is lowered only when every longer lease is over.
    BoundLowered,
    /// The guard is evaluated again at the moment of no return.
    GuardTwice,
    /// The audit entry comes first.
    AuditFirst,
    /// The audit entry is about this seal, not about an earlier one.
    AuditOfSeal,
    /// The roster is read after the seal.
    BarrierAfterSeal,
    /// The usage is read after the seal.
    UsageAfterSeal,
    /// No version is left out.
    VersionGap,
    /// A version that fails its test login is never activated.
    TestLogin,
    /// There is no way back from the point of no return.
    NoReturn,
    /// A pause holds the activation.
    PauseActivation,
    /// A pause holds what is left of a retire.
    PauseSteps,
    /// The activation waits for the approval.
    Approval,
    /// Safe mode holds the activation.
    SafeModeActivation,
    /// Safe mode holds the start of a rotation.
    SafeModeStart,
    /// In safe mode nothing goes back by itself.
    SafeModeRollback,
    /// In safe mode no credential is made.
    SafeModeCreate,
    /// A rollback that nobody follows, since all stay, makes way for the version that waits.
    StayMakesWay,
    /// Everyone prepares before the activation, and switches before draining.
    Stages,
    /// What was said before a change of direction confirms nothing.
    ConfirmedDirection,
    /// An empty set is never unanimous.
    EmptySet,
    /// A leader that has just taken over does not take those it knows for all.
    RosterFirst,
    /// A rollback ends the old version's retirement.
    RollbackSpares,
    /// A rollback is a new generation.
    RollbackGeneration,
    /// A replaced version is retired under a guard of its own.
    ReplacedRetires,
    /// No more versions are valid at once than the policy says.
    LiveVersions,
    /// An excuse is for preparing and switching, not for the retire.
    ExcuseStages,
    /// An override cuts off those it names, nobody else.
    OverrideNames,
    /// Disable, destroy, erase, in this order, each once it is owed.
    StepOrder,
}

/// Which rule is switched off: none, outside of a mutant.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Broken {
    #[cfg(feature = "mutants")]
    pub(crate) rule: Option<Rule>,
}

impl Broken {
    /// Whether this rule is switched off.
    #[inline]
    #[cfg_attr(not(feature = "mutants"), allow(clippy::unused_self))]
    pub(crate) fn is(self, rule: Rule) -> bool {
        #[cfg(feature = "mutants")]
        return self.rule == Some(rule);
        #[cfg(not(feature = "mutants"))]
        {
            let _ = rule;
            false
        }
    }

    /// Carries a change of the record out.
    #[inline]
    pub(crate) fn change(self, record: &mut SecretRecord, change: &RecordChange) {
        #[cfg(feature = "mutants")]
        let before = self.rule.map(|_| record.clone());
        record.apply(change);
        #[cfg(feature = "mutants")]
        if let Some(before) = before {
            self.spoil(&before, record, change);
        }
    }

    #[cfg(feature = "mutants")]
    fn spoil(self, before: &SecretRecord, record: &mut SecretRecord, change: &RecordChange) {
        match (self.rule, change) {
            (Some(Rule::BoundRaised), RecordChange::TimingSet { .. }) => {
                record.bounds.self_lease = before.bounds.self_lease;
                record.bounds.max_use = before.bounds.max_use;
            }
            (Some(Rule::RollbackSpares), RecordChange::RollbackStarted { .. }) => {
                let old = before.rotation.as_ref().and_then(|rotation| rotation.old);
                let kept = old.and_then(|old| Some((old, before.retirements.get(&old)?.clone())));
                record.retirements.extend(kept);
            }
            (Some(Rule::RollbackGeneration), RecordChange::RollbackStarted { .. }) => {
                record.generation = before.generation;
            }
            (Some(Rule::ReplacedRetires), RecordChange::RotationEnded { outcome: Outcome::Superseded, .. })
            | (Some(Rule::ReplacedRetires), RecordChange::VersionSkipped { .. }) => {
                record.retirements.retain(|version, _| before.retirements.contains_key(version));
            }
            (Some(Rule::LostAnnounced), RecordChange::VersionAdded { version, .. }) => {
                if let Some(version) = record.versions.get_mut(version) {
                    version.announced = before.stay;
                }
            }
            (Some(Rule::LeapAbove), RecordChange::SafeModeEntered(_)) => {
                record.revision = Revision(before.revision.0 + (1 << 32));
            }
            (Some(Rule::LeapVoidsWords), RecordChange::SafeModeEntered(_)) => {
                for (version, retirement) in &mut record.retirements {
                    let words = before.retirements.get(version).map(|before| before.overrides.clone());
                    retirement.overrides = words.unwrap_or_default();
                }
            }
            (Some(Rule::StayWaits), RecordChange::SafeModeLeft) => {
                record.stay = record.current.is_none() || record.rotation.is_none() && record.waits();
            }
            _ => {}
        }
    }
}
