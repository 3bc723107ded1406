//! The bus over NATS: JetStream for what must be found later, core NATS for what need not.

mod connect;
mod envelope;
#[cfg(feature = "leader")]
mod leader;
mod stream;
mod subject;
mod subscription;
mod sync;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use async_nats::connection::State as ConnectionState;
use async_nats::jetstream::context::{
    AccountErrorKind, Context, CreateStreamErrorKind, GetStreamErrorKind, PublishError, PublishErrorKind,
};
use async_nats::jetstream::stream::Config;
use async_nats::jetstream::{self, ErrorCode};
use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use rotacast_proto::Envelope;
use rotacast_protocol::{InstanceKey, SecretName};
use tokio::sync::{Mutex, mpsc, watch};
use tokio::time::Instant;

pub use self::connect::{NatsCredentials, NatsOptions, NatsStreams};
pub use self::stream::StreamLimits;
use self::stream::{Kind, SERVER_HEADERS};
use self::subject::Names;
use self::subscription::{Broken, Reading, Step};
use crate::bus::check_size;
use crate::feed::{self, Gone, LastProblem, deliver, next_pause, pauses};
use crate::restarts::Restarts;
use crate::{BusError, BusEvent, CALL_TIMEOUT, InstanceBus, Level, MAX_MESSAGE_BYTES};

/// Messages under way to a slow reader before flow control holds the server back.
const WATCH_BUFFER: usize = 256;
/// How long one request to the server may take; a call has room for a second attempt within its 5 s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// Publishes waiting for their acknowledgement on one connection; more callers wait for a place.
const MAX_UNACKNOWLEDGED: usize = 4096;
/// How long the cause of a lost connection is reported again before another connection is tried.
const CAUSE_FOR: Duration = Duration::from_secs(5);
/// Oldest server: earlier ones lack several filter subjects per consumer.
const OLDEST_SERVER: (i64, i64, i64) = (2, 10, 0);

/// Both sides over one NATS connection. A cheap handle: clones share the connection, and every subscription
/// costs the server one small consumer in memory.
#[derive(Clone)]
pub struct NatsBus {
    inner: Arc<Inner>,
}

struct Inner {
    endpoint: String,
    options: NatsOptions,
    names: Names,
    client: Client,
    context: Context,
    /// Moves whenever continuity may have been lost.
    continuity: watch::Sender<u64>,
    /// Why it could not be reached, and when that was found.
    away: Mutex<Option<(Instant, BusError)>>,
    restarts: Restarts,
    #[cfg(feature = "leader")]
    last_states: leader::LastStates,
}

/// How a publish failed.
enum PublishFailure {
    /// Another broadcaster published the subject meanwhile, or the stream is another.
    WrongSequence,
    NoStream,
    Other(BusError),
}

impl NatsBus {
    /// Connects, and creates or audits the streams. Later losses of the connection are mended in the
    /// background, for as long as it takes.
    ///
    /// # Errors
    /// `Unreachable` when no server answers within 5 s, `Denied` when it refuses the credentials,
    /// `Misconfigured` when the server is too old, has no JetStream, or a stream cannot work.
    pub async fn connect(options: NatsOptions) -> Result<Self, BusError> {
        let endpoint = options.endpoint();
        let (client, continuity) = connect::connect(&options).await?;
        let context = jetstream::ContextBuilder::new()
            .timeout(REQUEST_TIMEOUT)
            .max_ack_inflight(MAX_UNACKNOWLEDGED)
            .backpressure_on_inflight(true)
            .build(client.clone());
        let names = Names::new(&options.cluster);
        let inner = Inner {
            endpoint,
            options,
            names,
            client,
            context,
            continuity,
            away: Mutex::default(),
            restarts: Restarts::default(),
            #[cfg(feature = "leader")]
            last_states: leader::LastStates::default(),
        };
        let bus = Self { inner: Arc::new(inner) };
        let server = bus.inner.client.server_info();
        let (major, minor, patch) = OLDEST_SERVER;
        if !bus.inner.client.is_server_compatible(major, minor, patch) {
            let found = server.version;
            return Err(bus.misconfigured(format!("server {found}, expected {major}.{minor}.{patch} or later")));
        }
        if bus.inner.options.streams == NatsStreams::CreateAndAudit {
            bus.ensure_all().await?;
        }
        Ok(bus)
    }

