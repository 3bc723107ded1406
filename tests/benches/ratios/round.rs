//! One round over NATS: a state is announced, and every instance has switched, as far as the leader knows.
//!
//! Rotacast's side is the real path: `LeaderBus::publish_state` of a signed state, `InstanceBus::watch_states` and
//! `report` of every instance with signatures checked and made, `LeaderBus::watch_reports`, `Identities`, and the
//! coordinator in a task of its own that takes in batches, as the driver has it. Instances are tasks of this process, each
//! with a connection of its own. Left out on both sides: the store's write before the announcement, and hooks of services.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::stream::BoxStream;
use rotacast::driver::{Identities, Service, Services};
use rotacast_bus::{BusError, BusEvent, InstanceBus, LeaderBus, NatsBus, NatsOptions, NatsStreams};
use rotacast_clock as clock;
use rotacast_proto::{Envelope, SigningKey, WireMessage};
use rotacast_protocol::coordinator::{Coordinator, Input, Tenure};
use rotacast_protocol::message::{InstanceReport, SecretReport, SecretState, Stage};
use rotacast_protocol::record::{SecretRecord, Timing};
use rotacast_protocol::{
    ClusterName, Epoch, Incarnation, InstanceKey, LeaseSequence, Phase, Policy, ReportSequence, Revision, SecretName,
    Version,
};
use rotacast_tests::servers::Nats;
use tokio::sync::mpsc;

use super::raw::{Raw, Signatures};
use super::{median, milliseconds};

const INSTANCES: usize = 1000;
const SERVICES: usize = 20;
/// Rounds before any counts: connections, caches and allocators warm up.
const WARM: usize = 5;
const ROUNDS: usize = 21;
/// As in the driver.
const MAILBOX: usize = 4096;
const BATCH: usize = 1024;

fn secret() -> SecretName {
    SecretName::new("payments/db").unwrap()
}

fn cluster() -> ClusterName {
    ClusterName::new("bench").unwrap()
}

fn key_of(number: usize) -> InstanceKey {
    InstanceKey {
        service: format!("service-{}", number % SERVICES).parse().unwrap(),
        instance: format!("pod-{number}").parse().unwrap(),
        incarnation: Incarnation(number as u128),
    }
}

fn service_key(number: usize) -> SigningKey {
    SigningKey::from_seed(&[u8::try_from(number % SERVICES).unwrap() + 1; 32])
}

/// When the last of something happened, in nanoseconds since `base`.
struct Latest {
    base: Instant,
    at: AtomicU64,
}

impl Latest {
    fn new(base: Instant) -> Self {
        Self { base, at: AtomicU64::new(0) }
    }

    fn now(&self) {
        let nanos = u64::try_from(self.base.elapsed().as_nanos()).unwrap();
        self.at.fetch_max(nanos, Ordering::Relaxed);
    }

    fn since(&self, began: Instant) -> Duration {
        (self.base + Duration::from_nanos(self.at.load(Ordering::Relaxed))).duration_since(began)
    }
}

/// The last moments of one round's stations.
struct Stations {
    received: Latest,
    sent: Latest,
}

/// How long one round took, and where the time went, each from the announcement to the last of its kind.
#[derive(Clone, Copy)]
struct Times {
    published: Duration,
    received: Duration,
    sent: Duration,
    read: Duration,
    all: Duration,
}

struct Rotacast {
    bus: NatsBus,
    reports: BoxStream<'static, Result<BusEvent, BusError>>,
    identities: Arc<Identities>,
    broadcaster: SigningKey,
    stations: Arc<Stations>,
    round: u64,
}

impl Rotacast {
    async fn start(url: &str) -> Self {
        let bus = NatsBus::connect(NatsOptions::new(url, cluster())).await.unwrap();
        let broadcaster = SigningKey::from_seed(&[200; 32]);
        let named = (0..SERVICES).map(|number| {
            let service = Service { key: service_key(number).public().clone(), secrets: vec!["*".parse().unwrap()] };
            (key_of(number).service, service)
        });
        let services = Services { named: named.collect(), anyone: None };
        let identities = Arc::new(Identities::new(cluster(), services));
        let mut reports = bus.watch_reports();
        assert_eq!(reports.next().await.unwrap().unwrap(), BusEvent::CaughtUp);
        let base = Instant::now();
        let stations = Arc::new(Stations { received: Latest::new(base), sent: Latest::new(base) });
        for number in 0..INSTANCES {
            let mut options = NatsOptions::new(url, cluster());
            options.streams = NatsStreams::Use;
            let connection = NatsBus::connect(options).await.unwrap();
            let mut states = connection.watch_states(&[secret()]);
            assert_eq!(states.next().await.unwrap().unwrap(), BusEvent::CaughtUp);
            let instance = Instance {
                key: key_of(number),
                signing: service_key(number),
                trusted: broadcaster.clone(),
                bus: connection,
                sequence: 1,
                stations: Arc::clone(&stations),
            };
            tokio::spawn(instance.run(states));
        }
        Self { bus, reports, identities, broadcaster, stations, round: 0 }
    }

