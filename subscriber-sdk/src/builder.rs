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
#[cfg(any(feature = "nats", feature = "grpc", feature = "etcd", feature = "consul"))]
use rotacast_proto::{CERTIFICATE, FILE_DEADLINE, LoginSecret};
use rotacast_proto::{SigningKey, VerifyingKey};
use rotacast_protocol::{ClusterName, InstanceName, ServiceName};
#[cfg(any(feature = "consul", feature = "etcd"))]
use rotacast_seal::SealingKeys;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::clock::{Clock, Watch};
#[cfg(feature = "consul")]
use crate::connect::ConsulAccess;
#[cfg(feature = "etcd")]
use crate::connect::EtcdAccess;
use crate::connect::{self, Values};
use crate::driver::Context;
use crate::error::{Error, ErrorKind};
use crate::hooks::HOOK_TIMEOUT;
use crate::incarnations::{Incarnations, ServiceKey};
use crate::source::ValueSource;
use crate::subscriber::Subscriber;
use crate::trust::Trust;

/// How long [`Subscriber::secret`] tries before it fails with what is missing: longer than the takeover of a broadcaster.
pub const START_TIMEOUT: Duration = Duration::from_secs(30);

/// The settings of a [`Subscriber`]. What you do not set comes from the environment:
///
/// | variable | what | otherwise |
/// |---|---|---|
/// | `ROTACAST_INSTANCE` | this copy's stable name | the host's name |
/// | `ROTACAST_CLUSTER` | the cluster's name, as in the broadcaster's configuration | none: it is required |
/// | `ROTACAST_IDENTITY` | file with this service's private keys | required |
/// | `ROTACAST_TRUST` | files with the public keys of all broadcasters, one a line, joined by `:` | required |
/// | `ROTACAST_CA` | file with the certificate authority for TLS connections, PEM | the system's |
/// | `ROTACAST_IN_THE_CLEAR` | `true` allows connections to other machines without encryption | they are refused |
/// | `ROTACAST_BROADCASTERS` | addresses of all broadcasters, `https://host:port`, joined by `,` | required with Kafka |
/// | `ROTACAST_NATS_CREDS` | NATS `.creds` file | no login |
/// | `ROTACAST_KAFKA_USER`, `ROTACAST_KAFKA_PASSWORD_FILE` | the login to Kafka, by SCRAM-SHA-512 | no login |
/// | `CONSUL_HTTP_TOKEN_FILE` | file with the token for Consul, read again when Consul refuses the one it held | no token |
/// | `CONSUL_HTTP_TOKEN` | the token for Consul, if there is no file | no token |
#[derive(Clone, Default)]
pub struct Builder {
    service: Option<String>,
    instance: Option<String>,
    exclusive: bool,
    cluster: Option<String>,
    identity: Option<SigningKey>,
    identity_file: Option<PathBuf>,
    #[cfg(any(feature = "consul", feature = "etcd"))]
    sealing_keys: Option<SealingKeys>,
    trust: Vec<VerifyingKey>,
    trust_files: Vec<PathBuf>,
    ca_file: Option<PathBuf>,
    values: Option<Values>,
    #[cfg(any(feature = "nats", feature = "kafka", feature = "etcd", feature = "consul"))]
    in_the_clear: Option<bool>,
    #[cfg(feature = "grpc")]
    broadcasters: Vec<String>,
    #[cfg(feature = "consul")]
    consul_token: Option<LoginSecret>,
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
    pub(crate) cluster: ClusterName,
    pub(crate) incarnations: Arc<Incarnations>,
    pub(crate) trust: Arc<Trust>,
    pub(crate) start_timeout: Duration,
    #[cfg(any(feature = "consul", feature = "etcd"))]
    pub(crate) sealing_keys: SealingKeys,
    /// Whether connections beyond this machine may do without encryption.
    #[cfg(any(feature = "nats", feature = "kafka", feature = "etcd", feature = "consul"))]
    pub(crate) in_the_clear: bool,
    /// Readable at the start.
    #[cfg(any(feature = "nats", feature = "grpc", feature = "etcd", feature = "consul"))]
    pub(crate) ca_file: Option<PathBuf>,
    #[cfg(feature = "grpc")]
    pub(crate) broadcasters: Vec<String>,
    #[cfg(feature = "consul")]
    pub(crate) consul_token: Option<LoginSecret>,
    #[cfg(feature = "nats")]
    pub(crate) nats_credentials: Option<NatsCredentials>,
    #[cfg(feature = "kafka")]
    pub(crate) kafka_login: Option<KafkaLogin>,
    #[cfg(feature = "kafka")]
    pub(crate) kafka_properties: BTreeMap<String, String>,
}

