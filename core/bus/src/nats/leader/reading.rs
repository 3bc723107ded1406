//! An ordered reading of one stream: the last message of every subject, then every newer one.
//!
//! A push consumer without acknowledgements, with flow control and heartbeats. Everything that could mean a
//! gap ends the reading; the reader begins anew, which costs one listing and can never miss a message.
//!
//! A server delivers into an inbox what anyone asks it to deliver there: the permissions of a login say nothing about the
//! subject of a reply. So only what the reading's own consumer delivers counts. Everything else is dropped.

use std::collections::VecDeque;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, push};
use async_nats::jetstream::context::Context;
use async_nats::jetstream::stream::{ConsumerErrorKind, Stream};
use async_nats::jetstream::{self, ErrorCode};
use async_nats::{Client, Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures::StreamExt as _;
use rotacast_log_limit::LogLimit;
use rotacast_proto::Envelope;
use tokio::sync::watch;
use tokio::time::Instant;

use super::StrayCounts;
use crate::Stray;
use crate::nats::subject::Names;
use crate::nats::{SILENT_HEARTBEATS, envelope};

/// For how long the server keeps a consumer without a listener.
const INACTIVE: Duration = Duration::from_secs(10);

/// What a reading tells.
// Nearly every step is a message, so that boxing it would cost an allocation and save nothing.
#[allow(clippy::large_enum_variant)]
pub(super) enum Step {
    Message(Envelope),
    CaughtUp,
    /// No receiver would accept what is stored there.
    Rubbish {
        subject: String,
        sequence: u64,
    },
}

/// Why a reading ended, or did not begin.
#[derive(Debug)]
pub(super) enum Broken {
    /// The stream does not exist.
    NoStream,
    /// Continuity was lost; begin anew.
    Lost(String),
    /// The server refuses the consumer.
    Refused(String),
}

/// What is being read, and by whom.
pub(super) struct Reading<'b> {
    strays: &'b StrayCounts,
    names: &'b Names,
    client: Client,
    context: Context,
    stream: Stream<()>,
    stream_name: String,
    consumer: String,
    messages: Subscriber,
    continuity: watch::Receiver<u64>,
    heartbeat: Duration,
    /// Sequence of the newest delivery, by the consumer's own count.
    received: u64,
    /// The stream's sequence of the newest delivery.
    reached: u64,
    /// Deliveries that were pending when the reading began.
    initial: u64,
    /// Set once `initial` deliveries did not empty the listing: caught up from this stream sequence on.
    caught_up_from: Option<u64>,
    caught_up: bool,
    /// When our consumer was heard last.
    heard: Instant,
    ready: VecDeque<Step>,
}

