//! Keys and the configuration file.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use rotacast_broadcaster::token::{Token, TokenDigest};
use rotacast_proto::SigningKey;
use rotacast_seal::{SealingKey, SealingKeys, create_key_file};

use super::bus::{BusKind, BusServer};
use super::database::{ADMIN_FILE, Database, GROUP};
use super::permissions;
use super::store::{StoreKind, StoreServer};
use super::way::Way;

/// The cluster's name.
pub const CLUSTER: &str = "e2e";
/// The prefix of Rotacast's keys in the store.
pub const PREFIX: &str = "rotacast";
/// The secret that the tests rotate.
pub const SECRET: &str = "payments/db";
/// The name of the first broadcaster.
pub(super) const FIRST: &str = "rotacast";
/// The operator's name.
pub const OPERATOR: &str = "ada";
/// The other operators, each with a key and a token; they are configured in a world with [roles](Options::roles).
pub const OTHER_OPERATORS: [&str; 3] = ["bob", "kim", "eve"];
/// The services that may use the secret; each has a key.
pub const SERVICES: [&str; 3] = ["payments-api", "ledger", "mailer"];

/// The options of a world.
#[derive(Clone, Debug)]
pub struct Options {
    pub(super) store: StoreKind,
    pub(super) bus: BusKind,
    policy: BTreeMap<String, String>,
    provider: BTreeMap<String, String>,
    /// None: the shortest that the store allows.
    leader_ttl: Option<String>,
    /// How many broadcasters there are besides the first.
    pub(super) standbys: usize,
    /// Each process reaches store and bus through proxies of its own.
    pub(super) cuttable: bool,
    pub(super) disk: Option<u64>,
    /// How large etcd's database may become, in bytes.
    pub(super) quota: Option<u64>,
    /// Broadcasters talk to NATS over TLS, each side with a certificate.
    pub(super) bus_tls: bool,
    /// The URL that traces are sent to, if any.
    pub(super) collector: Option<String>,
    /// NATS lets each login do what `rotacast permissions` prints, and nothing else.
    pub(super) permissions: bool,
    log_format: &'static str,
    /// What stands behind the other settings: roles, and who has them.
    roles: Option<Roles>,
}

/// Roles, and who has them.
#[derive(Clone, Debug)]
pub struct Roles {
    /// The sections of the roles.
    pub sections: String,
    /// The role of each operator.
    pub of: Vec<(&'static str, &'static str)>,
}

impl Default for Options {
    /// etcd and NATS, and leases that a machine with ten times as much work as it has cores still renews in time. A
    /// test that waits for leases to expire sets shorter ones.
    fn default() -> Self {
        let policy = [
            ("lease_idle", "\"30s\""),
            ("lease_rotating", "\"20s\""),
            ("self_lease", "\"4s\""),
            ("max_use", "\"1s\""),
            ("sync_idle", "\"1s\""),
            ("sync_rotating", "\"500ms\""),
        ];
        Self {
            store: StoreKind::Etcd,
            bus: BusKind::Nats,
            policy: policy.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            provider: BTreeMap::new(),
            leader_ttl: None,
            standbys: 0,
            cuttable: false,
            disk: None,
            quota: None,
            bus_tls: false,
            collector: None,
            permissions: false,
            log_format: "text",
            roles: None,
        }
    }
}

impl Options {
    /// Another pair of store and bus.
    #[must_use]
    pub fn on(mut self, store: StoreKind, bus: BusKind) -> Self {
        (self.store, self.bus) = (store, bus);
        self
    }

    /// Sets a policy setting of the secret; the value in TOML, such as `"hold"` with its quotes or `{ ledger = 1 }`.
    #[must_use]
    pub fn policy(mut self, name: &str, value: &str) -> Self {
        self.policy.insert(name.into(), value.into());
        self
    }

    /// Sets a setting of the PostgreSQL provider; the value in TOML.
    #[must_use]
    pub fn provider(mut self, name: &str, value: &str) -> Self {
        self.provider.insert(name.into(), value.into());
        self
    }

