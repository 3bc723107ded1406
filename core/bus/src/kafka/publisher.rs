//! Publishing desired states: one transactional producer, which fences every earlier one of its cluster.
//!
//! While a session holds, no other producer publishes: one that wants to takes the transactional id over, which
//! ends the session. So what was read after taking over, and what was published since, is all there is, and
//! comparing with it is enough. Whatever goes wrong ends the session: look at the log, not at our memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer};
use rotacast_proto::Envelope;
use rotacast_protocol::Revision;
use tokio::sync::{mpsc, oneshot};

use super::access::{Access, Held};
use super::fault::{Heard, is_silence, meaning};
use super::reader::Reader;
use super::record;
use super::topic::blocking;
use super::trouble::Trouble;
use crate::feed::{LastProblem, next_pause, pauses};
use crate::{BusError, Finding};

/// States waiting for the publisher; more callers wait for a place.
const QUEUE: usize = 1024;
/// States in one transaction, one per secret.
const BATCH: usize = 128;
/// Longest wait for one step of a transaction; a call has room for a second attempt.
const STEP: Duration = Duration::from_secs(2);
/// How often the records of a transaction are looked for.
const DELIVERY: Duration = Duration::from_millis(1);
/// How often, for up to [`STEP`], a commit is looked for: its marker is written after it is acknowledged.
const LOOK: Duration = Duration::from_millis(2);

struct Item {
    key: String,
    revision: Revision,
    state: Envelope,
    /// The signature of a state that fences nothing.
    over: Option<Bytes>,
    /// Why it is repeated.
    repeated: LastProblem,
    done: oneshot::Sender<Result<(), BusError>>,
}

/// The way to the one task that publishes.
pub(super) struct Publisher {
    items: mpsc::Sender<Item>,
    endpoint: String,
    topic: String,
    trouble: Arc<Trouble>,
}

impl Publisher {
    /// Starts it. It ends when its handle goes; the transactional id is taken over with the first state.
    pub(super) fn start(access: Arc<Access>, topic: String, reader: Arc<Reader>) -> Self {
        let (items, queue) = mpsc::channel(QUEUE);
        let endpoint = access.options.endpoint();
        let trouble = Arc::<Trouble>::default();
        let work = Work {
            endpoint: endpoint.clone(),
            access,
            topic: topic.clone(),
            reader,
            session: None,
            trouble: Arc::clone(&trouble),
        };
        tokio::spawn(work.run(queue));
        Self { items, endpoint, topic, trouble }
    }

    /// Why the last states were not published, if they were not.
    pub(super) fn trouble(&self) -> Option<BusError> {
        self.trouble.now()
    }

    /// The same as a finding.
    pub(super) fn finding(&self) -> Option<Finding> {
        self.trouble().map(|problem| problem.finding(format!("publishing to {}", self.topic)))
    }

    /// Publishes on condition that nothing newer has been. Its caller bounds it.
    pub(super) async fn publish(
        &self,
        key: String,
        revision: Revision,
        state: Envelope,
        over: Option<Bytes>,
        repeated: LastProblem,
    ) -> Result<(), BusError> {
        let closed =
            || BusError::Unreachable { endpoint: self.endpoint.clone(), problem: "the publisher has ended".into() };
        let (done, outcome) = oneshot::channel();
        self.items.send(Item { key, revision, state, over, repeated, done }).await.map_err(|_| closed())?;
        outcome.await.map_err(|_| closed())?
    }
}

/// What happened to the records of a transaction.
#[derive(Default)]
struct Deliveries {
    heard: Heard,
    places: Mutex<Vec<(i32, i64)>>,
    failed: Mutex<Option<KafkaError>>,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.heard.log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.heard.error(error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(message) => {
                let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
                places.push((message.partition(), message.offset()));
            }
            Err((problem, _)) => {
                *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(problem.clone());
            }
        }
    }
}

type Transactional = ThreadedProducer<Deliveries>;

struct Session {
    producer: Arc<Transactional>,
    made_of: Arc<Held>,
    /// Published in this session: newer than what the reader has.
    published: HashMap<String, Revision>,
}