    fn unreachable(&self, problem: impl Into<String>) -> BusError {
        BusError::Unreachable { endpoint: self.inner.endpoint.clone(), problem: problem.into() }
    }

    fn misconfigured(&self, problem: impl Into<String>) -> BusError {
        BusError::Misconfigured { endpoint: self.inner.endpoint.clone(), problem: problem.into() }
    }

    fn full(&self, problem: impl Into<String>) -> BusError {
        BusError::Full { endpoint: self.inner.endpoint.clone(), problem: problem.into() }
    }

    fn is_connected(&self) -> bool {
        self.inner.client.connection_state() == ConnectionState::Connected
    }

    /// Refuses what the server would cut the connection for.
    fn check(&self, envelope: &Envelope) -> Result<(), BusError> {
        let limit = MAX_MESSAGE_BYTES.min(self.inner.client.max_payload().saturating_sub(SERVER_HEADERS));
        check_size(envelope, limit, &self.inner.endpoint)
    }

    /// Sees to all streams. Before it makes the first one it looks whether there is room for all that are missing: a
    /// set-up of one stream of three serves nothing.
    async fn ensure_all(&self) -> Result<(), BusError> {
        let mut missing = Vec::new();
        for kind in Kind::ALL {
            match self.inner.context.get_stream(kind.stream(&self.inner.names)).await {
                Ok(stream) => drop(self.accept(kind, &stream.cached_info().config)?),
                Err(problem) => match problem.kind() {
                    GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                        missing.push(kind);
                    }
                    GetStreamErrorKind::JetStream(error) => return Err(self.api_error(&error)),
                    _ => return Err(self.request_error(&problem)),
                },
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        self.check_room(&missing).await?;
        let mut made = Vec::new();
        while let Some(kind) = missing.first().copied() {
            if let Err(problem) = self.ensure(kind).await {
                return Err(self.half_made(problem, &made, &missing));
            }
            missing.remove(0);
            made.push(kind);
        }
        Ok(())
    }

    /// What is there already is said beside what is not.
    fn half_made(&self, problem: BusError, made: &[Kind], missing: &[Kind]) -> BusError {
        let BusError::Full { endpoint, problem } = problem else { return problem };
        let names =
            |kinds: &[Kind]| kinds.iter().map(|kind| kind.stream(&self.inner.names)).collect::<Vec<_>>().join(", ");
        let made = if made.is_empty() { "none".to_owned() } else { names(made) };
        let problem = format!(
            "{problem}; streams made just now: {made}, still missing: {}; the next attempt makes those",
            names(missing)
        );
        BusError::Full { endpoint, problem }
    }

    /// Whether the account's limits leave room for these streams. What the server itself has shows only when they are made.
    async fn check_room(&self, missing: &[Kind]) -> Result<(), BusError> {
        let account = match self.inner.context.query_account().await {
            Ok(account) => account,
            Err(problem) => {
                return Err(match problem.kind() {
                    AccountErrorKind::JetStream(error) => self.api_error(&error),
                    _ => self.request_error(&problem),
                });
            }
        };
        let (limits, replicas) = (self.inner.options.limits, self.replicas() as u64);
        let tier = account.tiers.get(&format!("R{replicas}"));
        let (allowed, reserved) = match tier {
            // A tier's limits count each stream once.
            Some(tier) => (tier.limits, (tier.reserved_storage, tier.reserved_memory)),
            None => (account.limits, (account.reserved_storage, account.reserved_memory)),
        };
        let copies = if tier.is_some() { 1 } else { replicas };
        let rooms =
            [("files", true, allowed.max_storage, reserved.0), ("memory", false, allowed.max_memory, reserved.1)];
        for (place, durable, allowed, reserved) in rooms {
            let streams: Vec<_> = missing.iter().filter(|kind| kind.is_durable() == durable).collect();
            let needed: u64 = streams.iter().map(|kind| kind.bytes(limits) * copies).sum();
            let Some(allowed) = allowed.and_then(|allowed| u64::try_from(allowed).ok()) else { continue };
            let left = allowed.saturating_sub(reserved);
            if needed > left {
                let names: Vec<_> = streams.iter().map(|kind| kind.stream(&self.inner.names)).collect();
                return Err(self.full(format!(
                    "the JetStream account has {left} bytes left in {place} (of {allowed}), and {} needs {needed}; raise \
                     the account's limit, or set smaller sizes in [bus.streams]",
                    names.join(" and ")
                )));
            }
        }
        Ok(())
    }

    /// How many copies of a stream are made. A server knows its cluster's name only when it is part of one.
    fn replicas(&self) -> usize {
        let clustered = self.inner.client.server_info().cluster.is_some();
        self.inner.options.replicas.unwrap_or(if clustered { 3 } else { 1 })
    }

    /// The stream's configuration as the server has it; creates a missing stream; refuses one that cannot work.
    async fn ensure(&self, kind: Kind) -> Result<Config, BusError> {
        let name = kind.stream(&self.inner.names);
        if self.inner.options.streams == NatsStreams::Use {
            let problem = format!("stream {name} is missing; start a broadcaster, which creates it");
            return Err(self.unreachable(problem));
        }
        // Another broadcaster may create it at the same time: look again once.
        for _ in 0..2 {
            match self.inner.context.get_stream(&name).await {
                Ok(stream) => return self.accept(kind, &stream.cached_info().config),
                Err(problem) => match problem.kind() {
                    GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {}
                    GetStreamErrorKind::JetStream(error) => return Err(self.api_error(&error)),
                    _ => return Err(self.request_error(&problem)),
                },
            }
            let config = kind.config(&self.inner.names, self.inner.options.limits, self.replicas());
            match self.inner.context.create_stream(config).await {
                Ok(stream) => {
                    tracing::info!(stream = %name, "created");
                    // Readers of an earlier stream of this name begin anew.
                    self.inner.continuity.send_modify(|count| *count += 1);
                    return self.accept(kind, &stream.cached_info().config);
                }
                Err(problem) => match problem.kind() {
                    CreateStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NAME_EXIST => {}
                    CreateStreamErrorKind::JetStream(error) => return Err(self.api_error(&error)),
                    CreateStreamErrorKind::TimedOut => return Err(self.request_error(&problem)),
                    _ => return Err(self.misconfigured(format!("creating stream {name}: {problem}"))),
                },
            }
        }
        Err(self.unreachable(format!("stream {name} appears and vanishes")))
    }

    fn accept(&self, kind: Kind, config: &Config) -> Result<Config, BusError> {
        let findings = kind.audit(&self.inner.names, config);
        let errors: Vec<_> = findings
            .iter()
            .filter(|finding| finding.level == Level::Error)
            .map(|finding| format!("{} {}; {}", finding.subject, finding.text, finding.fix))
            .collect();
        if errors.is_empty() { Ok(config.clone()) } else { Err(self.misconfigured(errors.join(". "))) }
    }

    /// What a JetStream API says.
    fn api_error(&self, error: &jetstream::Error) -> BusError {
        match error.error_code() {
            ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => {
                self.misconfigured(format!("{error}; start the server with JetStream (nats-server -js)"))
            }
            ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
            | ErrorCode::CLUSTER_NO_PEERS
            | ErrorCode::INSUFFICIENT_RESOURCES
            | ErrorCode::MAXIMUM_CONSUMERS_LIMIT
            | ErrorCode::MAXIMUM_STREAMS_LIMIT
            | ErrorCode::MEMORY_RESOURCES_EXCEEDED
            | ErrorCode::STORAGE_RESOURCES_EXCEEDED
            | ErrorCode::STREAM_STORE_FAILED => {
                self.full(format!("{error}; give JetStream more room, or set smaller sizes in [bus.streams]"))
            }
            // What a cluster says while it elects a leader.
            ErrorCode::CLUSTER_NOT_AVAILABLE | ErrorCode::CLUSTER_NOT_LEADER => self.unreachable(error.to_string()),
            _ if error.code() == 503 => self.unreachable(error.to_string()),
            _ if error.code() < 500 => self.misconfigured(error.to_string()),
            _ => BusError::Unknown { endpoint: self.inner.endpoint.clone(), problem: error.to_string() },
        }
    }

    /// A request that got no answer.
    fn request_error(&self, problem: &dyn std::fmt::Display) -> BusError {
        if self.is_connected() && !self.inner.client.server_info().jetstream {
            return self.misconfigured("no JetStream; start the server with it (nats-server -js)");
        }
        self.unreachable(problem.to_string())
    }

    fn publish_failure(&self, problem: &PublishError) -> PublishFailure {
        let api = std::error::Error::source(problem).and_then(|source| source.downcast_ref::<jetstream::Error>());
        match (problem.kind(), api) {
            (PublishErrorKind::WrongLastSequence, _) => PublishFailure::WrongSequence,
            (_, Some(error)) if error.error_code() == ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT => {
                PublishFailure::WrongSequence
            }
            (PublishErrorKind::StreamNotFound, _) => PublishFailure::NoStream,
            (_, Some(error)) => PublishFailure::Other(self.api_error(error)),
            (_, None) => PublishFailure::Other(self.request_error(problem)),
        }
    }

    /// Ends a call that takes too long.
    async fn within<T>(&self, call: impl Future<Output = Result<T, BusError>> + Send) -> Result<T, BusError> {
        self.within_or(&LastProblem::default(), call).await
    }

    /// The same for a call that notes why it repeats what it does.
    async fn within_or<T>(
        &self,
        last: &LastProblem,
        call: impl Future<Output = Result<T, BusError>> + Send,
    ) -> Result<T, BusError> {
        match tokio::time::timeout(CALL_TIMEOUT, call).await {
            Ok(outcome) => outcome,
            Err(_) if self.is_connected() => {
                Err(last.take().unwrap_or_else(|| self.unreachable("no answer in time; the outcome is unknown")))
            }
            Err(_) => Err(self.why_away().await),
        }
    }

    /// Why there is no connection. The client library keeps the cause to itself, so another connection is tried; one answer
    /// serves every caller for a while.
    async fn why_away(&self) -> BusError {
        let mut last = self.inner.away.lock().await;
        if let Some((_, problem)) = last.as_ref().filter(|(at, _)| at.elapsed() < CAUSE_FOR) {
            return problem.clone();
        }
        let problem = match tokio::time::timeout(REQUEST_TIMEOUT, connect::connect(&self.inner.options)).await {
            Ok(Err(problem)) => problem,
            Ok(Ok(_)) => self.unreachable("not connected yet; it can be reached again"),
            Err(_) => self.unreachable("not connected, and no answer to a new connection"),
        };
        *last = Some((Instant::now(), problem.clone()));
        problem
    }

    /// Publishes until it is acknowledged. Doubling is harmless: it is the whole state of its key. No message
    /// id here: the server would take a message for a duplicate although its first copy was pruned meanwhile.
    async fn publish_durably(&self, kind: Kind, subject: String, envelope: &Envelope) -> Result<(), BusError> {
        let last = LastProblem::default();
        self.within_or(&last, self.publish_until_durable(kind, subject, envelope, &last)).await
    }

    async fn publish_until_durable(
        &self,
        kind: Kind,
        subject: String,
        envelope: &Envelope,
        last: &LastProblem,
    ) -> Result<(), BusError> {
        let headers = envelope::headers(envelope, &self.inner.endpoint)?;
        let mut row = pauses();
        loop {
            let sent = self
                .inner
                .context
                .publish_with_headers(subject.clone(), headers.clone(), envelope.payload.clone())
                .await;
            let outcome = match sent {
                Ok(acknowledgement) => acknowledgement.await,
                Err(problem) => Err(problem),
            };
            let Err(problem) = outcome else { return Ok(()) };
            match self.publish_failure(&problem) {
                PublishFailure::NoStream => {
                    self.ensure(kind).await?;
                }
                PublishFailure::WrongSequence => return Err(self.unreachable(problem.to_string())),
                PublishFailure::Other(problem) if problem.is_transient() => {
                    tracing::debug!(%problem, %subject, "publish repeated");
                    last.note(problem);
                }
                PublishFailure::Other(problem) => return Err(problem),
            }
            tokio::time::sleep(next_pause(&mut row)).await;
        }
    }

    fn watch(&self, kind: Kind, filters: Vec<String>) -> BoxStream<'static, Result<BusEvent, BusError>> {
        let bus = self.clone();
        feed::spawn(WATCH_BUFFER, move |out| async move {
            if let Err(Stop::Failed(problem)) = bus.feed(kind, &filters, &out).await {
                // The reader may have gone at the same moment.
                drop(out.send(Err(problem)).await);
            }
        })
    }

