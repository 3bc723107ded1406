//! Signed messages to send.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rotacast_proto::{Envelope, Kind, SigningKey, VerifyingKey};
use rotacast_protocol::{ClusterName, Incarnation, InstanceKey, InstanceName, SecretName, ServiceName, WallTime};

use crate::BusError;
use crate::feed::{next_pause, pauses};

pub(super) struct Sample {
    key: SigningKey,
    cluster: ClusterName,
    next: AtomicU64,
}

impl Sample {
    pub(super) fn new() -> Self {
        let cluster = ClusterName::new("conformance").unwrap();
        Self { key: SigningKey::from_seed(&[7; 32]), cluster, next: AtomicU64::new(1) }
    }

    pub(super) fn sign(&self, kind: Kind, subject: &str, payload: impl Into<Bytes>) -> Envelope {
        let id = format!("id-{}", self.next.fetch_add(1, Ordering::Relaxed));
        let time = WallTime(1_790_000_000_123);
        Envelope::sign(&self.key, kind, &self.cluster, subject, id, time, payload.into())
    }

    pub(super) fn state(&self, secret: &SecretName, payload: impl Into<Bytes>) -> Envelope {
        self.sign(Kind::SecretState, secret.as_str(), payload)
    }

    pub(super) fn registration(&self, key: &InstanceKey, payload: impl Into<Bytes>) -> Envelope {
        self.sign(Kind::Registration, &subject(key), payload)
    }

    pub(super) fn report(&self, key: &InstanceKey, payload: impl Into<Bytes>) -> Envelope {
        self.sign(Kind::InstanceReport, &subject(key), payload)
    }

    pub(super) fn request(&self, key: &InstanceKey, payload: impl Into<Bytes>) -> Envelope {
        self.sign(Kind::SyncRequest, &subject(key), payload)
    }

    /// The answer to a request: each request has a different one.
    pub(super) fn reply(&self, request: &Envelope) -> Envelope {
        let mut payload = b"re: ".to_vec();
        payload.extend_from_slice(&request.payload);
        self.sign(Kind::SyncReply, &request.subject, payload)
    }

    pub(super) fn assert_verifies(&self, envelope: &Envelope, kind: Kind) {
        let public: &VerifyingKey = self.key.public();
        envelope.verify(kind, &self.cluster, |id| (id == public.id().as_str()).then_some(public)).unwrap();
    }
}

pub(super) fn subject(key: &InstanceKey) -> String {
    format!("{}/{}/{}", key.service, key.instance, key.incarnation)
}

pub(super) fn secret(name: &str) -> SecretName {
    SecretName::new(name).unwrap()
}

pub(super) fn life(number: u128) -> InstanceKey {
    instance("payments-api", "pod-1", number)
}

pub(super) fn instance(service: &str, instance: &str, number: u128) -> InstanceKey {
    InstanceKey::new(ServiceName::new(service).unwrap(), InstanceName::new(instance).unwrap(), Incarnation(number))
}

/// A call that has not succeeded after this long fails for good.
const HANG: Duration = Duration::from_secs(90);

/// Repeats a call while the bus says that a retry may help, as callers of the bus do.
pub(super) async fn persist<T>(call: impl AsyncFn() -> Result<T, BusError>) -> T {
    persist_outcome(call).await.unwrap_or_else(|problem| panic!("{problem:?}"))
}

/// The same, and returns any other error.
pub(super) async fn persist_outcome<T>(call: impl AsyncFn() -> Result<T, BusError>) -> Result<T, BusError> {
    let begun = Instant::now();
    // As long as an instance pauses: a thousand callers that repeat every few milliseconds keep a slow server from
    // answering.
    let mut row = pauses();
    loop {
        match call().await {
            // A pause between attempts. The loop ends when the call succeeds.
            Err(problem) if problem.is_transient() => {
                assert!(begun.elapsed() < HANG, "still no success after {HANG:?}: {problem:?}");
                tokio::time::sleep(next_pause(&mut row)).await;
            }
            outcome => return outcome,
        }
    }
}

/// How often a case repeats its step: more in `tools/test --long`.
pub(super) fn usual<T>(ordinary: T, long: T) -> T {
    if std::env::var_os("ROTACAST_LONG").is_some() { long } else { ordinary }
}
