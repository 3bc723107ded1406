//! A whole Rotacast in memory, for the tests of services: bus, broadcaster and store in one object.
//!
//! It keeps the instance's side of the protocol honest (signatures, leases, revisions) and leaves out the
//! broadcaster's: versions become current when [`FakeCluster::put`] says so, and nothing is retired.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use rotacast_bus::{BusError, BusEvent, InstanceBus};
use rotacast_proto::{Envelope, InstanceMessage, SecretValue, Sender, SigningKey, WireMessage};
use rotacast_protocol::message::{InstanceReport, Registration, SecretGrant, SecretState, SyncReply, SyncRequest};
use rotacast_protocol::{
    ClusterName, Epoch, Generation, InstanceKey, Instant, LeaseSequence, Revision, RotationId, SecretName, Version,
    WallTime,
};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

use crate::builder::Builder;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind};
use crate::source::ValueSource;
use crate::subscriber::Subscriber;

/// States a slow subscriber may lag behind before it is sent everything anew.
const STATE_BACKLOG: usize = 64;

/// A clock that follows tokio's, which tests can pause and advance.
pub struct TokioClock(tokio::time::Instant);

impl TokioClock {
    /// Begins at one hour, so that nothing underflows.
    #[must_use]
    pub fn new() -> Self {
        Self(tokio::time::Instant::now())
    }
}

impl Default for TokioClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Instant {
        Instant::ZERO + Duration::from_secs(3600) + self.0.elapsed()
    }
}

struct World {
    bus_up: bool,
    leader_up: bool,
    store_up: bool,
    lease: Duration,
    sequence: u64,
    states: BTreeMap<SecretName, SecretState>,
    values: BTreeMap<(SecretName, Version), Vec<u8>>,
    registrations: BTreeMap<InstanceKey, Registration>,
    /// Ids of registrations taken in: like a real bus, a second one of the same id is taken for a duplicate.
    taken_in: BTreeSet<String>,
    /// The next registrations are taken in, and the answer is lost.
    lost_answers: u32,
    /// The next registrations are taken in, and have no answer.
    hanging_answers: u32,
    reports: BTreeMap<InstanceKey, InstanceReport>,
    log: Vec<String>,
    /// See [`FakeCluster::set_traceparent`].
    traceparent: String,
}

/// Bus, broadcaster and store of one cluster. Clones share everything.
#[derive(Clone)]
pub struct FakeCluster {
    world: Arc<Mutex<World>>,
    published: broadcast::Sender<Envelope>,
    cluster: ClusterName,
    key: SigningKey,
    identity: SigningKey,
}

