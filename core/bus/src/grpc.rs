//! The instance's side over gRPC, against a broadcaster's [`Gateway`](crate::Gateway).

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use rotacast_proto::v1::instances_client::InstancesClient;
use rotacast_proto::{CERTIFICATE, Envelope, FILE_DEADLINE, LoginSecret, PRIVATE_KEY, Renewed, is_loopback, v1};
use rotacast_protocol::{InstanceKey, SecretName};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Response, Status};
use zeroize::Zeroizing;

use crate::bus::check_size;
use crate::feed::{self, Gone, deliver, next_pause, pauses};
use crate::status::from_status;
use crate::{BusError, BusEvent, CALL_TIMEOUT, InstanceBus, MAX_MESSAGE_BYTES};

/// States under way to a slow reader before the stream's own flow control holds the gateway back.
const WATCH_BUFFER: usize = 64;
/// How often an idle connection is probed, and how long the answer may take: a half-open one is found
/// within the sum, while 10,000 idle instances cost the gateway 1,000 small frames a second.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one attempt to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How much of the time a call has the first of several broadcasters is given at least: a leader may take half of a Sync's
/// time for the answers of its secrets.
const FIRST_SHARE: f64 = 0.6;
/// Largest reply: the largest value (256 KiB), the largest message beside it (520 KiB), and framing.
const MAX_REPLY_BYTES: usize = 1024 * 1024;

/// A certificate and its private key, both PEM, to show who we are.
#[derive(Clone, Debug)]
pub struct ClientCertificate {
    /// The certificate chain.
    pub certificate: LoginSecret,
    /// Its private key.
    pub key: LoginSecret,
}

/// Where the broadcaster is, and how to trust it. Certificates in files are read again when they change.
#[derive(Clone, Default, Debug)]
pub struct GrpcOptions {
    /// `http://host:port` (loopback only, unless `in_the_clear`) or `https://host:port`.
    pub url: String,
    /// The authorities to trust, PEM; none: the system's.
    pub ca: Option<LoginSecret>,
    /// The name the broadcaster's certificate must be for, if not the URL's host.
    pub server_name: Option<String>,
    /// Shown to the broadcaster, if it asks.
    pub client_certificate: Option<ClientCertificate>,
    /// Allows `http://` to other machines. Values then cross the network in the clear, unless something
    /// below encrypts them.
    pub in_the_clear: bool,
}

/// What the certificates' files hold at one moment.
#[derive(Default, PartialEq, Eq)]
struct Pem {
    ca: Option<Zeroizing<String>>,
    identity: Option<(Zeroizing<String>, Zeroizing<String>)>,
}

impl GrpcOptions {
    fn read(&self, patience: Duration) -> Result<Pem, String> {
        if !self.url.starts_with("https://") {
            return Ok(Pem::default());
        }
        let ca = self.ca.as_ref().map(|ca| ca.read_pem(CERTIFICATE, patience)).transpose()?;
        let identity = match &self.client_certificate {
            Some(own) => {
                Some((own.certificate.read_pem(CERTIFICATE, patience)?, own.key.read_pem(PRIVATE_KEY, patience)?))
            }
            None => None,
        };
        Ok(Pem { ca, identity })
    }
}

/// One broadcaster.
struct Target {
    endpoint: String,
    options: GrpcOptions,
    client: Renewed<Pem, InstancesClient<Channel>>,
}

impl Target {
    /// Connects with the first call, and again with renewed certificates.
    fn new(options: GrpcOptions) -> Result<Self, BusError> {
        let endpoint = options.url.clone();
        let (reads, makes) = (options.clone(), options.clone());
        let make = move |pem: &Pem| Ok(client(prepare(&makes, pem)?.connect_lazy()));
        let made = Renewed::new(format!("TLS to {endpoint}"), move |patience| reads.read(patience), make);
        let client = made.map_err(|problem| BusError::Misconfigured { endpoint: endpoint.clone(), problem })?;
        Ok(Self { endpoint, options, client })
    }

    /// Connects now.
    async fn connect(&self) -> Result<(), BusError> {
        let misconfigured = |problem| BusError::Misconfigured { endpoint: self.endpoint.clone(), problem };
        let options = self.options.clone();
        let reading = tokio::task::spawn_blocking(move || options.read(FILE_DEADLINE));
        let pem = reading.await.unwrap_or_else(|problem| Err(problem.to_string())).map_err(misconfigured)?;
        let endpoint = prepare(&self.options, &pem).map_err(misconfigured)?;
        match endpoint.connect().await {
            Ok(channel) => {
                self.client.put(client(channel));
                Ok(())
            }
            Err(problem) => Err(BusError::Unreachable { endpoint: self.endpoint.clone(), problem: chain(&problem) }),
        }
    }

