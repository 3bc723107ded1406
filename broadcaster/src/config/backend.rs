//! Which store and which bus.

use std::path::{Path, PathBuf};

use super::reader::Section;

/// Where versions and records are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreConfig {
    /// A file of our own.
    Embedded {
        /// Which.
        file: PathBuf,
        /// Where the tree of keys begins.
        prefix: String,
    },
    /// etcd.
    Etcd {
        /// `http://…` or `https://…` of every member.
        endpoints: Vec<String>,
        /// Where the tree of keys begins.
        prefix: String,
        /// How versions are written.
        layout: Layout,
        /// Where authentication by password is on.
        login: Option<Login>,
        /// For `https`.
        tls: Option<ClientTls>,
    },
}

/// How versions get into a store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Layout {
    /// Every version is a key of its own, below the prefix.
    Versioned,
    /// Somebody else's tree with one key per secret, whose value changes; each value is imported as the next version.
    Plain {
        /// Where that tree begins.
        source_prefix: String,
    },
}

/// A name and the file of a password.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Login {
    /// Who.
    pub user: String,
    /// Holds the password; trailing line ends are not part of it.
    pub password_file: PathBuf,
}

/// Certificates of a client, in PEM files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientTls {
    /// The authority that signed the servers' certificates.
    pub ca: PathBuf,
    /// Our own certificate and its private key, where the servers ask for one.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name expected in the servers' certificates, if not the endpoint's.
    pub server_name: Option<String>,
}

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
        /// A file of NATS credentials.
        credentials: Option<PathBuf>,
        /// For `tls://` with an authority of one's own.
        tls: Option<ClientTls>,
        /// How many servers keep each stream; none: as many as the cluster has, up to 3.
        replicas: Option<u8>,
    },
}

/// Where the tree of keys begins unless set.
const DEFAULT_PREFIX: &str = "rotacast";
/// JetStream's limit.
const MAX_NATS_REPLICAS: u8 = 5;

#[derive(Clone, Copy)]
enum StoreKind {
    Embedded,
    Etcd,
}

#[derive(Clone, Copy)]
enum LayoutKind {
    Versioned,
    Plain,
}

pub(super) fn read_store(section: &Section<'_, '_>, data_dir: &Path) -> Option<StoreConfig> {
    let kinds = [("embedded", StoreKind::Embedded), ("etcd", StoreKind::Etcd)];
    let kind = section.choice_or_env("kind", "ROTACAST_STORE_KIND", &kinds).unwrap_or(StoreKind::Embedded);
    let prefix = read_prefix(section, "prefix").unwrap_or_else(|| DEFAULT_PREFIX.into());
    let store = match kind {
        StoreKind::Embedded => Some(StoreConfig::Embedded {
            file: section.path("file").unwrap_or_else(|| data_dir.join("store.db")),
            prefix,
        }),
        StoreKind::Etcd => read_etcd(section, prefix),
    };
    section.finish();
    store
}

fn read_etcd(section: &Section<'_, '_>, prefix: String) -> Option<StoreConfig> {
    let endpoints = match section.text_list_or_env("endpoints", "ROTACAST_STORE_ENDPOINTS") {
        Some(endpoints) if !endpoints.is_empty() => Some(endpoints),
        Some(_) => {
            section.problem("endpoints", "is empty; expected at least one, such as [\"http://127.0.0.1:2379\"]".into());
            None
        }
        None => {
            section.problem("endpoints", "is missing; expected such as [\"http://127.0.0.1:2379\"]".into());
            None
        }
    };
    let kinds = [("versioned", LayoutKind::Versioned), ("plain", LayoutKind::Plain)];
    let source_prefix = read_prefix(section, "source_prefix");
    let layout = match section.choice("layout", &kinds).unwrap_or(LayoutKind::Versioned) {
        LayoutKind::Versioned => {
            if source_prefix.is_some() {
                section.problem("source_prefix", "is for layout = \"plain\" only; set that, or leave this out".into());
            }
            Some(Layout::Versioned)
        }
        LayoutKind::Plain => match source_prefix {
            Some(source_prefix) => {
                if within(&source_prefix, &prefix) || within(&prefix, &source_prefix) {
                    section.problem(
                        "source_prefix",
                        format!("{source_prefix:?} and prefix {prefix:?} overlap, so Rotacast would import its own keys; name another prefix"),
                    );
                }
                Some(Layout::Plain { source_prefix })
            }
            None => {
                section.problem(
                    "source_prefix",
                    "is missing; layout = \"plain\" needs to know where the existing keys are".into(),
                );
                None
            }
        },
    };
    let login = read_login(section);
    let tls = read_client_tls(&section.section("tls"));
    let endpoints = endpoints?;
    for endpoint in &endpoints {
        let problem = match endpoint {
            endpoint if endpoint.starts_with("https://") && tls.is_none() => Some("needs [store.tls] ca"),
            endpoint if endpoint.starts_with("http://") || endpoint.starts_with("https://") => None,
            _ => Some("expected to begin with http:// or https://"),
        };
        if let Some(problem) = problem {
            section.problem("endpoints", format!("{endpoint:?} {problem}"));
        }
        if endpoint.starts_with("http://") && tls.is_some() {
            section.problem(
                "endpoints",
                format!("{endpoint:?} is not encrypted although [store.tls] is set; expected https://"),
            );
        }
    }
    Some(StoreConfig::Etcd { endpoints, prefix, layout: layout?, login, tls })
}

