//! The bus seam: the instance's side, and what both sides have in common.

use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use rotacast_proto::{Envelope, MAX_PAYLOAD_BYTES};
use rotacast_protocol::{InstanceKey, SecretName};

use crate::BusError;

/// What a subscription to a compacted log tells.
// Nearly every event is a message, so that boxing it would cost an allocation and save nothing.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BusEvent {
    /// The last message of a key, or a newer one. May be doubled or late.
    Message(Envelope),
    /// Everything that was in the log when the subscription began (or began anew) has been delivered.
    CaughtUp,
    /// Continuity was lost (reconnect, recreated stream, dropped as a slow consumer): the last message of
    /// every key follows once more, then `CaughtUp`.
    Resync,
}

/// The instance's side. Of the contract of `LeaderBus`, of feature `leader`, what concerns it.
#[async_trait]
pub trait InstanceBus: Send + Sync + 'static {
    /// What and where it is, for people.
    fn describe(&self) -> String;

    /// Makes a registration (or leave) durable.
    async fn register(&self, key: &InstanceKey, registration: &Envelope) -> Result<(), BusError>;

    /// Publishes a report; soft, returns when it is sent.
    async fn report(&self, key: &InstanceKey, report: &Envelope) -> Result<(), BusError>;

    /// The desired states of these secrets: the last of each, `CaughtUp`, then every newer one.
    fn watch_states(&self, secrets: &[SecretName]) -> BoxStream<'static, Result<BusEvent, BusError>>;

    /// One Sync with the leader. `Err(NoLeader)` when no leader answers within `timeout`.
    async fn sync(&self, request: &Envelope, timeout: Duration) -> Result<Envelope, BusError>;
}

/// How long one call to a bus may take, retries included. Far above a healthy bus's milliseconds.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Largest message a bus takes, in bytes, attributes included: the contract's largest payload (512 KiB), and
/// room for eight attributes of the contract's largest size, one of them in base64, and their names. Every
/// implementation refuses more with `TooLarge` before sending; it stays below every server's own default
/// (NATS 1 MiB, gRPC 4 MiB).
pub const MAX_MESSAGE_BYTES: usize = MAX_PAYLOAD_BYTES + 8 * 1024;

/// Largest registration, in bytes, attributes included: 256 secrets with names of 128 bytes have 34 KiB. A bus that can
/// refuse a larger one does, so that a stream of registrations cannot be filled by a few.
pub const MAX_REGISTRATION_BYTES: usize = 64 * 1024;

/// How large a message is on the wire, attributes included, in bytes. A close upper estimate: signature and
/// header names are counted as a bus with text headers writes them.
#[cfg_attr(not(any(feature = "embedded", feature = "grpc", feature = "nats")), allow(dead_code))]
pub(crate) fn message_bytes(envelope: &Envelope) -> usize {
    // Names, separators, specversion and content type of `Envelope::headers`.
    const HEADER_NAMES: usize = 256;
    let text = [
        &envelope.id,
        &envelope.kind,
        &envelope.source,
        &envelope.subject,
        &envelope.time,
        &envelope.traceparent,
        &envelope.key_id,
        &envelope.attestation,
    ];
    HEADER_NAMES
        + text.iter().map(|part| part.len()).sum::<usize>()
        + envelope.signature.len().div_ceil(3) * 4
        + envelope.payload.len()
}

/// Refuses a message beyond `limit` bytes.
#[cfg_attr(not(any(feature = "embedded", feature = "grpc", feature = "nats")), allow(dead_code))]
pub(crate) fn check_size(envelope: &Envelope, limit: usize, endpoint: &str) -> Result<(), BusError> {
    let found = message_bytes(envelope);
    if found > limit {
        return Err(BusError::TooLarge { endpoint: endpoint.to_owned(), found, limit });
    }
    Ok(())
}