    /// A rotation in which everybody is prepared, and which has just been activated: what is about to be announced.
    fn activated(&mut self) -> Coordinator {
        self.round += 1;
        let (now, policy) = (clock::now(), Policy::default());
        let mut record = SecretRecord::new(secret(), Epoch(self.round), Timing::of(&policy));
        // States are ordered by revision, and every round is later than the one before.
        record.revision = Revision(self.round * 1000);
        let valid_until = rotacast_protocol::Instant::from_nanos(u64::MAX);
        let tenure = Tenure { epoch: Epoch(self.round), since: now, valid_until };
        let mut coordinator = Coordinator::take_over(record, policy, tenure);
        let mut input = |input: Input| {
            take_in(&mut coordinator, input);
            settle(&mut coordinator);
        };
        let (first, second) = (Version::FIRST, Version::FIRST.next());
        input(Input::RosterRead);
        for version in [first, second] {
            if version == second {
                for number in 0..INSTANCES {
                    input(Input::Registered { key: key_of(number), exclusive: false, live: true });
                }
            }
            input(Input::VersionSeen { version });
            input(Input::Verified { version });
        }
        for number in 0..INSTANCES {
            let record = coordinator.record();
            let report = SecretReport {
                generation: record.generation,
                revision: record.revision,
                reached: Some((second, Stage::Prepared)),
                held: BTreeSet::from([first, second]),
                lease: LeaseSequence(0),
                failure: None,
                auth_failures: BTreeMap::new(),
            };
            take_in(&mut coordinator, Input::Report { key: key_of(number), sequence: ReportSequence(1), report });
        }
        settle(&mut coordinator);
        assert_eq!(phase(&coordinator), Some(Phase::Activating), "everybody is prepared");
        coordinator
    }

    async fn round(&mut self) -> Times {
        let mut coordinator = self.activated();
        let state = coordinator.record().state();
        let (mail, mut mailbox) = mpsc::channel::<Input>(MAILBOX);
        // The secret's own task, as the driver has it.
        let folding = tokio::spawn(async move {
            let mut inputs = Vec::new();
            while phase(&coordinator) == Some(Phase::Activating) {
                assert!(mailbox.recv_many(&mut inputs, BATCH).await > 0, "the reader goes on until all have switched");
                inputs.drain(..).for_each(|input| take_in(&mut coordinator, input));
                settle(&mut coordinator);
            }
            assert_eq!(phase(&coordinator), Some(Phase::Draining), "everybody has switched");
            Instant::now()
        });

        let began = Instant::now();
        let id = format!("{}:{}:{}", state.secret, state.epoch, state.revision);
        let envelope = state.seal(&self.broadcaster, &cluster(), id, clock::wall());
        let publishing = async {
            self.bus.publish_state(&state.secret, state.revision, &envelope).await.unwrap();
            began.elapsed()
        };
        let reports = &mut self.reports;
        let identities = &self.identities;
        let reading = async {
            let mut switched = 0;
            while switched < INSTANCES {
                let BusEvent::Message(envelope) = reports.next().await.unwrap().unwrap() else { continue };
                let report = identities.report(&envelope).unwrap();
                for (_, part) in report.secrets {
                    switched += usize::from(part.revision == state.revision);
                    let input = Input::Report { key: report.key.clone(), sequence: report.sequence, report: part };
                    mail.try_send(input).unwrap();
                }
            }
            began.elapsed()
        };
        let (published, read) = tokio::join!(publishing, reading);
        let all = folding.await.unwrap().duration_since(began);
        Times {
            published,
            received: self.stations.received.since(began),
            sent: self.stations.sent.since(began),
            read,
            all,
        }
    }
}

fn phase(coordinator: &Coordinator) -> Option<Phase> {
    coordinator.record().rotation.as_ref().map(|rotation| rotation.phase)
}

fn take_in(coordinator: &mut Coordinator, input: Input) {
    let now = clock::now();
    for change in coordinator.decide(now, input).unwrap() {
        coordinator.apply(now, &change);
    }
}

fn settle(coordinator: &mut Coordinator) {
    loop {
        let now = clock::now();
        let changes = coordinator.decide(now, Input::Tick).unwrap();
        if changes.is_empty() {
            return;
        }
        changes.iter().for_each(|change| coordinator.apply(now, change));
    }
}

