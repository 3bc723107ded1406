//! The connection to a broadcaster, and the operator's signature.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use prost::Message as _;
use prost::bytes::{Bytes, BytesMut};
use rotacast_proto::v1::admin_client::AdminClient;
use rotacast_proto::v1::operator_command::Action;
use rotacast_proto::{Envelope, Kind, SigningKey, v1};
use rotacast_protocol::{ClusterName, OperatorName, SecretName, Version};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Uri};
use tonic::{Response, Status, Streaming};

use super::arguments::Global;
use super::stop::{Stop, innermost};
use super::view::{InstancesView, StatusView};

/// How long a connection may take: on one network it takes milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer may take: the slowest, an order, waits for one write to the store.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a quiet connection is checked, and how long the other side has to answer.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));
/// Largest answer, in bytes: the status of ten thousand secrets is about half of it.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;
/// The key that `rotacast dev` makes, and the name it knows it by.
const DEV_KEY: &str = "rotacast-data/keys/operator.key";
const DEV_OPERATOR: &str = "operator";

/// A broadcaster to talk to.
#[derive(Clone)]
pub(super) struct Client {
    admin: AdminClient<Channel>,
    server: String,
    /// Whether nobody on the way can read along.
    private: bool,
}

/// Who signs orders.
pub(super) struct Signer {
    operator: OperatorName,
    key: SigningKey,
}

/// What an order needs to be sent.
pub(super) struct Order {
    pub(super) secret: SecretName,
    pub(super) reason: String,
    pub(super) action: Action,
}

impl Signer {
    /// Reads the operator's key.
    pub(super) fn open(global: &Global) -> Result<Self, Stop> {
        let dev = Path::new(DEV_KEY);
        let (file, by_default) = match &global.operator_key {
            Some(file) => (file.as_path(), None),
            None if dev.exists() => (dev, Some(DEV_OPERATOR)),
            None => {
                let problem = format!(
                    "no operator's key: neither --operator-key nor ROTACAST_OPERATOR_KEY is given, and there is no ./{DEV_KEY}"
                );
                return Err(Stop::usage(
                    problem,
                    "`rotacast keygen --out me` makes one; its public half belongs under [operators] in the broadcaster's configuration",
                ));
            }
        };
        let operator = match (&global.operator, by_default) {
            (Some(operator), _) => operator.clone(),
            (None, Some(name)) => OperatorName::new(name).expect("the name is a constant that is tested"),
            (None, None) => {
                return Err(Stop::usage(
                    "--operator-key without the operator's name",
                    "add --operator NAME (or ROTACAST_OPERATOR), as the broadcaster's configuration names the key",
                ));
            }
        };
        let key = SigningKey::read_file(file).map_err(|error| Stop::usage(error.to_string(), ""))?;
        Ok(Self { operator, key })
    }

    pub(super) fn describe(&self) -> String {
        format!("operator {}, key {}", self.operator, self.key.public().id())
    }
}

impl Client {
    /// Connects.
    pub(super) async fn connect(global: &Global) -> Result<Self, Stop> {
        let (endpoint, private) = endpoint(global)?;
        let server = global.server.clone();
        let channel = endpoint.connect().await.map_err(|error| Stop::unreachable(&server, &innermost(&error)))?;
        let admin = AdminClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
        Ok(Self { admin, server, private })
    }

    pub(super) fn server(&self) -> &str {
        &self.server
    }

    /// Whether a value may be sent: see `docs/wire.md`.
    pub(super) fn is_private(&self) -> bool {
        self.private
    }