    fn unreachable(&self) -> BusError {
        BusError::Unreachable { endpoint: self.endpoint.clone(), problem: "no answer in time".into() }
    }

    /// What silence means to a Sync: it goes on to the leader.
    fn no_leader(&self) -> BusError {
        BusError::NoLeader { endpoint: self.endpoint.clone(), problem: "no answer in time".into() }
    }
}

/// The instance's side over gRPC, by one broadcaster or by whichever of several answers. A cheap handle: clones share
/// the connections, which mend themselves.
#[derive(Clone)]
pub struct GrpcBus {
    /// At least one.
    targets: Arc<[Target]>,
    /// The one that answered last.
    first: Arc<AtomicUsize>,
}

impl GrpcBus {
    /// Connects. Later losses of the connection are mended in the background.
    ///
    /// # Errors
    /// `Misconfigured` for options that cannot work, `Unreachable` when no broadcaster answers within 5 s.
    pub async fn connect(options: GrpcOptions) -> Result<Self, BusError> {
        Self::connect_any(vec![options]).await
    }

    /// Connects to the first of these broadcasters that answers. All of them serve one bus; calls go to the one that
    /// answered last, and to the others in turn when it does not.
    ///
    /// # Errors
    /// `Misconfigured` for options that cannot work, `Unreachable` when none answers within 5 s.
    pub async fn connect_any(options: Vec<GrpcOptions>) -> Result<Self, BusError> {
        let bus = Self::connect_any_later(options)?;
        let deadline = Instant::now() + CALL_TIMEOUT;
        let mut last = None;
        for (which, target) in bus.targets.iter().enumerate() {
            match tokio::time::timeout(share(deadline, bus.targets.len() - which), target.connect()).await {
                Ok(Ok(())) => {
                    bus.first.store(which, Ordering::Relaxed);
                    return Ok(bus);
                }
                Ok(Err(problem)) => last = Some(problem),
                // Silence of one does not hide the refusal of another.
                Err(_) => last = last.or_else(|| Some(target.unreachable())),
            }
        }
        Err(last.unwrap_or_else(nobody))
    }

    /// A client that connects with its first call.
    ///
    /// # Errors
    /// `Misconfigured` for options that cannot work.
    pub fn connect_later(options: GrpcOptions) -> Result<Self, BusError> {
        Self::connect_any_later(vec![options])
    }

    /// [`GrpcBus::connect_any`], connecting with the first call.
    ///
    /// # Errors
    /// `Misconfigured` for options that cannot work.
    pub fn connect_any_later(options: Vec<GrpcOptions>) -> Result<Self, BusError> {
        if options.is_empty() {
            return Err(nobody());
        }
        let targets: Vec<_> = options.into_iter().map(Target::new).collect::<Result<_, _>>()?;
        Ok(Self { targets: targets.into(), first: Arc::default() })
    }

    /// Asks the broadcaster for a value or a desired state. The caller answers for where the value goes.
    ///
    /// # Errors
    /// `Denied` when the broadcaster refuses, `Unreachable` when it does not answer within 5 s.
    pub async fn fetch(&self, request: &Envelope) -> Result<v1::FetchReply, BusError> {
        self.unary(request, |mut client, request| async move { client.fetch(request).await }).await
    }

