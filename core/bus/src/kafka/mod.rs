//! The bus over Kafka: three compacted topics, and gRPC for Syncs.

mod access;
mod client;
mod fault;
mod options;
mod producer;
mod publisher;
mod reader;
mod record;
mod replica;
mod sync;
mod tail;
mod topic;
mod trouble;

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use rotacast_proto::Envelope;
use rotacast_protocol::{InstanceKey, Revision, SecretName};

use self::access::Access;
pub use self::options::{KafkaLogin, KafkaOptions, KafkaSync, KafkaTls, KafkaTopics, SaslMechanism};
use self::producer::Producer;
use self::publisher::Publisher;
use self::reader::Reader;
use self::replica::Bound;
use self::topic::{Kind, Topics};
use crate::bus::check_size;
use crate::feed::LastProblem;
use crate::{
    BusError, BusEvent, CALL_TIMEOUT, CLAIM, Finding, InstanceBus, LeaderBus, Level, MAX_MESSAGE_BYTES, SyncCall,
};

/// Most states kept in memory: of a million secrets at about a KiB each. The same in bytes, since a client that may write
/// may also write large messages. Beyond it reading is refused: a state that is left out would be published over.
const STATES: Bound = Bound { keys: 1_000_000, bytes: 1 << 30, whole: true };
/// Most registrations kept: of a million incarnations. An older one that no leader has read by then comes again.
const REGISTRATIONS: Bound = Bound { keys: 1_000_000, bytes: 1 << 30, whole: false };
/// Most reports kept: of this many incarnations, at about as much each.
const REPORTS: Bound = Bound { keys: 200_000, bytes: 1 << 28, whole: false };

/// Both sides over one Kafka cluster. A cheap handle: clones share everything, and any number of
/// subscriptions to a topic share one consumer.
#[derive(Clone)]
pub struct KafkaBus {
    inner: Arc<Inner>,
}

struct Inner {
    endpoint: String,
    access: Arc<Access>,
    topics: Arc<Topics>,
    state: Arc<Reader>,
    registrations: Arc<Reader>,
    reports: Arc<Reader>,
    producer: Producer,
    publisher: OnceLock<Publisher>,
    sync: sync::Sync,
}

impl KafkaBus {
    /// Connects, and creates and audits the topics. Later losses of brokers are mended in the background, for
    /// as long as it takes.
    ///
    /// # Errors
    /// `Unreachable` when no broker answers within 5 s, `Denied` when they refuse the credentials,
    /// `Misconfigured` for options or topics that cannot work.
    pub async fn connect(options: KafkaOptions) -> Result<Self, BusError> {
        options.check()?;
        let endpoint = options.endpoint();
        let access = Access::new(options)?;
        let options = &access.options;
        let topics = Arc::new(Topics::new(Arc::clone(&access)));
        let seen = async {
            let metadata = topics.ensure().await?;
            if options.topics == KafkaTopics::Create { topics.accept(&metadata).await } else { Ok(()) }
        };
        match tokio::time::timeout(CALL_TIMEOUT, seen).await {
            Ok(outcome) => outcome?,
            Err(_) => {
                let problem = "no answer in time; is bus.brokers right, and are they up?".into();
                return Err(BusError::Unreachable { endpoint, problem });
            }
        }
        let reader = |kind, bound| Arc::new(Reader::new(kind, &access, &topics, bound));
        let inner = Inner {
            sync: sync::Sync::new(endpoint.clone(), &options.sync)?,
            state: reader(Kind::State, STATES),
            registrations: reader(Kind::Registrations, REGISTRATIONS),
            reports: reader(Kind::Reports, REPORTS),
            producer: Producer::new(Arc::clone(&access)),
            publisher: OnceLock::new(),
            endpoint,
            topics,
            access,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    fn check(&self, envelope: &Envelope) -> Result<(), BusError> {
        check_size(envelope, MAX_MESSAGE_BYTES, &self.inner.endpoint)
    }

    /// Ends a call that takes too long: with why it was repeated, or with what is in the way of that part of the bus.
    async fn within<T>(
        &self,
        last: &LastProblem,
        trouble: impl Fn() -> Option<BusError> + Send,
        call: impl Future<Output = Result<T, BusError>> + Send,
    ) -> Result<T, BusError> {
        match tokio::time::timeout(CALL_TIMEOUT, call).await {
            Ok(outcome) => outcome,
            Err(_) => Err(last.take().or_else(trouble).unwrap_or_else(|| BusError::Unreachable {
                endpoint: self.inner.endpoint.clone(),
                problem: "no answer in time; the outcome is unknown".into(),
            })),
        }
    }

    /// Why states are not published or read.
    fn trouble_with_states(&self) -> Option<BusError> {
        let publishing = || self.inner.publisher.get().and_then(Publisher::trouble);
        self.inner.state.trouble().or_else(publishing)
    }

    fn publisher(&self) -> &Publisher {
        self.inner.publisher.get_or_init(|| {
            let topic = self.inner.topics.name(Kind::State);
            Publisher::start(Arc::clone(&self.inner.access), topic, Arc::clone(&self.inner.state))
        })
    }

    /// The last record of a key of the states, with everything acknowledged before this call.
    async fn last_of_states(&self, key: &str) -> Result<Option<Envelope>, BusError> {
        self.inner.state.barrier().await?;
        Ok(self.inner.state.replica().lock().get(key).map(|last| (*last.envelope).clone()))
    }

    async fn publish_state(
        &self,
        key: String,
        revision: Revision,
        state: Envelope,
        over: Option<Bytes>,
    ) -> Result<(), BusError> {
        let last = LastProblem::default();
        let publishing = self.publisher().publish(key, revision, state, over, last.clone());
        self.within(&last, || self.trouble_with_states(), publishing).await
    }

    /// Publishes to a topic of incarnations; `None` forgets this one.
    async fn publish(&self, kind: Kind, key: &InstanceKey, envelope: Option<&Envelope>) -> Result<(), BusError> {
        let (topic, key) = (self.inner.topics.name(kind), instance(key));
        let last = LastProblem::default();
        let publishing = self.inner.producer.publish(&topic, &key, envelope, &last);
        self.within(&last, || self.inner.producer.trouble(), publishing).await
    }
}

/// The key of everything about one incarnation, as the messages' subject has it.
fn instance(key: &InstanceKey) -> String {
    format!("{}/{}/{}", key.service, key.instance, key.incarnation)
}

#[async_trait]
impl LeaderBus for KafkaBus {
    fn describe(&self) -> String {
        format!("Kafka {} (cluster {})", self.inner.endpoint, self.inner.access.options.cluster)
    }

    async fn publish_over(
        &self,
        secret: &SecretName,
        revision: Revision,
        state: &Envelope,
        over: Option<&Envelope>,
    ) -> Result<(), BusError> {
        self.check(state)?;
        let over = over.map(|over| over.signature.clone());
        self.publish_state(secret.to_string(), revision, state.clone(), over).await
    }

    async fn read_state(&self, secret: &SecretName) -> Result<Option<Envelope>, BusError> {
        let reading = self.last_of_states(secret.as_str());
        self.within(&LastProblem::default(), || self.inner.state.trouble(), reading).await
    }

    async fn read_claim(&self) -> Result<Option<Envelope>, BusError> {
        let reading = self.last_of_states(CLAIM);
        self.within(&LastProblem::default(), || self.inner.state.trouble(), reading).await
    }

    async fn publish_claim(&self, claim: &Envelope) -> Result<(), BusError> {
        self.check(claim)?;
        self.publish_state(CLAIM.to_owned(), Revision(0), claim.clone(), None).await
    }

    fn watch_registrations(&self) -> BoxStream<'static, Result<BusEvent, BusError>> {
        reader::watch(Arc::clone(&self.inner.registrations), None)
    }

    async fn prune_registration(&self, key: &InstanceKey) -> Result<(), BusError> {
        let (topics, key, last) = (&self.inner.topics, instance(key), LastProblem::default());
        let forget = async |kind| self.inner.producer.publish(&topics.name(kind), &key, None, &last).await;
        let pruning = async {
            forget(Kind::Registrations).await?;
            forget(Kind::Reports).await
        };
        self.within(&last, || self.inner.producer.trouble(), pruning).await
    }

    fn watch_reports(&self) -> BoxStream<'static, Result<BusEvent, BusError>> {
        reader::watch(Arc::clone(&self.inner.reports), None)
    }

