//! Faults by name: they are counted, and left out one by one when a failing world is shrunk to a short story.

use std::collections::{BTreeMap, BTreeSet};

/// A kind of fault, or of interference.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[allow(missing_docs)]
pub enum Fault {
    /// A message, a request or an answer is lost.
    Lost,
    /// A message arrives twice.
    Doubled,
    /// A message takes seconds, so later ones overtake it.
    Slow,
    /// A step of the service fails, and may have done something all the same.
    StepFails,
    /// A step of the service takes seconds.
    StepSlow,
    /// A connection stays open although the service says that it is closed. Only the provider sees it.
    LeakedSession,
    LeaderKilled,
    /// SIGSTOP, or a suspended machine.
    LeaderStopped,
    /// A broadcaster is cut off from the store.
    LeaderCutOff,
    InstanceKilled,
    /// Stopped or suspended.
    InstanceStopped,
    /// An instance is cut off from every broadcaster.
    InstanceCutOff,
    /// An instance reaches only one broadcaster.
    HalfCutOff,
    StoreCutOff,
    BusCutOff,
    /// An instance is cut off from broadcasters, store and bus.
    Alone,
    /// An instance is heard and gets no answer.
    Deaf,
    /// Answers of broadcasters to an instance take most of a second.
    LateAnswers,
    /// A second process under the same name.
    Twin,
    /// An operator excuses an instance.
    Excused,
    /// An operator's override lets the retires in flight cut an instance off.
    Overridden,
    /// An operator pastes a `gone` command that a blocker offers, whether or not that process runs.
    SaidGone,
    /// An operator pastes an `abandon` command that a blocker offers.
    GivenUp,
    Joiner,
    /// An instance leaves, and a new one starts in its place.
    Rolled,
    Leaves,
    /// A registration arrives after seconds, which may be after its process has ended.
    LateRegistration,
    /// Broadcasters can list no roster, and hear of no registration.
    RosterLate,
    /// The bus loses the last registrations, as after a power loss.
    RosterCutBack,
    /// All streams are deleted and made again.
    StreamsRecreated,
    /// Half of the instances receive old states again.
    OldLog,
    NewVersion,
    /// Rotacast makes a version.
    ManagedVersion,
    /// A version whose test login fails.
    BadVersion,
    /// The watch shows a version and has missed the one before it.
    WatchGap,
    Order,
    Rollback,
    PolicyChanged,
    /// The store is restored from a backup, and the broadcasters notice.
    StoreRestored,
    /// The audit log's disk accepts nothing.
    AuditFull,
    /// The audit log's disk is slow, and then accepts the entry.
    AuditSlow,
    StoreReadOnly,
    /// The provider does a part, or everything, and answers with an error.
    ProviderHalf,
    /// Another client deletes a credential at the provider.
    CredentialDeleted,
    /// The provider is removed from the configuration for a while.
    ProviderAway,
    WallClockStep,
    /// The leader's key is deleted although its holder runs.
    KeyLost,
    /// Another instance of the service lies about one, and sends again what it has sent.
    Forged,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 48] = [
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
        Fault::Forged,
    ];
}

/// One fault of a run: its kind, and its number among those of the kind.
pub type Strike = (Fault, u64);

/// The faults that are left out of a run.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Whole kinds.
    pub without: BTreeSet<Fault>,
    /// Single faults.
    pub dropped: BTreeSet<Strike>,
}

/// How often each kind struck.
pub type Struck = BTreeMap<Fault, u64>;

/// The moment at which a scripted fault strikes.
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
    /// When the provider is asked for the first time to disable a credential.
    Disabling,
}

/// A fault of a script.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Act {
    pub when: When,
    /// So many nanoseconds after that.
    pub after: u64,
    pub fault: Fault,
    /// The broadcaster or instance that it hits. Beyond the last number: the leader, or a random instance.
    pub target: usize,
    /// For how long, in nanoseconds.
    pub length: u64,
}
