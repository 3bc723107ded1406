//! How to reach and trust a NATS server.

use std::path::PathBuf;
use std::time::Duration;

use async_nats::{Auth, AuthError, Client, ConnectErrorKind, ConnectOptions, Event};
use rotacast_log_limit::LogLimit;
use rotacast_proto::LoginSecret;
use rotacast_protocol::ClusterName;
use tokio::sync::watch;

use super::stream::StreamLimits;
use super::subject::{Names, NatsParty};
use super::violations::Violations;
use crate::{BusError, CALL_TIMEOUT};

/// How long one attempt to connect to one server may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest pause between attempts to reconnect, before jitter.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How often the connection itself is probed; two misses in a row end it.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// Messages one subscription may hold unread. More are dropped by the client, noticed as a gap and read again.
const SUBSCRIPTION_CAPACITY: usize = 16 * 1024;
/// How often an idle subscription hears from its stream: after three times this in silence it begins anew.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Who we are to the server. No `Debug`: it holds secrets.
#[derive(Clone, Default)]
pub enum NatsCredentials {
    /// Without a login, or as the URL says: see [`NatsCredentials::of_url`].
    #[default]
    None,
    /// User and password.
    UserPassword(String, LoginSecret),
    /// An nkey's seed.
    Nkey(LoginSecret),
    /// A `.creds` file with JWT and seed.
    File(PathBuf),
    /// A token.
    Token(LoginSecret),
}

impl NatsCredentials {
    /// What a URL says about who we are: `nats://user:password@host:port`, or `nats://token@host:port`. Characters that end
    /// a part of a URL, such as `@`, `/` and `:`, are percent-encoded there.
    #[must_use]
    pub fn of_url(url: &str) -> Option<Self> {
        let (login, _) = url.rsplit_once('@')?;
        let login = login.split_once("://").map_or(login, |(_, login)| login);
        let text = |part: &str| percent_encoding::percent_decode_str(part).decode_utf8_lossy().into_owned();
        Some(match login.split_once(':') {
            Some((user, password)) => Self::UserPassword(text(user), text(password).into()),
            None => Self::Token(text(login).into()),
        })
    }
}

/// Where the bus is. No `Debug`: it may hold secrets.
#[derive(Clone)]
pub struct NatsOptions {
    /// One or more servers of one NATS cluster, e.g. `nats://host:4222` or `tls://host:4222`.
    pub urls: Vec<String>,
    /// Whose environment; part of every subject and stream name.
    pub cluster: ClusterName,
    /// Whose login it is. Replies arrive in an inbox that no other login may use.
    pub party: NatsParty,
    /// How we prove it.
    pub credentials: NatsCredentials,
    /// The authorities to trust, a PEM file; none: the system's. Giving one requires TLS.
    pub ca: Option<PathBuf>,
    /// Our own certificate and its private key, PEM files, where the servers ask for one.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Copies of every stream; none: 3 in a NATS cluster, otherwise 1. Only for streams created by us.
    pub replicas: Option<usize>,
    /// How large streams created by us may become.
    pub limits: StreamLimits,
    /// How often an idle subscription hears from its stream, at least 100 ms.
    pub heartbeat: Duration,
}

impl NatsOptions {
    /// Defaults for one URL and cluster.
    #[must_use]
    pub fn new(url: impl Into<String>, cluster: ClusterName, party: NatsParty) -> Self {
        Self {
            urls: vec![url.into()],
            cluster,
            party,
            credentials: NatsCredentials::None,
            ca: None,
            identity: None,
            replicas: None,
            limits: StreamLimits::default(),
            heartbeat: HEARTBEAT,
        }
    }

    /// The URLs without whatever they say about users.
    fn servers(&self) -> Vec<String> {
        let plain = |url: &String| match (url.split_once("://"), url.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
            (None, Some((_, host))) => host.to_owned(),
            (_, None) => url.clone(),
        };
        self.urls.iter().map(plain).collect()
    }

    /// The same in one text.
    pub(super) fn endpoint(&self) -> String {
        self.servers().join(",")
    }
}

