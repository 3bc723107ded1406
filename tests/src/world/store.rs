//! The store of a world: which one, how it is configured, and how other clients read and write it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rotacast_proto::SecretValue;
use rotacast_protocol::{ClusterName, SecretName, Version};
use rotacast_seal::SealingKeys;
use rotacast_store::{
    ConsulOptions, ConsulStore, Created, EmbeddedStore, EtcdOptions, EtcdStore, Prefix, SecretTree, Store,
};

use super::{CLUSTER, PREFIX, SECRET};
use crate::servers::{Consul, Etcd, Server};

/// etcd grants no lease shorter than one and a half election timeouts: its default is too long for a leader's term of a
/// second.
const ETCD: [&str; 2] = ["--heartbeat-interval=50", "--election-timeout=500"];

/// The file of a Consul's backup, in its folder.
const CONSUL_BACKUP: &str = "backup.snap";

/// Which store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StoreKind {
    /// The embedded store's file.
    Embedded,
    /// etcd.
    Etcd,
    /// Consul.
    Consul,
}

impl StoreKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Embedded, Self::Etcd, Self::Consul];
}

/// The store, running.
#[derive(Debug)]
pub enum StoreServer {
    /// The file that the broadcaster makes.
    Embedded(PathBuf),
    /// A server.
    Etcd(Etcd),
    /// A server.
    Consul(Consul),
}

impl StoreServer {
    pub(super) async fn start(kind: StoreKind, folder: &Path, quota: Option<u64>) -> Option<Self> {
        let quota = quota.map(|bytes| format!("--quota-backend-bytes={bytes}"));
        let etcd: Vec<&str> = ETCD.into_iter().chain(quota.as_deref()).collect();
        Some(match kind {
            StoreKind::Embedded => Self::Embedded(folder.join("data/store.db")),
            StoreKind::Etcd => Self::Etcd(Etcd::start_with(&etcd).await?),
            StoreKind::Consul => Self::Consul(Consul::start().await?),
        })
    }

    /// Its port. A file has none.
    pub(super) fn port(&self) -> Option<u16> {
        match self {
            Self::Embedded(_) => None,
            Self::Etcd(etcd) => Some(etcd.port()),
            Self::Consul(consul) => Some(consul.port()),
        }
    }

    /// The settings in `[store]`; `port`: where a server is reached.
    pub(super) fn settings(&self, port: Option<u16>) -> String {
        let port = port.or(self.port()).unwrap_or_default();
        let place = match self {
            Self::Embedded(_) => "kind = \"embedded\"".to_owned(),
            Self::Etcd(_) => format!("kind = \"etcd\"\nendpoints = [\"http://127.0.0.1:{port}\"]"),
            Self::Consul(_) => format!("kind = \"consul\"\naddress = \"http://127.0.0.1:{port}\""),
        };
        format!("{place}\nprefix = \"{PREFIX}\"\n")
    }

    /// How a sample service reads values from it, on another port where one is given; `None` if only the broadcaster
    /// can.
    pub(super) fn arguments(&self, port: Option<u16>) -> Option<Vec<String>> {
        let port = port.or(self.port()).unwrap_or_default();
        let address = match self {
            Self::Embedded(_) => return None,
            Self::Etcd(_) => format!("--etcd=http://127.0.0.1:{port}"),
            Self::Consul(_) => format!("--consul=http://127.0.0.1:{port}"),
        };
        Some(vec![address, format!("--prefix={PREFIX}")])
    }