#[cfg(any(feature = "grpc", feature = "etcd", feature = "consul"))]
impl Plan {
    /// The certificate authority, read again when its file changes.
    pub(crate) fn ca(&self) -> Option<LoginSecret> {
        self.ca_file.clone().map(LoginSecret::File)
    }
}

impl Builder {
    /// The service's name, the same for all its instances. Required. 1 to 128 bytes of `a-z 0-9 . _ -`, the first a letter or
    /// a digit.
    #[must_use]
    pub fn service(mut self, name: impl Into<String>) -> Self {
        self.service = Some(name.into());
        self
    }

    /// The stable name of this running copy, such as the pod's or the host's. Same rules as for a service's name.
    #[must_use]
    pub fn instance(mut self, name: impl Into<String>) -> Self {
        self.instance = Some(name.into());
        self
    }

    /// Whether the platform runs at most one process at a time under this instance name (a StatefulSet's pod, a systemd
    /// unit). A restart then proves that the earlier process has ended, and no rotation waits for its lease. Default: no.
    ///
    /// If this is set and two processes run, an old credential can be retired while one of them uses it.
    #[must_use]
    pub fn exclusive(mut self, exclusive: bool) -> Self {
        self.exclusive = exclusive;
        self
    }

    /// The cluster's name, as in the broadcaster's configuration. Messages of other clusters are refused.
    #[must_use]
    pub fn cluster(mut self, name: impl Into<String>) -> Self {
        self.cluster = Some(name.into());
        self
    }

    /// The service's private key, which proves that this instance belongs to the service. It takes precedence over [`identity_file`](Self::identity_file).
    #[must_use]
    pub fn identity(mut self, key: SigningKey) -> Self {
        self.identity = Some(key);
        self
    }

