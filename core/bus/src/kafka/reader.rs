//! Follows one topic in a thread of its own, from its beginning, and folds it into a [`Replica`].
//!
//! librdkafka goes on silently where a topic was deleted and made anew, or has got more partitions. So whatever could mean a
//! gap ends a reading. In quiet moments a record of a partition is read once more ([`Tail`]), and the partitions are counted.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::stream::BoxStream;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};
use rotacast_log_limit::LogLimit;
use rotacast_proto::Envelope;
use tokio::runtime::Handle;

use super::access::{Access, Held};
use super::fault::{Heard, meaning};
use super::options::KafkaTopics;
use super::record;
use super::replica::{Bound, Replica};
use super::tail::{Mark, Seen, Tail};
use super::topic::{Kind, Topics, blocking};
use super::trouble::Trouble;
use crate::feed::{next_pause, pauses};
use crate::restarts::Restarts;
use crate::{BusError, BusEvent, Finding};

/// Longest wait for a message before the thread looks whether it is to end.
const POLL: Duration = Duration::from_millis(100);
/// Longest wait for one answer of a broker.
const REQUEST: Duration = Duration::from_secs(2);
/// How often a silent partition's known record is read once more, and the partitions are counted.
const PROBE: Duration = Duration::from_secs(5);
/// Longest wait for the number of partitions: what is read waits meanwhile, and it is counted again soon.
const COUNT: Duration = Duration::from_millis(500);
/// A probe that has no answer by then counts as a loss of continuity.
const PROBE_PATIENCE: Duration = Duration::from_secs(30);
/// Most offsets read once more after a probe.
const REREAD: i64 = 1000;
/// Messages handed to a subscription at once.
const BATCH: usize = 64;

/// One topic being followed. The thread ends when the last handle goes.
pub(super) struct Reader {
    shared: Arc<Shared>,
}

struct Shared {
    kind: Kind,
    topic: String,
    endpoint: String,
    access: Arc<Access>,
    topics: Arc<Topics>,
    runtime: Handle,
    replica: Replica,
    current: Mutex<Option<(u64, Arc<BaseConsumer<Heard>>)>>,
    /// An error that retrying cannot mend.
    failed: Mutex<Option<(bool, String)>>,
    unreadable: Mutex<Strangers>,
    restarts: Restarts,
    started: AtomicBool,
    /// Why reading does not get on.
    trouble: Trouble,
    /// Why the topic has to be read anew, once a caller has found out.
    anew: Mutex<Option<&'static str>>,
    stop: AtomicBool,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
    }
}

impl Reader {
    pub(super) fn new(kind: Kind, access: &Arc<Access>, topics: &Arc<Topics>, bound: Bound) -> Self {
        let shared = Shared {
            kind,
            topic: topics.name(kind),
            endpoint: access.options.endpoint(),
            access: Arc::clone(access),
            topics: Arc::clone(topics),
            runtime: Handle::current(),
            replica: Replica::new(bound),
            current: Mutex::new(None),
            failed: Mutex::new(None),
            unreadable: Mutex::default(),
            restarts: Restarts::default(),
            started: AtomicBool::new(false),
            trouble: Trouble::default(),
            anew: Mutex::new(None),
            stop: AtomicBool::new(false),
        };
        Self { shared: Arc::new(shared) }
    }

    pub(super) fn replica(&self) -> &Replica {
        &self.shared.replica
    }

    /// How often it started anew.
    pub(super) fn restarts(&self) -> &Restarts {
        &self.shared.restarts
    }

    /// Messages that were none of ours, unless the last one is long ago.
    pub(super) fn unreadable(&self) -> Option<u64> {
        self.shared.unreadable.lock().unwrap_or_else(PoisonError::into_inner).recent(Instant::now())
    }

    /// Why reading does not get on, if it does not.
    pub(super) fn trouble(&self) -> Option<BusError> {
        self.shared.failure().or_else(|| self.shared.trouble.now())
    }