    /// So many broadcasters on the one store and bus.
    #[must_use]
    pub fn replicas(mut self, count: usize) -> Self {
        self.standbys = count.saturating_sub(1);
        self
    }

    /// Every broadcaster reaches store and bus through proxies of its own: see [`Way`](super::Way).
    #[must_use]
    pub fn cuttable(mut self) -> Self {
        self.cuttable = true;
        self
    }

    /// Every broadcaster's data is on a disk of so many bytes, where one can be made: see
    /// [`Disk`](crate::servers::Disk).
    #[must_use]
    pub fn small_disks(mut self, bytes: u64) -> Self {
        self.disk = Some(bytes);
        self
    }

    /// etcd takes no writes once its database has so many bytes.
    #[must_use]
    pub fn small_etcd(mut self, bytes: u64) -> Self {
        self.quota = Some(bytes);
        self
    }

    /// Broadcasters use NATS over TLS, each side with a certificate in the world's folder [`TLS`](super::TLS). Services
    /// use no TLS.
    #[must_use]
    pub fn bus_tls(mut self) -> Self {
        self.bus_tls = true;
        self
    }

    /// Broadcasters and services send their traces to the collector at this URL.
    #[must_use]
    pub fn collector(mut self, url: String) -> Self {
        self.collector = Some(url);
        self
    }

    /// With roles: reading needs a token then.
    #[must_use]
    pub fn roles(mut self, roles: Roles) -> Self {
        self.roles = Some(roles);
        self
    }

    /// NATS asks for logins, and lets each do exactly what `rotacast permissions nats` prints for this world.
    #[must_use]
    pub fn permissions(mut self) -> Self {
        self.permissions = true;
        self
    }

    /// Broadcasters log in JSON.
    #[must_use]
    pub fn json_logs(mut self) -> Self {
        self.log_format = "json";
        self
    }

    /// How long a dead leader blocks its successor, such as `2s`.
    #[must_use]
    pub fn leader_ttl(mut self, ttl: &str) -> Self {
        self.leader_ttl = Some(ttl.into());
        self
    }
}

/// The keys of all parties, in files.
#[derive(Clone)]
pub struct Keys {
    pub(super) operator: SigningKey,
    /// The token with which the operator signs in to the dashboard.
    pub(super) token: String,
    /// Of each operator.
    people: BTreeMap<&'static str, (String, TokenDigest)>,
    /// The public key.
    pub(super) broadcaster: PathBuf,
    folder: PathBuf,
    sealing: SealingKeys,
    /// The signing key and the sealing key of each service, public.
    public: BTreeMap<&'static str, (String, String)>,
}

impl Keys {
    pub(super) fn make(folder: &Path) -> Self {
        let folder = folder.join("keys");
        std::fs::create_dir(&folder).expect("the scratch folder is ours");
        let (_, sealing) = make(&folder, "broadcaster");
        let (operator, _) = make(&folder, OPERATOR);
        let mut people = BTreeMap::new();
        let mut token = String::new();
        for name in std::iter::once(OPERATOR).chain(OTHER_OPERATORS) {
            let key = if name == OPERATOR { operator.clone() } else { make(&folder, name).0 };
            let theirs = Token::generate();
            theirs.create_file(&folder.join(format!("{name}.token"))).expect("the folder is new");
            people.insert(name, (key.public().to_text(), theirs.digest()));
            if name == OPERATOR {
                theirs.text().clone_into(&mut token);
            }
        }
        let public = SERVICES.map(|service| {
            let (signing, sealing) = make(&folder, service);
            (service, (signing.public().to_text(), sealing.public().to_text()))
        });
        let sealing = SealingKeys::new(vec![sealing]);
        let broadcaster = folder.join("broadcaster.pub");
        Self { operator, token, people, broadcaster, folder, sealing, public: public.into() }
    }

