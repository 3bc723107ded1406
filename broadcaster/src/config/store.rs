//! Which store.

use std::path::{Path, PathBuf};

use rotacast_proto::Unencrypted;

use super::backend::{ClientTls, IN_THE_CLEAR, Login, check_unencrypted, read_client_tls, read_login};
use super::reader::Section;

/// Where versions and records are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreConfig {
    /// A file of our own.
    Embedded {
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
    /// Consul.
    Consul {
        /// `http://host:port` or `https://host:port` of an agent.
        address: String,
        /// Where the tree of keys begins.
        prefix: String,
        /// How versions are written.
        layout: Layout,
        /// Holds the ACL token; trailing line ends are not part of it.
        token_file: Option<PathBuf>,
        /// The datacenter, if not the agent's own.
        datacenter: Option<String>,
        /// For `https`.
        tls: Option<ClientTls>,
    },
}

impl StoreConfig {
    /// As the configuration names it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Embedded { .. } => "embedded",
            Self::Etcd { .. } => "etcd",
            Self::Consul { .. } => "consul",
        }
    }

    /// Where the tree of keys begins.
    #[must_use]
    pub fn prefix(&self) -> &str {
        match self {
            Self::Embedded { prefix, .. } | Self::Etcd { prefix, .. } | Self::Consul { prefix, .. } => prefix,
        }
    }

    /// Where the tree of another program begins, if versions are imported from one.
    #[must_use]
    pub fn source_prefix(&self) -> Option<&str> {
        match self {
            Self::Etcd { layout: Layout::Plain { source_prefix }, .. }
            | Self::Consul { layout: Layout::Plain { source_prefix }, .. } => Some(source_prefix),
            Self::Embedded { .. } | Self::Etcd { .. } | Self::Consul { .. } => None,
        }
    }
}

/// How versions get into a store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Layout {
    /// Every version is a key of its own, below the prefix.
    Versioned,
    /// A tree of another program with one key per secret, whose value changes; each value is imported as the next version.
    Plain {
        /// Where that tree begins.
        source_prefix: String,
    },
}

/// Where the tree of keys begins unless set.
const DEFAULT_PREFIX: &str = "rotacast";

#[derive(Clone, Copy)]
enum StoreKind {
    Embedded,
    Etcd,
    Consul,
}

#[derive(Clone, Copy)]
enum LayoutKind {
    Versioned,
    Plain,
}

pub(super) fn read(section: &Section<'_, '_>, data_dir: &Path) -> Option<StoreConfig> {
    let kinds = [("embedded", StoreKind::Embedded), ("etcd", StoreKind::Etcd), ("consul", StoreKind::Consul)];
    let kind = section.choice_or_env("kind", "ROTACAST_STORE_KIND", &kinds).unwrap_or(StoreKind::Embedded);
    let prefix = read_prefix(section, "prefix").unwrap_or_else(|| DEFAULT_PREFIX.into());
    let store = match kind {
        StoreKind::Embedded => Some(StoreConfig::Embedded {
            file: section.path("file").unwrap_or_else(|| data_dir.join("store.db")),
            prefix,
        }),
        StoreKind::Etcd => read_etcd(section, prefix),
        StoreKind::Consul => read_consul(section, prefix),
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
    let layout = read_layout(section, &prefix);
    let login = read_login(section);
    let tls = read_client_tls(&section.section("tls"));
    let endpoints = endpoints?;
    for endpoint in &endpoints {
        check_scheme(section, "endpoints", endpoint, tls.is_some());
    }
    let carries = match &login {
        Some(_) => "the values of secrets and the password of store.user",
        None => "the values of secrets",
    };
    check_in_the_clear(section, "endpoints", endpoints.iter().map(String::as_str), carries);
    Some(StoreConfig::Etcd { endpoints, prefix, layout: layout?, login, tls })
}

fn read_consul(section: &Section<'_, '_>, prefix: String) -> Option<StoreConfig> {
    let address = section.text_or_env("address", "ROTACAST_STORE_ADDRESS");
    if address.is_none() {
        section.problem("address", "is missing; expected such as \"http://127.0.0.1:8500\"".into());
    }
    if section.text("token").is_some() {
        section
            .problem("token", "a token has no place in this file; put it into a file and name it in token_file".into());
    }
    let token_file = section.path("token_file");
    let datacenter = section.text("datacenter");
    let layout = read_layout(section, &prefix);
    let tls = read_client_tls(&section.section("tls"));
    let address = address?;
    if address.contains('@') {
        // Not repeated, since it may hold a password.
        section.problem("address", "holds a user or password; Consul knows tokens only, name a token_file".into());
        return None;
    }
    check_scheme(section, "address", &address, tls.is_some());
    let carries = match &token_file {
        Some(_) => "the values of secrets and the token of store.token_file",
        None => "the values of secrets",
    };
    check_in_the_clear(section, "address", [address.as_str()], carries);
    Some(StoreConfig::Consul { address, prefix, layout: layout?, token_file, datacenter, tls })
}

/// An address is encrypted exactly if there is an authority to check it by.
fn check_scheme(section: &Section<'_, '_>, key: &str, address: &str, tls: bool) {
    let problem = match address {
        address if address.starts_with("https://") && !tls => "needs [store.tls] ca",
        address if address.starts_with("http://") && tls => {
            "is not encrypted although [store.tls] is set; expected https://"
        }
        address if address.starts_with("http://") || address.starts_with("https://") => return,
        _ => "expected to begin with http:// or https://",
    };
    section.problem(key, format!("{address:?} {problem}"));
}

fn check_in_the_clear<'a>(
    section: &Section<'_, '_>,
    key: &str,
    addresses: impl IntoIterator<Item = &'a str>,
    carries: &str,
) {
    let allowed = section.flag_or_env(IN_THE_CLEAR, "ROTACAST_STORE_IN_THE_CLEAR").unwrap_or_default();
    let plain = addresses.into_iter().filter(|address| address.starts_with("http://"));
    let unencrypted = Unencrypted {
        carries,
        encrypt: "use https:// with [store.tls] ca",
        allow: "set in_the_clear = true in [store] (or ROTACAST_STORE_IN_THE_CLEAR=true)",
    };
    check_unencrypted(section, key, allowed, plain, unencrypted);
}

fn read_layout(section: &Section<'_, '_>, prefix: &str) -> Option<Layout> {
    let kinds = [("versioned", LayoutKind::Versioned), ("plain", LayoutKind::Plain)];
    let source_prefix = read_prefix(section, "source_prefix");
    match section.choice("layout", &kinds).unwrap_or(LayoutKind::Versioned) {
        LayoutKind::Versioned => {
            if source_prefix.is_some() {
                section.problem("source_prefix", "is for layout = \"plain\" only; set that, or leave this out".into());
            }
            Some(Layout::Versioned)
        }
        LayoutKind::Plain => match source_prefix {
            Some(source_prefix) => {
                if within(&source_prefix, prefix) || within(prefix, &source_prefix) {
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
    }
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