    /// That reading ended with a refusal. A caller that wants to read begins it again, and meets the same.
    pub(super) fn finding(&self) -> Option<Finding> {
        let refused = self.trouble().filter(|problem| !problem.is_transient())?;
        Some(refused.finding(format!("reader of {}", self.shared.topic)))
    }

    fn start(&self) {
        if !self.shared.started.swap(true, Ordering::AcqRel) {
            // A caller after a refusal tries again.
            *self.shared.failed.lock().unwrap_or_else(PoisonError::into_inner) = None;
            let shared = Arc::clone(&self.shared);
            // Dropping a consumer may block for a long time: its own thread does it, and no task waits.
            std::thread::spawn(move || shared.run());
        }
    }

    /// Waits until everything acknowledged before this call has been folded; returns the generation in which.
    /// Waits for as long as it takes: callers bound it.
    pub(super) async fn barrier(&self) -> Result<u64, BusError> {
        self.start();
        let shared = &self.shared;
        let mut changed = shared.replica.subscribe();
        let mut row = pauses();
        loop {
            if let Some(problem) = shared.failure() {
                return Err(problem);
            }
            changed.mark_unchanged();
            let Some((generation, consumer)) = shared.current() else {
                // The reader keeps trying, and tells.
                drop(tokio::time::timeout(REQUEST, changed.changed()).await);
                continue;
            };
            let (topic, asked) = (shared.topic.clone(), Arc::clone(&consumer));
            let reached: Vec<_> = shared.replica.lock().places.iter().map(|place| place.reached).collect();
            let partitions = reached.len();
            let endpoint = shared.endpoint.clone();
            let ends = blocking(&shared.endpoint, move || {
                let ends = ends(&asked, &topic, partitions);
                let ends = ends.map_err(|problem| asked.context().explain(&endpoint, &problem));
                if ends.is_ok() {
                    asked.context().forget();
                }
                drop(asked);
                ends
            })
            .await;
            let ends = match ends {
                Ok(ends) => ends,
                Err(problem) => {
                    tracing::debug!(topic = %shared.topic, %problem, "ends not known");
                    shared.trouble.note(problem);
                    release(consumer);
                    tokio::time::sleep(next_pause(&mut row)).await;
                    continue;
                }
            };
            if ends.iter().zip(&reached).any(|(end, reached)| end < reached) {
                shared.read_anew("it ends before what has been read");
                release(consumer);
                tokio::time::sleep(next_pause(&mut row)).await;
                continue;
            }
            let there = self.reach(generation, &consumer, &ends, &mut changed).await;
            release(consumer);
            if there {
                shared.trouble.over();
                return Ok(generation);
            }
        }
    }

    /// Waits until these offsets are reached; false when the topic is read anew meanwhile, or its reading ends.
    async fn reach(
        &self,
        generation: u64,
        consumer: &Arc<BaseConsumer<Heard>>,
        ends: &[i64],
        changed: &mut tokio::sync::watch::Receiver<u64>,
    ) -> bool {
        loop {
            changed.mark_unchanged();
            // The generation moves only once the topic can be read again, which may be never.
            if self.shared.current().is_none_or(|(now, _)| now != generation) {
                return false;
            }
            let mut look = Vec::new();
            {
                let mut folded = self.shared.replica.lock();
                if folded.generation != generation || folded.places.len() != ends.len() {
                    return false;
                }
                let mut there = true;
                for (partition, (place, end)) in folded.places.iter_mut().zip(ends).enumerate() {
                    if place.reached >= *end {
                        continue;
                    }
                    there = false;
                    // At an end, but which? Markers of transactions count as offsets and are never shown.
                    // An end that is found by a look begun after `end` was asked for is at `end` or beyond.
                    if place.at_end && place.confirming.is_none() {
                        place.confirming = Some(*end);
                        place.at_end = false;
                        look.push((partition, place.reached));
                    }
                }
                if there {
                    return true;
                }
            }
            for (partition, from) in look {
                let (consumer, topic) = (Arc::clone(consumer), self.shared.topic.clone());
                let sought = tokio::task::spawn_blocking(move || {
                    consumer.seek(&topic, id(partition), Offset::Offset(from), REQUEST)
                });
                if !matches!(sought.await, Ok(Ok(()))) {
                    let mut folded = self.shared.replica.lock();
                    if folded.generation == generation {
                        let place = &mut folded.places[partition];
                        (place.confirming, place.at_end) = (None, true);
                    }
                }
            }
            // Also after a while without a change: a look that failed is repeated.
            drop(tokio::time::timeout(REQUEST, changed.changed()).await);
        }
    }

