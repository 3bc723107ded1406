//! One instance: a task that answers every announced state with "switched".

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::stream::BoxStream;
use rotacast_bus::{BusError, BusEvent, InstanceBus};
use rotacast_clock as clock;
use rotacast_proto::{Envelope, InstanceIdentity, SigningKey, WireMessage as _};
use rotacast_protocol::message::{InstanceReport, SecretReport, SecretState, Stage};
use rotacast_protocol::{InstanceKey, LeaseSequence, ReportSequence, ServiceName};

use super::carrier::cluster;

pub(super) const SERVICES: usize = 20;

/// The instances of the round; each number has its own key.
pub(super) fn identity_of(number: usize) -> InstanceIdentity {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&(number as u64).to_be_bytes());
    let (service, instance) = (service_of(number), format!("pod-{number}").parse().unwrap());
    InstanceIdentity::with_key(SigningKey::from_seed(&seed), cluster(), service, instance, &service_key(number))
}

pub(super) fn key_of(number: usize) -> InstanceKey {
    identity_of(number).key().clone()
}

pub(super) fn service_of(number: usize) -> ServiceName {
    format!("service-{}", number % SERVICES).parse().unwrap()
}

pub(super) fn service_key(number: usize) -> SigningKey {
    SigningKey::from_seed(&[u8::try_from(number % SERVICES).unwrap() + 1; 32])
}

pub(super) fn broadcaster_key() -> SigningKey {
    SigningKey::from_seed(&[200; 32])
}

/// When the last event of a kind happened, in nanoseconds since `base`.
pub(super) struct Latest {
    base: Instant,
    at: AtomicU64,
}

impl Latest {
    fn now(&self) {
        let nanos = u64::try_from(self.base.elapsed().as_nanos()).unwrap();
        self.at.fetch_max(nanos, Ordering::Relaxed);
    }

    pub(super) fn since(&self, began: Instant) -> Duration {
        (self.base + Duration::from_nanos(self.at.load(Ordering::Relaxed))).duration_since(began)
    }
}

/// The last moments of one round's steps.
pub(super) struct Stations {
    pub(super) received: Latest,
    pub(super) sent: Latest,
}

impl Stations {
    pub(super) fn new() -> Self {
        let base = Instant::now();
        let latest = || Latest { base, at: AtomicU64::new(0) };
        Self { received: latest(), sent: latest() }
    }
}

/// Answers until the states end.
pub(super) async fn run(
    mut voice: Voice,
    bus: Arc<dyn InstanceBus>,
    mut states: BoxStream<'static, Result<BusEvent, BusError>>,
    stations: Arc<Stations>,
) {
    while let Some(event) = states.next().await {
        let BusEvent::Message(envelope) = event.unwrap() else { continue };
        stations.received.now();
        let report = voice.switched(&envelope);
        bus.report(voice.identity.key(), &report).await.unwrap();
        stations.sent.now();
    }
}

/// The answer of one instance.
pub(super) struct Voice {
    identity: InstanceIdentity,
    trusted: SigningKey,
    sequence: u64,
}

impl Voice {
    pub(super) fn of(number: usize) -> Self {
        Self { identity: identity_of(number), trusted: broadcaster_key(), sequence: 1 }
    }

    /// Checks a state, and signs the report that it was switched to.
    pub(super) fn switched(&mut self, envelope: &Envelope) -> Envelope {
        let state = SecretState::open(envelope, &cluster(), |_, _| Some(self.trusted.public())).unwrap();
        let (old, new) = (state.previous.unwrap(), state.current.unwrap());
        self.sequence += 1;
        let part = SecretReport {
            generation: state.generation,
            revision: state.revision,
            reached: Some((new, Stage::Switched)),
            held: BTreeSet::from([old, new]),
            lease: LeaseSequence(0),
            failure: None,
            auth_failures: BTreeMap::new(),
        };
        let report = InstanceReport {
            key: self.identity.key().clone(),
            sequence: ReportSequence(self.sequence),
            secrets: BTreeMap::from([(state.secret, part)]),
        };
        let id = format!("{}:{}", report.key.incarnation, self.sequence);
        self.identity.seal(&report, id, clock::wall())
    }
}
