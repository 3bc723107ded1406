//! Which bus.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rotacast_bus::StreamLimits;
use rotacast_proto::Unencrypted;

use super::backend::{ClientTls, IN_THE_CLEAR, Login, check_unencrypted, read_client_tls, read_login};
use super::error::Problem;
use super::reader::Section;

/// What states and reports travel on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BusConfig {
    /// Our own, served over gRPC.
    Embedded {
        /// The file of its durable logs.
        file: PathBuf,
    },
    /// NATS with JetStream.
    Nats {
        /// `nats://…` or `tls://…`, several separated by commas.
        url: String,
        /// Who we are to it.
        login: NatsLogin,
        /// For `tls://` with an authority of one's own.
        tls: Option<ClientTls>,
        /// How many servers keep each stream; none: as many as the cluster has, up to 3.
        replicas: Option<u8>,
        /// How large streams that are made may become.
        streams: StreamLimits,
    },
    /// Kafka; Syncs reach the broadcaster over gRPC, where it listens.
    Kafka {
        /// `host:port` of one or more brokers.
        brokers: Vec<String>,
        /// How many brokers keep each topic; none: 3 where there are as many, otherwise 1.
        replication: Option<u16>,
        /// Where brokers ask for a password.
        login: Option<Login>,
        /// How the password is proved; none: `SCRAM-SHA-512`.
        mechanism: Option<SaslMechanism>,
        /// Where brokers speak TLS.
        tls: Option<ClientTls>,
        /// Further settings of librdkafka.
        properties: BTreeMap<String, String>,
    },
}

impl BusConfig {
    /// As the configuration names it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Embedded { .. } => "embedded",
            Self::Nats { .. } => "nats",
            Self::Kafka { .. } => "kafka",
        }
    }

    /// What this build of the program lacks for it.
    pub(super) fn missing_from_build(&self) -> Option<Problem> {
        let Self::Kafka { .. } = self else { return None };
        (!cfg!(feature = "kafka")).then(|| Problem {
            line: None,
            setting: "bus.kind".into(),
            text: "\"kafka\" is not part of this build of rotacast; build it with `--features kafka` \
                   (`kafka-tls` for TLS and SCRAM)"
                .into(),
        })
    }
}

/// Who we are to NATS. All of it is in files.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub enum NatsLogin {
    /// Without a login.
    #[default]
    None,
    /// A `.creds` file with JWT and seed.
    Credentials(PathBuf),
    /// The file of an nkey's seed.
    Nkey(PathBuf),
    /// The file of a token.
    Token(PathBuf),
    /// User and password.
    Password(Login),
}

/// How a password is proved to Kafka.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SaslMechanism {
    /// Sent as it is.
    Plain,
    /// By challenge and response.
    ScramSha256,
    /// By challenge and response.
    ScramSha512,
}

impl SaslMechanism {
    /// As Kafka calls it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// JetStream's limit.
const MAX_NATS_REPLICAS: u8 = 5;

#[derive(Clone, Copy)]
enum BusKind {
    Embedded,
    Nats,
    Kafka,
}

pub(super) fn read(section: &Section<'_, '_>, data_dir: &Path) -> Option<BusConfig> {
    let kinds = [("embedded", BusKind::Embedded), ("nats", BusKind::Nats), ("kafka", BusKind::Kafka)];
    let kind = section.choice_or_env("kind", "ROTACAST_BUS_KIND", &kinds).unwrap_or(BusKind::Embedded);
    let bus = match kind {
        BusKind::Embedded => {
            Some(BusConfig::Embedded { file: section.path("file").unwrap_or_else(|| data_dir.join("bus.db")) })
        }
        BusKind::Nats => read_nats(section),
        BusKind::Kafka => read_kafka(section),
    };
    section.finish();
    bus
}

fn read_nats(section: &Section<'_, '_>) -> Option<BusConfig> {
    let url = section.text_or_env("url", "ROTACAST_BUS_URL");
    if url.is_none() {
        section.problem("url", "is missing; expected such as \"nats://127.0.0.1:4222\"".into());
    }
    for server in url.iter().flat_map(|url| url.split(',')) {
        if !(server.trim().starts_with("nats://") || server.trim().starts_with("tls://")) {
            section.problem("url", "expected every server to begin with nats:// or tls://".into());
        } else if server.contains('@') {
            section.problem(
                "url",
                "holds a user or password; put the password into a file and name it in password_file with user, \
                 or use credentials, nkey_file or token_file"
                    .into(),
            );
        }
    }
    let replicas = section.integer::<u8>("replicas");
    if replicas.is_some_and(|replicas| replicas == 0 || replicas > MAX_NATS_REPLICAS) {
        section.problem("replicas", format!("expected 1 to {MAX_NATS_REPLICAS}"));
    }
    let login = read_nats_login(section);
    let tls = read_tls_without_name(section);
    let streams = read_streams(&section.section("streams"));
    let allowed = read_in_the_clear(section);
    if let (Some(url), None) = (&url, &tls) {
        let carries = match &login {
            NatsLogin::None => "the names, states and reports of all secrets and services",
            NatsLogin::Credentials(_) | NatsLogin::Nkey(_) => {
                "the names, states and reports of all secrets and services, over a connection that is logged in,"
            }
            NatsLogin::Token(_) => "the token of bus.token_file",
            NatsLogin::Password(_) => "the password of bus.user",
        };
        let plain = url.split(',').map(str::trim).filter(|server| server.starts_with("nats://"));
        let unencrypted = Unencrypted {
            carries,
            encrypt: "use tls://, with [bus.tls] ca for an authority of your own",
            allow: ALLOW_IN_THE_CLEAR,
        };
        check_unencrypted(section, "url", allowed, plain, unencrypted);
    }
    Some(BusConfig::Nats { url: url?, login, tls, replicas, streams })
}

const ALLOW_IN_THE_CLEAR: &str = "set in_the_clear = true in [bus] (or ROTACAST_BUS_IN_THE_CLEAR=true)";

fn read_in_the_clear(section: &Section<'_, '_>) -> bool {
    section.flag_or_env(IN_THE_CLEAR, "ROTACAST_BUS_IN_THE_CLEAR").unwrap_or_default()
}

/// A stream holds the last message of every key, so one that takes no message of the largest size is of no use.
const MIN_STREAM_BYTES: u64 = 1024 * 1024;

fn read_streams(section: &Section<'_, '_>) -> StreamLimits {
    let default = StreamLimits::default();
    let size = |key: &'static str, default: u64| {
        let bytes = section.integer::<u64>(key).unwrap_or(default);
        if bytes < MIN_STREAM_BYTES {
            section.problem(key, format!("is {bytes}, expected at least {MIN_STREAM_BYTES} bytes"));
        }
        bytes
    };
    let limits = StreamLimits {
        state_bytes: size("state_bytes", default.state_bytes),
        registration_bytes: size("registration_bytes", default.registration_bytes),
        report_bytes: size("report_bytes", default.report_bytes),
    };
    section.finish();
    limits
}