    /// Whether readers see everything below these offsets.
    ///
    /// # Errors
    /// Reading has ended.
    pub(super) async fn visible(&self, offsets: &[(i32, i64)]) -> Result<bool, BusError> {
        if let Some(problem) = self.shared.failure() {
            return Err(problem);
        }
        let Some((_, consumer)) = self.shared.current() else { return Ok(false) };
        let topic = self.shared.topic.clone();
        let partitions = self.shared.replica.lock().places.len();
        let end_of = |ends: &[i64], partition| usize::try_from(partition).ok().and_then(|at| ends.get(at).copied());
        let asked = tokio::task::spawn_blocking(move || {
            let ends = ends(&consumer, &topic, partitions);
            drop(consumer);
            ends
        });
        let Ok(Ok(ends)) = asked.await else { return Ok(false) };
        if offsets.iter().any(|(partition, _)| end_of(&ends, *partition).is_none()) {
            self.shared.read_anew("it has more partitions than before");
            return Ok(false);
        }
        Ok(offsets.iter().all(|(partition, offset)| end_of(&ends, *partition).is_some_and(|end| end > *offset)))
    }

    /// That readers do not get past an open transaction, if that is so.
    pub(super) async fn held_back(&self) -> Option<BusError> {
        let shared = Arc::clone(&self.shared);
        tokio::task::spawn_blocking(move || shared.held_back()).await.ok().flatten()
    }
}

/// A subscription: its place in the replica, and nothing else.
pub(super) fn watch(
    reader: Arc<Reader>,
    wanted: Option<BTreeSet<String>>,
) -> BoxStream<'static, Result<BusEvent, BusError>> {
    struct Subscription {
        reader: Arc<Reader>,
        wanted: Option<BTreeSet<String>>,
        generation: Option<u64>,
        tick: u64,
        caught_up: bool,
        ready: std::collections::VecDeque<Arc<Envelope>>,
    }
    let begun = Subscription {
        reader,
        wanted,
        generation: None,
        tick: 0,
        caught_up: false,
        ready: std::collections::VecDeque::new(),
    };
    futures::stream::unfold(Some(begun), |state| async {
        let mut s = state?;
        let mut changed = s.reader.replica().subscribe();
        loop {
            changed.mark_unchanged();
            if let Some(envelope) = s.ready.pop_front() {
                return Some((Ok(BusEvent::Message((*envelope).clone())), Some(s)));
            }
            let now = s.reader.replica().lock().generation;
            match s.generation {
                Some(generation) if generation == now => {}
                Some(_) => {
                    (s.generation, s.tick, s.caught_up) = (None, 0, false);
                    return Some((Ok(BusEvent::Resync), Some(s)));
                }
                None => match s.reader.barrier().await {
                    Ok(generation) => s.generation = Some(generation),
                    // The last item.
                    Err(problem) => return Some((Err(problem), None)),
                },
            }
            {
                let folded = s.reader.replica().lock();
                if Some(folded.generation) != s.generation {
                    continue;
                }
                let wanted = s.wanted.as_ref();
                let (messages, tick) = folded.after(s.tick, BATCH, |key| wanted.is_none_or(|keys| keys.contains(key)));
                s.tick = tick;
                s.ready = messages.into();
            }
            if !s.ready.is_empty() {
                continue;
            }
            if !s.caught_up {
                s.caught_up = true;
                return Some((Ok(BusEvent::CaughtUp), Some(s)));
            }
            if let Some(problem) = s.reader.shared.failure() {
                return Some((Err(problem), None));
            }
            // Its sender lives in the reader that is held here.
            drop(changed.changed().await);
        }
    })
    .boxed()
}

