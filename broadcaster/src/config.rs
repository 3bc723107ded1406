//! The configuration: one TOML file, and a few environment variables over it.
//!
//! Everything is parsed into checked types. Unknown settings are refused with a suggestion, numbers without
//! a unit with the fix, and all problems are told at once. See `docs/operate/configuration.md`.

mod backend;
mod bus;
mod dashboard;
mod error;
mod limits;
mod listen;
mod operators;
mod pattern;
mod policy;
mod provider;
mod reader;
mod reload;
mod service;
mod store;
mod telemetry;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rotacast_proto::{FILE_DEADLINE, read_file};
use rotacast_protocol::{ClusterName, Policy, SecretName, ServiceName};

pub use backend::{ClientTls, Login};
pub use bus::{BusConfig, NatsLogin, SaslMechanism};
pub use dashboard::DashboardConfig;
pub use error::{ConfigError, Problem};
pub use limits::{DEFAULT_SECRETS, Limits};
pub use listen::{Listen, ListenLimits, ServerTls};
pub use pattern::{InvalidPattern, SecretPattern};
pub use provider::{AdminSource, PostgresConfig, ProviderConfig, ProviderName, SessionsAtRetire};
pub use reload::{Change, changes};
pub use service::ServiceConfig;
pub use store::{Layout, StoreConfig};
pub use telemetry::TelemetryConfig;

use crate::audit::AuditOptions;
use crate::operators::Operators;
use reader::{Document, Section};

/// Where the admin and instance services listen unless set.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7400);
/// Shortest and longest leader term: renewals happen at a third of it, and a successor waits all of it.
const LEADER_TTL: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(300);
/// How long store and bus may take at the start: servers that are started together with us come up well within it, and
/// a person who made a mistake in an address still sees the error.
const DEFAULT_START_TIMEOUT: Duration = Duration::from_secs(60);
/// Shortest and longest such wait.
const START_TIMEOUT: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);

/// Oftener a rotation with its leases would hardly end before the next; the longest is as good as never.
const ROTATE_EVERY: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(60)..=Duration::from_secs(10 * 365 * 24 * 3600);
/// What `cluster` is for, and how it is set.
const CLUSTER_IS_NEEDED: &str = "expected the name of this installation, the same for all of its broadcasters and services \
                                 and another one for each environment: set `cluster = \"production\"` at the top of the file, \
                                 or ROTACAST_CLUSTER";
/// Least size of an audit file: below, files would be made faster than an operator can archive them.
const MIN_AUDIT_FILE_BYTES: u64 = 64 * 1024;

/// Least and greatest age of an audit file: oftener than every hour gives more files than an operator can archive.
const AUDIT_FILE_AGE: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(3600)..=Duration::from_secs(10 * 365 * 24 * 3600);

/// The configuration of a broadcaster.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// The environment's name on the bus and in signatures.
    pub cluster: ClusterName,
    /// How this replica is called in the election; none: after the host.
    pub replica: Option<String>,
    /// Where everything of our own is kept.
    pub data_dir: PathBuf,
    /// Where clients and instances reach us.
    pub listen: Listen,
    /// The dashboard.
    pub dashboard: DashboardConfig,
    /// Where versions and records are.
    pub store: StoreConfig,
    /// What states and reports travel on.
    pub bus: BusConfig,
    /// How long store and bus may take to answer for the first time.
    pub start_timeout: Duration,
    /// How long a dead leader blocks its successor.
    pub leader_ttl: Duration,
    /// The file of the key that signs states and replies.
    pub signing_key: PathBuf,
    /// The file of the keys that open sealed values, the same for all replicas; none: that of the signing key.
    pub sealing_key: Option<PathBuf>,
    /// Whether values are sealed before they are stored.
    pub seal_values: bool,
    /// How much it takes on.
    pub limits: Limits,
    /// Who may do and read what.
    pub operators: Operators,
    /// Who may use what.
    pub services: BTreeMap<ServiceName, ServiceConfig>,
    /// For services not named (`[services."*"]`).
    pub any_service: Option<ServiceConfig>,
    /// What makes, tests and retires credentials.
    pub providers: BTreeMap<ProviderName, ProviderConfig>,
    /// What applies to secrets not named.
    pub defaults: Policy,
    /// What applies to secrets, by name or by prefix.
    pub secrets: BTreeMap<SecretPattern, SecretConfig>,
    /// The audit log.
    pub audit: AuditConfig,
    /// What the process tells about itself.
    pub log: LogConfig,
    /// Where traces go.
    pub telemetry: TelemetryConfig,
}