struct Work {
    access: Arc<Access>,
    endpoint: String,
    topic: String,
    reader: Arc<Reader>,
    session: Option<Session>,
    trouble: Arc<Trouble>,
}

impl Work {
    async fn run(mut self, mut queue: mpsc::Receiver<Item>) {
        let mut waiting: Vec<Item> = Vec::new();
        let mut row = pauses();
        loop {
            waiting.retain(|item| !item.done.is_closed());
            if waiting.is_empty() {
                match queue.recv().await {
                    Some(item) => waiting.push(item),
                    None => break,
                }
            }
            while waiting.len() < QUEUE
                && let Ok(item) = queue.try_recv()
            {
                waiting.push(item);
            }
            match self.round(&mut waiting).await {
                Ok(()) => {
                    row = pauses();
                    self.trouble.over();
                }
                Err(problem) if problem.is_transient() => {
                    tracing::debug!(%problem, "publishing begins anew");
                    waiting.iter().for_each(|item| item.repeated.note(problem.clone()));
                    self.trouble.note(problem);
                    self.end();
                    tokio::time::sleep(next_pause(&mut row)).await;
                }
                Err(problem) => {
                    self.end();
                    self.trouble.note(problem.clone());
                    // No retry helps: every caller that waits gets the error.
                    for item in waiting.drain(..) {
                        drop(item.done.send(Err(problem.clone())));
                    }
                }
            }
        }
        self.end();
    }

    fn end(&mut self) {
        if let Some(session) = self.session.take() {
            // May block for as long as its brokers are silent.
            std::thread::spawn(move || drop(session));
        }
    }

    /// Settles what can be settled without publishing, and publishes one transaction of the rest.
    async fn round(&mut self, waiting: &mut Vec<Item>) -> Result<(), BusError> {
        if self.session.as_ref().is_some_and(|session| self.access.is_renewed(&session.made_of)) {
            self.end();
        }
        if self.session.is_none() {
            // First whether there is a reason to: a deposed leader must not disturb its successor.
            self.reader.barrier().await?;
            self.settle(waiting);
            if waiting.is_empty() {
                return Ok(());
            }
            self.session = Some(self.take_over().await?);
            self.reader.barrier().await?;
        }
        self.settle(waiting);
        let mut batch: Vec<Item> = Vec::new();
        let mut rest = Vec::new();
        for item in waiting.drain(..) {
            let place = batch.len() < BATCH && !batch.iter().any(|other| other.key == item.key);
            if place { batch.push(item) } else { rest.push(item) }
        }
        *waiting = rest;
        if batch.is_empty() {
            return Ok(());
        }
        let outcome = self.transaction(&batch).await;
        match outcome {
            Ok(()) => {
                let session = self.session.as_mut().expect("begun above");
                for item in batch {
                    session.published.insert(item.key, item.revision);
                    // A caller that has gone asks again, and finds it published.
                    drop(item.done.send(Ok(())));
                }
                Ok(())
            }
            Err(problem) => {
                // In their order before the others.
                batch.append(waiting);
                *waiting = batch;
                Err(problem)
            }
        }
    }

    /// Refuses whatever is older than what was published. What is there already is published once more: its topic
    /// may have been made anew meanwhile.
    fn settle(&self, waiting: &mut Vec<Item>) {
        let folded = self.reader.replica().lock();
        let mut rest = Vec::new();
        for item in waiting.drain(..) {
            let published = self.session.as_ref().and_then(|session| session.published.get(&item.key));
            let last = published.copied().or_else(|| folded.get(&item.key).map(|last| last.revision));
            let signature = folded.get(&item.key).map(|last| &last.envelope.signature);
            let counts = item.over.is_none() || item.over.as_ref() != signature;
            match last {
                Some(revision) if revision > item.revision && counts => {
                    drop(item.done.send(Err(BusError::Fenced { subject: format!("{} {}", self.topic, item.key) })));
                }
                _ => rest.push(item),
            }
        }
        *waiting = rest;
    }

