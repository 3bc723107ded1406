//! What can go wrong, by name: counted, and left out one by one when a failing world is shrunk to a short story.

use std::collections::{BTreeMap, BTreeSet};

/// A kind of fault, or of interference.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[allow(missing_docs)]
pub enum Fault {
    /// A message, a request or an answer is lost.
    Lost,
    /// A message arrives twice.
    Doubled,
    /// A message takes seconds, and so is overtaken.
    Slow,
    /// A step of the service fails; whether it did something all the same is not known.
    StepFails,
    /// A step of the service takes seconds.
    StepSlow,
    /// A connection outlives everything the service says about it; only the provider sees it.
    LeakedSession,
    LeaderKilled,
    /// SIGSTOP, or a suspended machine.
    LeaderStopped,
    /// A broadcaster without the store.
    LeaderCutOff,
    InstanceKilled,
    /// Stopped or suspended.
    InstanceStopped,
    /// An instance without any broadcaster.
    InstanceCutOff,
    /// An instance that reaches one broadcaster only.
    HalfCutOff,
    StoreCutOff,
    BusCutOff,
    /// Without broadcaster, store and bus.
    Alone,
    /// An instance that is heard and hears no answer.
    Deaf,
    /// Answers of broadcasters to it take most of a second.
    LateAnswers,
    /// A second process under the same name.
    Twin,
    /// An operator excuses an instance.
    Excused,
    /// An operator lets the retires under way cut an instance off.
    Overridden,
    /// An operator pastes a `gone` that is offered, whether or not that process runs.
    SaidGone,
    /// An operator pastes an `abandon` that is offered.
    GivenUp,
    Joiner,
    /// A clean leave, and a new instance in its place.
    Rolled,
    Leaves,
    /// A registration that is under way for seconds, longer than its process may live.
    LateRegistration,
    /// Broadcasters cannot read the roster.
    RosterLate,
    /// The roster loses its end, as after a power loss.
    RosterCutBack,
    /// All streams are deleted and made anew.
    StreamsRecreated,
    /// Half of the instances are shown an old log of states.
    OldLog,
    NewVersion,
    /// A version that the provider makes.
    ManagedVersion,
    /// A version whose test login fails.
    BadVersion,
    /// The watch shows a version and has lost the one before it.
    WatchGap,
    Order,
    Rollback,
    PolicyChanged,
    /// The store is restored from a backup, and that is noticed.
    StoreRestored,
    /// The audit log's disk takes nothing.
    AuditFull,
    /// The audit log's disk takes its time, and then takes the entry.
    AuditSlow,
    StoreReadOnly,
    /// The provider does a part, or everything, and the answer is an error.
    ProviderHalf,
    /// Somebody deletes a credential at the provider.
    CredentialDeleted,
    /// The provider's section is taken out of the configuration for a while.
    ProviderAway,
    WallClockStep,
    /// The leader's key is taken away although its holder lives.
    KeyLost,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 47] = [
        Fault::Lost,
        Fault::Doubled,
        Fault::Slow,
        Fault::StepFails,
        Fault::StepSlow,
        Fault::LeakedSession,
        Fault::LeaderKilled,
        Fault::LeaderStopped,
        Fault::LeaderCutOff,
        Fault::InstanceKilled,
        Fault::InstanceStopped,
        Fault::InstanceCutOff,
        Fault::HalfCutOff,
        Fault::StoreCutOff,
        Fault::BusCutOff,
        Fault::Alone,
        Fault::Deaf,
        Fault::LateAnswers,
        Fault::Twin,
        Fault::Excused,
        Fault::Overridden,
        Fault::SaidGone,
        Fault::GivenUp,
        Fault::Joiner,
        Fault::Rolled,
        Fault::Leaves,
        Fault::LateRegistration,
        Fault::RosterLate,
        Fault::RosterCutBack,
        Fault::StreamsRecreated,
        Fault::OldLog,
        Fault::NewVersion,
        Fault::ManagedVersion,
        Fault::BadVersion,
        Fault::WatchGap,
        Fault::Order,
        Fault::Rollback,
        Fault::PolicyChanged,
        Fault::StoreRestored,
        Fault::AuditFull,
        Fault::AuditSlow,
        Fault::StoreReadOnly,
        Fault::ProviderHalf,
        Fault::CredentialDeleted,
        Fault::ProviderAway,
        Fault::WallClockStep,
        Fault::KeyLost,
    ];
}

/// One fault of a run: the so-and-so-many-th of its kind.
pub type Strike = (Fault, u64);

/// What is left out of a run.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Whole kinds.
    pub without: BTreeSet<Fault>,
    /// Single ones.
    pub dropped: BTreeSet<Strike>,
}

/// How often each kind struck.
pub type Struck = BTreeMap<Fault, u64>;

/// When a scripted fault strikes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// So many nanoseconds after the beginning.
    At(u64),
    /// When a rotation away from a version enters this phase for the first time.
    Phase(rotacast_protocol::Phase),
    /// When a version is sealed for the first time.
    Sealed,
    /// When the audit log is asked for the intent to retire for the first time.
    Auditing,
    /// When the provider is asked to disable for the first time.
    Disabling,
}

/// A fault of a script: a world that is told what goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Act {
    pub when: When,
    /// So many nanoseconds after that.
    pub after: u64,
    pub fault: Fault,
    /// To which broadcaster or instance; beyond the last: to the leader, to a random one.
    pub target: usize,
    /// For how long, in nanoseconds.
    pub length: u64,
}
