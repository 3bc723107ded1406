//! How an instance follows the states of its secrets: it asks a broadcaster for the last state of each, and hears later
//! ones as they are published. So a service's login makes no consumer, and asks JetStream for nothing.
//!
//! What is published is heard without acknowledgement. So every state is read again now and then, and everything is read
//! again after a lost connection, a dropped message or a recreated stream.

use async_nats::{HeaderMap, Message};
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{BoxStream, SelectAll};
use rotacast_log_limit::LogLimit;
use rotacast_proto::Envelope;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::asking::Unanswered;
use super::stream::Kind;
use super::{NatsBus, REQUEST_TIMEOUT, SILENT_HEARTBEATS, WATCH_BUFFER, envelope};
use crate::feed::{self, Gone, deliver, next_pause, pauses};
use crate::{BusError, BusEvent};

/// Reads at once: an instance with 256 secrets has them all after eight round trips.
const READS_AT_ONCE: usize = 32;

/// The header with a state's place in the stream; 0: there is none.
pub(super) const SEQUENCE: &str = "rotacast-sequence";

type Out = mpsc::Sender<Result<BusEvent, BusError>>;

/// Follows the states of these subjects, of which there must be one at least and none twice, as long as the stream is held.
pub(super) fn follow(bus: NatsBus, subjects: Vec<String>) -> BoxStream<'static, Result<BusEvent, BusError>> {
    feed::spawn(WATCH_BUFFER, move |out| async move {
        let mut row = pauses();
        let mut begun = false;
        loop {
            match Following::begin(&bus, &subjects, &out, &mut begun).await {
                Ok(mut following) => {
                    row = pauses();
                    let Err(end) = following.run(&out).await;
                    match end {
                        End::Gone => return,
                        End::Lost(why) => note(&bus, &why),
                    }
                }
                Err(End::Gone) => return,
                Err(End::Lost(why)) => note(&bus, &why),
            }
            tokio::time::sleep(next_pause(&mut row)).await;
        }
    })
}

fn note(bus: &NatsBus, why: &str) {
    tracing::debug!(why, "reading of states begins anew");
    bus.inner.restarts.note(&Kind::State.stream(&bus.inner.names), why.to_owned());
}

/// Why a following ended.
enum End {
    /// Its reader has gone away.
    Gone,
    /// Continuity was lost.
    Lost(String),
}

impl From<Gone> for End {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

/// What was delivered of one subject.
#[derive(Clone, Default)]
struct Delivered {
    /// The stream's sequence of the newest state that was read; 0: none.
    sequence: u64,
    /// The signature of the state that was delivered last.
    signature: Bytes,
}

struct Following<'b> {
    bus: &'b NatsBus,
    subjects: &'b [String],
    /// Messages as they are published, each with the place of its subject.
    live: SelectAll<BoxStream<'static, (usize, async_nats::Message)>>,
    continuity: tokio::sync::watch::Receiver<u64>,
    delivered: Vec<Delivered>,
}

impl<'b> Following<'b> {
    /// Subscribes, and delivers the last state of each subject and `CaughtUp`.
    async fn begin(bus: &'b NatsBus, subjects: &'b [String], out: &Out, begun: &mut bool) -> Result<Self, End> {
        let mut continuity = bus.inner.continuity.subscribe();
        continuity.mark_unchanged();
        // Before the states are read: what is published in between arrives twice rather than never.
        let mut live = SelectAll::new();
        for (place, subject) in subjects.iter().enumerate() {
            let subscribed = bus.inner.client.subscribe(subject.clone()).await;
            let messages = subscribed.map_err(|problem| End::Lost(problem.to_string()))?;
            live.push(messages.map(move |message| (place, message)).boxed());
        }
        let mut following =
            Self { bus, subjects, live, continuity, delivered: vec![Delivered::default(); subjects.len()] };
        let states = read_all(bus, subjects).await?;
        if std::mem::replace(begun, true) {
            deliver(out, Ok(BusEvent::Resync)).await?;
        }
        for (place, state) in states {
            following.take_read(place, state, out).await?;
        }
        deliver(out, Ok(BusEvent::CaughtUp)).await?;
        Ok(following)
    }

