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
    /// Lease rule 3: a leader whose leadership may have expired decides nothing.
    Leads,
    /// Lease rule 6: waits outlast clocks that drift.
    Drift,
    /// Lease rule 2: waits include the time a use may outlast its checkout.
    UseTime,
    /// Under `fence`, a silent member holds the retire back until its lease has expired.
    FenceWaits,
    /// Under `hold`, silence never counts.
    HoldWaits,
    /// Under `presume_dead_after`, the silence is waited for.
    SilenceWaits,
    /// A release counts only for a desired state that no longer asks for the version.
    ReleaseRevision,
    /// A release counts only for a state that this record has had.
    ReleaseKnown,
    /// A release counts only if the report does not hold the version.
    ReleaseHeld,
    /// Lease rule 5: a release counts only if it acknowledges the last grant.
    ReleaseLease,
    /// The newest report counts, whatever the order of arrival.
    ReportOrder,
    /// Only an exclusive name proves earlier incarnations over.
    ExclusiveOnly,
    /// The order of a listing proves no incarnation over.
    LiveOnly,
    /// A registration alone proves no incarnation over: it may be older than the incarnation that is heard.
    ProvenOnly,
    /// An incarnation that is heard is not over.
    HeardLives,
    /// A grant does not end the wait for a longer one before it.
    LongerGrant,
    /// Only the acknowledged grant replaces earlier ones, and only for what it names.
    AcknowledgedGrant,
    /// Grant numbers only grow, over all terms.
    GrantNumbers,
    /// The seal: no lease for a sealed version.
    SealedUnleased,
    /// After a break in the store's history, a version that an instance holds is leased although the record does not
    /// know it.
    StayLeased,
    /// A version that ended and is no longer listed is not taken for a version of the lost history.
    EndedUnleased,
    /// Grants of versions that the record does not know are bounded.
    GrantsBounded,
    /// Numbers of the lost history that an instance uses are not used again.
    NumbersLost,
    /// A number that is taken in after a break may have been leased in the lost history.
    LostAnnounced,
    /// A further break in safe mode is handled like the first one: everything lost is waited for anew.
    LeapAgain,
    /// The leap's revision is above every earlier leap's, in whatever history.
    LeapAbove,
    /// A break voids operators' overrides.
    LeapVoidsWords,
    /// A break ends a seal before the point of no return.
    LeapUnseals,
    /// After safe mode, instances that stay keep what they serve while a version waits.
    StayWaits,
    /// The joiner's barrier: no lease before the registration was read.
    RegisteredOnly,
    /// The record carries a leader's term before it grants.
    TermFirst,
    /// Leases are long only where the record says that long ones may be running.
    TierBound,
    /// Longer times are durable before they are used.
    BoundRaised,
    /// The bound is lowered only when every longer lease has expired.
    BoundLowered,
    /// The guard is evaluated again at the moment of no return.
    GuardTwice,
    /// The audit entry is written first.
    AuditFirst,
    /// The audit entry is about this seal, not about an earlier one.
    AuditOfSeal,
    /// The usage is read after the seal.
    UsageAfterSeal,
    /// A provider that cannot be asked is no evidence of disuse.
    UnknownUsage,
    /// Without a provider no version is made.
    NoProviderNoRotation,
    /// A version that Rotacast only follows is never recorded as ended by a provider.
    FollowedUnproven,
    /// A version that leaves a gap is refused.
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
    /// In safe mode no rotation goes back by itself.
    SafeModeRollback,
    /// A credential that was to be made when the history broke is not made: one of its number may be in use.
    UnmadeGivenUp,
    /// A credential is made only once the bus has shown that it has no newer state.
    CreateKnowsBus,
    /// A rollback that no instance follows, because all stay, makes way for the version that waits.
    StayMakesWay,
    /// A version that came back with the store may have ended in the lost history.
    LeapDoubts,
    /// A version that came back is activated only once a test login has worked.
    ActivatesProved,
    /// No rollback leads to a version that came back before a test login of it has worked.
    RollbackProved,
    /// In safe mode an operator gives no version up for one that is not proved.
    AbandonProved,
    /// Instances that stay keep what they serve until the current version is proved to work.
    StayProved,
    /// A rotation that came back is given up when the test login fails.
    ProofGivesUp,
    /// Where no rotation goes back by itself, a failed test login is only noted.
    ProofHeld,
    /// An operator's order has failed test logins tried again.
    ProofAgain,
    /// The shape of a value is no proof that it works.
    ProofNeedsLogin,
    /// While another version waits, leaving safe mode does not say that the current one works.
    WordOfCurrent,
    /// While instances stay, an order to rotate ends a rollback that waits for them.
    RotateMakesWay,
    /// Every instance prepares before the activation, and switches before draining.
    Stages,
    /// Under `hold`, preparing and switching wait for silent instances.
    HoldStages,
    /// Otherwise they go on after a few missed Syncs, and do not wait for a lease.
    MissedSyncs,
    /// Missed Syncs are counted at the interval that the instance uses.
    ToldInterval,
    /// A leader that hears no instance counts no silence against any.
    LeaderHears,
    /// An incarnation that an operator said is gone counts as gone under every later leader.
    GoneStays,
    /// An incarnation that has missed no Sync cannot be said to be gone.
    GoneIsSilent,
    /// Silence counts from when the leader hears instances again.
    GoneListens,
    /// While a leader hears none of several instances, none of them is said to be gone.
    GoneHears,
    /// A report from before a change of direction confirms nothing.
    ConfirmedDirection,
    /// An empty set is never unanimous.
    EmptySet,
    /// A new leader does not take the instances that it knows for all of them.
    RosterFirst,
    /// A new leader waits until instances with the longest Sync interval have been heard.
    RosterIdle,
    /// A rollback to what is refused at its login ends nothing.
    WayBackWorks,
    /// Whoever was in the roster before a term may have a predecessor's lease.
    ListedInherit,
    /// A predecessor's lease is waited for, by name.
    InheritedByName,
    /// A roster of a store that lost a part of its history does not name everyone.
    RosterWhole,
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
    /// An override cuts off only the instances that it names.
    OverrideNames,
    /// Disable, destroy, erase, in this order, each when it is due.
    StepOrder,
    /// A report that claims a grant or a state that does not exist is refused.
    ClaimsBounded,
    /// A Sync has an effect only if it echoes the challenge that is outstanding.
    ChallengeEchoed,
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
    /// A grant that has expired when it arrives is ignored.
    LateGrant,
    /// A grant that a later one has overtaken is ignored.
    StaleGrant,
    /// The newest grant replaces the one before, even a longer one.
    NewestGrant,
    /// Each request is answered once.
    OneAnswer,
    /// Lease rule 8: a self-lease counts from the read's send time.
    ReadFromSend,
    /// A read allows only versions that it shows unsealed.
    ReadUnsealed,
    /// A read allows only versions that no newer state has sealed or stopped asking for.
    ReadNewest,
    /// Only newer states are taken in.
    NewerState,
    /// A state of a lower generation is not taken in.
    NewerDirection,
    /// Within a generation no version comes back.
    NoComeback,
    /// The joiner's barrier: the registration is durable before a lease is asked for.
    RegisteredFirst,
    /// The joiner's barrier: the lease comes before the value.
    LeaseFirst,
    /// A version that is returned to callers is held.
    ServingHeld,
    /// A version that a guard uses is held.
    GuardsHeld,
    /// A version that the service was given is held until the service has released it.
    TouchedHeld,
    /// A caller that got the old version counts from the switch on.
    SwitchHolds,
    /// The service releases no version that a guard uses.
    GuardsRelease,
    /// After a failed switch the service may use either version.
    SwitchDoubt,
    /// A grant of a version that is no longer held is acknowledged, so that the leader need not wait for it to expire.
    Acknowledge,
    /// An instance keeps the version that it serves while no record knows which version works.
    Stay,
    /// A number that comes again after the store lost its history is another version.
    Lost,
    /// A reply is for the instance that asked.
    OwnReply,
    }
}