    /// A file with the service's private keys, as `rotacast keygen` writes it: the one that signs, and the one that opens sealed
    /// values. Of several signing keys the first is used. It is read again when it changes: instances that run are then attested by
    /// the key that it has. It must have no permissions for group and others.
    #[must_use]
    pub fn identity_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.identity_file = Some(path.into());
        self
    }

    /// The keys that open values which are read from the store. Default: those in the file of
    /// [`identity_file`](Self::identity_file). Needed only with [`identity`](Self::identity).
    #[cfg(any(feature = "consul", feature = "etcd"))]
    #[must_use]
    pub fn sealing_keys(mut self, keys: SealingKeys) -> Self {
        self.sealing_keys = Some(keys);
        self
    }

    /// The public key of a broadcaster. Call it once for each key that may sign for the leader.
    #[must_use]
    pub fn trust(mut self, key: VerifyingKey) -> Self {
        self.trust.push(key);
        self
    }

    /// A file with public keys of broadcasters, one a line. Call it once for each file. It is read again when it changes.
    #[must_use]
    pub fn trust_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.trust_files.push(path.into());
        self
    }

    /// A PEM file with the certificate authority for all TLS connections.
    #[must_use]
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(path.into());
        self
    }

    /// Allows connections to other machines without encryption: to NATS, to etcd and Consul with the values of secrets, and to
    /// Kafka with a password that is sent as it is. Use it only if something else protects the way there, such as a VPN or a
    /// service mesh. Default: no. Connections to broadcasters are never allowed without: they speak TLS.
    #[cfg(any(feature = "nats", feature = "kafka", feature = "etcd", feature = "consul"))]
    #[must_use]
    pub fn in_the_clear(mut self, allowed: bool) -> Self {
        self.in_the_clear = Some(allowed);
        self
    }

    /// Reads values from etcd. `prefix` is `store.prefix` in the broadcaster's configuration (`rotacast` unless it is set there).
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

    /// The login to etcd: a text, or [`LoginSecret::File`] for a password that is renewed there. Call it after
    /// [`values_from_etcd`](Self::values_from_etcd); before, it has no effect.
    #[cfg(feature = "etcd")]
    #[must_use]
    pub fn etcd_user(mut self, name: impl Into<String>, password: impl Into<LoginSecret>) -> Self {
        if let Some(Values::Etcd(access)) = &mut self.values {
            access.user = Some((name.into(), password.into()));
        }
        self
    }

    /// The login to NATS, with the permissions that `rotacast permissions nats` prints for this service.
    #[cfg(feature = "nats")]
    #[must_use]
    pub fn nats_credentials(mut self, credentials: NatsCredentials) -> Self {
        self.nats_credentials = Some(credentials);
        self
    }

    /// Reads values from Consul, at `https://host:port` or, on loopback, `http://host:port`. `prefix` is `store.prefix` in the
    /// broadcaster's configuration.
    #[cfg(feature = "consul")]
    #[must_use]
    pub fn values_from_consul(mut self, address: impl Into<String>, prefix: impl Into<String>) -> Self {
        self.values = Some(Values::Consul(ConsulAccess { address: address.into(), prefix: prefix.into() }));
        self
    }

    /// The token for Consul: a text, or [`LoginSecret::File`] for one that is renewed there. It needs read access to all keys
    /// below the prefix.
    #[cfg(feature = "consul")]
    #[must_use]
    pub fn consul_token(mut self, token: impl Into<LoginSecret>) -> Self {
        self.consul_token = Some(token.into());
        self
    }

    /// The addresses of all broadcasters: `https://host:port` or, on loopback, `http://host:port`.
    ///
    /// - Values come from the first that answers, unless another source of values is set.
    /// - With Kafka, Syncs go to the one that leads.
    /// - With a `grpc` transport, these are more broadcasters to connect to, besides the address given to
    ///   [`connect`](Self::connect).
    #[cfg(feature = "grpc")]
    #[must_use]
    pub fn broadcasters<U: Into<String>>(mut self, urls: impl IntoIterator<Item = U>) -> Self {
        self.broadcasters = urls.into_iter().map(Into::into).collect();
        self
    }

    /// The login to Kafka. SCRAM needs the feature `kafka-tls`.
    #[cfg(feature = "kafka")]
    #[must_use]
    pub fn kafka_login(mut self, login: KafkaLogin) -> Self {
        self.kafka_login = Some(login);
        self
    }

    /// One more setting of librdkafka. [`connect`](Self::connect) refuses the settings that safety rests on, such as `acks`, by
    /// name.
    #[cfg(feature = "kafka")]
    #[must_use]
    pub fn kafka_property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.kafka_properties.insert(name.into(), value.into());
        self
    }

    /// Reads values from a source of your own.
    #[must_use]
    pub fn values_from(mut self, source: Arc<dyn ValueSource>) -> Self {
        self.values = Some(Values::Source(source));
        self
    }

    /// How long a hook may run. Prepare and switch are then cut off and count as failed. A release goes on, and operators are told.
    /// Default: [`HOOK_TIMEOUT`].
    #[must_use]
    pub fn hook_timeout(mut self, timeout: Duration) -> Self {
        self.hook_timeout = Some(timeout);
        self
    }

    /// How long [`Subscriber::secret`] and [`connect`](Self::connect) try. Default: [`START_TIMEOUT`].
    #[must_use]
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.start_timeout = Some(timeout);
        self
    }

    /// Uses another clock, for tests.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Connects to a transport, if this build has its feature:
    ///
    /// | address | transport |
    /// |---|---|
    /// | `nats://host:port`, `tls://host:port` | NATS, several servers joined by `,`; values need a source of their own |
    /// | `nats://user:password@host:port`, `nats://token@host:port` | the same with a login, percent-encoded |
    /// | `kafka://host:port,host:port`, `kafkas://…` (TLS) | Kafka; values and Syncs need [`broadcasters`](Self::broadcasters) or another source |
    /// | `grpc://host:port` (loopback), `grpcs://host:port,host:port` (TLS) | broadcasters, for messages and values |
    ///
    /// It tries until [`start_timeout`](Self::start_timeout).
    ///
    /// # Errors
    /// [`ErrorKind::Config`] and [`ErrorKind::Identity`] for a missing or wrong setting, such as no source of values;
    /// [`ErrorKind::Unreachable`] if the transport does not answer; [`ErrorKind::Denied`] if it refuses the login.
    pub async fn connect(self, url: &str) -> Result<Subscriber, Error> {
        let plan = self.plan()?;
        let runtime = runtime()?;
        let (bus, values) = connect::connect(url, &plan, self.values.as_ref()).await?;
        Ok(self.start(runtime, plan, bus, values))
    }

    /// Uses a transport and a source of values that you made. The fake cluster of the feature `testing` does this.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] and [`ErrorKind::Identity`] for a missing or wrong setting.
    pub fn connect_with(self, bus: Arc<dyn InstanceBus>, values: Arc<dyn ValueSource>) -> Result<Subscriber, Error> {
        let plan = self.plan()?;
        Ok(self.start(runtime()?, plan, bus, values))
    }

    fn start(self, runtime: Handle, plan: Plan, bus: Arc<dyn InstanceBus>, values: Arc<dyn ValueSource>) -> Subscriber {
        let context = Context {
            cluster: plan.cluster,
            identity: plan.incarnations.current(),
            incarnations: Arc::clone(&plan.incarnations),
            trust: plan.trust,
            bus,
            values,
            watch: self.clock.map_or(Watch::Boottime, Watch::Given),
            wake: Arc::new(Notify::new()),
            runtime,
            hook_timeout: self.hook_timeout.unwrap_or(HOOK_TIMEOUT),
        };
        Subscriber::start(context, plan.incarnations, self.exclusive, plan.start_timeout)
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
        let cluster = self.cluster.clone().or_else(|| variable("ROTACAST_CLUSTER")).ok_or_else(|| {
            Error::new(
                ErrorKind::Config,
                "no cluster is set",
                "call .cluster(\"production\") on the builder, or set ROTACAST_CLUSTER: the `cluster` of the broadcaster's \
                 configuration",
            )
        })?;
        let cluster = ClusterName::new(cluster).map_err(|error| invalid(".cluster(…) or ROTACAST_CLUSTER", &error))?;
        Ok(Plan {
            incarnations: Arc::new(Incarnations::new(self.find_identity()?, cluster.clone(), service, instance)),
            cluster,
            trust: Arc::new(self.find_trust()?),
            start_timeout: self.start_timeout.unwrap_or(START_TIMEOUT),
            #[cfg(any(feature = "consul", feature = "etcd"))]
            sealing_keys: self.find_sealing_keys()?,
            #[cfg(any(feature = "nats", feature = "kafka", feature = "etcd", feature = "consul"))]
            in_the_clear: self.find_in_the_clear()?,
            #[cfg(any(feature = "nats", feature = "grpc", feature = "etcd", feature = "consul"))]
            ca_file: self.find_ca()?,
            #[cfg(feature = "grpc")]
            broadcasters: self.find_broadcasters(),
            #[cfg(feature = "consul")]
            consul_token: self.find_consul_token(),
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

    fn find_identity(&self) -> Result<ServiceKey, Error> {
        if let Some(key) = &self.identity {
            return Ok(ServiceKey::Given(key.clone()));
        }
        let path = self.find_identity_file().ok_or_else(|| {
            Error::new(
                ErrorKind::Identity,
                "no private key is set for this service",
                "make one with `rotacast keygen`, name its file with .identity_file(…) or ROTACAST_IDENTITY, and give its \
                 public half to the broadcaster",
            )
        })?;
        // First of all the text that says what is wrong with a key file.
        SigningKey::read_file(&path).map_err(|error| Error::new(ErrorKind::Identity, error.to_string(), ""))?;
        ServiceKey::read(path).map_err(|error| Error::new(ErrorKind::Identity, error, ""))
    }

    fn find_identity_file(&self) -> Option<PathBuf> {
        self.identity_file.clone().or_else(|| variable("ROTACAST_IDENTITY").map(PathBuf::from))
    }

    /// There may be none: values that broadcasters give are opened already.
    #[cfg(any(feature = "consul", feature = "etcd"))]
    fn find_sealing_keys(&self) -> Result<SealingKeys, Error> {
        if let Some(keys) = &self.sealing_keys {
            return Ok(keys.clone());
        }
        let Some(path) = self.find_identity_file() else { return Ok(SealingKeys::default()) };
        SealingKeys::read_file(path).map_err(|error| Error::new(ErrorKind::Identity, error.to_string(), ""))
    }

    fn find_trust(&self) -> Result<Trust, Error> {
        let mut files = self.trust_files.clone();
        if self.trust.is_empty() && files.is_empty() {
            files = variable("ROTACAST_TRUST").map(|paths| std::env::split_paths(&paths).collect()).unwrap_or_default();
        }
        if self.trust.is_empty() && files.is_empty() {
            return Err(Error::new(
                ErrorKind::Identity,
                "no broadcaster's public key is trusted",
                "name its file with .trust_file(…) or ROTACAST_TRUST; `rotacast keygen` has written it",
            ));
        }
        for file in &files {
            VerifyingKey::read_list(file).map_err(|error| Error::new(ErrorKind::Identity, error.to_string(), ""))?;
        }
        Trust::read(self.trust.clone(), files).map_err(|error| Error::new(ErrorKind::Identity, error, ""))
    }

    #[cfg(any(feature = "nats", feature = "kafka", feature = "etcd", feature = "consul"))]
    fn find_in_the_clear(&self) -> Result<bool, Error> {
        if let Some(allowed) = self.in_the_clear {
            return Ok(allowed);
        }
        let Some(text) = variable("ROTACAST_IN_THE_CLEAR") else { return Ok(false) };
        text.parse().map_err(|_| {
            Error::new(ErrorKind::Config, format!("ROTACAST_IN_THE_CLEAR is {text:?}"), "expected true or false")
        })
    }

    #[cfg(feature = "grpc")]
    fn find_broadcasters(&self) -> Vec<String> {
        if !self.broadcasters.is_empty() {
            return self.broadcasters.clone();
        }
        let urls = variable("ROTACAST_BROADCASTERS").unwrap_or_default();
        urls.split(',').map(str::trim).filter(|url| !url.is_empty()).map(str::to_owned).collect()
    }

    #[cfg(feature = "consul")]
    fn find_consul_token(&self) -> Option<LoginSecret> {
        let file = || variable("CONSUL_HTTP_TOKEN_FILE").map(|path| LoginSecret::File(PathBuf::from(path)));
        self.consul_token.clone().or_else(file).or_else(|| variable("CONSUL_HTTP_TOKEN").map(LoginSecret::from))
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
        let password = LoginSecret::File(PathBuf::from(path));
        password.read(FILE_DEADLINE).map_err(|problem| {
            let what = format!("ROTACAST_KAFKA_PASSWORD_FILE: {problem}");
            Error::new(ErrorKind::Config, what, "expected a file with the password")
        })?;
        Ok(Some(KafkaLogin { user, password, mechanism: SaslMechanism::default() }))
    }

    #[cfg(any(feature = "nats", feature = "grpc", feature = "etcd", feature = "consul"))]
    fn find_ca(&self) -> Result<Option<PathBuf>, Error> {
        let Some(path) = self.ca_file.clone().or_else(|| variable("ROTACAST_CA").map(PathBuf::from)) else {
            return Ok(None);
        };
        LoginSecret::File(path.clone()).read_pem(CERTIFICATE, FILE_DEADLINE).map(|_| Some(path)).map_err(|problem| {
            let what = format!("the certificate authority: {problem}");
            Error::new(ErrorKind::Config, what, "expected a PEM file, set with .ca_file(…) or ROTACAST_CA")
        })
    }
}

/// The runtime that the caller is in.
fn runtime() -> Result<Handle, Error> {
    Handle::try_current().map_err(|_| {
        let what = "the subscriber is started outside a Tokio runtime";
        Error::new(
            ErrorKind::Config,
            what,
            "call it in a task, or after Runtime::enter(), of a runtime that goes on running",
        )
    })
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