    /// Reads a stream into a channel, beginning anew after every loss of continuity.
    async fn feed(
        &self,
        kind: Kind,
        filters: &[String],
        out: &mpsc::Sender<Result<BusEvent, BusError>>,
    ) -> Result<(), Stop> {
        let mut row = pauses();
        let mut begun = false;
        loop {
            match self.begin(kind, filters.to_vec()).await {
                Ok(mut reading) => {
                    if std::mem::replace(&mut begun, true) {
                        deliver(out, Ok(BusEvent::Resync)).await?;
                    }
                    let why = loop {
                        let event = match reading.next().await {
                            Ok(Step::Message(envelope)) => BusEvent::Message(envelope),
                            Ok(Step::CaughtUp) => {
                                row = pauses();
                                BusEvent::CaughtUp
                            }
                            Err(why) => break why,
                        };
                        deliver(out, Ok(event)).await?;
                    };
                    tracing::debug!(?kind, ?why, "subscription begins anew");
                    self.inner.restarts.note(&kind.stream(&self.inner.names), format!("{why:?}"));
                }
                Err(problem) if problem.is_transient() => {
                    tracing::debug!(?kind, %problem, "subscription not begun");
                    self.inner.restarts.note(&kind.stream(&self.inner.names), problem.to_string());
                }
                Err(problem) => return Err(Stop::Failed(problem)),
            }
            tokio::time::sleep(next_pause(&mut row)).await;
        }
    }