    fn serve_sync(&self) -> BoxStream<'static, Result<SyncCall, BusError>> {
        self.inner.sync.serve()
    }

    async fn examine(&self) -> Vec<Finding> {
        let readers = [&self.inner.state, &self.inner.registrations, &self.inner.reports];
        let examined = self.within(&LastProblem::default(), || None, self.inner.topics.examine()).await;
        let mut findings = match examined {
            Ok(findings) => findings,
            Err(problem) => {
                readers.iter().for_each(|reader| reader.restarts().clear());
                vec![problem.finding(format!("Kafka {}", self.inner.endpoint))]
            }
        };
        findings.extend(self.inner.access.finding());
        findings.extend(self.inner.publisher.get().and_then(Publisher::finding));
        for reader in readers {
            findings.extend(reader.finding());
            findings.extend(reader.restarts().findings());
            if let Some(count) = reader.unreadable() {
                findings.push(Finding {
                    level: Level::Warning,
                    subject: format!("Kafka {}", self.inner.endpoint),
                    text: format!("{count} messages read were none of ours"),
                    fix: "see who else may write to the topics".into(),
                });
            }
        }
        findings
    }
}

#[async_trait]
impl InstanceBus for KafkaBus {
    fn describe(&self) -> String {
        LeaderBus::describe(self)
    }

    async fn register(&self, key: &InstanceKey, registration: &Envelope) -> Result<(), BusError> {
        self.check(registration)?;
        self.publish(Kind::Registrations, key, Some(registration)).await
    }

    async fn report(&self, key: &InstanceKey, report: &Envelope) -> Result<(), BusError> {
        self.check(report)?;
        let topic = self.inner.topics.name(Kind::Reports);
        let (producer, key) = (&self.inner.producer, instance(key));
        self.within(&LastProblem::default(), || producer.trouble(), producer.send(&topic, &key, report)).await
    }

    fn watch_states(&self, secrets: &[SecretName]) -> BoxStream<'static, Result<BusEvent, BusError>> {
        if secrets.is_empty() {
            return futures::stream::once(async { Ok(BusEvent::CaughtUp) }).chain(futures::stream::pending()).boxed();
        }
        let wanted: BTreeSet<_> = secrets.iter().map(ToString::to_string).collect();
        reader::watch(Arc::clone(&self.inner.state), Some(wanted))
    }

    async fn sync(&self, request: &Envelope, timeout: Duration) -> Result<Envelope, BusError> {
        self.check(request)?;
        self.inner.sync.ask(request, timeout).await
    }
}