/// A rule outside the cores: of drivers, store, provider, clocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Around {
    /// Lease rule 2: the clock counts while the machine is suspended.
    ClockCountsInSuspend,
    /// A use lasts `max_use` at most.
    UseEnds,
    /// Clocks drift by the assumed bound at most.
    ClocksAreTrue,
    /// A leadership counts from the request's send time.
    LeadsFromSend,
    /// Lease rule 7: the save compares the leader's key.
    SaveComparesKey,
    /// The save compares the record's revision.
    SaveComparesRevision,
    /// The broadcaster finds out the outcome of a save whose answer was lost.
    UnknownIsAsked,
    /// No message leaves before the state that it follows from is durable.
    DurableFirst,
    /// The audit log says that an entry is written only when it is.
    AuditIsWritten,
    /// Reads of the store are linearizable.
    ReadsAreCurrent,
    /// A newcomer is in the roster before it gets a lease.
    EntersFirst,
    /// A new leader lists the roster.
    ListsRoster,
    /// An entry compares the leader's key.
    EntryComparesKey,
    /// A new credential is in the journal before it is made.
    JournalFirst,
    /// A disabled credential is tested by a login.
    DisableIsTried,
    /// A store that went back is reported.
    RestoreIsTold,
    /// A message about an incarnation is signed by its own key, not by its service's.
    OwnKeySigns,
}