/// A connection, a counter that moves whenever continuity may have been lost, and what the server refuses.
pub(super) async fn connect(options: &NatsOptions) -> Result<(Client, watch::Sender<u64>, Violations), BusError> {
    let endpoint = options.endpoint();
    let misconfigured = |problem: String| BusError::Misconfigured { endpoint: endpoint.clone(), problem };
    let continuity = watch::Sender::new(0);
    let counter = continuity.clone();
    let violations = Violations::default();
    let refused = violations.clone();
    // A consumer finds what it missed by its own count; plain subscriptions do not.
    let slow_loses = matches!(options.party, NatsParty::Service(_));
    let credentials = match &options.credentials {
        // The client library takes no notice of what a URL says.
        NatsCredentials::None => options.urls.iter().find_map(|url| NatsCredentials::of_url(url)).unwrap_or_default(),
        given => given.clone(),
    };
    let connect = match credentials {
        NatsCredentials::None => ConnectOptions::new(),
        // Each connection says it anew: what was renewed in a file since is what counts.
        credentials => ConnectOptions::with_auth_callback(move |nonce| {
            let credentials = credentials.clone();
            async move { identify(&credentials, &nonce).await }
        }),
    };
    let mut connect = connect
        .name("rotacast")
        .custom_inbox_prefix(Names::new(&options.cluster).inbox(&options.party))
        .connection_timeout(CONNECT_TIMEOUT)
        .ping_interval(PING_INTERVAL)
        .subscription_capacity(SUBSCRIPTION_CAPACITY)
        // Our calls bring their own.
        .request_timeout(Some(CALL_TIMEOUT))
        .max_reconnects(None)
        .reconnect_delay_callback(pause)
        .event_callback(move |event| {
            let (counter, refused) = (counter.clone(), refused.clone());
            async move {
                match event {
                    Event::Connected => tracing::info!("connected to NATS"),
                    Event::Disconnected => {
                        tracing::warn!("connection to NATS lost; reconnecting");
                        counter.send_modify(|count| *count += 1);
                    }
                    Event::SlowConsumer(subscription) => {
                        tracing::debug!(subscription, "slow reader, messages dropped");
                        if slow_loses {
                            counter.send_modify(|count| *count += 1);
                        }
                    }
                    other => {
                        if let Event::ServerError(problem) = &other {
                            refused.note(&problem.to_string());
                        }
                        static LIMIT: LogLimit = LogLimit::new();
                        if let Some(left_out) = LIMIT.admit() {
                            tracing::warn!(event = %other, left_out, "NATS");
                        }
                    }
                }
            }
        });
    // A file that cannot be read, or that holds no login, is an error of its own, not a refusal by the server.
    identify(&options.credentials, b"").await.map_err(|problem| misconfigured(problem.to_string()))?;
    if let Some(ca) = options.ca.clone() {
        connect = connect.add_root_certificates(ca).require_tls(true);
    }
    if let Some((certificate, key)) = options.identity.clone() {
        connect = connect.add_client_certificate(certificate, key).require_tls(true);
    }
    let attempt = tokio::time::timeout(CALL_TIMEOUT, connect.connect(options.servers())).await;
    let client = attempt
        .map_err(|_| BusError::Unreachable { endpoint: endpoint.clone(), problem: "no answer in time".into() })?
        .map_err(|problem| {
            let text = problem.to_string();
            match problem.kind() {
                ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                    BusError::Denied { endpoint: endpoint.clone(), problem: text }
                }
                ConnectErrorKind::ServerParse | ConnectErrorKind::Tls => misconfigured(text),
                ConnectErrorKind::Dns
                | ConnectErrorKind::TimedOut
                | ConnectErrorKind::Io
                | ConnectErrorKind::MaxReconnects => {
                    BusError::Unreachable { endpoint: endpoint.clone(), problem: text }
                }
            }
        })?;
    Ok((client, continuity, violations))
}

/// What a connection says about who we are; `nonce` is what the server wants signed.
async fn identify(credentials: &NatsCredentials, nonce: &[u8]) -> Result<Auth, AuthError> {
    let mut auth = Auth::new();
    let read = async |secret: &LoginSecret| secret.fetch().await.map_err(AuthError::new);
    match credentials {
        NatsCredentials::None => {}
        NatsCredentials::UserPassword(user, password) => {
            auth.username = Some(user.clone());
            auth.password = Some(read(password).await?.as_str().to_owned());
        }
        NatsCredentials::Token(token) => auth.token = Some(read(token).await?.as_str().to_owned()),
        NatsCredentials::Nkey(seed) => {
            let key = key_pair(&read(seed).await?)?;
            auth.nkey = Some(key.public_key());
            auth.signature = Some(key.sign(nonce).map_err(AuthError::new)?);
        }
        NatsCredentials::File(path) => {
            let text = read(&LoginSecret::File(path.clone())).await?;
            let part = |name: &str| {
                section(&text, name)
                    .ok_or_else(|| AuthError::new(format!("credentials file {}: it has no {name}", path.display())))
            };
            let key = key_pair(part("USER NKEY SEED")?)?;
            auth.jwt = Some(part("NATS USER JWT")?.to_owned());
            auth.signature = Some(key.sign(nonce).map_err(AuthError::new)?);
        }
    }
    Ok(auth)
}

/// The error's text would name no character of the seed; ours says what was expected.
fn key_pair(seed: &str) -> Result<nkeys::KeyPair, AuthError> {
    nkeys::KeyPair::from_seed(seed.trim())
        .map_err(|_| AuthError::new("it is no nkey's seed; expected one that begins with SU"))
}

/// A part of a `.creds` file, between its lines of dashes.
fn section<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let (_, after) = text.split_once(&format!("-----BEGIN {name}-----"))?;
    let (part, _) = after.split_once("-----END")?;
    Some(part.trim_end_matches('-').trim()).filter(|part| !part.is_empty())
}

/// Growing pauses with jitter, so that a thousand instances do not return at once.
fn pause(attempts: usize) -> Duration {
    use std::hash::{BuildHasher as _, RandomState};
    let base = Duration::from_millis(25) * 2_u32.saturating_pow(u32::try_from(attempts.min(8)).unwrap_or(8));
    // Every `RandomState` hashes with keys of its own.
    let fraction = RandomState::new().hash_one(attempts) % 1000;
    base.min(LONGEST_PAUSE).mul_f64(0.5 + fraction as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_a_url_is_not_shown() {
        let mut options = NatsOptions::new(
            "nats://user:pass@word@host:1",
            ClusterName::new("dev").unwrap(),
            NatsParty::Service("payments".parse().unwrap()),
        );
        options.urls.push("user:pass@host:2".into());
        options.urls.push("tls://host:3".into());
        assert_eq!(options.endpoint(), "nats://host:1,host:2,tls://host:3");
    }
}