/// A consumer's last handle is let go of on a thread that may block.
fn release(consumer: Arc<BaseConsumer<Heard>>) {
    // Asking for the count first would be too late if the reader lets go in between: only `into_inner` tells for sure.
    if let Some(last) = Arc::into_inner(consumer) {
        std::thread::spawn(move || drop(last));
    }
}

fn id(partition: usize) -> i32 {
    i32::try_from(partition).unwrap_or(i32::MAX)
}

/// The end of every partition as it is now, by what this consumer may see.
fn ends(consumer: &BaseConsumer<Heard>, topic: &str, partitions: usize) -> Result<Vec<i64>, KafkaError> {
    let mut asked = TopicPartitionList::new();
    for partition in 0..partitions {
        asked.add_partition_offset(topic, id(partition), Offset::End)?;
    }
    // The "time" of the end asks every leader once for all of its partitions.
    let found = consumer.offsets_for_times(asked, REQUEST)?;
    let mut ends = vec![0; partitions];
    for element in found.elements() {
        element.error()?;
        let Offset::Offset(offset) = element.offset() else {
            return Err(KafkaError::OffsetFetch(Code::InvalidArgument));
        };
        if let Some(end) = usize::try_from(element.partition()).ok().and_then(|partition| ends.get_mut(partition)) {
            *end = offset;
        }
    }
    Ok(ends)
}

/// Messages that were none of ours.
#[derive(Default)]
struct Strangers {
    count: u64,
    last: Option<Instant>,
}

/// For how long the finding stands after the last one. A program that writes to the topics by mistake goes on.
const TOLD: Duration = Duration::from_secs(3600);

impl Strangers {
    /// One more; returns how many they are.
    fn note(&mut self, now: Instant) -> u64 {
        self.count += 1;
        self.last = Some(now);
        self.count
    }

    fn recent(&self, now: Instant) -> Option<u64> {
        self.last.filter(|last| now.saturating_duration_since(*last) < TOLD).map(|_| self.count)
    }
}

impl Shared {
    fn current(&self) -> Option<(u64, Arc<BaseConsumer<Heard>>)> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn failure(&self) -> Option<BusError> {
        let (denied, problem) = self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let endpoint = self.endpoint.clone();
        Some(if denied {
            BusError::Denied { endpoint, problem }
        } else {
            BusError::Misconfigured { endpoint, problem }
        })
    }

    fn run(&self) {
        let mut row = pauses();
        while !self.stop.load(Ordering::Acquire) {
            let begun = Instant::now();
            let outcome = self.read();
            let consumer = self.current.lock().unwrap_or_else(PoisonError::into_inner).take();
            drop(consumer);
            match outcome {
                Ok(()) => return,
                Err(problem) if problem.is_transient() => {
                    tracing::info!(topic = %self.topic, %problem, "reading begins anew");
                    self.trouble.note(problem.clone());
                    self.restarts.note(&self.topic, problem.to_string());
                }
                Err(problem) => {
                    static LIMIT: LogLimit = LogLimit::new();
                    if let Some(left_out) = LIMIT.admit() {
                        tracing::warn!(topic = %self.topic, %problem, left_out, "reading ends");
                    }
                    self.trouble.note(problem.clone());
                    let (BusError::Denied { problem: text, .. } | BusError::Misconfigured { problem: text, .. }) =
                        &problem
                    else {
                        continue;
                    };
                    *self.failed.lock().unwrap_or_else(PoisonError::into_inner) =
                        Some((matches!(problem, BusError::Denied { .. }), text.clone()));
                    self.started.store(false, Ordering::Release);
                    self.replica.tell();
                    return;
                }
            }
            if begun.elapsed() > PROBE_PATIENCE {
                row = pauses();
            }
            self.replica.tell();
            std::thread::sleep(next_pause(&mut row));
        }
    }

    fn read_anew(&self, why: &'static str) {
        tracing::debug!(topic = %self.topic, why, "has to be read anew");
        *self.anew.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
    }