    /// Begins a reading, creating the stream if it is missing.
    async fn begin(&self, kind: Kind, filters: Vec<String>) -> Result<Reading, BusError> {
        let name = kind.stream(&self.inner.names);
        let heartbeat = self.inner.options.heartbeat;
        for _ in 0..2 {
            let continuity = self.inner.continuity.subscribe();
            match Reading::begin(&self.inner.context, &name, filters.clone(), heartbeat, continuity).await {
                Ok(reading) => return Ok(reading),
                Err(Broken::NoStream) => {
                    self.ensure(kind).await?;
                }
                Err(Broken::Lost(problem)) => return Err(self.unreachable(problem)),
                Err(Broken::Refused(problem)) => {
                    return Err(BusError::Denied { endpoint: self.inner.endpoint.clone(), problem });
                }
            }
        }
        Err(self.unreachable(format!("stream {name} appears and vanishes")))
    }
}

/// Why a feed stops.
enum Stop {
    Gone,
    Failed(BusError),
}

impl From<Gone> for Stop {
    fn from(_: Gone) -> Self {
        Stop::Gone
    }
}

#[async_trait]
impl InstanceBus for NatsBus {
    fn describe(&self) -> String {
        format!("NATS {} (cluster {})", self.inner.endpoint, self.inner.options.cluster)
    }

