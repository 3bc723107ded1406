//! What a secret's task is sent.

use std::collections::BTreeSet;
use std::time::Duration;

use rotacast_protocol::coordinator::{Elsewhere, Input, Order, Rejection};
use rotacast_protocol::message::{SecretGrant, SecretReport};
use rotacast_protocol::status::{InstanceStatus, SecretStatus};
use rotacast_protocol::{InstanceKey, OperatorName, ReportSequence, RotationNumber, Version};
use tokio::sync::oneshot;

use super::secret_task::ValueFault;

/// Something for one secret's task.
pub enum Mail {
    /// Something happened.
    Input(Box<Input>),
    /// A Sync, whose sender waits for the answer.
    Sync {
        key: InstanceKey,
        /// The report's number.
        sequence: ReportSequence,
        /// This secret's part.
        report: SecretReport,
        /// Where the grant goes; nothing when the Sync was refused.
        reply: oneshot::Sender<Granted>,
    },
    /// An operator's order.
    Operator {
        /// Who, checked.
        by: OperatorName,
        order: Order,
        /// How it went.
        reply: oneshot::Sender<Result<OrderOutcome, Rejection>>,
    },
    /// Versions wait behind numbers that were never written.
    Gap {
        /// The first number that is missing.
        missing: Version,
        /// The first version behind it.
        found: Version,
    },
    /// No version waits behind such numbers any more.
    GapClosed,
    /// Something has happened to the stored value of a version.
    Value { version: Version, fault: ValueFault },
    /// The configuration was reloaded.
    Reconfigured,
    /// A question about the state that all earlier mail leads to.
    Question(Question),
}

/// A question about one secret, and where its answer goes.
pub enum Question {
    /// The highest number ever taken in: the next one must be above it.
    LastVersion(oneshot::Sender<Option<Version>>),
    /// The status as of now.
    Status(oneshot::Sender<SecretStatus>),
    /// Why an incarnation may be running, as far as this secret knows it; none: nothing speaks against saying that it is gone.
    MayBeRunning {
        /// Which one.
        instance: InstanceKey,
        /// What was heard for whatever secret.
        elsewhere: Elsewhere,
        /// The answer.
        reply: oneshot::Sender<Option<String>>,
    },
    /// The incarnations that need not be remembered: they are over, or out of reach and silent for at least this long.
    Expendable {
        /// How long.
        silent: Duration,
        /// The answer.
        reply: oneshot::Sender<BTreeSet<InstanceKey>>,
    },
    /// The instances that use it.
    Instances {
        /// Only those not on this version.
        not_on: Option<Version>,
        /// The answer.
        reply: oneshot::Sender<Vec<InstanceStatus>>,
    },
}

/// The answer to one secret's part of a Sync.
pub struct Granted {
    /// The grant.
    pub grant: SecretGrant,
    /// The trace context of the rotation that the grant's state is of; empty without one.
    pub traceparent: String,
}

/// What an operator's order led to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OrderOutcome {
    /// The rotation in flight, if any: its number and new version.
    pub rotation: Option<(RotationNumber, Version)>,
}
