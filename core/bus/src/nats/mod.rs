//! The bus over NATS: JetStream for what must be found later, core NATS for what need not.

mod asking;
mod connect;
mod envelope;
mod following;
#[cfg(feature = "leader")]
mod leader;
mod registering;
#[cfg(feature = "leader")]
mod rights;
mod stream;
mod subject;
mod violations;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use async_nats::connection::State as ConnectionState;
#[cfg(feature = "leader")]
use async_nats::jetstream::{self, context::Context};
use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use rotacast_proto::Envelope;
use rotacast_protocol::{InstanceKey, SecretName};
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use self::asking::Inbox;
#[cfg(feature = "leader")]
use self::asking::Task;
pub use self::connect::{NatsCredentials, NatsOptions};
#[cfg(feature = "leader")]
pub use self::rights::{NatsRights, NatsSecrets};
pub use self::stream::StreamLimits;
use self::stream::{Kind, SERVER_HEADERS};
use self::subject::Names;
pub use self::subject::NatsParty;
use self::violations::Violations;
use crate::bus::check_size;
use crate::feed::LastProblem;
use crate::restarts::Restarts;
use crate::{BusError, BusEvent, CALL_TIMEOUT, InstanceBus, MAX_MESSAGE_BYTES, MAX_REGISTRATION_BYTES};

/// Messages under way to a slow reader before flow control holds the server back.
const WATCH_BUFFER: usize = 256;
/// After this many heartbeats' time without a sign of the stream, what is read is looked at again.
const SILENT_HEARTBEATS: u32 = 3;
/// How long one request to the server may take; a call has room for a second attempt within its 5 s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
#[cfg(feature = "leader")]
/// Publishes waiting for their acknowledgement on one connection; more callers wait for a place.
const MAX_UNACKNOWLEDGED: usize = 4096;
/// How long the cause of a lost connection is reported again before another connection is tried.
const CAUSE_FOR: Duration = Duration::from_secs(5);
/// Oldest server: earlier ones lack several filter subjects per consumer.
const OLDEST_SERVER: (i64, i64, i64) = (2, 10, 0);

/// Both sides over one NATS connection. A cheap handle: clones share the connection. What a broadcaster watches costs the
/// server one small consumer in memory each; an instance has none.
#[derive(Clone)]
pub struct NatsBus {
    inner: Arc<Inner>,
}

struct Inner {
    endpoint: String,
    options: NatsOptions,
    names: Names,
    client: Client,
    /// Where answers arrive.
    inbox: Inbox,
    #[cfg(feature = "leader")]
    context: Context,
    /// Moves whenever continuity may have been lost.
    continuity: watch::Sender<u64>,
    /// What the server has refused.
    violations: Violations,
    /// Why it could not be reached, and when that was found.
    away: Mutex<Option<(Instant, BusError)>>,
    restarts: Restarts,
    #[cfg(feature = "leader")]
    strays: Arc<leader::StrayCounts>,
    /// A broadcaster reads states for services.
    #[cfg(feature = "leader")]
    _reads: Option<Task>,
    #[cfg(feature = "leader")]
    fills: leader::Fills,
    #[cfg(feature = "leader")]
    sweeps: leader::Sweeps,
    #[cfg(feature = "leader")]
    last_states: leader::LastStates,
}

