//! What the API front asks of the broadcaster behind it.

use async_trait::async_trait;
use futures::stream::BoxStream;
use rotacast_proto::{SecretValue, v1};
use rotacast_protocol::{Epoch, Generation, InstanceKey, OperatorName, SecretName, Version};

use super::Refusal;

/// What an operator wants done, checked.
pub struct OperatorCommand {
    /// With which secret.
    pub secret: SecretName,
    /// Why; may be empty where the action does not need one.
    pub reason: String,
    pub action: Action,
}

/// The actions. No `Debug`: [`Action::Put`] holds a value.
pub enum Action {
    /// Write the next version.
    Put(SecretValue),
    /// Make a new version and rotate to it.
    Rotate,
    /// Block irreversible steps.
    Pause,
    /// Lift the pause.
    Resume,
    /// Allow the activation.
    Approve,
    /// Go back to the old version.
    RollBack,
    /// Let a retire cut these off. The reason is never empty.
    Override {
        /// Whose retire.
        version: Version,
        /// Who is cut off.
        instances: Vec<InstanceKey>,
        /// Whether the provider's live sessions are cut off too.
        sessions: bool,
    },
    /// Do not wait for an instance to prepare or switch.
    Excuse(InstanceKey),
    /// The store was looked at; go on.
    LeaveSafeMode,
}

impl Action {
    /// The action's name, for logs and the audit log.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Action::Put(_) => "put",
            Action::Rotate => "rotate",
            Action::Pause => "pause",
            Action::Resume => "resume",
            Action::Approve => "approve",
            Action::RollBack => "rollback",
            Action::Override { .. } => "override",
            Action::Excuse(_) => "excuse",
            Action::LeaveSafeMode => "leave_safe_mode",
        }
    }
}

/// What came of a command.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct CommandReply {
    /// The version a put or rotate made.
    pub version: Option<Version>,
    /// The generation of the rotation it started.
    pub generation: Option<Generation>,
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
    async fn status(&self, secret: Option<SecretName>) -> Result<v1::StatusReply, Refusal>;

    /// About the broadcaster itself: [`Control::status`] without secrets.
    async fn broadcaster(&self) -> v1::StatusReply;

    /// The term in which it leads. Commands given in another are not for it: whoever led then may have taken them.
    ///
    /// # Errors
    /// [`Refusal::NotLeader`]: nothing was done, and nothing remembered of the command.
    async fn term(&self) -> Result<Epoch, Refusal>;

    /// The status of every matching secret, then one again whenever it changes. A listener that falls
    /// behind may be given only the newest; the stream ends when the broadcaster shuts down.
    fn watch(&self, secret: Option<SecretName>) -> BoxStream<'static, Result<v1::SecretStatus, Refusal>>;

    /// Who runs what. With `not_on`: only those that hold or have reached another version.
    ///
    /// # Errors
    /// [`Refusal`]: an unknown secret, or state that is not there yet.
    async fn instances(
        &self,
        secret: Option<SecretName>,
        not_on: Option<Version>,
    ) -> Result<v1::InstancesReply, Refusal>;

    /// Does what an operator asks. When this returns, it is durable.
    ///
    /// # Errors
    /// [`Refusal`]: nothing was changed (except that after [`Refusal::Unavailable`] it may have been).
    async fn command(&self, operator: OperatorName, command: OperatorCommand) -> Result<CommandReply, Refusal>;

    /// What is well and what is not, in store, bus, providers and configuration.
    async fn doctor(&self) -> v1::DoctorReply;
}