    fn why_anew(&self) -> Option<&'static str> {
        self.anew.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Names the first partition in which what is committed ends before what is written.
    fn held_back(&self) -> Option<BusError> {
        let (_, committed) = self.current()?;
        let config = self.access.options.reading(&self.access.held(), false);
        let written: BaseConsumer<Heard> = config.create_with_context(Heard::default()).ok()?;
        let partitions = self.replica.lock().places.len();
        let first = ends(&committed, &self.topic, partitions).ok()?;
        let last = ends(&written, &self.topic, partitions).ok()?;
        drop(committed);
        let (partition, offset) = first
            .iter()
            .zip(&last)
            .enumerate()
            .find_map(|(at, (first, last))| (first < last).then_some((at, *first)))?;
        let topic = &self.topic;
        Some(self.lost(format!(
            "another program has left a transaction open in partition {partition} of {topic}, and no reader gets past it; \
             brokers end it after that program's transaction.timeout.ms, 15 minutes at most; to end it now: \
             kafka-transactions.sh --bootstrap-server {} abort --topic {topic} --partition {partition} --start-offset {offset}",
            self.endpoint
        )))
    }

    fn too_large(&self) -> BusError {
        let problem = format!(
            "topic {} holds more than can be kept in memory; see who writes to it, or whether it is compacted",
            self.topic
        );
        BusError::Misconfigured { endpoint: self.endpoint.clone(), problem }
    }

    fn lost(&self, problem: impl Into<String>) -> BusError {
        BusError::Unreachable { endpoint: self.endpoint.clone(), problem: problem.into() }
    }

    /// Registrations are read as they are written: they are no transactions, and one that is acknowledged
    /// must be seen even where a stuck transaction of another program would hold `read_committed` back.
    fn consumer(&self, held: &Held) -> Result<Arc<BaseConsumer<Heard>>, BusError> {
        let config = self.access.options.reading(held, self.kind == Kind::State);
        let consumer = config.create_with_context(Heard::default());
        Ok(Arc::new(consumer.map_err(|problem| meaning(&self.endpoint, &problem))?))
    }

    /// One reading, up to the loss of continuity. `Ok`: it is to stop.
    fn read(&self) -> Result<(), BusError> {
        let held = self.access.held();
        let consumer = self.consumer(&held)?;
        let starts = self.starts(&consumer)?;
        let partitions = starts.len();
        let mut assignment = TopicPartitionList::new();
        for partition in 0..partitions {
            let added = assignment.add_partition_offset(&self.topic, id(partition), Offset::Beginning);
            added.map_err(|problem| meaning(&self.endpoint, &problem))?;
        }
        consumer.assign(&assignment).map_err(|problem| meaning(&self.endpoint, &problem))?;
        self.why_anew();
        let generation = self.replica.begin(&starts);
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some((generation, Arc::clone(&consumer)));
        self.replica.tell();
        let mut tails: Vec<Option<Tail>> = (0..partitions).map(|_| None).collect();
        let mut next_probe = Instant::now() + PROBE;
        loop {
            if self.stop.load(Ordering::Acquire) {
                return Ok(());
            }
            if let Some(why) = self.why_anew() {
                return Err(self.lost(why));
            }
            if self.access.is_renewed(&held) {
                return Err(self.lost("the login or the certificates are renewed"));
            }
            if consumer.context().is_down() {
                return Err(consumer.context().loss(&self.endpoint));
            }
            match consumer.poll(POLL) {
                None => {}
                Some(Ok(message)) => self.message(&consumer, &message, &mut tails)?,
                Some(Err(KafkaError::PartitionEOF(partition))) => self.end(&consumer, partition, &mut tails)?,
                Some(Err(problem)) if problem.rdkafka_error_code() == Some(Code::AutoOffsetReset) => {
                    return Err(self.lost(format!(
                        "messages were deleted before they were read ({problem}); see retention.ms, retention.bytes and \
                         cleanup.policy of the topic"
                    )));
                }
                Some(Err(problem)) => {
                    let error = meaning(&self.endpoint, &problem);
                    // The group is a name only: nothing is committed, no client joins.
                    let code = problem.rdkafka_error_code();
                    if code != Some(Code::GroupAuthorizationFailed) {
                        return Err(error);
                    }
                }
            }
            if Instant::now() >= next_probe {
                next_probe = Instant::now() + PROBE;
                self.probe(&consumer, &mut tails)?;
                let now = self.count(&consumer, COUNT).unwrap_or(0);
                if now > 0 && now != partitions {
                    return Err(self.lost(format!("it has {now} partitions, and had {partitions}")));
                }
            }
        }
    }

