//! Worlds in which one rule is broken: the simulator must notice each.

use std::fmt;

use rotacast_holder::rules::Rule as HolderRule;
use rotacast_protocol::coordinator::ConditionName;
use rotacast_protocol::rules::Rule;

/// A rule that is not the cores' but that of what is around them: drivers, store, provider, clocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Around {
    /// Lease rule 2: the clock counts while the machine is suspended.
    ClockCountsInSuspend,
    /// A use lasts `max_use` at most.
    UseEnds,
    /// Clocks drift by what is assumed at most.
    ClocksAreTrue,
    /// A leader's time counts from when it asked for it.
    LeadsFromSend,
    /// Lease rule 7: the save compares the leader's key.
    SaveComparesKey,
    /// The save compares the record's revision.
    SaveComparesRevision,
    /// A save whose outcome is unknown is asked after.
    UnknownIsAsked,
    /// Nothing leaves before it is durable.
    DurableFirst,
    /// The audit log is written before it says so.
    AuditIsWritten,
    /// Reads of the store are linearizable.
    ReadsAreCurrent,
    /// A registration is durable before it is said to be.
    RegistrationIsDurable,
    /// The barrier reads the roster to its end.
    BarrierReadsAll,
    /// A new credential is in the journal before it is made.
    JournalFirst,
    /// A disabled credential is tried.
    DisableIsTried,
    /// A store that went back is told.
    RestoreIsTold,
}

/// Which rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutant {
    /// One of the coordinator's.
    Leader(Rule),
    /// One of the holder's.
    Holder(HolderRule),
    /// One around them.
    Around(Around),
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mutant::Leader(rule) => write!(f, "leader: {rule:?}"),
            Mutant::Holder(rule) => write!(f, "holder: {rule:?}"),
            Mutant::Around(rule) => write!(f, "around: {rule:?}"),
        }
    }
}

/// The coordinator's rules.
pub const LEADER: [Rule; 72] = [
    Rule::Guard(ConditionName::Leads),
    Rule::Guard(ConditionName::Phase),
    Rule::Guard(ConditionName::NotPaused),
    Rule::Guard(ConditionName::NotInSafeMode),
    Rule::Guard(ConditionName::OverlapOver),
    Rule::Guard(ConditionName::InheritedLeasesOver),
    Rule::Guard(ConditionName::MembersReleased),
    Rule::Guard(ConditionName::SomebodyConfirmed),
    Rule::Guard(ConditionName::RequiredServices),
    Rule::Guard(ConditionName::Sealed),
    Rule::Guard(ConditionName::SelfLeasesOver),
    Rule::Guard(ConditionName::Barrier),
    Rule::Guard(ConditionName::UsageEvidence),
    Rule::Leads,
    Rule::Drift,
    Rule::UseTime,
    Rule::FenceWaits,
    Rule::HoldWaits,
    Rule::SilenceWaits,
    Rule::ReleaseRevision,
    Rule::ReleaseKnown,
    Rule::ReleaseHeld,
    Rule::ReleaseLease,
    Rule::ReportOrder,
    Rule::ExclusiveOnly,
    Rule::LiveOnly,
    Rule::ProvenOnly,
    Rule::HeardLives,
    Rule::LongerGrant,
    Rule::AcknowledgedGrant,
    Rule::GrantNumbers,
    Rule::SealedUnleased,
    Rule::StayLeased,
    Rule::EndedUnleased,
    Rule::GrantsBounded,
    Rule::NumbersLost,
    Rule::LostAnnounced,
    Rule::LeapAgain,
    Rule::LeapAbove,
    Rule::LeapVoidsWords,
    Rule::StayWaits,
    Rule::RegisteredOnly,
    Rule::TermFirst,
    Rule::TierBound,
    Rule::BoundRaised,
    Rule::BoundLowered,
    Rule::GuardTwice,
    Rule::AuditFirst,
    Rule::AuditOfSeal,
    Rule::BarrierAfterSeal,
    Rule::UsageAfterSeal,
    Rule::VersionGap,
    Rule::TestLogin,
    Rule::NoReturn,
    Rule::PauseActivation,
    Rule::PauseSteps,
    Rule::Approval,
    Rule::SafeModeActivation,
    Rule::SafeModeStart,
    Rule::SafeModeRollback,
    Rule::SafeModeCreate,
    Rule::StayMakesWay,
    Rule::Stages,
    Rule::ConfirmedDirection,
    Rule::EmptySet,
    Rule::RosterFirst,
    Rule::RollbackSpares,
    Rule::RollbackGeneration,
    Rule::ReplacedRetires,
    Rule::LiveVersions,
    Rule::ExcuseStages,
    Rule::OverrideNames,
];

