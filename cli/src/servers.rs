//! Where broadcasters listen, and which of them to ask.

use std::path::Path;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use http_body_util::{BodyExt as _, Limited};
use rotacast_proto::v1::admin_client::AdminClient;
use rotacast_proto::{is_loopback, v1};
use tonic::codegen::http;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Uri};
use tonic::{Request, Status};
use tower::{Service as _, ServiceExt as _};
use zeroize::Zeroizing;

use crate::error::{Stop, innermost};
use crate::global::Global;

/// How long a connection may take: on one network it takes milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the question who leads may take: the slowest part of the answer is one read of the store.
const PROBE_TIMEOUT: Duration = Duration::from_secs(6);
/// How often a quiet connection is checked, and how long the other side has to answer.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));
/// Largest answer, in bytes: the status of ten thousand secrets is about half of it.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// The admin service of a broadcaster, asked with the token that was given.
pub(crate) type Admin = AdminClient<InterceptedService<Channel, Reader>>;

/// Shows the token with every request, if there is one.
#[derive(Clone, Default)]
pub(crate) struct Reader(Option<AsciiMetadataValue>);

impl Reader {
    fn of_file(file: &Path) -> Result<Self, Stop> {
        let text = Zeroizing::new(read(file)?);
        let unusable = || {
            let problem = format!("--token-file {}: it holds no token", file.display());
            Stop::usage(problem, "expected one line, as `rotacast token` writes it")
        };
        let line = std::str::from_utf8(&text).map_err(|_| unusable())?.trim();
        if line.is_empty() {
            return Err(unusable());
        }
        let header = Zeroizing::new(format!("Bearer {line}"));
        let mut value = AsciiMetadataValue::try_from(header.as_str()).map_err(|_| unusable())?;
        value.set_sensitive(true);
        Ok(Self(Some(value)))
    }
}