impl Default for FakeCluster {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeCluster {
    /// An empty one, with everything up and leases of 30 seconds.
    #[must_use]
    pub fn new() -> Self {
        let world = World {
            bus_up: true,
            leader_up: true,
            store_up: true,
            lease: Duration::from_secs(30),
            sequence: 0,
            states: BTreeMap::new(),
            values: BTreeMap::new(),
            registrations: BTreeMap::new(),
            taken_in: BTreeSet::new(),
            lost_answers: 0,
            hanging_answers: 0,
            reports: BTreeMap::new(),
            log: Vec::new(),
            traceparent: String::new(),
        };
        Self {
            world: Arc::new(Mutex::new(world)),
            published: broadcast::Sender::new(STATE_BACKLOG),
            cluster: ClusterName::new("test").expect("a valid name"),
            key: SigningKey::generate(),
            identity: SigningKey::generate(),
        }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A builder with names and keys that fit this cluster.
    #[must_use]
    pub fn builder(&self, service: &str) -> Builder {
        Subscriber::builder()
            .service(service)
            .instance("test-1")
            .cluster(self.cluster.as_str())
            .identity(self.identity.clone())
            .trust(self.key.public().clone())
    }

    /// A subscriber of this cluster.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a name that is not valid.
    pub fn subscriber(&self, service: &str) -> Result<Subscriber, Error> {
        self.builder(service).connect_with(self.bus(), self.values())
    }

    /// The instance's side of the bus.
    #[must_use]
    pub fn bus(&self) -> Arc<dyn InstanceBus> {
        Arc::new(self.clone())
    }

    /// The store.
    #[must_use]
    pub fn values(&self) -> Arc<dyn ValueSource> {
        Arc::new(self.clone())
    }

    /// Stores the next version of a secret and makes it current at once.
    ///
    /// # Panics
    /// If the name is not valid.
    pub fn put(&self, secret: &str, value: impl Into<Vec<u8>>) -> Version {
        let version = self.store(secret, value);
        self.change(secret, |state| {
            state.generation = state.generation.next();
            state.previous = state.current;
            state.current = Some(version);
            state.pending = None;
        });
        version
    }

    /// Stores the next version of a secret and asks all instances to prepare it.
    ///
    /// # Panics
    /// If the name is not valid.
    pub fn propose(&self, secret: &str, value: impl Into<Vec<u8>>) -> Version {
        let version = self.store(secret, value);
        self.change(secret, |state| {
            state.generation = state.generation.next();
            state.pending = Some(version);
        });
        version
    }

    fn store(&self, secret: &str, value: impl Into<Vec<u8>>) -> Version {
        let secret = SecretName::new(secret).expect("the test gives a valid name");
        let mut world = self.world();
        let last = world.values.keys().filter(|(name, _)| *name == secret).map(|(_, version)| *version).max();
        let version = last.map_or(Version::FIRST, Version::next);
        world.values.insert((secret, version), value.into());
        version
    }

    /// Writes the next desired state of a secret and publishes it, if the bus is up.
    ///
    /// # Panics
    /// If the name is not valid.
    pub fn change(&self, secret: &str, change: impl FnOnce(&mut SecretState)) {
        let secret = SecretName::new(secret).expect("the test gives a valid name");
        let mut world = self.world();
        let world = &mut *world;
        let state = world.states.entry(secret.clone()).or_insert_with(|| SecretState {
            secret,
            epoch: Epoch(1),
            revision: Revision(0),
            generation: Generation(0),
            rotation: None,
            phase: None,
            current: None,
            pending: None,
            previous: None,
            sealed: Default::default(),
            sync_interval: Duration::from_secs(10),
            self_lease: Duration::from_secs(10),
            max_use: Duration::from_secs(5),
            stay: false,
            lost_history: None,
        });
        state.revision = state.revision.next();
        change(state);
        let rotation = RotationId { secret: state.secret.clone(), generation: state.generation };
        state.rotation = Some(rotation).filter(|_| !world.traceparent.is_empty());
        let state = state.clone();
        let envelope = self.seal_state(world, &state);
        if world.bus_up {
            // No subscriber listens yet: each gets it when it begins to.
            drop(self.published.send(envelope));
        }
    }

    /// From here on every change is part of a rotation, and messages about it carry this W3C trace context, which the spans
    /// of the feature `otel` join.
    pub fn set_traceparent(&self, header: &str) {
        header.clone_into(&mut self.world().traceparent);
    }

    /// Publishes any envelope, signed by whomever.
    pub fn publish_raw(&self, envelope: Envelope) {
        drop(self.published.send(envelope));
    }

    /// The newest desired state of a secret.
    #[must_use]
    pub fn state(&self, secret: &str) -> Option<SecretState> {
        self.world().states.get(&SecretName::new(secret).ok()?).cloned()
    }

    fn seal_state(&self, world: &World, state: &SecretState) -> Envelope {
        Envelope { traceparent: world.traceparent.clone(), ..self.seal(state, &state.revision.to_string()) }
    }

    fn seal<M: WireMessage>(&self, message: &M, id: &str) -> Envelope {
        message.seal(&self.key, &self.cluster, id, WallTime(0))
    }

    /// Takes the bus away, or brings it back.
    pub fn set_bus_up(&self, up: bool) {
        self.world().bus_up = up;
    }

    /// Takes every broadcaster away, or brings one back.
    pub fn set_leader_up(&self, up: bool) {
        self.world().leader_up = up;
    }

    /// Takes the store away, or brings it back.
    pub fn set_store_up(&self, up: bool) {
        self.world().store_up = up;
    }

    /// How long leases are from now on.
    pub fn set_lease(&self, lease: Duration) {
        self.world().lease = lease;
    }

    /// Destroys a version's value.
    pub fn destroy(&self, secret: &str, version: Version) {
        self.world().values.retain(|(name, number), _| name.as_str() != secret || *number != version);
    }

    /// The newest report of every incarnation.
    #[must_use]
    pub fn reports(&self) -> Vec<InstanceReport> {
        self.world().reports.values().cloned().collect()
    }

    /// The last registration of every incarnation, or its leave.
    #[must_use]
    pub fn registrations(&self) -> Vec<Registration> {
        self.world().registrations.values().cloned().collect()
    }

    /// Takes in this many registrations without saying so.
    pub fn lose_answers(&self, count: u32) {
        self.world().lost_answers = count;
    }

    /// Takes in this many registrations and never answers.
    pub fn hang_answers(&self, count: u32) {
        self.world().hanging_answers = count;
    }

    /// Loses all registrations, as a bus may.
    pub fn forget_registrations(&self) {
        self.world().registrations.clear();
    }

    /// What instances have asked for so far, in order: `register`, `sync`, `read_state`, `read_value`.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.world().log.clone()
    }

    fn open<M: InstanceMessage>(&self, envelope: &Envelope) -> Result<M, BusError> {
        let checked = || {
            let sender = Sender::of(envelope, M::KIND, &self.cluster)?;
            sender.check_attestation(self.identity.public())?;
            sender.open()
        };
        checked().map_err(|error| BusError::Denied { endpoint: "memory".into(), problem: error.to_string() })
    }

    fn fold(&self, world: &mut World, report: InstanceReport) {
        let newest = world.reports.entry(report.key.clone()).or_insert_with(|| report.clone());
        if report.sequence > newest.sequence {
            *newest = report;
        }
    }