    async fn answer<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Stop> {
        match tokio::time::timeout(ANSWER_TIMEOUT, call).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(Stop::answered(&self.server, &status)),
            Err(_) => Err(Stop::unreachable(&self.server, &format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()))),
        }
    }

    pub(super) async fn status(&self, secret: Option<&SecretName>) -> Result<StatusView, Stop> {
        let request = v1::StatusRequest { secret: wire_name(secret) };
        self.answer(self.admin.clone().status(request)).await.map(StatusView::from)
    }

    pub(super) async fn instances(
        &self,
        secret: Option<&SecretName>,
        not_on: Option<Version>,
    ) -> Result<InstancesView, Stop> {
        let request = v1::InstancesRequest { secret: wire_name(secret), not_on: not_on.map_or(0, Version::get) };
        self.answer(self.admin.clone().instances(request)).await.map(InstancesView::from)
    }

    pub(super) async fn doctor(&self) -> Result<v1::DoctorReply, Stop> {
        self.answer(self.admin.clone().doctor(v1::DoctorRequest {})).await
    }

    pub(super) async fn watch(&self, secret: Option<&SecretName>) -> Result<Streaming<v1::SecretStatus>, Stop> {
        let request = v1::WatchRequest { secret: wire_name(secret) };
        self.answer(self.admin.clone().watch(request)).await
    }

    /// Signs an order and sends it, once: whether one that got no answer took effect is for a person to find out.
    pub(super) async fn order(
        &self,
        signer: &Signer,
        cluster: Option<&ClusterName>,
        order: Order,
    ) -> Result<v1::CommandReply, Stop> {
        let cluster = match cluster {
            Some(cluster) => cluster.clone(),
            None => self.ask_cluster().await?,
        };
        let envelope = sign(signer, &cluster, order);
        let reply = self.answer(self.admin.clone().command(v1::Envelope::from(envelope))).await;
        reply.map_err(|stop| match stop {
            Stop::Failed(mut failure) if failure.kind == "unreachable" => {
                failure.problem.push_str("; the order may have taken effect");
                failure.fix = "look at `rotacast status` before giving it again".into();
                Stop::Failed(failure)
            }
            stop => stop,
        })
    }

    async fn ask_cluster(&self) -> Result<ClusterName, Stop> {
        let status = self.status(None).await?;
        ClusterName::new(status.cluster)
            .map_err(|error| Stop::usage(format!("the server's cluster: {error}"), "name the cluster with --cluster"))
    }
}

fn wire_name(secret: Option<&SecretName>) -> String {
    secret.map(ToString::to_string).unwrap_or_default()
}

fn sign(signer: &Signer, cluster: &ClusterName, order: Order) -> Envelope {
    let now = rotacast_clock::wall();
    let nonce: u64 = rand::random();
    let command = v1::OperatorCommand {
        operator: signer.operator.to_string(),
        secret: order.secret.to_string(),
        reason: order.reason,
        nonce,
        issued_ms: now.0,
        action: Some(order.action),
    };
    // One buffer of the final size, so that growing leaves no copy of a value behind.
    let mut payload = BytesMut::with_capacity(command.encoded_len());
    command.encode(&mut payload).expect("the buffer grows if it must");
    let payload: Bytes = payload.freeze();
    let id = format!("{}:{nonce:016x}", signer.operator);
    Envelope::sign(&signer.key, Kind::OperatorCommand, cluster, order.secret.as_str(), id, now, payload)
}

/// Where and how to connect, and whether that is loopback or TLS.
fn endpoint(global: &Global) -> Result<(Endpoint, bool), Stop> {
    let server = &global.server;
    let url = if server.contains("://") { server.clone() } else { format!("http://{server}") };
    let invalid = |problem: &str| {
        Stop::usage(
            format!("--server {server:?}: {problem}"),
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
    Ok((endpoint, tls || is_loopback(&host)))
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn read(file: &PathBuf) -> Result<Vec<u8>, Stop> {
    std::fs::read(file).map_err(|error| Stop::usage(format!("cannot read {}: {error}", file.display()), ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_loopback() {
        for host in ["localhost", "127.0.0.1", "127.3.2.1", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.example", "10.0.0.1", "[::]", "0.0.0.0", "example"] {
            assert!(!is_loopback(host), "{host}");
        }
        assert!(OperatorName::new(DEV_OPERATOR).is_ok());
    }
}