/// What applies to a secret.
#[derive(Clone, PartialEq, Debug)]
pub struct SecretConfig {
    /// What makes, tests and retires its credentials; none: a value that no outside system knows.
    pub provider: Option<ProviderName>,
    /// Its policy.
    pub policy: Policy,
    /// The longest a version is current before the provider makes another; none: rotated only by an order or a new value.
    pub rotate_every: Option<Duration>,
}

/// Where the audit log is, and how it is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuditConfig {
    /// The file in use.
    pub file: PathBuf,
    /// When it is full.
    pub options: AuditOptions,
}

/// How log lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs: one JSON object a line.
    Json,
}

/// What the process tells about itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogConfig {
    /// How lines look.
    pub format: LogFormat,
    /// Which lines: `info`, or directives such as `info,rotacast_bus=debug`.
    pub level: String,
}

impl Config {
    /// Reads the file, and the process's environment over it.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem found.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let config = Self::read_for_any_build(path)?;
        match config.bus.missing_from_build() {
            Some(problem) => Err(ConfigError::new(path, vec![problem])),
            None => Ok(config),
        }
    }

    /// The same for what runs no broadcaster: this build may lack what the configuration needs.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn read_for_any_build(path: &Path) -> Result<Self, ConfigError> {
        let text = read_file(path, FILE_DEADLINE)
            .map_err(|error| ConfigError::new(path, vec![Problem::of_file(error.to_string())]))?;
        Self::parse(path, &text, &|name| std::env::var(name).ok())
    }

    /// Parses a file's text. Relative paths in it count from the file's folder; `environment` gives the variables
    /// that go over it.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem found.
    pub fn parse(path: &Path, text: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let document = Document::new(path, text, environment);
        let config = match document.parse() {
            Some(table) => read_all(&document.root(&table)),
            None => None,
        };
        let problems = document.into_problems();
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(ConfigError::new(path, problems)),
        }
    }

    /// What applies to one secret: the section of its name, else of the longest prefix that fits, else the defaults.
    #[must_use]
    pub fn secret(&self, secret: &SecretName) -> SecretConfig {
        let fitting = self.secrets.iter().filter(|(pattern, _)| pattern.matches(secret));
        match fitting.max_by_key(|(pattern, _)| pattern.precision()) {
            Some((_, config)) => config.clone(),
            None => SecretConfig { provider: None, policy: self.defaults.clone(), rotate_every: None },
        }
    }

    /// The secrets that have a section of their own.
    pub fn named_secrets(&self) -> impl Iterator<Item = SecretName> + '_ {
        self.secrets.keys().filter_map(SecretPattern::name)
    }
}

impl Config {
    /// What may be meant, and more likely is not.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        operators::warnings(self)
    }

    /// Which secrets services use.
    fn used_patterns(&self) -> impl Iterator<Item = SecretPattern> + '_ {
        self.services.values().chain(&self.any_service).flat_map(|service| service.secrets.iter().cloned())
    }

    /// The file with the keys that open sealed values, and the setting that names it.
    #[must_use]
    pub fn sealing_key_file(&self) -> (&'static str, &Path) {
        match &self.sealing_key {
            Some(file) => ("keys.sealing_key", file),
            None => ("keys.signing_key", &self.signing_key),
        }
    }

    /// Every setting that means secrets, with its pattern. `*` means all there are, whether there are any or not.
    #[must_use]
    pub fn patterns(&self) -> Vec<(String, SecretPattern)> {
        let sections = self.secrets.keys().map(|pattern| ("[secrets]".to_owned(), pattern.clone()));
        let named = self.services.iter().map(|(name, service)| (format!("[services.{name}]"), service));
        let any = self.any_service.iter().map(|service| ("[services.\"*\"]".to_owned(), service));
        let services = named.chain(any).flat_map(|(place, service)| {
            let patterns = service.secrets.iter().cloned();
            patterns.map(move |pattern| (place.clone(), pattern)).collect::<Vec<_>>()
        });
        let roles = self.operators.roles().iter().flat_map(|(name, role)| {
            role.secrets.iter().map(move |pattern| (format!("[roles.{name}]"), pattern.clone()))
        });
        sections.chain(services).chain(roles).filter(|(_, pattern)| pattern.as_str() != "*").collect()
    }
}

