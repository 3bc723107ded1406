//! What the API front asks of the broadcaster behind it.

use async_trait::async_trait;
use futures::stream::BoxStream;
use rotacast_proto::{SecretValue, v1};
use rotacast_protocol::coordinator::{InvalidOrder, Order, Reason};
use rotacast_protocol::status::{BroadcasterStatus, InstanceStatus, SecretStatus};
use rotacast_protocol::{Epoch, OperatorName, RotationNumber, SecretName, Version};

use super::Refusal;
use crate::audit::{Entry, OrderProof};
use crate::operators::{OrderKind, Warrant};

/// What an operator wants done with a secret, checked.
pub struct OperatorCommand {
    /// With which secret.
    pub secret: SecretName,
    pub action: Action,
    /// What shows that the operator wants it.
    pub proof: OrderProof,
    /// By what right, and why.
    pub warrant: Warrant,
}

/// An operator's order about the audit log of the broadcaster that takes it: entries are lost, and it goes on.
pub struct AcceptedLoss {
    /// Which doubt the operator has seen.
    pub doubt: String,
    /// Why; it goes on record.
    pub reason: Reason,
    /// What shows that the operator wants it.
    pub proof: OrderProof,
    /// By what right.
    pub warrant: Warrant,
}

/// An order, or the one thing that is none: a value to write. No `Debug`, since that is not to be printed.
pub enum Action {
    /// Write the next version.
    Put(SecretValue),
    /// Any other.
    Order(Order),
}

impl Action {
    /// Which order it is.
    #[must_use]
    pub fn kind(&self) -> OrderKind {
        match self {
            Action::Put(_) => OrderKind::Put,
            Action::Order(order) => OrderKind::Secret(order.name()),
        }
    }

    /// The action's name, for logs and the audit log.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.kind().as_str()
    }
}

impl From<InvalidOrder> for Refusal {
    fn from(error: InvalidOrder) -> Self {
        Refusal::Invalid(error.to_string())
    }
}

/// What came of a command.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct CommandReply {
    /// The version a put or rotate made.
    pub version: Option<Version>,
    /// The number of the rotation it started.
    pub number: Option<RotationNumber>,
}

/// Who runs what.
pub struct Instances {
    /// Of every secret that has answered.
    pub found: Vec<InstanceStatus>,
    /// The others, whose instances are missing in the list.
    pub unanswered: Vec<SecretName>,
}

/// The broadcaster, as operators and tools see it.
///
/// The front has parsed every name and number and authenticated the operator by then; what is left to
/// refuse is what depends on state.
#[async_trait]
pub trait Control: Send + Sync + 'static {
    /// One secret's status, or every secret's.
    ///
    /// # Errors
    /// [`Refusal`]: an unknown secret, or state that is not there yet.
    async fn status(&self, secret: Option<SecretName>) -> Result<BroadcasterStatus, Refusal>;

    /// About the broadcaster itself: [`Control::status`] without secrets.
    async fn broadcaster(&self) -> BroadcasterStatus;

    /// The term in which it leads. Orders given in another are not for it: the leader of that term may have taken them.
    ///
    /// # Errors
    /// [`Refusal::NotLeader`]: nothing was done, and nothing remembered of the command.
    async fn term(&self) -> Result<Epoch, Refusal>;

    /// The status of every matching secret, then one again whenever it changes. A listener that falls
    /// behind may be given only the newest; the stream ends when the broadcaster shuts down.
    fn watch(&self, secret: Option<SecretName>) -> BoxStream<'static, Result<SecretStatus, Refusal>>;

    /// Who runs what. With `not_on`: only those that hold or have reached another version. Of all secrets, those that do not
    /// answer are named.
    ///
    /// # Errors
    /// [`Refusal`]: an unknown secret, or state that is not there yet.
    async fn instances(&self, secret: Option<SecretName>, not_on: Option<Version>) -> Result<Instances, Refusal>;

    /// Does what an operator asks. When this returns, it is durable.
    ///
    /// # Errors
    /// [`Refusal`]: nothing was changed (except that after [`Refusal::Unavailable`] it may have been).
    async fn command(&self, operator: OperatorName, command: OperatorCommand) -> Result<CommandReply, Refusal>;

    /// Writes an entry into the audit log. It is durable when this returns.
    ///
    /// # Errors
    /// [`Refusal`]: the log takes no entries.
    async fn put_on_record(&self, entry: Entry) -> Result<(), Refusal>;

    /// Takes up the audit log behind entries that are lost. The entry that says so is durable when this returns.
    ///
    /// # Errors
    /// [`Refusal`]: the log is not in that doubt.
    async fn accept_audit_loss(&self, operator: OperatorName, loss: AcceptedLoss) -> Result<(), Refusal>;

    /// What is well and what is not, in store, bus, providers and configuration.
    async fn doctor(&self) -> v1::DoctorReply;
}