    /// How long a dead leader blocks its successor, unless a test says otherwise: Consul grants no shorter session.
    pub(super) fn usual_ttl(&self) -> &'static str {
        match self {
            Self::Embedded(_) | Self::Etcd(_) => "5s",
            Self::Consul(_) => "10s",
        }
    }

    /// # Panics
    /// If it is another store.
    #[must_use]
    pub fn etcd(&self) -> &Etcd {
        let Self::Etcd(etcd) = self else { panic!("expected a world on etcd, found {self:?}") };
        etcd
    }

    /// The server, to be paused or killed.
    ///
    /// # Panics
    /// If the store is a file.
    pub fn server(&mut self) -> &mut Server {
        match self {
            Self::Embedded(file) => panic!("expected a server, found the file {}", file.display()),
            Self::Etcd(etcd) => etcd,
            Self::Consul(consul) => consul,
        }
    }

    /// # Panics
    /// If it is another store.
    #[must_use]
    pub fn consul(&self) -> &Consul {
        let Self::Consul(consul) = self else { panic!("expected a world on Consul, found {self:?}") };
        consul
    }

    /// Keeps a copy of everything that the server holds now, in place of an earlier copy.
    ///
    /// # Panics
    /// If it cannot, or if the store is a file.
    pub async fn back_up(&mut self) {
        match self {
            Self::Consul(consul) => drop(consul.ctl(&["snapshot", "save", CONSUL_BACKUP]).await),
            _ => self.server().back_up(),
        }
    }

    /// Restores the copy of [`StoreServer::back_up`]: in Consul while it runs, in etcd by exchanging its data.
    ///
    /// # Panics
    /// If it cannot, or if the store is a file.
    pub async fn restore(&mut self) {
        match self {
            Self::Consul(consul) => drop(consul.ctl(&["snapshot", "restore", CONSUL_BACKUP]).await),
            _ => self.server().restore().await,
        }
    }

    /// Writes a value as this version, with the store's own command line.
    ///
    /// # Panics
    /// If it cannot.
    pub async fn put(&self, version: u64, value: &str) {
        let key = format!("{PREFIX}/versions/{SECRET}/{version}");
        match self {
            Self::Embedded(file) => {
                let (secret, version) = name(version);
                let tree = tree(file).await;
                let created = tree.create_version(&secret, version, SecretValue::new(value.into()), vec![]).await;
                assert!(matches!(created, Ok(Created::Done(_))), "{key} is there already, or cannot be written");
            }
            Self::Etcd(etcd) => drop(etcd.ctl(&["put", &key, value]).await),
            Self::Consul(consul) => drop(consul.ctl(&["kv", "put", &key, value]).await),
        }
    }

    /// The value of this version, opened with these keys.
    ///
    /// # Panics
    /// If it is not stored or does not open.
    pub(super) async fn get(&self, version: u64, keys: SealingKeys) -> String {
        let (secret, version) = name(version);
        let cluster = ClusterName::new(CLUSTER).expect("a valid name");
        let tree = self.tree().await.sealed(cluster, keys, None);
        let stored = tree.read_version(&secret, version).await.expect("the store answers, and the value opens");
        let stored = stored.unwrap_or_else(|| panic!("there is no version {version}"));
        String::from_utf8(stored.value.expose().to_vec()).expect("test values are text")
    }

    /// Every key and its value.
    ///
    /// # Panics
    /// If it cannot be read.
    pub async fn all(&self) -> Vec<(String, Vec<u8>)> {
        let tree = self.tree().await;
        let listing = tree.store().list(tree.prefix().key()).await.expect("the store answers");
        listing.entries.into_iter().map(|entry| (entry.key.to_string(), entry.value.expose().to_vec())).collect()
    }

    async fn tree(&self) -> SecretTree {
        let store: Arc<dyn Store> = match self {
            Self::Embedded(file) => return tree(file).await,
            Self::Etcd(etcd) => {
                let options = EtcdOptions { endpoints: vec![etcd.endpoint()], ..EtcdOptions::default() };
                Arc::new(EtcdStore::new(options).expect("options that worked for the broadcaster"))
            }
            Self::Consul(consul) => {
                let options = ConsulOptions { address: consul.endpoint(), ..ConsulOptions::default() };
                Arc::new(ConsulStore::new(options).expect("options that worked for the broadcaster"))
            }
        };
        SecretTree::new(store, Prefix::new(PREFIX).expect("a valid prefix"))
    }
}

fn name(version: u64) -> (SecretName, Version) {
    (SecretName::new(SECRET).expect("a valid name"), Version::new(version).expect("versions begin at 1"))
}

async fn tree(file: &Path) -> SecretTree {
    let store = EmbeddedStore::open(file).await.expect("the broadcaster has made the file");
    SecretTree::new(Arc::new(store), Prefix::new(PREFIX).expect("a valid prefix"))
}