    async fn register(&self, key: &InstanceKey, registration: &Envelope) -> Result<(), BusError> {
        self.check(registration)?;
        let subject = self.inner.names.registration(key);
        self.publish_durably(Kind::Registrations, subject, registration).await
    }

    async fn report(&self, key: &InstanceKey, report: &Envelope) -> Result<(), BusError> {
        self.check(report)?;
        if !self.is_connected() {
            return Err(self.why_away().await);
        }
        let headers = envelope::headers(report, &self.inner.endpoint)?;
        self.within(async {
            // No acknowledgement: a report that is lost comes again with the next Sync.
            let sent =
                self.inner.client.publish_with_headers(self.inner.names.report(key), headers, report.payload.clone());
            sent.await.map_err(|problem| self.unreachable(problem.to_string()))
        })
        .await
    }

    fn watch_states(&self, secrets: &[SecretName]) -> BoxStream<'static, Result<BusEvent, BusError>> {
        let distinct: BTreeSet<_> = secrets.iter().map(|secret| self.inner.names.state(secret)).collect();
        if distinct.is_empty() {
            // No filter would mean every secret.
            return futures::stream::once(async { Ok(BusEvent::CaughtUp) }).chain(futures::stream::pending()).boxed();
        }
        self.watch(Kind::State, distinct.into_iter().collect())
    }

    async fn sync(&self, request: &Envelope, timeout: Duration) -> Result<Envelope, BusError> {
        self.check(request)?;
        sync::ask(self, request, timeout).await
    }
}