struct Instance {
    key: InstanceKey,
    signing: SigningKey,
    trusted: SigningKey,
    bus: NatsBus,
    sequence: u64,
    stations: Arc<Stations>,
}

impl Instance {
    async fn run(mut self, mut states: BoxStream<'static, Result<BusEvent, BusError>>) {
        while let Some(event) = states.next().await {
            let BusEvent::Message(envelope) = event.unwrap() else { continue };
            self.stations.received.now();
            let report = self.switched(&envelope);
            self.bus.report(&self.key, &report).await.unwrap();
            self.stations.sent.now();
        }
    }

    fn switched(&mut self, envelope: &Envelope) -> Envelope {
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
            key: self.key.clone(),
            sequence: ReportSequence(self.sequence),
            secrets: BTreeMap::from([(state.secret, part)]),
        };
        let id = format!("{}:{}", self.key.incarnation, self.sequence);
        report.seal(&self.signing, &cluster(), id, clock::wall())
    }
}

/// Measures and prints.
pub(super) async fn run() {
    let Some(nats) = Nats::start().await else {
        println!("no nats-server: rounds are not measured ('tools/servers install')\n");
        return;
    };
    let mut rotacast = Rotacast::start(&nats.url()).await;
    let (announced, reported) = sizes(&mut rotacast);
    let mut raw = Raw::start(&nats.url(), INSTANCES, announced, reported, Signatures::None).await;
    let mut signed = Raw::start(&nats.url(), INSTANCES, announced, reported, Signatures::Checked).await;

    let (mut floor, mut signed_floor, mut rounds) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..WARM + ROUNDS {
        // In turn, so that whatever else the machine does meets all of them.
        let (a, b, c) = (raw.round().await, signed.round().await, rotacast.round().await);
        if number >= WARM {
            floor.push(a);
            signed_floor.push(b);
            rounds.push(c);
        }
    }
    let of = |pick: fn(&Times) -> Duration| median(rounds.iter().map(pick).collect());
    let (floor, signed_floor, all) = (median(floor), median(signed_floor), of(|times| times.all));
    println!("Announce → last of {INSTANCES} instances switched, over NATS; medians of {ROUNDS} rounds");
    println!("  payloads: announcement {announced} bytes, report {reported} bytes; a connection for each instance");
    println!("  raw floor                            {:>10}", milliseconds(floor));
    println!("  raw floor with signatures            {:>10}", milliseconds(signed_floor));
    println!("  Rotacast                             {:>10}", milliseconds(all));
    println!("    announcement durable               {:>10}", milliseconds(of(|times| times.published)));
    println!("    last instance has it               {:>10}", milliseconds(of(|times| times.received)));
    println!("    last report sent                   {:>10}", milliseconds(of(|times| times.sent)));
    println!("    last report read and checked       {:>10}", milliseconds(of(|times| times.read)));
    println!("    last report folded                 {:>10}", milliseconds(all));
    println!("  Rotacast / raw floor                 {:>10.2}", all.as_secs_f64() / floor.as_secs_f64());
    println!("  Rotacast / raw floor with signatures {:>10.2}", all.as_secs_f64() / signed_floor.as_secs_f64());
    costs(&mut rotacast);
}

/// How large the two messages' payloads are.
fn sizes(rotacast: &mut Rotacast) -> (usize, usize) {
    let (state, report, _) = messages(rotacast);
    (state.payload.len(), report.payload.len())
}

fn messages(rotacast: &mut Rotacast) -> (Envelope, Envelope, Instance) {
    let state = rotacast.activated().record().state();
    let state = state.seal(&rotacast.broadcaster, &cluster(), "bench", clock::wall());
    let mut instance = Instance {
        key: key_of(0),
        signing: service_key(0),
        trusted: rotacast.broadcaster.clone(),
        bus: rotacast.bus.clone(),
        sequence: 1,
        stations: Arc::clone(&rotacast.stations),
    };
    let report = instance.switched(&state);
    (state, report, instance)
}

/// What one message costs in computing time, on one thread with nothing else.
fn costs(rotacast: &mut Rotacast) {
    const TIMES: u32 = 2000;
    let (state, report, mut instance) = messages(rotacast);
    let each = |work: &mut dyn FnMut()| {
        let began = Instant::now();
        (0..TIMES).for_each(|_| work());
        began.elapsed().as_secs_f64() * 1e6 / f64::from(TIMES)
    };
    let at_instance = each(&mut || {
        std::hint::black_box(instance.switched(&state));
    });
    let at_leader = each(&mut || {
        std::hint::black_box(rotacast.identities.report(&report).unwrap());
    });
    println!("  computing per instance: {at_instance:.0} µs to check the state and sign a report,");
    println!(
        "  {at_leader:.0} µs at the leader to check that report; {INSTANCES} of both are part of every round here\n"
    );
}