/// The holder's.
pub const HOLDER: [HolderRule; 24] = [
    HolderRule::FromSend,
    HolderRule::ClockOnUse,
    HolderRule::LateGrant,
    HolderRule::StaleGrant,
    HolderRule::NewestGrant,
    HolderRule::OneAnswer,
    HolderRule::ReadFromSend,
    HolderRule::ReadUnsealed,
    HolderRule::ReadNewest,
    HolderRule::NewerState,
    HolderRule::NewerDirection,
    HolderRule::NoComeback,
    HolderRule::RegisteredFirst,
    HolderRule::LeaseFirst,
    HolderRule::ServingHeld,
    HolderRule::GuardsHeld,
    HolderRule::TouchedHeld,
    HolderRule::SwitchHolds,
    HolderRule::GuardsRelease,
    HolderRule::SwitchDoubt,
    HolderRule::Acknowledge,
    HolderRule::Stay,
    HolderRule::Lost,
    HolderRule::OwnReply,
];

/// Those around them.
pub const AROUND: [Around; 15] = [
    Around::ClockCountsInSuspend,
    Around::UseEnds,
    Around::ClocksAreTrue,
    Around::LeadsFromSend,
    Around::SaveComparesKey,
    Around::SaveComparesRevision,
    Around::UnknownIsAsked,
    Around::DurableFirst,
    Around::AuditIsWritten,
    Around::ReadsAreCurrent,
    Around::RegistrationIsDurable,
    Around::BarrierReadsAll,
    Around::JournalFirst,
    Around::DisableIsTried,
    Around::RestoreIsTold,
];

impl Mutant {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Mutant> {
        let leader = LEADER.into_iter().chain([Rule::StepOrder]).map(Mutant::Leader);
        leader.chain(HOLDER.into_iter().map(Mutant::Holder)).chain(AROUND.into_iter().map(Mutant::Around))
    }
}

/// Rules that nothing can be seen of when they alone are broken, and why: another rule stands behind each.
pub const COVERED: [(Mutant, &str); 4] = [
    (
        Mutant::Leader(Rule::Guard(ConditionName::Leads)),
        "the guard is only asked by `decide` and `commands`, and both refuse before that when the term is over (Leads)",
    ),
    (
        Mutant::Leader(Rule::Guard(ConditionName::Phase)),
        "the usage evidence of a version is only read once the phase allows its retire, and the guard needs it",
    ),
    (
        Mutant::Leader(Rule::Guard(ConditionName::Sealed)),
        "the barrier and the usage evidence only count from a seal on, and the wait for self-leases is counted from it",
    ),
    (
        Mutant::Leader(Rule::LiveOnly),
        "since a registration alone proves nothing (ProvenOnly), the order of a listing does no harm",
    ),
];

impl Mutant {
    /// Why nothing can be seen of it, if nothing can.
    #[must_use]
    pub fn covered(self) -> Option<&'static str> {
        COVERED.iter().find(|(mutant, _)| *mutant == self).map(|(_, why)| *why)
    }

    /// Whether the rule is about progress, so that its absence may show as a rotation that does not end as it should.
    #[must_use]
    pub fn is_about_progress(self) -> bool {
        matches!(self, Mutant::Leader(Rule::ReplacedRetires) | Mutant::Holder(HolderRule::Acknowledge))
    }
}
