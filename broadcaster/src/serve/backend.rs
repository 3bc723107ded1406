//! Store and bus as configured.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use rotacast_bus::{EmbeddedBus, InstanceBus, LeaderBus, NatsBus, NatsCredentials, NatsOptions};
use rotacast_protocol::ClusterName;
use rotacast_store::{EmbeddedStore, EtcdOptions, EtcdStore, EtcdTls, EtcdUser, Prefix, Store};
use zeroize::Zeroizing;

use crate::config::{BusConfig, ClientTls, Login, StoreConfig};

/// Both sides of the bus.
pub(super) struct Buses {
    pub(super) leader: Arc<dyn LeaderBus>,
    pub(super) instances: Arc<dyn InstanceBus>,
    pub(super) close: Close,
}

/// What is to be closed in order at a shutdown.
pub(super) struct Close(Option<EmbeddedBus>);

impl Close {
    pub(super) async fn run(self) {
        if let Some(bus) = self.0 {
            bus.close().await;
        }
    }
}

pub(super) fn prefix(config: &StoreConfig) -> anyhow::Result<Prefix> {
    let (StoreConfig::Embedded { prefix, .. } | StoreConfig::Etcd { prefix, .. }) = config;
    Prefix::new(prefix.as_str()).context("store.prefix")
}

pub(super) async fn store(config: &StoreConfig) -> anyhow::Result<Arc<dyn Store>> {
    Ok(match config {
        StoreConfig::Embedded { file, .. } => {
            create_folder("store.file", file)?;
            Arc::new(EmbeddedStore::open(file).await.context("store.file")?)
        }
        StoreConfig::Etcd { endpoints, login, tls, .. } => {
            let options = EtcdOptions {
                endpoints: endpoints.clone(),
                user: login.as_ref().map(etcd_user).transpose()?,
                tls: tls.as_ref().map(etcd_tls).transpose()?,
            };
            let store = EtcdStore::new(options).context("[store]")?;
            Arc::new(store)
        }
    })
}

pub(super) async fn buses(config: &BusConfig, cluster: &ClusterName) -> anyhow::Result<Buses> {
    match config {
        BusConfig::Embedded { file } => {
            create_folder("bus.file", file)?;
            let bus = EmbeddedBus::open(file).await.context("bus.file")?;
            Ok(Buses { leader: Arc::new(bus.clone()), instances: Arc::new(bus.clone()), close: Close(Some(bus)) })
        }
        BusConfig::Nats { url, credentials, tls, replicas } => {
            let mut options = NatsOptions::new(url.as_str(), cluster.clone());
            options.urls = url.split(',').map(|url| url.trim().to_owned()).collect();
            options.replicas = replicas.map(usize::from);
            options.ca = tls.as_ref().map(|tls| tls.ca.clone());
            if let Some(file) = credentials {
                options.credentials = NatsCredentials::File(file.clone());
            }
            let bus = NatsBus::connect(options).await.context("[bus]")?;
            Ok(Buses { leader: Arc::new(bus.clone()), instances: Arc::new(bus), close: Close(None) })
        }
    }
}

fn create_folder(setting: &str, file: &Path) -> anyhow::Result<()> {
    let Some(folder) = file.parent() else { return Ok(()) };
    std::fs::create_dir_all(folder).with_context(|| format!("{setting}: cannot create {}", folder.display()))
}

fn text(setting: &str, path: &Path) -> anyhow::Result<Zeroizing<String>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{setting}: cannot read {}", path.display()))?;
    Ok(Zeroizing::new(text))
}

fn etcd_user(login: &Login) -> anyhow::Result<EtcdUser> {
    let password = text("store.password_file", &login.password_file)?;
    let password = Zeroizing::new(password.trim_end_matches(['\r', '\n']).to_owned());
    Ok(EtcdUser { name: login.user.clone(), password })
}

fn etcd_tls(tls: &ClientTls) -> anyhow::Result<EtcdTls> {
    let identity = match &tls.identity {
        None => None,
        Some((cert, key)) => Some((text("store.tls.cert", cert)?.as_str().to_owned(), text("store.tls.key", key)?)),
    };
    Ok(EtcdTls {
        authority: text("store.tls.ca", &tls.ca)?.as_str().to_owned(),
        identity,
        server_name: tls.server_name.clone(),
    })
}