impl<'b> Reading<'b> {
    /// Begins a reading of `filters`, of which there must be one at least.
    pub(super) async fn begin(
        (context, names, strays): (&Context, &'b Names, &'b StrayCounts),
        stream: &str,
        filters: Vec<String>,
        heartbeat: Duration,
        mut continuity: watch::Receiver<u64>,
    ) -> Result<Self, Broken> {
        continuity.mark_unchanged();
        let client = context.client();
        let lost = |problem: &dyn std::fmt::Display| Broken::Lost(problem.to_string());
        let inbox = client.new_inbox();
        let messages = client.subscribe(inbox.clone()).await.map_err(|problem| lost(&problem))?;
        let handle = context.get_stream_no_info(stream).await.map_err(|problem| lost(&problem))?;
        let config = push::Config {
            deliver_subject: inbox,
            description: Some("rotacast subscription".into()),
            deliver_policy: DeliverPolicy::LastPerSubject,
            ack_policy: AckPolicy::None,
            filter_subjects: filters,
            flow_control: true,
            idle_heartbeat: heartbeat,
            memory_storage: true,
            num_replicas: 1,
            inactive_threshold: INACTIVE.max(heartbeat * SILENT_HEARTBEATS),
            ..push::Config::default()
        };
        let consumer = handle.create_consumer(config).await.map_err(|problem| match problem.kind() {
            ConsumerErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                Broken::NoStream
            }
            ConsumerErrorKind::JetStream(error) if is_refusal(&error) => Broken::Refused(error.to_string()),
            _ => lost(&problem),
        })?;
        let info = consumer.cached_info();
        let mut reading = Self {
            strays,
            names,
            client,
            context: context.clone(),
            stream: handle,
            stream_name: stream.to_owned(),
            consumer: info.name.clone(),
            messages,
            continuity,
            heartbeat,
            received: 0,
            reached: 0,
            initial: info.num_pending + info.delivered.consumer_sequence,
            caught_up_from: None,
            caught_up: false,
            heard: Instant::now(),
            ready: VecDeque::new(),
        };
        if reading.initial == 0 {
            reading.now_caught_up();
        }
        Ok(reading)
    }

    /// The stream's sequence of what was delivered last.
    pub(super) fn reached(&self) -> u64 {
        self.reached
    }

    /// The next step. Cancel-safe only in that a dropped call ends the reading.
    pub(super) async fn next(&mut self) -> Result<Step, Broken> {
        loop {
            if let Some(step) = self.ready.pop_front() {
                return Ok(step);
            }
            let silence = self.heard + self.heartbeat * SILENT_HEARTBEATS;
            let message = tokio::select! {
                message = self.messages.next() => message.ok_or_else(|| Broken::Lost("the client was closed".into()))?,
                changed = self.continuity.changed() => {
                    let why = if changed.is_ok() { "the connection was lost" } else { "the client was closed" };
                    return Err(Broken::Lost(why.into()));
                }
                () = tokio::time::sleep_until(silence) => return Err(Broken::Lost("no heartbeat".into())),
            };
            match message.status {
                None => self.data(message).await?,
                Some(StatusCode::IDLE_HEARTBEAT) => self.control(&message).await?,
                // A push consumer says nothing else: this answers a request that named our inbox.
                Some(status) => self.stray(&format!("status {status}")),
            }
        }
    }

    async fn data(&mut self, message: Message) -> Result<(), Broken> {
        let message = jetstream::Message { message, context: self.context.clone() };
        let (position, sequence, pending) = {
            let Ok(info) = message.info() else {
                self.stray("a message without position");
                return Ok(());
            };
            if info.stream != self.stream_name || info.consumer != self.consumer {
                self.stray(&format!("a message of consumer {} of stream {}", info.consumer, info.stream));
                return Ok(());
            }
            (info.consumer_sequence, info.stream_sequence, info.pending)
        };
        self.heard = Instant::now();
        if position <= self.received {
            return Ok(());
        }
        if position != self.received + 1 {
            return Err(Broken::Lost(format!("messages {} to {} were dropped", self.received + 1, position - 1)));
        }
        self.received = position;
        self.reached = sequence;
        self.take(message.message);
        self.check_caught_up(pending).await
    }

    /// What the stream delivers.
    fn take(&mut self, message: Message) {
        let Message { subject, headers, payload, .. } = message;
        let of_subject = match envelope::read(headers.as_ref(), payload) {
            Ok(envelope) if self.names.may_be_about(&subject, &envelope.subject) => {
                self.ready.push_back(Step::Message(envelope));
                return;
            }
            Ok(envelope) => {
                self.strays.note(Stray::Subject);
                format!("it is about {:?}", envelope.subject.chars().take(300).collect::<String>())
            }
            Err(problem) => {
                self.strays.note(Stray::Unreadable);
                problem.to_string()
            }
        };
        static LIMIT: LogLimit = LogLimit::new();
        if let Some(left_out) = LIMIT.admit() {
            tracing::warn!(%subject, problem = of_subject, left_out, "message that is none of ours; removed");
        }
        self.ready.push_back(Step::Rubbish { subject: subject.to_string(), sequence: self.reached });
    }

    /// Counts and names what did not come from our consumer.
    fn stray(&self, what: &str) {
        static LIMIT: LogLimit = LogLimit::new();
        self.strays.note(Stray::Delivery);
        if let Some(left_out) = LIMIT.admit() {
            let (stream, consumer) = (&self.stream_name, &self.consumer);
            tracing::warn!(
                what,
                stream,
                consumer,
                left_out,
                "dropped what another client had delivered into the inbox of a reader; see who may use JetStream"
            );
        }
    }

    /// Caught up when nothing is pending; or, on a stream too busy for that, once everything that was in it
    /// when the listing had been delivered is.
    async fn check_caught_up(&mut self, pending: u64) -> Result<(), Broken> {
        if self.caught_up {
            return Ok(());
        }
        if pending > 0 && self.caught_up_from.is_none() && self.received >= self.initial {
            let info = self.stream.get_info().await.map_err(|problem| Broken::Lost(problem.to_string()))?;
            self.caught_up_from = Some(info.state.last_sequence);
        }
        if pending == 0 || self.caught_up_from.is_some_and(|sequence| self.reached >= sequence) {
            self.now_caught_up();
        }
        Ok(())
    }

    /// Heartbeats and flow control.
    async fn control(&mut self, message: &Message) -> Result<(), Broken> {
        let header = |name: &str| message.headers.as_ref().and_then(|headers| headers.get(name));
        let stalled = header("Nats-Consumer-Stalled").map(|subject| subject.as_str().to_owned());
        // `$JS.FC.`, perhaps domain and account, stream, consumer, and a token.
        let ours = format!(".{}.{}.", self.stream_name, self.consumer);
        let ours = |reply: &String| reply.starts_with("$JS.FC.") && reply.contains(&ours);
        // Flow control: the server goes on once we have read up to here.
        for reply in message.reply.as_ref().map(ToString::to_string).into_iter().chain(stalled) {
            // We publish where the message says: only to our own consumer's subject.
            if !ours(&reply) {
                self.stray("flow control of another consumer");
                return Ok(());
            }
            self.client.publish(reply, Bytes::new()).await.map_err(|problem| Broken::Lost(problem.to_string()))?;
        }
        self.heard = Instant::now();
        let Some(last) = header("Nats-Last-Consumer").and_then(|number| number.as_str().parse::<u64>().ok()) else {
            return Ok(());
        };
        if last > self.received || !self.caught_up {
            // A heartbeat does not name its consumer, so another one's may be delivered here: the server knows.
            let info = self.stream.consumer_info(&self.consumer).await;
            let info = info.map_err(|problem| Broken::Lost(problem.to_string()))?;
            let sent = info.delivered.consumer_sequence;
            // What was sent after the heartbeat may still be on its way.
            if last > self.received && sent >= last {
                return Err(Broken::Lost(format!("messages {} to {last} were dropped", self.received + 1)));
            }
            if last > sent {
                self.stray("a heartbeat of another consumer");
            }
            // Idle, and yet not caught up: what was pending has been removed meanwhile.
            if !self.caught_up && info.num_pending == 0 && info.delivered.consumer_sequence <= self.received {
                self.now_caught_up();
            }
        }
        Ok(())
    }

    fn now_caught_up(&mut self) {
        self.caught_up = true;
        self.ready.push_back(Step::CaughtUp);
    }
}

fn is_refusal(error: &jetstream::Error) -> bool {
    // Client errors; among them a limit on consumers. 503 and the like are worth another try.
    error.code() < 500 && error.error_code() != ErrorCode::STREAM_NOT_FOUND
}
