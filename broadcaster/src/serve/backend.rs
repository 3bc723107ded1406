//! Store and bus as configured.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rotacast_bus::{EmbeddedBus, InstanceBus, LeaderBus, NatsBus, NatsCredentials, NatsOptions, NatsParty};
use rotacast_protocol::ClusterName;
use rotacast_store::{
    ConsulOptions, ConsulStore, EmbeddedStore, EtcdOptions, EtcdStore, EtcdUser, LoginSecret, Prefix, Store, StoreError,
};
use tokio_util::sync::CancellationToken;

use super::files::readable;
use super::start::{Blame, until_there};
use crate::config::{BusConfig, ClientTls, Login, NatsLogin, StoreConfig};

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

/// The store; nothing is asked of a server yet.
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
                tls: tls.as_ref().map(client_tls).transpose()?,
            };
            Arc::new(EtcdStore::new(options).context("[store]")?)
        }
        StoreConfig::Consul { address, token_file, datacenter, tls, .. } => {
            let options = ConsulOptions {
                address: address.clone(),
                token: token_file.as_ref().map(|file| renewable("store.token_file", file)).transpose()?,
                datacenter: datacenter.clone(),
                tls: tls.as_ref().map(client_tls).transpose()?,
            };
            Arc::new(ConsulStore::new(options).context("[store]")?)
        }
    })
}

/// Waits until the store answers a read. `None`: stopped meanwhile.
pub(super) async fn answers(
    store: &dyn Store,
    config: &StoreConfig,
    prefix: &Prefix,
    limit: Duration,
    stop: &CancellationToken,
) -> anyhow::Result<Option<()>> {
    // A key below the prefix: the rights that the documentation asks for begin there.
    let absent = prefix.key().child("~");
    let read = async || match store.get(&absent).await {
        // A store that is another one, or holds what it should not, is the driver's to judge; it is there.
        Ok(_) | Err(StoreError::WentBackwards { .. } | StoreError::Corrupt { .. }) => Ok(()),
        Err(problem) => Err(problem),
    };
    until_there(&Blame::store(config), limit, stop, read).await
}

/// The bus, once it is there. `None`: stopped meanwhile.
pub(super) async fn buses(
    config: &BusConfig,
    cluster: &ClusterName,
    limit: Duration,
    stop: &CancellationToken,
) -> anyhow::Result<Option<Buses>> {
    let blame = Blame::bus(config);
    match config {
        BusConfig::Embedded { file } => {
            create_folder("bus.file", file)?;
            let bus = EmbeddedBus::open(file).await.context("bus.file")?;
            Ok(Some(Buses { leader: Arc::new(bus.clone()), instances: Arc::new(bus.clone()), close: Close(Some(bus)) }))
        }
        BusConfig::Nats { url, login, tls, replicas, streams } => {
            let mut options = NatsOptions::new(url.as_str(), cluster.clone(), NatsParty::Broadcaster);
            options.urls = url.split(',').map(|url| url.trim().to_owned()).collect();
            options.replicas = replicas.map(usize::from);
            options.limits = *streams;
            options.ca = tls.as_ref().map(|tls| tls.ca.clone());
            options.identity = tls.as_ref().and_then(|tls| tls.identity.clone());
            options.credentials = nats_credentials(login)?;
            let connect = async || NatsBus::connect(options.clone()).await;
            Ok(until_there(&blame, limit, stop, connect).await?.map(both_sides))
        }
        #[cfg(feature = "kafka")]
        BusConfig::Kafka { .. } => {
            let options = super::kafka::options(config, cluster)?;
            let connect = async || rotacast_bus::KafkaBus::connect(options.clone()).await;
            Ok(until_there(&blame, limit, stop, connect).await?.map(both_sides))
        }
        #[cfg(not(feature = "kafka"))]
        BusConfig::Kafka { .. } => anyhow::bail!("bus.kind: \"kafka\" is not part of this build of rotacast"),
    }
}

fn both_sides<B: LeaderBus + InstanceBus + Clone + 'static>(bus: B) -> Buses {
    Buses { leader: Arc::new(bus.clone()), instances: Arc::new(bus), close: Close(None) }
}

pub(super) fn nats_credentials(login: &NatsLogin) -> anyhow::Result<NatsCredentials> {
    Ok(match login {
        NatsLogin::None => NatsCredentials::None,
        NatsLogin::Credentials(file) => {
            readable("bus.credentials", file)?;
            NatsCredentials::File(file.clone())
        }
        NatsLogin::Nkey(file) => NatsCredentials::Nkey(renewable("bus.nkey_file", file)?),
        NatsLogin::Token(file) => NatsCredentials::Token(renewable("bus.token_file", file)?),
        NatsLogin::Password(login) => {
            NatsCredentials::UserPassword(login.user.clone(), renewable("bus.password_file", &login.password_file)?)
        }
    })
}

fn create_folder(setting: &str, file: &Path) -> anyhow::Result<()> {
    let Some(folder) = file.parent() else { return Ok(()) };
    rotacast_proto::create_private_folder(folder)
        .with_context(|| format!("{setting}: cannot create {}", folder.display()))
}

fn etcd_user(login: &Login) -> anyhow::Result<EtcdUser> {
    let password = renewable("store.password_file", &login.password_file)?;
    Ok(EtcdUser { name: login.user.clone(), password })
}

/// A file that can be read now, and is read again when what it held is refused.
fn renewable(setting: &str, file: &Path) -> anyhow::Result<LoginSecret> {
    readable(setting, file)?;
    Ok(LoginSecret::File(file.to_owned()))
}

fn client_tls(tls: &ClientTls) -> anyhow::Result<rotacast_store::ClientTls> {
    let identity = match &tls.identity {
        Some((cert, key)) => Some((renewable("store.tls.cert", cert)?, renewable("store.tls.key", key)?)),
        None => None,
    };
    let authority = renewable("store.tls.ca", &tls.ca)?;
    Ok(rotacast_store::ClientTls { authority, identity, server_name: tls.server_name.clone() })
}