fn read_nats_login(section: &Section<'_, '_>) -> NatsLogin {
    let ways = [
        ("credentials", section.path("credentials").map(NatsLogin::Credentials)),
        ("nkey_file", section.path("nkey_file").map(NatsLogin::Nkey)),
        ("token_file", section.path("token_file").map(NatsLogin::Token)),
        ("user", read_login(section).map(NatsLogin::Password)),
    ];
    let mut given = ways.into_iter().filter_map(|(key, login)| Some((key, login?)));
    let Some((first, login)) = given.next() else { return NatsLogin::None };
    for (key, _) in given {
        section.problem(key, format!("says a second time who we are, beside {first}; leave one of them out"));
    }
    login
}

fn read_kafka(section: &Section<'_, '_>) -> Option<BusConfig> {
    let brokers = section.text_list_or_env("brokers", "ROTACAST_BUS_BROKERS");
    match brokers.as_deref() {
        None => section.problem("brokers", "is missing; expected such as [\"127.0.0.1:9092\"]".into()),
        Some([]) => section.problem("brokers", "is empty; expected at least one, such as [\"127.0.0.1:9092\"]".into()),
        Some(brokers) => brokers.iter().for_each(|broker| check_broker(section, broker)),
    }
    let replication = section.integer::<u16>("replication");
    if replication == Some(0) {
        section.problem("replication", "expected at least 1".into());
    }
    let login = read_login(section);
    let mechanisms = [SaslMechanism::Plain, SaslMechanism::ScramSha256, SaslMechanism::ScramSha512];
    let mechanism = section.choice("mechanism", &mechanisms.map(|mechanism| (mechanism.as_str(), mechanism)));
    if mechanism.is_some() && login.is_none() {
        section.problem("mechanism", "is for a user with a password; set user and password_file".into());
    }
    let tls = read_tls_without_name(section);
    let allowed = read_in_the_clear(section);
    if let (Some(brokers), Some(_), Some(SaslMechanism::Plain), None) = (&brokers, &login, mechanism, &tls) {
        let unencrypted = Unencrypted {
            carries: "the password of bus.user, which \"PLAIN\" sends as it is,",
            encrypt: "set [bus.tls] ca, or mechanism = \"SCRAM-SHA-512\"",
            allow: ALLOW_IN_THE_CLEAR,
        };
        check_unencrypted(section, "brokers", allowed, brokers.iter().map(String::as_str), unencrypted);
    }
    let properties_section = section.section("properties");
    let properties: BTreeMap<String, String> = properties_section.named_texts().into_iter().collect();
    for (name, value) in &properties {
        if let Some(problem) = rotacast_bus::refused_kafka_property(name, value, login.is_some(), tls.is_some()) {
            properties_section.problem(name, problem);
        }
    }
    Some(BusConfig::Kafka { brokers: brokers?, replication, login, mechanism, tls, properties })
}

/// NATS's and Kafka's clients check certificates against the address alone.
fn read_tls_without_name(section: &Section<'_, '_>) -> Option<ClientTls> {
    let tls_section = section.section("tls");
    let tls = read_client_tls(&tls_section);
    if tls.as_ref().is_some_and(|tls| tls.server_name.is_some()) {
        tls_section.problem(
            "server_name",
            "cannot be set for a bus; name the servers as their certificates do, or issue certificates for these names"
                .into(),
        );
    }
    tls
}

fn check_broker(section: &Section<'_, '_>, broker: &str) {
    let port = broker.rsplit_once(':').and_then(|(host, port)| (!host.is_empty()).then_some(port));
    let problem = if broker.contains("://") {
        "expected host:port without a scheme; [bus.tls] says that brokers speak TLS"
    } else if broker.contains('@') {
        section.problem("brokers", "holds a user or password; set user and password_file".into());
        return;
    } else if broker.contains(',') {
        "expected one broker in each entry"
    } else if !port.is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port > 0)) {
        "expected host:port"
    } else {
        return;
    };
    section.problem("brokers", format!("{broker:?}: {problem}"));
}
