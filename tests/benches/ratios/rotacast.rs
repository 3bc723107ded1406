//! Rotacast's round: a state is announced, and every instance has switched, as far as the leader knows.
//!
//! It is the real path: `LeaderBus::publish_state` of a signed state, `InstanceBus::watch_states` and `report` of every
//! instance with signatures checked and made, `LeaderBus::watch_reports`, `Identities`, and the coordinator in a task
//! of its own that handles events in batches, as in the driver. Instances are tasks of this process, each with its own
//! bus. Left out on both sides: the store's write before the announcement, and hooks of services.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::stream::BoxStream;
use rotacast_broadcaster::identities::{Identities, Service, Services};
use rotacast_bus::{BusError, BusEvent, LeaderBus};
use rotacast_clock as clock;
use rotacast_proto::{Envelope, WireMessage};
use rotacast_protocol::Phase;
use rotacast_protocol::coordinator::{Coordinator, Input};
use rotacast_protocol::message::SecretState;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::carrier::{Carrier, cluster};
use super::instance::{self, SERVICES, Stations, Voice, broadcaster_key, service_key, service_of};
use super::rotation::{activated, phase, secret, settle, take_in};

/// As in the driver.
const MAILBOX: usize = 4096;
const BATCH: usize = 1024;

/// How long one round took, and when its steps ended, each from the announcement to the last event of its kind.
#[derive(Clone, Copy)]
pub(super) struct Times {
    pub(super) published: Duration,
    pub(super) received: Duration,
    pub(super) sent: Duration,
    pub(super) read: Duration,
    pub(super) all: Duration,
}

/// Bytes of the two messages' payloads.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub(super) announcement: usize,
    pub(super) report: usize,
}

pub(super) fn identities() -> Identities {
    let named = (0..SERVICES).map(|number| {
        let service = Service {
            keys: service_key(number).public().clone().into(),
            sealing_key: None,
            secrets: vec!["*".parse().unwrap()],
        };
        (service_of(number), service)
    });
    Identities::new(cluster(), Services { named: named.collect(), anyone: None })
}

pub(super) fn sealed(state: &SecretState) -> Envelope {
    let id = format!("{}:{}:{}", state.secret, state.epoch, state.revision);
    state.seal(&broadcaster_key(), &cluster(), id, clock::wall())
}

/// A leader, and instances that follow it.
pub(super) struct Rotacast {
    bus: Arc<dyn LeaderBus>,
    reports: BoxStream<'static, Result<BusEvent, BusError>>,
    identities: Identities,
    stations: Arc<Stations>,
    instances: JoinSet<()>,
    round: u64,
}

impl Rotacast {
    pub(super) async fn start<C: Carrier>(carrier: &C) -> Self {
        let bus = carrier.leader().await;
        let mut reports = bus.watch_reports();
        assert_eq!(reports.next().await.unwrap().unwrap(), BusEvent::CaughtUp);
        let stations = Arc::new(Stations::new());
        let mut instances = JoinSet::new();
        for number in 0..C::INSTANCES {
            let bus = carrier.instance().await;
            let mut states = bus.watch_states(&[secret()]);
            assert_eq!(states.next().await.unwrap().unwrap(), BusEvent::CaughtUp);
            instances.spawn(instance::run(Voice::of(number), bus, states, Arc::clone(&stations)));
        }
        Self { bus, reports, identities: identities(), stations, instances, round: 0 }
    }

    pub(super) async fn round(&mut self) -> Times {
        self.round += 1;
        let coordinator = activated(self.round, self.instances.len());
        let state = coordinator.record().state();
        let (mail, mailbox) = mpsc::channel::<Input>(MAILBOX);
        // The secret's task, as in the driver.
        let folding = tokio::spawn(fold(coordinator, mailbox));

        let began = Instant::now();
        let envelope = sealed(&state);
        let publishing = async {
            self.bus.publish_state(&state.secret, state.revision, &envelope).await.unwrap();
            began.elapsed()
        };
        let (reports, identities, instances) = (&mut self.reports, &self.identities, self.instances.len());
        let reading = async {
            let mut switched = 0;
            while switched < instances {
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
        let (received, sent) = (self.stations.received.since(began), self.stations.sent.since(began));
        Times { published, received, sent, read, all }
    }

    /// Ends all connections.
    pub(super) async fn stop(mut self) {
        self.instances.shutdown().await;
    }
}

/// Takes reports in until every instance has switched. Returns when that was.
async fn fold(mut coordinator: Coordinator, mut mailbox: mpsc::Receiver<Input>) -> Instant {
    let mut inputs = Vec::new();
    while phase(&coordinator) == Some(Phase::Activating) {
        assert!(mailbox.recv_many(&mut inputs, BATCH).await > 0, "the reader goes on until all have switched");
        inputs.drain(..).for_each(|input| take_in(&mut coordinator, input));
        settle(&mut coordinator);
    }
    assert_eq!(phase(&coordinator), Some(Phase::Draining), "every instance has switched");
    Instant::now()
}