    /// Until continuity is lost or the reader goes away.
    async fn run(&mut self, out: &Out) -> Result<std::convert::Infallible, End> {
        let every = self.bus.inner.options.heartbeat * SILENT_HEARTBEATS;
        let mut next_read = Instant::now() + every;
        loop {
            tokio::select! {
                live = self.live.next() => {
                    let (place, message) = live.ok_or_else(|| End::Lost("the client was closed".into()))?;
                    match envelope::read(message.headers.as_ref(), message.payload) {
                        Ok(state) => self.take(place, state, out).await?,
                        Err(problem) => {
                            static LIMIT: LogLimit = LogLimit::new();
                            if let Some(left_out) = LIMIT.admit() {
                                let subject = &self.subjects[place];
                                tracing::warn!(subject, %problem, left_out, "message that is none of ours");
                            }
                        }
                    }
                }
                changed = self.continuity.changed() => {
                    let why = if changed.is_ok() { "messages may have been lost" } else { "the client was closed" };
                    return Err(End::Lost(why.into()));
                }
                () = tokio::time::sleep_until(next_read) => {
                    for (place, state) in read_all(self.bus, self.subjects).await? {
                        self.take_read(place, state, out).await?;
                    }
                    next_read = Instant::now() + every;
                }
            }
        }
    }

    /// A state that was read: delivered unless it was the last one delivered. That may have been another one although nothing was
    /// stored since: what a deposed leader publishes in vain is heard all the same.
    async fn take_read(&mut self, place: usize, read: Read, out: &Out) -> Result<(), End> {
        let before = self.delivered[place].sequence;
        if read.sequence < before {
            return Err(End::Lost("the stream was made anew".into()));
        }
        self.delivered[place].sequence = read.sequence;
        match read.state {
            Some(state) => self.take(place, state, out).await,
            None => Ok(()),
        }
    }

    async fn take(&mut self, place: usize, state: Envelope, out: &Out) -> Result<(), End> {
        if state.signature != self.delivered[place].signature {
            self.delivered[place].signature = state.signature.clone();
            deliver(out, Ok(BusEvent::Message(state))).await?;
        }
        Ok(())
    }
}

/// What a broadcaster has read.
struct Read {
    /// The state's place in the stream; 0: there is none.
    sequence: u64,
    state: Option<Envelope>,
}

/// The last state of every subject.
async fn read_all(bus: &NatsBus, subjects: &[String]) -> Result<Vec<(usize, Read)>, End> {
    // A list, since the compiler cannot tell that a closure's futures may be sent.
    let mut reads = Vec::with_capacity(subjects.len());
    for (place, subject) in subjects.iter().enumerate() {
        reads.push(async move { read(bus, subject).await.map(|state| (place, state)) });
    }
    let mut reads = futures::stream::iter(reads).buffer_unordered(READS_AT_ONCE);
    let mut states = Vec::with_capacity(subjects.len());
    while let Some(read) = reads.next().await {
        states.push(read.map_err(|problem| End::Lost(problem.to_string()))?);
    }
    Ok(states)
}

/// The last state of one subject, as a server has it that keeps the stream. It may be a moment behind.
async fn read(bus: &NatsBus, subject: &str) -> Result<Read, BusError> {
    let Some(place) = bus.inner.names.read(&bus.inner.options.party, subject) else {
        return Err(bus.unreachable(format!("{subject} is no state's subject")));
    };
    let answer = |message: Message| {
        let sequence = message.headers.as_ref().and_then(|headers| headers.get(SEQUENCE));
        let sequence = sequence.and_then(|sequence| sequence.as_str().parse().ok());
        let sequence = sequence.ok_or_else(|| format!("it has no header {SEQUENCE}"))?;
        Ok(Read { sequence, state: envelope::read(message.headers.as_ref(), message.payload).ok() })
    };
    let asked = bus.ask(place, (HeaderMap::new(), Bytes::new()), REQUEST_TIMEOUT, answer).await;
    asked.map_err(|problem| match problem {
        Unanswered::NoListener => bus.unreachable("no broadcaster is there to read states; start one"),
        Unanswered::Late => bus.unanswered("no broadcaster has read a state in time"),
        Unanswered::Unsent(problem) => bus.unreachable(problem),
    })
}