pub(super) fn read_bus(section: &Section<'_, '_>, data_dir: &Path) -> Option<BusConfig> {
    let kinds = [("embedded", false), ("nats", true)];
    let nats = section.choice_or_env("kind", "ROTACAST_BUS_KIND", &kinds).unwrap_or(false);
    let bus = if nats {
        let url = section.text_or_env("url", "ROTACAST_BUS_URL");
        if url.is_none() {
            section.problem("url", "is missing; expected such as \"nats://127.0.0.1:4222\"".into());
        }
        for server in url.iter().flat_map(|url| url.split(',')) {
            if !(server.trim().starts_with("nats://") || server.trim().starts_with("tls://")) {
                section.problem("url", "expected every server to begin with nats:// or tls://".into());
            } else if server.contains('@') {
                section
                    .problem("url", "holds a user or password; put them into a file and name it in credentials".into());
            }
        }
        let replicas = section.integer::<u8>("replicas");
        if replicas.is_some_and(|replicas| replicas == 0 || replicas > MAX_NATS_REPLICAS) {
            section.problem("replicas", format!("expected 1 to {MAX_NATS_REPLICAS}"));
        }
        let credentials = section.path("credentials");
        let tls = read_client_tls(&section.section("tls"));
        url.map(|url| BusConfig::Nats { url, credentials, tls, replicas })
    } else {
        Some(BusConfig::Embedded { file: section.path("file").unwrap_or_else(|| data_dir.join("bus.db")) })
    };
    section.finish();
    bus
}

fn read_login(section: &Section<'_, '_>) -> Option<Login> {
    match (section.text("user"), section.path("password_file")) {
        (Some(user), Some(password_file)) => Some(Login { user, password_file }),
        (None, None) => None,
        (Some(_), None) => {
            section.problem("password_file", "is missing; expected the file that holds the user's password".into());
            None
        }
        (None, Some(_)) => {
            section.problem("user", "is missing; password_file needs one".into());
            None
        }
    }
}

fn read_client_tls(section: &Section<'_, '_>) -> Option<ClientTls> {
    if !section.exists() {
        return None;
    }
    let ca = section.required_text("ca", "the file of the authority that signed the servers' certificates");
    let identity = match (section.path("cert"), section.path("key")) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        (cert, _) => {
            let missing = if cert.is_some() { "key" } else { "cert" };
            section.problem(missing, "is missing; a certificate and its key come together".into());
            None
        }
    };
    let server_name = section.text("server_name");
    section.finish();
    Some(ClientTls { ca: section.resolve(ca?), identity, server_name })
}

/// The store checks a prefix once more when it is opened; here the line can be named.
fn read_prefix(section: &Section<'_, '_>, key: &'static str) -> Option<String> {
    let prefix = section.text(key)?;
    match rotacast_store::Prefix::new(&prefix) {
        Ok(_) => Some(prefix),
        Err(error) => {
            section.problem(key, error.to_string());
            None
        }
    }
}

/// Whether `inner` lies in `outer` or is the same.
fn within(inner: &str, outer: &str) -> bool {
    inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