    /// One call, repeated while a retry may help and time is left: every call here may be doubled.
    async fn unary<R, F>(
        &self,
        request: &Envelope,
        call: impl Fn(InstancesClient<Channel>, v1::Envelope) -> F,
    ) -> Result<R, BusError>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        check_size(request, MAX_MESSAGE_BYTES, &self.names())?;
        let deadline = Instant::now() + CALL_TIMEOUT;
        let mut pauses = pauses();
        loop {
            let problem = match self
                .in_turn(deadline, Target::unreachable, |client| call(client, request.clone().into()))
                .await
            {
                Ok(reply) => return Ok(reply),
                Err(problem) => problem,
            };
            let resume = Instant::now() + next_pause(&mut pauses);
            if !problem.is_transient() || resume >= deadline {
                return Err(problem);
            }
            tokio::time::sleep_until(resume).await;
        }
    }

    /// Asks every broadcaster once, the one that answered last first, until one answers. One that refuses may only not know
    /// yet what another knows: the refusal stands if no broadcaster answers.
    async fn in_turn<R, F>(
        &self,
        deadline: Instant,
        silence: fn(&Target) -> BusError,
        call: impl Fn(InstancesClient<Channel>) -> F,
    ) -> Result<R, BusError>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let count = self.targets.len();
        let first = self.first.load(Ordering::Relaxed);
        let mut last: Option<BusError> = None;
        for turn in 0..count {
            let which = (first + turn) % count;
            let target = &self.targets[which];
            // One that hangs must leave time for the others, and one that is slow for a reason must be given its time.
            let least = if turn == 0 { left(deadline).mul_f64(FIRST_SHARE) } else { Duration::ZERO };
            let limit = share(deadline, count - turn).max(least);
            let problem = match tokio::time::timeout(limit, call(target.client.current())).await {
                Ok(Ok(reply)) => {
                    self.first.store(which, Ordering::Relaxed);
                    return Ok(reply.into_inner());
                }
                Ok(Err(status)) => from_status(&status, &target.endpoint),
                Err(_) => silence(target),
            };
            if matches!(problem, BusError::TooLarge { .. }) {
                return Err(problem);
            }
            // A refusal says more than "no broadcaster leads", and that more than "no answer".
            let weight = |problem: &BusError| match problem {
                BusError::NoLeader { .. } => 1,
                problem if problem.is_transient() => 0,
                _ => 2,
            };
            if last.as_ref().is_none_or(|last| weight(&problem) > weight(last)) {
                last = Some(problem);
            }
        }
        Err(last.unwrap_or_else(nobody))
    }

    fn names(&self) -> String {
        let names: Vec<&str> = self.targets.iter().map(|target| target.endpoint.as_str()).collect();
        names.join(", ")
    }

    /// Watches until the reader goes away or retrying is of no use.
    async fn watch(self, request: v1::WatchStatesRequest, out: mpsc::Sender<Result<BusEvent, BusError>>) {
        let mut row = pauses();
        let mut begun = false;
        let mut which = self.first.load(Ordering::Relaxed);
        let mut refusals = 0;
        loop {
            let target = &self.targets[which % self.targets.len()];
            // A broadcaster that ended it or was not there may be gone for long: the next one is tried first.
            which = which.wrapping_add(1);
            let problem = match watch_once(target, &request, &out, &mut begun).await {
                Ok(progress) => {
                    if progress {
                        row = pauses();
                        refusals = 0;
                    }
                    None
                }
                Err(Stop::Gone) => return,
                Err(Stop::Failed(problem)) => Some(problem),
            };
            if let Some(problem) = problem {
                refusals = if problem.is_transient() { 0 } else { refusals + 1 };
                // Another one may know what this one does not yet; not if all of them refuse.
                if refusals >= self.targets.len() {
                    // The reader may have gone at the same moment.
                    drop(out.send(Err(problem)).await);
                    return;
                }
                tracing::debug!(%problem, "watch of states interrupted");
            }
            tokio::time::sleep(next_pause(&mut row)).await;
        }
    }
}

/// One stream, up to its end. `Ok(true)` when it had delivered anything before it was lost.
async fn watch_once(
    target: &Target,
    request: &v1::WatchStatesRequest,
    out: &mpsc::Sender<Result<BusEvent, BusError>>,
    begun: &mut bool,
) -> Result<bool, Stop> {
    use v1::state_event::Event;
    let opened = tokio::time::timeout(CALL_TIMEOUT, target.client.current().watch_states(request.clone())).await;
    let failed = |status: &Status, endpoint: &str| Stop::Failed(from_status(status, endpoint));
    let mut events = match opened {
        Ok(Ok(events)) => events.into_inner(),
        Ok(Err(status)) => return Err(failed(&status, &target.endpoint)),
        Err(_) => return Err(Stop::Failed(target.unreachable())),
    };
    if std::mem::replace(begun, true) {
        deliver(out, Ok(BusEvent::Resync)).await?;
    }
    let mut progress = false;
    loop {
        let event = match events.message().await {
            Ok(Some(event)) => event,
            Ok(None) => return Ok(progress),
            Err(status) => {
                let problem = from_status(&status, &target.endpoint);
                if progress && problem.is_transient() {
                    tracing::debug!(%problem, "watch of states interrupted");
                    return Ok(true);
                }
                return Err(Stop::Failed(problem));
            }
        };
        progress = true;
        let event = match event.event {
            Some(Event::State(envelope)) => BusEvent::Message(envelope.into()),
            Some(Event::CaughtUp(_)) => BusEvent::CaughtUp,
            Some(Event::Resync(_)) => BusEvent::Resync,
            // An event of a later version: nothing this build needs.
            None => continue,
        };
        deliver(out, Ok(event)).await?;
    }
}