impl NatsBus {
    /// Connects; a broadcaster also creates or audits the streams. Later losses of the connection are mended in the
    /// background, for as long as it takes.
    ///
    /// # Errors
    /// `Unreachable` when no server answers within 5 s, `Denied` when it refuses the credentials,
    /// `Misconfigured` when the server is too old, has no JetStream, or a stream cannot work.
    pub async fn connect(options: NatsOptions) -> Result<Self, BusError> {
        let endpoint = options.endpoint();
        let (client, continuity, violations) = connect::connect(&options).await?;
        let inbox = Inbox::open(&client)
            .await
            .map_err(|problem| BusError::Unreachable { endpoint: endpoint.clone(), problem: problem.to_string() })?;
        #[cfg(feature = "leader")]
        let context = jetstream::ContextBuilder::new()
            .timeout(REQUEST_TIMEOUT)
            .max_ack_inflight(MAX_UNACKNOWLEDGED)
            .backpressure_on_inflight(true)
            .build(client.clone());
        let names = Names::new(&options.cluster);
        #[cfg(feature = "leader")]
        let strays = Arc::<leader::StrayCounts>::default();
        #[cfg(feature = "leader")]
        let reads = (options.party == NatsParty::Broadcaster).then(|| {
            let (client, context, names) = (client.clone(), context.clone(), names.clone());
            Task::spawn(leader::Reads { client, context, names, strays: Arc::clone(&strays) }.serve())
        });
        let inner = Inner {
            endpoint,
            options,
            names,
            client,
            inbox,
            #[cfg(feature = "leader")]
            context,
            continuity,
            violations,
            away: Mutex::default(),
            restarts: Restarts::default(),
            #[cfg(feature = "leader")]
            strays,
            #[cfg(feature = "leader")]
            _reads: reads,
            #[cfg(feature = "leader")]
            fills: leader::Fills::default(),
            #[cfg(feature = "leader")]
            sweeps: leader::Sweeps::default(),
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
        #[cfg(feature = "leader")]
        if bus.inner.options.party == NatsParty::Broadcaster {
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

    fn is_connected(&self) -> bool {
        self.inner.client.connection_state() == ConnectionState::Connected
    }

    /// Refuses what the server would cut the connection for.
    fn check(&self, envelope: &Envelope) -> Result<(), BusError> {
        self.check_within(envelope, MAX_MESSAGE_BYTES)
    }

    fn check_within(&self, envelope: &Envelope, limit: usize) -> Result<(), BusError> {
        let limit = limit.min(self.inner.client.max_payload().saturating_sub(SERVER_HEADERS));
        check_size(envelope, limit, &self.inner.endpoint)
    }

    /// No answer came. A request that the server refuses gets none either: what it refused last is said.
    fn unanswered(&self, problem: impl std::fmt::Display) -> BusError {
        match self.inner.violations.last() {
            Some(violation) => self.unreachable(format!(
                "{problem}; the server refuses this login: {violation}; `rotacast permissions nats` prints what each login \
                 needs"
            )),
            None => self.unreachable(problem.to_string()),
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
                Err(last.take().unwrap_or_else(|| self.unanswered("no answer in time; the outcome is unknown")))
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

    /// A stream that is not there: made by a broadcaster, awaited by an instance.
    async fn make(&self, kind: Kind) -> Result<(), BusError> {
        match self.inner.options.party {
            #[cfg(feature = "leader")]
            NatsParty::Broadcaster => self.ensure(kind).await.map(drop),
            NatsParty::Service(_) => {
                let name = kind.stream(&self.inner.names);
                Err(self.unreachable(format!("stream {name} is missing; start a broadcaster, which creates it")))
            }
        }
    }
}

#[async_trait]
impl InstanceBus for NatsBus {
    fn describe(&self) -> String {
        format!("NATS {} (cluster {})", self.inner.endpoint, self.inner.options.cluster)
    }

    async fn register(&self, key: &InstanceKey, registration: &Envelope) -> Result<(), BusError> {
        self.check_within(registration, MAX_REGISTRATION_BYTES)?;
        let last = LastProblem::default();
        self.within_or(&last, self.register_until_stored(key, registration, &last)).await
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
        match self.inner.options.party {
            #[cfg(feature = "leader")]
            NatsParty::Broadcaster => self.watch(Kind::State, distinct.into_iter().collect()),
            NatsParty::Service(_) => following::follow(self.clone(), distinct.into_iter().collect()),
        }
    }

    async fn sync(&self, request: &Envelope, timeout: Duration) -> Result<Envelope, BusError> {
        self.check(request)?;
        self.ask_for_sync(request, timeout).await
    }
}
