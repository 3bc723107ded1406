//! Worlds in which one rule is broken: the simulator must notice each.

use std::fmt;

use rotacast_protocol::coordinator::ConditionName;

/// Declares the rules of a core with all their names.
macro_rules! rules {
    ($(#[$attribute:meta])* pub enum $name:ident { $($(#[$doc:meta])* $rule:ident,)+ } $($extra:tt)*) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum $name {
            $($(#[$doc])* $rule,)+
            $($extra)*
        }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$rule),+];
        }
    };
}

rules! {
    /// A rule of the coordinator; [`Rule::ALL`] leaves out the guard's conditions, which are in [`GUARD`].
    pub enum Rule {
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
    /// A break ends a seal before the point of no return.
    LeapUnseals,
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
    /// A provider that cannot be asked proves nothing.
    UnknownUsage,
    /// Without a provider nothing is made.
    NoProviderNoRotation,
    /// A version that Rotacast only follows is never recorded as ended by a provider.
    FollowedUnproven,
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
    /// A credential that was to be made when the history broke is never made: one of its number may be in use.
    UnmadeGivenUp,
    /// A credential is made only once the bus has shown that it has no newer state.
    CreateKnowsBus,
    /// A rollback that nobody follows, since all stay, makes way for the version that waits.
    StayMakesWay,
    /// What came back with the store may have ended in the lost history.
    LeapDoubts,
    /// A version that came back is activated only once a test login has worked.
    ActivatesProved,
    /// Nothing goes back to a version that came back before a test login has worked.
    RollbackProved,
    /// In safe mode an operator gives no version up for one that is not proved.
    AbandonProved,
    /// Instances that stay go on doing so until the current version is known to work.
    StayProved,
    /// A rotation that came back is given up when the test login fails.
    ProofGivesUp,
    /// Where nothing goes back by itself, a test login that failed is only noted.
    ProofHeld,
    /// An operator has logins tried again that failed.
    ProofAgain,
    /// The shape of a value proves nothing.
    ProofNeedsLogin,
    /// While another version waits, leaving safe mode does not say that the current one works.
    WordOfCurrent,
    /// While instances stay, an order to rotate ends a rollback that waits for them.
    RotateMakesWay,
    /// Everyone prepares before the activation, and switches before draining.
    Stages,
    /// Under `hold`, preparing and switching wait for silent instances.
    HoldStages,
    /// Otherwise they go on after a few missed Syncs, and do not wait for a lease.
    MissedSyncs,
    /// Missed Syncs are counted by the interval that an instance was told.
    ToldInterval,
    /// A leader that hears no instance holds silence against none of them.
    LeaderHears,
    /// An incarnation that an operator said is gone is over under every later leader.
    GoneStays,
    /// An incarnation that has missed nothing it was to send is not said to be gone.
    GoneIsSilent,
    /// Silence counts from when the leader hears instances again.
    GoneListens,
    /// While a leader hears none of several instances, none of them is said to be gone.
    GoneHears,
    /// What was said before a change of direction confirms nothing.
    ConfirmedDirection,
    /// An empty set is never unanimous.
    EmptySet,
    /// A leader that has just taken over does not take those it knows for all.
    RosterFirst,
    /// It waits until those have been heard that were told the longest interval.
    RosterIdle,
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
    /// The machine: every Sync, order and question is answered.
    Answered,
    /// The machine: nothing takes effect before its save is confirmed.
    SaveAwaited,
    }
    /// A condition of the retire guard.
    Guard(ConditionName),
}

rules! {
    /// A rule of the holder.
    pub enum HolderRule {
    /// Lease rule 1: a lease counts from the request's send time.
    FromSend,
    /// Lease rule 2: every use compares the clock.
    ClockOnUse,
    /// A grant that is over when it arrives is not taken over.
    LateGrant,
    /// An overtaken grant is not taken over.
    StaleGrant,
    /// The newest grant replaces the one before, even a longer one.
    NewestGrant,
    /// Each request is answered once.
    OneAnswer,
    /// Lease rule 8: a self-lease counts from the read's send time.
    ReadFromSend,
    /// A read allows what it shows unsealed.
    ReadUnsealed,
    /// A read allows what nothing newer has sealed or stopped asking for.
    ReadNewest,
    /// Only newer states count.
    NewerState,
    /// A lower generation does not count.
    NewerDirection,
    /// Within a generation no version comes back.
    NoComeback,
    /// The joiner's barrier: the registration is durable before a lease is asked for.
    RegisteredFirst,
    /// The joiner's barrier: the lease comes before the value.
    LeaseFirst,
    /// What is handed out is held.
    ServingHeld,
    /// What a guard points to is held.
    GuardsHeld,
    /// What the service was shown is held until it has let go.
    TouchedHeld,
    /// Whoever was handed the old version counts from the switch on.
    SwitchHolds,
    /// The service lets go of nothing that a guard points to.
    GuardsRelease,
    /// A service in doubt after a failed switch may use either version.
    SwitchDoubt,
    /// A grant for what is held no more is acknowledged, so that the leader need not outwait it.
    Acknowledge,
    /// Whoever serves a version stays with it while nobody knows which one is good.
    Stay,
    /// A number that comes again after the store lost its history is another version.
    Lost,
    /// A reply is for the instance that asked.
    OwnReply,
    }
}

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

/// The conditions of the retire guard.
pub const GUARD: [ConditionName; 13] = [
    ConditionName::Leads,
    ConditionName::Phase,
    ConditionName::NotPaused,
    ConditionName::NotInSafeMode,
    ConditionName::OverlapOver,
    ConditionName::InheritedLeasesOver,
    ConditionName::MembersReleased,
    ConditionName::LiveInstanceConfirmed,
    ConditionName::RequiredServices,
    ConditionName::Sealed,
    ConditionName::SelfLeasesOver,
    ConditionName::Barrier,
    ConditionName::UsageEvidence,
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
        let guard = GUARD.into_iter().map(|condition| Mutant::Leader(Rule::Guard(condition)));
        let leader = Rule::ALL.iter().copied().map(Mutant::Leader);
        let holder = HolderRule::ALL.iter().copied().map(Mutant::Holder);
        guard.chain(leader).chain(holder).chain(AROUND.into_iter().map(Mutant::Around))
    }

    /// As the attribute in the cores' sources names it; none for what is around them.
    #[must_use]
    pub fn rule(self) -> Option<String> {
        match self {
            Mutant::Leader(Rule::Guard(condition)) => Some(format!("Guard{condition:?}")),
            Mutant::Leader(rule) => Some(format!("{rule:?}")),
            Mutant::Holder(rule) => Some(format!("{rule:?}")),
            Mutant::Around(_) => None,
        }
    }

    /// Breaks its rule on this thread for as long as what is returned lives. What is around the cores is broken by the world.
    ///
    /// # Panics
    /// In a build whose cores cannot be broken: see `tools/mutants`.
    #[must_use]
    pub fn breaks(self) -> Option<Broken> {
        self.rule().map(broken)
    }
}

/// While it lives, a rule of the cores is broken on this thread.
#[cfg(rotacast_mutants)]
pub type Broken = rotacast_protocol::mutation::Broken;
/// Does not exist: the cores of this build are those that ship.
#[cfg(not(rotacast_mutants))]
#[derive(Debug)]
pub enum Broken {}

#[cfg(rotacast_mutants)]
fn broken(rule: String) -> Broken {
    Broken::rule(rule)
}

#[cfg(not(rotacast_mutants))]
fn broken(rule: String) -> Broken {
    panic!("rule {rule} can only be broken in a build of tools/mutants")
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