    /// Where every partition begins. Below that nothing is left to read, and a partition may hold nothing above it: one
    /// whose records have all been deleted is read to its end without a message.
    fn starts(&self, consumer: &BaseConsumer<Heard>) -> Result<Vec<i64>, BusError> {
        let partitions = self.partitions(consumer)?;
        let start = |partition| consumer.fetch_watermarks(&self.topic, id(partition), REQUEST).map(|(low, _)| low);
        let starts: Result<_, _> = (0..partitions).map(start).collect();
        starts.map_err(|problem| {
            drop(consumer.poll(Duration::ZERO));
            consumer.context().explain(&self.endpoint, &problem)
        })
    }

    /// How many partitions the topic has now; 0: it cannot be seen.
    fn count(&self, consumer: &BaseConsumer<Heard>, patience: Duration) -> Result<usize, KafkaError> {
        let metadata = consumer.fetch_metadata(Some(&self.topic), patience)?;
        let topic = metadata.topics().iter().find(|topic| topic.name() == self.topic);
        Ok(topic.filter(|topic| topic.error().is_none()).map_or(0, |topic| topic.partitions().len()))
    }

    /// The number of partitions, once the topic can be seen.
    fn partitions(&self, consumer: &BaseConsumer<Heard>) -> Result<usize, BusError> {
        let count = self.count(consumer, REQUEST).map_err(|problem| {
            drop(consumer.poll(Duration::ZERO));
            consumer.context().explain(&self.endpoint, &problem)
        })?;
        if count > 0 {
            return Ok(count);
        }
        if self.access.options.topics == KafkaTopics::Create {
            self.runtime.block_on(self.topics.ensure())?;
        }
        Err(self.lost(format!("topic {} is missing; a broadcaster creates it", self.topic)))
    }

    fn message(
        &self,
        consumer: &BaseConsumer<Heard>,
        message: &rdkafka::message::BorrowedMessage<'_>,
        tails: &mut [Option<Tail>],
    ) -> Result<(), BusError> {
        let Some(partition) = usize::try_from(message.partition()).ok().filter(|partition| *partition < tails.len())
        else {
            return Err(self.lost("it has more partitions than before"));
        };
        let (offset, mark) = (message.offset(), mark(message));
        let reached = self.replica.lock().places[partition].reached;
        if let Some(tail) = &mut tails[partition] {
            let seen = tail.seen(mark);
            // What lies between was read before. Little of it is read once more: going forward throws away what was
            // fetched beyond it, and the next fetch may wait for a message first.
            let skip = if reached - offset > REREAD { Some(reached) } else { None };
            self.goes_on(consumer, partition, seen, skip)?;
        }
        if offset < reached {
            return Ok(());
        }
        match &mut tails[partition] {
            Some(tail) => tail.newer(mark),
            none => *none = Some(Tail::new(mark)),
        }
        let key = message.key().map(|key| String::from_utf8_lossy(key).into_owned());
        match (key, message.payload()) {
            // An empty payload comes without bytes as well; a tombstone has no headers.
            (Some(key), None) if message.headers().is_none() => self.replica.remove(&key),
            (Some(key), _) => match record::read(message) {
                // Kafka lets a client that may write to a topic write under any key: a message takes the place of its own only.
                Ok((envelope, _)) if envelope.subject != key => self.unreadable("its key is not its subject"),
                Ok((envelope, revision)) => {
                    if !self.replica.put(key, partition, envelope, revision) {
                        return Err(self.too_large());
                    }
                }
                Err(problem) => self.unreadable(&problem),
            },
            (None, _) => self.unreadable("it has no key"),
        }
        {
            let mut folded = self.replica.lock();
            let place = &mut folded.places[partition];
            (place.reached, place.at_end) = (offset + 1, false);
        }
        self.replica.tell();
        Ok(())
    }