/// Which rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutant {
    /// A rule of the coordinator.
    Leader(Rule),
    /// A rule of the holder.
    Holder(HolderRule),
    /// A rule outside the cores.
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
pub const GUARD: [ConditionName; 12] = [
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
    ConditionName::UsageEvidence,
];

/// Those around them.
pub const AROUND: [Around; 17] = [
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
    Around::EntersFirst,
    Around::ListsRoster,
    Around::EntryComparesKey,
    Around::JournalFirst,
    Around::DisableIsTried,
    Around::RestoreIsTold,
    Around::OwnKeySigns,
];

impl Mutant {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Mutant> {
        let guard = GUARD.into_iter().map(|condition| Mutant::Leader(Rule::Guard(condition)));
        let leader = Rule::ALL.iter().copied().map(Mutant::Leader);
        let holder = HolderRule::ALL.iter().copied().map(Mutant::Holder);
        guard.chain(leader).chain(holder).chain(AROUND.into_iter().map(Mutant::Around))
    }

    /// The rule's name in the attribute in the cores' sources; none for a rule outside the cores.
    #[must_use]
    pub fn rule(self) -> Option<String> {
        match self {
            Mutant::Leader(Rule::Guard(condition)) => Some(format!("Guard{condition:?}")),
            Mutant::Leader(rule) => Some(format!("{rule:?}")),
            Mutant::Holder(rule) => Some(format!("{rule:?}")),
            Mutant::Around(_) => None,
        }
    }

    /// Breaks its rule on this thread until the returned value is dropped. The world breaks the rules outside the
    /// cores.
    ///
    /// # Panics
    /// In a build whose cores cannot be broken: see `tools/mutants`.
    #[must_use]
    pub fn breaks(self) -> Option<Broken> {
        self.rule().map(broken)
    }
}

/// While it exists, a rule of the cores is broken on this thread.
#[cfg(rotacast_mutants)]
pub type Broken = rotacast_protocol::mutation::Broken;
/// Does not exist: this build's cores are those that ship.
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

/// Rules whose absence alone shows nothing, with the rule that stands behind each.
pub const COVERED: [(Mutant, &str); 6] = [
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
        "the usage evidence only counts from a seal on, and the wait for self-leases is counted from it",
    ),
    (
        Mutant::Leader(Rule::RegisteredOnly),
        "only an incarnation that is entered has a challenge, and a Sync that echoes none has no effect (ChallengeEchoed)",
    ),
    (
        Mutant::Leader(Rule::LiveOnly),
        "since a registration alone proves nothing (ProvenOnly), the order of a listing does no harm",
    ),
    (
        Mutant::Around(Around::EntryComparesKey),
        "what a deposed leader enters gets no lease from it: it grants none once its own time is over (Leads)",
    ),
];

impl Mutant {
    /// Why its absence shows nothing, if it does not.
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