    /// The sections of the operators, with their roles if there are any.
    #[must_use]
    pub fn operators(&self, roles: Option<&Roles>) -> String {
        let mut text = String::new();
        for (name, (key, token)) in self.people.iter().filter(|(name, _)| **name == OPERATOR || roles.is_some()) {
            let role = roles.and_then(|roles| roles.of.iter().find(|(of, _)| of == name));
            if roles.is_some() && role.is_none() {
                continue;
            }
            let role = role.map_or_else(String::new, |(_, role)| format!("roles = [\"{role}\"]\n"));
            write!(text, "[operators.{name}]\nkeys = [\"{key}\"]\ntokens = [\"{token}\"]\n{role}\n")
                .expect("into a String");
        }
        text + roles.map_or("", |roles| &roles.sections)
    }

    /// What the broadcaster opens values with.
    pub(super) fn sealing(&self) -> SealingKeys {
        self.sealing.clone()
    }

    /// The private key's file of a service.
    #[must_use]
    pub fn service(&self, service: &str) -> PathBuf {
        self.folder.join(format!("{service}.key"))
    }
}

fn make(folder: &Path, name: &str) -> (SigningKey, SealingKey) {
    let (signing, sealing) = (SigningKey::generate(), SealingKey::generate());
    create_key_file(folder.join(format!("{name}.key")), &signing, &sealing).expect("the folder is new");
    std::fs::write(folder.join(format!("{name}.pub")), format!("{}\n", signing.public().to_text()))
        .expect("the folder is new");
    (signing, sealing)
}

/// The folder of a broadcaster's own data, below the world's.
pub(super) fn data_folder(name: &str) -> String {
    if name == FIRST { "data".into() } else { format!("data-{name}") }
}

/// Writes the configuration for the broadcaster of this name on this port, and returns its path. Each broadcaster has
/// its own data folder.
pub(super) fn write(
    folder: &Path,
    keys: &Keys,
    options: &Options,
    (name, port): (&str, u16),
    (store, bus, way): (&StoreServer, &BusServer, Option<&Way>),
    database: &Database,
) -> PathBuf {
    let mut services = String::new();
    for (service, (key, sealing)) in &keys.public {
        let section = format!(
            "[services.{service}]\nkeys = [\"{key}\"]\nsealing_key = \"{sealing}\"\nsecrets = [\"{SECRET}\"]\n\n"
        );
        services.push_str(&section);
    }
    let lines = |settings: &BTreeMap<String, String>| -> String {
        settings.iter().map(|(name, value)| format!("{name} = {value}\n")).collect()
    };
    let text = format!(
        r#"cluster = "{CLUSTER}"
replica = "{name}"
data_dir = "{data}"

[listen]
grpc = "127.0.0.1:{port}"

[store]
{store}
[bus]
{bus}
[leader]
ttl = "{ttl}"

[keys]
signing_key = "keys/broadcaster.key"

{operators}
{services}[providers.payments-pg]
kind = "postgres"
admin_file = "{ADMIN_FILE}"
group_role = "{GROUP}"
database = "{database_name}"
host = "127.0.0.1"
port = {database_port}
{provider}
[secrets."{SECRET}"]
provider = "payments-pg"
{policy}
[log]
format = "{log_format}"
level = "info,rotacast=debug"
{telemetry}"#,
        store = store.settings(way.map(|way| way.store.port())),
        bus = bus.settings(way.map(|way| way.bus.port()), options),
        log_format = options.log_format,
        telemetry = options
            .collector
            .as_ref()
            .map(|url| format!("[telemetry]\notlp_endpoint = \"{url}\"\n"))
            .unwrap_or_default(),
        ttl = options.leader_ttl.as_deref().unwrap_or(store.usual_ttl()),
        operators = keys.operators(options.roles.as_ref()),
        data = data_folder(name),
        database_name = database.name(),
        database_port = database.port(),
        provider = lines(&options.provider),
        policy = lines(&options.policy),
    );
    database.write_admin_file(folder);
    if options.permissions {
        permissions::write_passwords(folder);
    }
    let file = folder.join(format!("{name}.toml"));
    std::fs::write(&file, text).unwrap_or_else(|error| panic!("cannot write {}: {error}", file.display()));
    file
}
