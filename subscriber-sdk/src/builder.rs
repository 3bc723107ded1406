//! What a subscriber needs to know, and where it comes from.

#[cfg(feature = "kafka")]
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rotacast_bus::InstanceBus;
#[cfg(feature = "nats")]
use rotacast_bus::NatsCredentials;
#[cfg(feature = "kafka")]
use rotacast_bus::{KafkaLogin, SaslMechanism};
use rotacast_proto::{SigningKey, VerifyingKey};
use rotacast_protocol::{ClusterName, Incarnation, InstanceKey, InstanceName, ServiceName};
use tokio::sync::Notify;
#[cfg(any(feature = "consul", feature = "etcd", feature = "kafka"))]
use zeroize::Zeroizing;

use crate::clock::{Clock, Watch};
#[cfg(feature = "consul")]
use crate::connect::ConsulAccess;
#[cfg(feature = "etcd")]
use crate::connect::EtcdAccess;
use crate::connect::{self, Values};
use crate::driver::Context;
use crate::error::{Error, ErrorKind};
use crate::hooks::HOOK_TIMEOUT;
use crate::source::ValueSource;
use crate::subscriber::Subscriber;
use crate::trust::Trust;

/// How long [`Subscriber::secret`] tries before it says what is missing: longer than a broadcaster's takeover.
pub const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Describes a subscriber. What is not set comes from the environment:
///
/// | variable | what | otherwise |
/// |---|---|---|
/// | `ROTACAST_INSTANCE` | this copy's stable name | the host's name |
/// | `ROTACAST_CLUSTER` | the environment's name | `default` |
/// | `ROTACAST_IDENTITY` | file with this service's private key | required |
/// | `ROTACAST_TRUST` | files with broadcasters' public keys, joined by `:` | required |
/// | `ROTACAST_CA` | file with the certificate authority for TLS connections, PEM | the system's |
/// | `ROTACAST_BROADCASTERS` | where broadcasters listen, `https://host:port`, joined by `,` | required with Kafka |
/// | `ROTACAST_NATS_CREDS` | NATS `.creds` file | nobody in particular |
/// | `ROTACAST_KAFKA_USER`, `ROTACAST_KAFKA_PASSWORD_FILE` | who to be on Kafka, by SCRAM-SHA-512 | nobody in particular |
/// | `CONSUL_HTTP_TOKEN` | Consul's token | none |
#[derive(Clone, Default)]
pub struct Builder {
    service: Option<String>,
    instance: Option<String>,
    exclusive: bool,
    cluster: Option<String>,
    identity: Option<SigningKey>,
    identity_file: Option<PathBuf>,
    trust: Vec<VerifyingKey>,
    trust_files: Vec<PathBuf>,
    ca_file: Option<PathBuf>,
    values: Option<Values>,
    #[cfg(feature = "grpc")]
    broadcasters: Vec<String>,
    #[cfg(feature = "consul")]
    consul_token: Option<Zeroizing<String>>,
    #[cfg(feature = "nats")]
    nats_credentials: Option<NatsCredentials>,
    #[cfg(feature = "kafka")]
    kafka_login: Option<KafkaLogin>,
    #[cfg(feature = "kafka")]
    kafka_properties: BTreeMap<String, String>,
    clock: Option<Arc<dyn Clock>>,
    hook_timeout: Option<Duration>,
    start_timeout: Option<Duration>,
}

/// Everything checked, before anything is connected.
pub(crate) struct Plan {
    pub(crate) key: InstanceKey,
    pub(crate) cluster: ClusterName,
    pub(crate) identity: SigningKey,
    pub(crate) trust: Arc<Trust>,
    pub(crate) start_timeout: Duration,
    #[cfg(any(feature = "grpc", feature = "etcd", feature = "consul"))]
    pub(crate) ca_pem: Option<Vec<u8>>,
    #[cfg(any(feature = "kafka", feature = "nats"))]
    pub(crate) ca_file: Option<PathBuf>,
    #[cfg(feature = "grpc")]
    pub(crate) broadcasters: Vec<String>,
    #[cfg(feature = "consul")]
    pub(crate) consul_token: Option<Zeroizing<String>>,
    #[cfg(feature = "nats")]
    pub(crate) nats_credentials: Option<NatsCredentials>,
    #[cfg(feature = "kafka")]
    pub(crate) kafka_login: Option<KafkaLogin>,
    #[cfg(feature = "kafka")]
    pub(crate) kafka_properties: BTreeMap<String, String>,
}

