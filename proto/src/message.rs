//! Between protobuf and the validated types of `rotacast-protocol`.

mod fetch;
mod field;
mod order;
mod registration;
mod report;
mod state;
mod status;
mod sync;

use bytes::Bytes;
use rotacast_protocol::message::{FetchRequest, InstanceReport, Registration, SyncRequest};
use rotacast_protocol::{ClusterName, WallTime};

use crate::envelope::{Envelope, EnvelopeError, Kind};
use crate::key::{SigningKey, VerifyingKey};

pub use field::{FieldError, MAX_DURATION, instance_subject};
pub use order::{MAX_OVERRIDDEN, OrderError, order_from_wire};
pub use report::MAX_AUTH_FAILURE_VERSIONS;
pub use state::MAX_SEALED_VERSIONS;
pub use sync::{MAX_CLUSTER_KEYS, MAX_LEASED_VERSIONS, ReplyWithKeys, SyncWithKeys};

/// A message of the contract, in its validated form.
///
/// Implemented for `Registration`, `SecretState`, `InstanceReport`, `SyncRequest`, `SyncReply` and
/// `FetchRequest` of [`rotacast_protocol::message`].
pub trait WireMessage: Sized {
    /// Its type on the wire.
    const KIND: Kind;

    /// What it is about: the secret's name, or `service/instance/incarnation`. Signed with it.
    fn subject(&self) -> String;

    /// As protobuf. Durations become whole milliseconds, rounded down, so that an instance never reads a
    /// longer one than the leader waits for.
    fn encode(&self) -> Bytes;

    /// From protobuf, checking every name, number and bound.
    ///
    /// # Errors
    /// [`EnvelopeError::Malformed`] says which field, without its contents.
    fn decode(payload: &Bytes) -> Result<Self, EnvelopeError>;

    /// Signs it. `id` must be the same for every retry of one message.
    fn seal(&self, key: &SigningKey, cluster: &ClusterName, id: impl Into<String>, time: WallTime) -> Envelope {
        Envelope::sign(key, Self::KIND, cluster, self.subject(), id, time, self.encode())
    }

    /// Checks an envelope and reads what it carries: type, cluster, size, signature, contents, and that
    /// its subject belongs to the contents. `find` names the key that may sign for `(key id, subject)`.
    ///
    /// # Errors
    /// [`EnvelopeError`], with expected and found.
    fn open<'k>(
        envelope: &Envelope,
        cluster: &ClusterName,
        find: impl FnOnce(&str, &str) -> Option<&'k VerifyingKey>,
    ) -> Result<Self, EnvelopeError> {
        let payload = envelope.verify(Self::KIND, cluster, |id| find(id, &envelope.subject))?;
        let message = Self::decode(payload)?;
        let expected = message.subject();
        if expected != envelope.subject {
            return Err(EnvelopeError::WrongSubject { expected, found: envelope.subject.chars().take(300).collect() });
        }
        Ok(message)
    }
}

/// A message that an instance sends: signed with the key of its incarnation by
/// [`InstanceIdentity`](crate::InstanceIdentity), opened with [`Sender`](crate::Sender).
pub trait InstanceMessage: WireMessage {}

impl InstanceMessage for Registration {}
impl InstanceMessage for InstanceReport {}
impl InstanceMessage for SyncRequest {}
impl InstanceMessage for SyncWithKeys {}
impl InstanceMessage for FetchRequest {}
