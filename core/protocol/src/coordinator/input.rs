//! What can happen to a secret, as its leader sees it.

use super::{CommandKind, Order};
use crate::id::{InstanceKey, ReportSequence, Revision, Version};
use crate::message::SecretReport;
use crate::name::OperatorName;
use crate::policy::Policy;
use crate::record::{Origin, RetireStep, Unproven};
use crate::time::Instant;

/// What a provider's usage reading says.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Evidence {
    /// The provider cannot tell.
    None,
    /// These sessions are live, in words.
    Sessions(Vec<String>),
    /// Who uses it is unknown, which is no evidence of disuse: why, and what ends that, in words.
    Unavailable(String),
}

/// What lets a command that fails succeed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Cure {
    /// Trying it again, perhaps after a repair elsewhere.
    Time,
    /// The end of the live sessions that it waits for.
    SessionsEnd,
    /// Nothing but an operator: it is refused for what is asked.
    Operator,
}

/// Why a command failed, in words without values.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Failed {
    pub problem: String,
    pub cure: Cure,
}

/// It may work later, by itself.
impl<T: Into<String>> From<T> for Failed {
    fn from(problem: T) -> Self {
        Self { problem: problem.into(), cure: Cure::Time }
    }
}

/// Something that happened.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Input {
    /// Time has passed, or the state has changed: go on with whatever can go on.
    Tick,
    /// The leadership was renewed.
    LeadershipExtended {
        /// Until when it is valid.
        until: Instant,
    },
    /// A version was read from the store; in order, without gaps, maybe doubled.
    VersionSeen { version: Version },
    /// A managed credential exists and its value is in the store.
    Created {
        version: Version,
        /// Whose value is in the store: another client may have taken the number.
        origin: Origin,
    },
    /// The test login worked.
    Verified { version: Version },
    /// The test login was refused for good.
    VerifyFailed {
        version: Version,
        /// Why, in words, without the value.
        reason: String,
    },
    /// A registration that names this secret.
    Registered {
        key: InstanceKey,
        /// At most one life holds the name at a time.
        exclusive: bool,
        /// It was published just now; not part of a listing, whose order proves nothing.
        live: bool,
    },
    /// The roster was read to its end as it stood at this leader's takeover, and all that was found has been input.
    RosterRead,
    /// An instance has left for good.
    Left { key: InstanceKey },
    /// A report, over the bus.
    Report { key: InstanceKey, sequence: ReportSequence, report: SecretReport },
    /// A Sync: a report that asks for leases.
    Sync { key: InstanceKey, sequence: ReportSequence, report: SecretReport },
    /// The provider's usage reading.
    UsageRead {
        version: Version,
        /// When it was asked for.
        sent: Instant,
        evidence: Evidence,
    },
    /// The intent to retire is durable in the audit log.
    Audited {
        version: Version,
        /// The record's revision when the entry was asked for: the seal must not be younger.
        revision: Revision,
    },
    /// A step past the point of no return is done.
    StepDone { version: Version, step: RetireStep },
    /// A step past the point of no return is over without having ended anything at the provider.
    LeftAlone { version: Version, step: RetireStep, why: Unproven },
    /// The desired state is on the bus.
    Published {
        /// Up to which revision.
        revision: Revision,
    },
    /// A command failed and will be tried again.
    Troubled { command: CommandKind, failed: Failed },
    /// The wall clock was read: the record may have times that are later.
    ClockRead,
    /// The store is another one than before, or went back in time.
    StoreWentBack { reason: String },
    /// An operator's order, checked for who gave it.
    Operator { by: OperatorName, order: Order },
    /// The configuration has changed.
    PolicyChanged(Box<Policy>),
}