/// None when something required is missing; the document then holds the problems.
fn read_all(root: &Section<'_, '_>) -> Option<Config> {
    let cluster = root.parse_or("cluster", Some("ROTACAST_CLUSTER"), || {
        root.problem("cluster", format!("is missing; {CLUSTER_IS_NEEDED}"));
        None
    });
    let replica = root.text("replica");
    let data_dir = root
        .text_or_env("data_dir", "ROTACAST_DATA_DIR")
        .map_or_else(|| root.resolve("rotacast-data"), |dir| root.resolve(dir));
    let start_timeout = root.duration_within("start_timeout", &START_TIMEOUT).unwrap_or(DEFAULT_START_TIMEOUT);
    let in_data = |name: &str| data_dir.join(name);

    let listen = listen::read(&root.section("listen"));
    let dashboard = dashboard::read(&root.section("dashboard"));
    let store = store::read(&root.section("store"), &data_dir);
    let bus = bus::read(&root.section("bus"), &data_dir);

    let leader = root.section("leader");
    let leader_ttl = leader.duration_within("ttl", &LEADER_TTL).unwrap_or(Duration::from_secs(10));
    leader.finish();

    let keys = root.section("keys");
    let signing_key = keys.path("signing_key").unwrap_or_else(|| in_data("keys/broadcaster.key"));
    let sealing_key = keys.path("sealing_key");
    keys.finish();
    let sealing = root.section("sealing");
    let seal_values = sealing.flag("enabled").unwrap_or(true);
    sealing.finish();

    let limits = limits::read(&root.section("limits"));
    let operators = operators::read(&root.section("operators"), &root.section("roles"));
    let (services, any_service) = service::read_services(&root.section("services"));
    let providers = provider::read(&root.section("providers"));

    let defaults_section = root.section("defaults");
    let defaults = policy::read(&defaults_section, &Policy::default());
    defaults_section.finish();
    let secrets = read_secrets(&root.section("secrets"), &defaults, &providers);

    let audit_section = root.section("audit");
    let audit = AuditConfig {
        file: audit_section.path("file").unwrap_or_else(|| in_data("audit.jsonl")),
        options: AuditOptions {
            max_file_bytes: audit_section
                .size_from("max_file_size", MIN_AUDIT_FILE_BYTES)
                .unwrap_or(AuditOptions::MAX_FILE_BYTES),
            max_file_age: audit_section
                .duration_within("max_file_age", &AUDIT_FILE_AGE)
                .unwrap_or(AuditOptions::MAX_FILE_AGE),
        },
    };
    audit_section.finish();

    let log_section = root.section("log");
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let log = LogConfig {
        format: log_section.choice_or_env("format", "ROTACAST_LOG_FORMAT", &formats).unwrap_or(LogFormat::Text),
        level: log_section.text_or_env("level", "ROTACAST_LOG_LEVEL").unwrap_or_else(|| "info".into()),
    };
    if let Err(error) = tracing_subscriber::EnvFilter::try_new(&log.level) {
        log_section.problem(
            "level",
            format!("{:?}: {error}; expected such as \"info\" or \"info,rotacast=debug\"", log.level),
        );
    }
    log_section.finish();
    let telemetry = telemetry::read(&root.section("telemetry"));

    service::check_readers(root, &secrets, &services, any_service.as_ref());
    root.finish();

    Some(Config {
        cluster: cluster?,
        replica,
        listen: listen?,
        dashboard,
        store: store?,
        bus: bus?,
        start_timeout,
        leader_ttl,
        signing_key,
        sealing_key,
        seal_values,
        limits,
        operators,
        services,
        any_service,
        providers,
        defaults,
        secrets,
        audit,
        log,
        telemetry,
        data_dir,
    })
}

fn read_secrets(
    section: &Section<'_, '_>,
    defaults: &Policy,
    providers: &BTreeMap<ProviderName, ProviderConfig>,
) -> BTreeMap<SecretPattern, SecretConfig> {
    let mut secrets = BTreeMap::new();
    for (name, section) in section.named_sections() {
        let provider = section.parse::<ProviderName>("provider");
        if let Some(provider) = &provider
            && !providers.contains_key(provider)
        {
            let known: Vec<&str> = providers.keys().map(ProviderName::as_str).collect();
            let hint = reader::suggestion(provider.as_str(), &known);
            section.problem("provider", format!("there is no [providers.{provider}]{hint}"));
        }
        let policy = policy::read(&section, defaults);
        let rotate_every = section.duration_within("rotate_every", &ROTATE_EVERY);
        if rotate_every.is_some() && provider.is_none() {
            section.problem(
                "rotate_every",
                "needs a provider, which makes the new version: name one with `provider`".into(),
            );
        }
        section.finish();
        match name.parse::<SecretPattern>() {
            Ok(pattern) => {
                secrets.insert(pattern, SecretConfig { provider, policy, rotate_every });
            }
            Err(error) => section.problem_here(error.to_string()),
        }
    }
    secrets
}

#[cfg(test)]
mod tests;