    fn bus_up(&self) -> Result<MutexGuard<'_, World>, BusError> {
        let world = self.world();
        if world.bus_up {
            Ok(world)
        } else {
            Err(BusError::Unreachable { endpoint: "memory".into(), problem: "it was taken away".into() })
        }
    }

    fn store_up(&self) -> Result<MutexGuard<'_, World>, Error> {
        let world = self.world();
        if world.store_up {
            Ok(world)
        } else {
            Err(Error::new(ErrorKind::Unreachable, "store memory cannot be reached: it was taken away", ""))
        }
    }
}

#[async_trait]
impl InstanceBus for FakeCluster {
    fn describe(&self) -> String {
        "memory".into()
    }

    async fn register(&self, key: &InstanceKey, registration: &Envelope) -> Result<(), BusError> {
        {
            let mut world = self.bus_up()?;
            let id = registration.id.clone();
            let registration = self.open::<Registration>(registration)?;
            world.log.push("register".into());
            if world.taken_in.insert(id) {
                world.registrations.insert(key.clone(), registration);
            }
            if world.lost_answers > 0 {
                world.lost_answers -= 1;
                return Err(BusError::Unreachable { endpoint: "memory".into(), problem: "the answer was lost".into() });
            }
            if world.hanging_answers == 0 {
                return Ok(());
            }
            world.hanging_answers -= 1;
        }
        std::future::pending().await
    }

    async fn report(&self, _key: &InstanceKey, report: &Envelope) -> Result<(), BusError> {
        let mut world = self.bus_up()?;
        let report = self.open::<InstanceReport>(report)?;
        self.fold(&mut world, report);
        Ok(())
    }

    fn watch_states(&self, secrets: &[SecretName]) -> BoxStream<'static, Result<BusEvent, BusError>> {
        let later = BroadcastStream::new(self.published.subscribe());
        let now: Vec<_> = match self.bus_up() {
            Ok(world) => {
                let wanted = secrets.iter().filter_map(|secret| world.states.get(secret));
                let states = wanted.map(|state| Ok(BusEvent::Message(self.seal_state(&world, state))));
                states.chain([Ok(BusEvent::CaughtUp)]).collect()
            }
            Err(error) => vec![Err(error)],
        };
        // A lagged subscriber hears of the next change, and by Sync of what it missed.
        let later = later.filter_map(async |envelope| envelope.ok().map(|envelope| Ok(BusEvent::Message(envelope))));
        futures::stream::iter(now).chain(later).boxed()
    }

    async fn sync(&self, request: &Envelope, _timeout: Duration) -> Result<Envelope, BusError> {
        let mut world = self.bus_up()?;
        if !world.leader_up {
            return Err(BusError::NoLeader { endpoint: "memory".into(), problem: "it was taken away".into() });
        }
        let request = self.open::<SyncRequest>(request)?;
        world.log.push("sync".into());
        let report = request.report;
        let unregistered = world.registrations.get(&report.key).is_none_or(|registration| registration.left);
        let mut secrets = BTreeMap::new();
        for (secret, reported) in &report.secrets {
            let Some(state) = world.states.get(secret).cloned() else { continue };
            world.sequence += 1;
            let asked = reported.held.iter().copied().chain(reported.reached.map(|(version, _)| version));
            let allowed = asked.filter(|version| !state.sealed.contains(version));
            let leases = allowed.map(|version| (version, world.lease)).collect();
            let leases = if unregistered { BTreeMap::new() } else { leases };
            let state = (reported.revision < state.revision).then_some(state);
            let grant = SecretGrant { sequence: LeaseSequence(world.sequence), leases, state };
            secrets.insert(secret.clone(), grant);
        }
        let reply = SyncReply {
            key: report.key.clone(),
            nonce: request.nonce,
            epoch: Epoch(1),
            covered: report.sequence,
            unregistered,
            unproven: false,
            challenge: None,
            secrets,
        };
        self.fold(&mut world, report);
        let traceparent = world.traceparent.clone();
        Ok(Envelope { traceparent, ..self.seal(&reply, &format!("{:x}", request.nonce.0)) })
    }
}

#[async_trait]
impl ValueSource for FakeCluster {
    fn describe(&self) -> String {
        "memory".into()
    }

    async fn read_state(&self, secret: &SecretName) -> Result<SecretState, Error> {
        let mut world = self.store_up()?;
        world.log.push("read_state".into());
        world.states.get(secret).cloned().ok_or_else(|| {
            Error::new(
                ErrorKind::NoSuchSecret,
                format!("secret {secret} has no record in memory"),
                "put its first version",
            )
        })
    }

    async fn read_value(&self, secret: &SecretName, version: Version) -> Result<SecretValue, Error> {
        let mut world = self.store_up()?;
        world.log.push("read_value".into());
        let value = world.values.get(&(secret.clone(), version)).cloned();
        value.map(SecretValue::new).ok_or_else(|| {
            Error::new(ErrorKind::NoSuchSecret, format!("secret {secret} has no version {version} in memory"), "")
        })
    }
}