    /// Fences every earlier publisher, and ends whatever it left open.
    async fn take_over(&self) -> Result<Session, BusError> {
        let made_of = self.access.held();
        let config = self.access.options.deciding(&made_of);
        let endpoint = self.endpoint.clone();
        let producer = blocking(&self.endpoint, move || {
            let producer: Transactional =
                config.create_with_context(Deliveries::default()).map_err(|problem| meaning(&endpoint, &problem))?;
            match producer.init_transactions(STEP) {
                Ok(()) => Ok(producer),
                Err(problem) => {
                    let error = failure(&producer.context().heard, &endpoint, &problem);
                    std::thread::spawn(move || drop(producer));
                    Err(error)
                }
            }
        })
        .await?;
        tracing::info!(id = %self.access.options.transactional_id(), "publishes states from now on");
        Ok(Session { producer: Arc::new(producer), made_of, published: HashMap::new() })
    }

    async fn transaction(&self, batch: &[Item]) -> Result<(), BusError> {
        let session = self.session.as_ref().expect("begun by the caller");
        let (producer, topic) = (Arc::clone(&session.producer), self.topic.clone());
        let endpoint = self.endpoint.clone();
        let records: Vec<_> = batch.iter().map(|item| (item.key.clone(), item.revision, item.state.clone())).collect();
        let places = blocking(&self.endpoint, move || {
            let context = Arc::clone(producer.context());
            let lock = |places: &Mutex<Vec<(i32, i64)>>| -> Vec<(i32, i64)> {
                std::mem::take(&mut *places.lock().unwrap_or_else(PoisonError::into_inner))
            };
            drop(lock(&context.places));
            let attempt = || -> Result<(), KafkaError> {
                producer.begin_transaction()?;
                for (key, revision, state) in &records {
                    let record = BaseRecord::to(&topic)
                        .key(key.as_str())
                        .payload(&state.payload[..])
                        .headers(record::headers(state, Some(*revision)));
                    producer.send(record).map_err(|(problem, _)| problem)?;
                }
                delivered(&producer, STEP)?;
                producer.commit_transaction(STEP)
            };
            let outcome = attempt();
            let failed = context.failed.lock().unwrap_or_else(PoisonError::into_inner).take();
            match (outcome, failed) {
                (Ok(()), None) => {
                    context.heard.is_up();
                    Ok(lock(&context.places))
                }
                // A record that was given up is what follows from the transaction's own problem.
                (Err(problem), Some(of_record)) if is_silence(&of_record) => {
                    Err(failure(&context.heard, &endpoint, &problem))
                }
                (_, Some(problem)) | (Err(problem), None) => Err(failure(&context.heard, &endpoint, &problem)),
            }
        })
        .await?;
        let until = Instant::now() + STEP;
        while !self.reader.visible(&places).await? {
            if Instant::now() >= until {
                return Err(self.reader.held_back().await.unwrap_or_else(|| BusError::Unreachable {
                    endpoint: self.endpoint.clone(),
                    problem: "committed, and not to be seen".into(),
                }));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }
}

/// Waits until a broker has every record. rdkafka's own `flush` waits at least 100 ms whenever something is under way:
/// it serves deliveries for that long, be they there or not. Here the producer's thread serves them.
fn delivered(producer: &Transactional, patience: Duration) -> Result<(), KafkaError> {
    let until = Instant::now() + patience;
    while producer.in_flight_count() > 0 {
        if Instant::now() >= until {
            return Err(KafkaError::Flush(Code::OperationTimedOut));
        }
        std::thread::sleep(DELIVERY);
    }
    Ok(())
}

/// Being fenced, and topics that are made anew, are reasons to look again; the rest is what it means.
fn failure(heard: &Heard, endpoint: &str, problem: &KafkaError) -> BusError {
    let error = if is_silence(problem) { heard.explain(endpoint, problem) } else { meaning(endpoint, problem) };
    match error {
        error @ (BusError::Denied { .. } | BusError::Misconfigured { .. })
            if problem.rdkafka_error_code() != Some(Code::UnknownTopicOrPartition) =>
        {
            error
        }
        error @ BusError::Unreachable { .. } => error,
        _ => BusError::Unreachable { endpoint: endpoint.to_owned(), problem: problem.to_string() },
    }
}