impl Interceptor for Reader {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

/// Every broadcaster that was named; at least one.
pub(crate) struct Servers {
    servers: Vec<Server>,
    reader: Reader,
}

/// One of them.
struct Server {
    name: String,
    endpoint: Endpoint,
    /// Whether no machine on the way can read along.
    private: bool,
    loopback: bool,
}

impl Servers {
    /// As the flags say; nothing is connected.
    pub(crate) fn new(global: &Global) -> Result<Self, Stop> {
        let names = global.server.iter().map(|name| name.trim()).filter(|name| !name.is_empty());
        let servers: Vec<Server> = names.map(|name| server(name, global)).collect::<Result<_, _>>()?;
        if servers.is_empty() {
            return Err(Stop::usage("--server names no broadcaster", "expected such as http://127.0.0.1:7400"));
        }
        let reader = global.token_file.as_deref().map(Reader::of_file).transpose()?.unwrap_or_default();
        let all = Self { servers, reader };
        match all.in_the_clear() {
            Some(server) if all.reader.0.is_some() => Err(Stop::usage(
                format!(
                    "--token-file: {server} is not on this machine and has no https, so the network can read the token"
                ),
                "name it by https with --ca, or read on the broadcaster's machine",
            )),
            _ => Ok(all),
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.servers.len()
    }

    pub(crate) fn name(&self, which: usize) -> &str {
        &self.servers[which].name
    }

    /// Whether it is one, and on this machine.
    pub(crate) fn is_one_on_this_machine(&self) -> bool {
        matches!(self.servers.as_slice(), [Server { loopback: true, .. }])
    }

    /// The first that others could read along with.
    pub(crate) fn in_the_clear(&self) -> Option<&str> {
        self.servers.iter().find(|server| !server.private).map(|server| server.name.as_str())
    }

    /// Connects to one. If this fails, nothing was sent to it.
    pub(crate) async fn connect(&self, which: usize) -> Result<Admin, Stop> {
        let Server { name, endpoint, .. } = &self.servers[which];
        let channel = endpoint.connect().await.map_err(|error| Stop::unreachable(name, &innermost(&error)))?;
        Ok(AdminClient::with_interceptor(channel, self.reader.clone()).max_decoding_message_size(MAX_ANSWER_BYTES))
    }

    /// The text of a page that one serves beside gRPC.
    pub(crate) async fn page(&self, which: usize, path: &'static str) -> Result<String, Stop> {
        let Server { name, endpoint, .. } = &self.servers[which];
        let unreachable = |problem: String| Stop::unreachable(name, &problem);
        let mut channel = endpoint.connect().await.map_err(|error| unreachable(innermost(&error)))?;
        let mut request = http::Request::get(path).body(tonic::body::Body::empty()).expect("a path of ours is one");
        if let Some(token) = &self.reader.0 {
            let mut headers = MetadataMap::new();
            headers.insert("authorization", token.clone());
            request.headers_mut().extend(headers.into_headers());
        }
        let answer = channel.ready().await.map_err(|error| unreachable(innermost(&error)))?.call(request).await;
        let answer = answer.map_err(|error| unreachable(innermost(&error)))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await;
        let body = body.map_err(|error| unreachable(innermost(&*error)))?.to_bytes();
        let text = String::from_utf8_lossy(&body).into_owned();
        // The report says whether it is ready, with either status.
        match status {
            status if status.is_success() || status == http::StatusCode::SERVICE_UNAVAILABLE => Ok(text),
            http::StatusCode::UNAUTHORIZED => {
                Err(Stop::token_needed(&format!("{name}{path}: reading needs a token here")))
            }
            status => Err(unreachable(format!("{path}: {status}: {text}"))),
        }
    }

    /// The only one; of several the one that leads, or else the first that answers.
    pub(crate) async fn find(&self) -> Result<(usize, Admin), Stop> {
        if self.count() == 1 {
            return Ok((0, self.connect(0).await?));
        }
        let mut asked: FuturesUnordered<_> = (0..self.count()).map(|which| self.ask(which)).collect();
        let mut follower = None;
        let mut problems = Vec::new();
        while let Some((which, answer)) = asked.next().await {
            match answer {
                Ok((true, admin)) => return Ok((which, admin)),
                Ok((false, admin)) => follower = follower.or(Some((which, admin))),
                Err(stop) => problems.push(stop),
            }
        }
        follower.ok_or_else(|| Stop::none_reachable(problems))
    }

    /// Whether one leads.
    async fn ask(&self, which: usize) -> (usize, Result<(bool, Admin), Stop>) {
        let asking = async {
            let mut admin = self.connect(which).await?;
            let request = v1::StatusRequest { secret: String::new(), brief: true };
            let status = admin.status(request).await.map_err(|status| Stop::answered(self.name(which), &status))?;
            Ok((status.into_inner().leader, admin))
        };
        let answer = tokio::time::timeout(PROBE_TIMEOUT, asking).await;
        (which, answer.unwrap_or_else(|_| Err(Stop::unreachable(self.name(which), "no answer in time"))))
    }
}

fn server(name: &str, global: &Global) -> Result<Server, Stop> {
    let url = if name.contains("://") { name.to_owned() } else { format!("http://{name}") };
    let invalid = |problem: &str| {
        Stop::usage(
            format!("--server {name:?}: {problem}"),
            "expected such as http://127.0.0.1:7400 or https://rotacast.example:7400",
        )
    };
    let uri: Uri = url.parse().map_err(|error| invalid(&format!("{error}")))?;
    let host = uri.host().ok_or_else(|| invalid("no host"))?.to_owned();
    let tls = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err(invalid("neither http nor https")),
    };
    let mut endpoint = Endpoint::from(uri)
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE.0)
        .keep_alive_timeout(KEEP_ALIVE.1)
        .keep_alive_while_idle(true);
    if !tls && (global.ca.is_some() || global.client_cert.is_some()) {
        return Err(invalid("--ca and --client-cert need https"));
    }
    if tls {
        let Some(ca) = &global.ca else {
            return Err(Stop::usage(
                "https without --ca",
                "name the certificate authority's certificates with --ca FILE (or ROTACAST_CA)",
            ));
        };
        let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(ca)?));
        if let (Some(certificate), Some(key)) = (&global.client_cert, &global.client_key) {
            config = config.identity(Identity::from_pem(read(certificate)?, read(key)?));
        }
        endpoint = endpoint.tls_config(config).map_err(|error| {
            Stop::usage(
                format!("TLS: {}", innermost(&error)),
                "expected PEM files in --ca, --client-cert and --client-key",
            )
        })?;
    }
    let loopback = is_loopback(&host);
    Ok(Server { name: name.to_owned(), endpoint, private: tls || loopback, loopback })
}

fn read(file: &Path) -> Result<Vec<u8>, Stop> {
    std::fs::read(file).map_err(|error| Stop::usage(format!("cannot read {}: {error}", file.display()), ""))
}