    /// Acts on what a look at a known record has found.
    fn goes_on(
        &self,
        consumer: &BaseConsumer<Heard>,
        partition: usize,
        seen: Seen,
        skip: Option<i64>,
    ) -> Result<(), BusError> {
        let from = match seen {
            Seen::Nothing => return Ok(()),
            Seen::Another => return Err(self.lost("it is not the log it was")),
            Seen::Same => skip,
            Seen::Elsewhere(offset) => Some(offset),
        };
        let Some(from) = from else { return Ok(()) };
        let sought = consumer.seek(&self.topic, id(partition), Offset::Offset(from), REQUEST);
        sought.map_err(|problem| meaning(&self.endpoint, &problem))
    }

    fn end(&self, consumer: &BaseConsumer<Heard>, partition: i32, tails: &mut [Option<Tail>]) -> Result<(), BusError> {
        let Some(partition) = usize::try_from(partition).ok().filter(|partition| *partition < tails.len()) else {
            return Ok(());
        };
        if let Some(tail) = tails[partition].as_mut().filter(|tail| tail.is_looking()) {
            return self.goes_on(consumer, partition, tail.end(), None);
        }
        self.trouble.over();
        {
            let mut folded = self.replica.lock();
            let place = &mut folded.places[partition];
            if let Some(end) = place.confirming.take() {
                place.reached = place.reached.max(end);
            }
            place.at_end = true;
        }
        self.replica.tell();
        Ok(())
    }

    /// Reads a known record of every silent partition once more.
    fn probe(&self, consumer: &BaseConsumer<Heard>, tails: &mut [Option<Tail>]) -> Result<(), BusError> {
        for (partition, tail) in tails.iter_mut().enumerate() {
            let Some(tail) = tail else { continue };
            if tail.looking_for() > PROBE_PATIENCE {
                return Err(self.lost("it does not answer"));
            }
            let silent = {
                let folded = self.replica.lock();
                folded.places[partition].at_end && folded.places[partition].confirming.is_none()
            };
            if silent && !tail.is_looking() {
                let sought = consumer.seek(&self.topic, id(partition), Offset::Offset(tail.look()), REQUEST);
                sought.map_err(|problem| meaning(&self.endpoint, &problem))?;
                // A barrier that looks at the same time would seek past what is being probed.
                self.replica.lock().places[partition].at_end = false;
            }
        }
        Ok(())
    }

    fn unreadable(&self, problem: &str) {
        static LIMIT: LogLimit = LogLimit::new();
        let count = self.unreadable.lock().unwrap_or_else(PoisonError::into_inner).note(Instant::now());
        if let Some(left_out) = LIMIT.admit() {
            tracing::warn!(topic = %self.topic, %problem, count, left_out, "message that is none of ours");
        }
    }
}

fn mark(message: &rdkafka::message::BorrowedMessage<'_>) -> Mark {
    let mut hasher = DefaultHasher::new();
    message.key().hash(&mut hasher);
    let key = hasher.finish();
    (message.payload(), message.timestamp().to_millis()).hash(&mut hasher);
    let is_tombstone = message.payload().is_none() && message.headers().is_none();
    Mark { offset: message.offset(), print: hasher.finish(), key, is_tombstone }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_are_told_of_for_an_hour_after_the_last_one() {
        let (mut strangers, begun) = (Strangers::default(), Instant::now());
        assert_eq!(strangers.recent(begun), None);
        strangers.note(begun);
        let second = begun + TOLD / 2;
        assert_eq!(strangers.note(second), 2);
        assert_eq!(strangers.recent(begun + TOLD), Some(2));
        assert_eq!(strangers.recent(second + TOLD), None);
        strangers.note(second + TOLD * 2);
        assert_eq!(strangers.recent(second + TOLD * 2), Some(3));
    }
}