impl Builder {
    /// The deployable's name. Required.
    #[must_use]
    pub fn service(mut self, name: impl Into<String>) -> Self {
        self.service = Some(name.into());
        self
    }

    /// This running copy's stable name: a pod, a host.
    #[must_use]
    pub fn instance(mut self, name: impl Into<String>) -> Self {
        self.instance = Some(name.into());
        self
    }

    /// Whether at most one process at a time runs under this instance name (a StatefulSet's pod, a systemd unit): a
    /// restart then proves the earlier life over, and no rotation waits for its lease. Default: no.
    #[must_use]
    pub fn exclusive(mut self, exclusive: bool) -> Self {
        self.exclusive = exclusive;
        self
    }

    /// The environment's name.
    #[must_use]
    pub fn cluster(mut self, name: impl Into<String>) -> Self {
        self.cluster = Some(name.into());
        self
    }

    /// The service's private key, which signs its reports.
    #[must_use]
    pub fn identity(mut self, key: SigningKey) -> Self {
        self.identity = Some(key);
        self
    }

    /// A file with the service's private key, as `rotacast keygen` writes it.
    #[must_use]
    pub fn identity_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.identity_file = Some(path.into());
        self
    }

    /// A broadcaster's public key; may be called several times.
    #[must_use]
    pub fn trust(mut self, key: VerifyingKey) -> Self {
        self.trust.push(key);
        self
    }

    /// A file with a broadcaster's public key; may be called several times.
    #[must_use]
    pub fn trust_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.trust_files.push(path.into());
        self
    }

    /// A file with the certificate authority for TLS connections, PEM.
    #[must_use]
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(path.into());
        self
    }

    /// Read values from etcd, below the prefix the broadcaster uses.
    #[cfg(feature = "etcd")]
    #[must_use]
    pub fn values_from_etcd<E: Into<String>>(
        mut self,
        endpoints: impl IntoIterator<Item = E>,
        prefix: impl Into<String>,
    ) -> Self {
        let endpoints = endpoints.into_iter().map(Into::into).collect();
        self.values = Some(Values::Etcd(EtcdAccess { endpoints, prefix: prefix.into(), user: None }));
        self
    }

    /// The user to be in etcd; call it after [`values_from_etcd`](Self::values_from_etcd).
    #[cfg(feature = "etcd")]
    #[must_use]
    pub fn etcd_user(mut self, name: impl Into<String>, password: impl Into<String>) -> Self {
        if let Some(Values::Etcd(access)) = &mut self.values {
            access.user = Some((name.into(), Zeroizing::new(password.into())));
        }
        self
    }

    /// Who to be on NATS. The streams are then expected to be there: the broadcaster makes them.
    #[cfg(feature = "nats")]
    #[must_use]
    pub fn nats_credentials(mut self, credentials: NatsCredentials) -> Self {
        self.nats_credentials = Some(credentials);
        self
    }

    /// Read values from Consul, below the prefix the broadcaster uses: `https://host:port`, or `http://` on the loopback.
    #[cfg(feature = "consul")]
    #[must_use]
    pub fn values_from_consul(mut self, address: impl Into<String>, prefix: impl Into<String>) -> Self {
        self.values = Some(Values::Consul(ConsulAccess { address: address.into(), prefix: prefix.into() }));
        self
    }

    /// The token to show Consul.
    #[cfg(feature = "consul")]
    #[must_use]
    pub fn consul_token(mut self, token: impl Into<String>) -> Self {
        self.consul_token = Some(Zeroizing::new(token.into()));
        self
    }

    /// Where broadcasters listen: `https://host:port`, or `http://` on the loopback. Name all replicas: values come from
    /// whichever answers, unless another source is named, and Syncs beside Kafka go to whichever leads. With a `grpc`
    /// transport they are further broadcasters to connect to, besides its address.
    #[cfg(feature = "grpc")]
    #[must_use]
    pub fn broadcasters<U: Into<String>>(mut self, urls: impl IntoIterator<Item = U>) -> Self {
        self.broadcasters = urls.into_iter().map(Into::into).collect();
        self
    }

    /// Who to be on Kafka.
    #[cfg(feature = "kafka")]
    #[must_use]
    pub fn kafka_login(mut self, login: KafkaLogin) -> Self {
        self.kafka_login = Some(login);
        self
    }

    /// A further setting of librdkafka; may be called several times. What correctness rests on is refused by name when
    /// connecting.
    #[cfg(feature = "kafka")]
    #[must_use]
    pub fn kafka_property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.kafka_properties.insert(name.into(), value.into());
        self
    }

    /// Read values from another source.
    #[must_use]
    pub fn values_from(mut self, source: Arc<dyn ValueSource>) -> Self {
        self.values = Some(Values::Source(source));
        self
    }

    /// How long a hook may take. Default: [`HOOK_TIMEOUT`].
    #[must_use]
    pub fn hook_timeout(mut self, timeout: Duration) -> Self {
        self.hook_timeout = Some(timeout);
        self
    }

    /// How long [`Subscriber::secret`] tries before it says what is missing. Default: [`START_TIMEOUT`].
    #[must_use]
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.start_timeout = Some(timeout);
        self
    }

    /// Another clock, for tests.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Connects: `nats://host:port`, `kafka://host:port,host:port`, `kafkas://…` (TLS), `grpc://host:port` (loopback) or
    /// `grpcs://host:port,host:port` (TLS), as far as this build has their features.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] and [`ErrorKind::Identity`] for what is missing or wrong here,
    /// [`ErrorKind::Unreachable`] and [`ErrorKind::Denied`] for the other side.
    pub async fn connect(self, url: &str) -> Result<Subscriber, Error> {
        let plan = self.plan()?;
        let (bus, values) = connect::connect(url, &plan, self.values.as_ref()).await?;
        Ok(self.start(plan, bus, values))
    }

    /// Uses a transport and a value source that exist already.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] and [`ErrorKind::Identity`] for what is missing or wrong here.
    pub fn connect_with(self, bus: Arc<dyn InstanceBus>, values: Arc<dyn ValueSource>) -> Result<Subscriber, Error> {
        let plan = self.plan()?;
        Ok(self.start(plan, bus, values))
    }

    fn start(self, plan: Plan, bus: Arc<dyn InstanceBus>, values: Arc<dyn ValueSource>) -> Subscriber {
        let context = Context {
            cluster: plan.cluster,
            identity: plan.identity,
            trust: plan.trust,
            bus,
            values,
            watch: self.clock.map_or(Watch::Boottime, Watch::Given),
            wake: Arc::new(Notify::new()),
            hook_timeout: self.hook_timeout.unwrap_or(HOOK_TIMEOUT),
        };
        Subscriber::start(context, plan.key, self.exclusive, plan.start_timeout)
    }

    fn plan(&self) -> Result<Plan, Error> {
        let service = self.service.clone().ok_or_else(|| {
            Error::new(ErrorKind::Config, "no service name is set", "call .service(\"payments-api\") on the builder")
        })?;
        let service = ServiceName::new(service).map_err(|error| invalid(".service(…)", &error))?;
        let instance = InstanceName::new(
            self.instance.clone().or_else(|| variable("ROTACAST_INSTANCE")).unwrap_or_else(host_name),
        )
        .map_err(|error| invalid(".instance(…) or ROTACAST_INSTANCE", &error))?;
        let cluster = ClusterName::new(
            self.cluster.clone().or_else(|| variable("ROTACAST_CLUSTER")).unwrap_or_else(|| "default".into()),
        )
        .map_err(|error| invalid(".cluster(…) or ROTACAST_CLUSTER", &error))?;
        Ok(Plan {
            key: InstanceKey { service, instance, incarnation: Incarnation(rand::random()) },
            cluster,
            identity: self.find_identity()?,
            trust: Arc::new(Trust::new(self.find_trust()?)),
            start_timeout: self.start_timeout.unwrap_or(START_TIMEOUT),
            #[cfg(any(feature = "grpc", feature = "etcd", feature = "consul"))]
            ca_pem: self.read_ca()?,
            #[cfg(any(feature = "kafka", feature = "nats"))]
            ca_file: self.find_ca(),
            #[cfg(feature = "grpc")]
            broadcasters: self.find_broadcasters(),
            #[cfg(feature = "consul")]
            consul_token: self.consul_token.clone().or_else(|| variable("CONSUL_HTTP_TOKEN").map(Zeroizing::new)),
            #[cfg(feature = "kafka")]
            kafka_login: self.find_kafka_login()?,
            #[cfg(feature = "kafka")]
            kafka_properties: self.kafka_properties.clone(),
            #[cfg(feature = "nats")]
            nats_credentials: self
                .nats_credentials
                .clone()
                .or_else(|| variable("ROTACAST_NATS_CREDS").map(|path| NatsCredentials::File(PathBuf::from(path)))),
        })
    }

    fn find_identity(&self) -> Result<SigningKey, Error> {
        if let Some(key) = &self.identity {
            return Ok(key.clone());
        }
        let path = self.identity_file.clone().or_else(|| variable("ROTACAST_IDENTITY").map(PathBuf::from));
        let path = path.ok_or_else(|| {
            Error::new(
                ErrorKind::Identity,
                "no private key is set for this service",
                "make one with `rotacast keygen`, name its file with .identity_file(…) or ROTACAST_IDENTITY, and give its \
                 public half to the broadcaster",
            )
        })?;
        SigningKey::read_file(path).map_err(|error| Error::new(ErrorKind::Identity, error.to_string(), ""))
    }

    fn find_trust(&self) -> Result<Vec<VerifyingKey>, Error> {
        let mut keys = self.trust.clone();
        let mut files = self.trust_files.clone();
        if keys.is_empty() && files.is_empty() {
            files = variable("ROTACAST_TRUST").map(|paths| std::env::split_paths(&paths).collect()).unwrap_or_default();
        }
        for file in files {
            let key = VerifyingKey::read_file(file);
            keys.push(key.map_err(|error| Error::new(ErrorKind::Identity, error.to_string(), ""))?);
        }
        if keys.is_empty() {
            return Err(Error::new(
                ErrorKind::Identity,
                "no broadcaster's public key is trusted",
                "name its file with .trust_file(…) or ROTACAST_TRUST; `rotacast keygen` has written it",
            ));
        }
        Ok(keys)
    }

    #[cfg(feature = "grpc")]
    fn find_broadcasters(&self) -> Vec<String> {
        if !self.broadcasters.is_empty() {
            return self.broadcasters.clone();
        }
        let urls = variable("ROTACAST_BROADCASTERS").unwrap_or_default();
        urls.split(',').map(str::trim).filter(|url| !url.is_empty()).map(str::to_owned).collect()
    }

    #[cfg(feature = "kafka")]
    fn find_kafka_login(&self) -> Result<Option<KafkaLogin>, Error> {
        if let Some(login) = &self.kafka_login {
            return Ok(Some(login.clone()));
        }
        let Some(user) = variable("ROTACAST_KAFKA_USER") else { return Ok(None) };
        let path = variable("ROTACAST_KAFKA_PASSWORD_FILE").ok_or_else(|| {
            let what = "ROTACAST_KAFKA_USER is set, and ROTACAST_KAFKA_PASSWORD_FILE is not";
            Error::new(ErrorKind::Config, what, "set both, or call .kafka_login(…) on the builder")
        })?;
        let text = std::fs::read_to_string(&path).map(Zeroizing::new).map_err(|error| {
            let what = format!("ROTACAST_KAFKA_PASSWORD_FILE: cannot read {path}: {error}");
            Error::new(ErrorKind::Config, what, "expected a file with the password")
        })?;
        let password = Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned());
        Ok(Some(KafkaLogin { user, password, mechanism: SaslMechanism::default() }))
    }

    #[cfg(any(feature = "nats", feature = "grpc", feature = "etcd", feature = "consul"))]
    fn find_ca(&self) -> Option<PathBuf> {
        self.ca_file.clone().or_else(|| variable("ROTACAST_CA").map(PathBuf::from))
    }

    #[cfg(any(feature = "grpc", feature = "etcd", feature = "consul"))]
    fn read_ca(&self) -> Result<Option<Vec<u8>>, Error> {
        let Some(path) = self.find_ca() else { return Ok(None) };
        std::fs::read(&path).map(Some).map_err(|error| {
            let what = format!("{}: cannot read the certificate authority: {error}", path.display());
            Error::new(ErrorKind::Config, what, "expected a PEM file")
        })
    }
}

fn invalid(setting: &str, error: &dyn std::error::Error) -> Error {
    Error::new(ErrorKind::Config, error.to_string(), format!("set another with {setting}"))
}

/// An environment variable that is set to something.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase()
}