/// Why a watch stops.
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
impl InstanceBus for GrpcBus {
    fn describe(&self) -> String {
        format!("broadcaster {}", self.names())
    }

    async fn register(&self, _: &InstanceKey, registration: &Envelope) -> Result<(), BusError> {
        // The gateway takes the key from the signed subject.
        self.unary(registration, |mut client, request| async move { client.register(request).await }).await?;
        Ok(())
    }

    async fn report(&self, _: &InstanceKey, report: &Envelope) -> Result<(), BusError> {
        self.unary(report, |mut client, request| async move { client.report(request).await }).await?;
        Ok(())
    }

    fn watch_states(&self, secrets: &[SecretName]) -> BoxStream<'static, Result<BusEvent, BusError>> {
        let request = v1::WatchStatesRequest { secrets: secrets.iter().map(ToString::to_string).collect() };
        let bus = self.clone();
        feed::spawn(WATCH_BUFFER, move |out| bus.watch(request, out))
    }

    async fn sync(&self, request: &Envelope, timeout: Duration) -> Result<Envelope, BusError> {
        check_size(request, MAX_MESSAGE_BYTES, &self.names())?;
        let deadline = Instant::now() + timeout;
        let ask = |mut client: InstancesClient<Channel>| {
            let request = v1::Envelope::from(request.clone());
            async move { client.sync(request).await }
        };
        self.in_turn(deadline, Target::no_leader, ask).await.map(Envelope::from)
    }
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// What is left until `deadline`, divided among so many.
fn share(deadline: Instant, among: usize) -> Duration {
    left(deadline) / u32::try_from(among.max(1)).unwrap_or(u32::MAX)
}

fn nobody() -> BusError {
    BusError::Misconfigured {
        endpoint: "gRPC".into(),
        problem: "no broadcaster's address; expected at least one".into(),
    }
}

fn client(channel: Channel) -> InstancesClient<Channel> {
    InstancesClient::new(channel).max_decoding_message_size(MAX_REPLY_BYTES)
}

fn prepare(options: &GrpcOptions, pem: &Pem) -> Result<Endpoint, String> {
    let endpoint = Endpoint::from_shared(options.url.clone())
        .map_err(|problem| format!("not a URL: {problem}; expected https://host:port"))?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    let host = endpoint.uri().host().unwrap_or_default().to_owned();
    match endpoint.uri().scheme_str() {
        Some("https") => {
            let mut tls = ClientTlsConfig::new();
            tls = match &pem.ca {
                Some(ca) => tls.ca_certificate(Certificate::from_pem(ca.as_str())),
                None => tls.with_native_roots(),
            };
            if let Some(server_name) = &options.server_name {
                tls = tls.domain_name(server_name);
            }
            if let Some((certificate, key)) = &pem.identity {
                tls = tls.identity(Identity::from_pem(certificate.as_str(), key.as_str()));
            }
            endpoint.tls_config(tls).map_err(|problem| format!("TLS: {}", chain(&problem)))
        }
        Some("http") if is_loopback(&host) || options.in_the_clear => Ok(endpoint),
        Some("http") => {
            Err("http:// to another machine would send values in the clear; use https://, or allow it by name with \
                 in_the_clear"
                .into())
        }
        _ => Err("expected a URL that begins with https:// or http://".into()),
    }
}

/// An error with its causes: tonic's own text is only "transport error".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_never_cross_the_network_in_the_clear_unasked() {
        let with = |url: &str, in_the_clear| {
            let options = GrpcOptions { url: url.into(), in_the_clear, ..GrpcOptions::default() };
            prepare(&options, &Pem::default())
        };
        for url in ["http://localhost:1", "http://127.0.0.1:1", "http://[::1]:1", "https://broadcaster:1"] {
            with(url, false).unwrap();
        }
        for url in
            ["http://broadcaster:1", "http://10.0.0.1:1", "http://localhost.evil:1", "ftp://localhost", "localhost"]
        {
            assert!(with(url, false).is_err(), "{url}");
        }
        with("http://broadcaster:1", true).unwrap();
    }
}
