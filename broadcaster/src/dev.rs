//! `rotacast dev`: everything in one process and one folder, with no servers and no configuration.

mod folder;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rotacast_bus::{EmbeddedBus, InstanceBus, LeaderBus};
use rotacast_protocol::record::ProviderId;
use rotacast_protocol::{ClusterName, OperatorName, Policy, SecretName};
use rotacast_provider::{GenerateProvider, Provider};
use rotacast_seal::SealingKeys;
use rotacast_store::{EmbeddedStore, Prefix, SecretTree, Store};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::audit::{Anchor, AuditLog, AuditOptions, AuditSigner, LogName};
use crate::broadcaster::Broadcaster;
use crate::config::{DEFAULT_SECRETS, ListenLimits};
use crate::connections::Connections;
use crate::driver::{Environment, Replica, RunId, Secrets};
use crate::findings::Findings;
use crate::home::Home;
use crate::identities::{Identities, Service, Services};
use crate::metrics::Metrics;
use crate::operators::{Operator, Operators};
use crate::sealing::ConfiguredReaders;
use crate::settings::{SecretSettings, Settings};
use crate::traces::Traces;
pub use folder::Folder;

/// The cluster's name in development.
pub const CLUSTER: &str = "dev";

/// How long a crashed `dev` blocks its successor; the embedded store frees its lock at once anyway.
const LEADER_TTL: Duration = Duration::from_secs(5);

/// Every service may use every secret: the folder's one identity stands for all of them.
struct DevSettings {
    settings: SecretSettings,
    provider: Arc<dyn Provider>,
}

impl Settings for DevSettings {
    fn of(&self, _secret: &SecretName) -> SecretSettings {
        self.settings.clone()
    }

    /// There has never been another one.
    fn provider(&self, _id: &ProviderId) -> Option<Arc<dyn Provider>> {
        Some(Arc::clone(&self.provider))
    }

    fn configured(&self) -> Vec<SecretName> {
        Vec::new()
    }
}

/// Leases short enough to watch, so that a killed instance is fenced within seconds.
fn policy(provider: ProviderId) -> Policy {
    Policy {
        provider: Some(provider),
        lease_idle: Duration::from_secs(10),
        lease_rotating: Duration::from_secs(4),
        self_lease: Duration::from_secs(1),
        max_use: Duration::from_millis(500),
        sync_idle: Duration::from_secs(3),
        sync_rotating: Duration::from_secs(1),
        ..Policy::default()
    }
}

/// A broadcaster that has everything it needs in one folder.
pub struct Dev {
    folder: Folder,
    address: SocketAddr,
    broadcaster: Broadcaster,
    bus: EmbeddedBus,
}

impl Dev {
    /// Listens, and opens the folder `data`; what is missing in it is made.
    ///
    /// # Errors
    /// What cannot be listened on, or opened.
    pub async fn open(data: &Path, listen: SocketAddr) -> anyhow::Result<Self> {
        // First of all: a folder with fresh keys that no broadcaster knows would only mislead the commands given beside it.
        let listener = TcpListener::bind(listen).await.with_context(|| {
            format!("cannot listen on {listen}: is another `rotacast dev` running? Choose another --listen")
        })?;
        let folder = Folder::open(data)?;
        let address = listener.local_addr().context("the listener's address")?;
        let (broadcaster, bus) = assemble(&folder, listener, address).await?;
        Ok(Self { folder, address, broadcaster, bus })
    }

    /// The data folder.
    #[must_use]
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Runs until `stop`.
    ///
    /// # Errors
    /// What ended it.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let result = self.broadcaster.run(stop).await;
        self.bus.close().await;
        result
    }
}

async fn assemble(
    folder: &Folder,
    listener: TcpListener,
    address: SocketAddr,
) -> anyhow::Result<(Broadcaster, EmbeddedBus)> {
    let cluster = ClusterName::new(CLUSTER).context("the cluster's name")?;
    let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(folder.store()).await?);
    let bus = EmbeddedBus::open(&folder.bus()).await?;
    let prefix = Prefix::new("rotacast").context("the store's prefix")?;
    let provider: Arc<dyn Provider> = Arc::new(GenerateProvider::default());
    let anyone = Service {
        keys: folder.identity().public().clone().into(),
        sealing_key: Some(folder.identity_sealing().public().clone()),
        secrets: vec!["*".parse()?],
    };
    let services = Services { named: BTreeMap::new(), anyone: Some(anyone) };
    let identities = Arc::new(Identities::new(cluster.clone(), services));
    let name = OperatorName::new("operator").context("the operator's name")?;
    let keys = vec![folder.operator().public().clone()];
    let operator = Operator { keys, tokens: vec![folder.token()], ..Operator::default() };
    let operators = Operators::new(BTreeMap::from([(name, operator)]), BTreeMap::new());
    let metrics = Metrics::default();
    let signer = AuditSigner::new(folder.broadcaster().clone(), cluster.clone());
    let sealing = folder.broadcaster_sealing().clone();
    let findings = Findings::default();
    let readers = Arc::new(ConfiguredReaders::new(sealing.public().clone(), Arc::clone(&identities), findings.clone()));
    let tree = SecretTree::new(metrics.store(store), prefix).sealed(
        cluster.clone(),
        SealingKeys::new(vec![sealing]),
        Some(readers),
    );
    let environment = Environment {
        cluster: cluster.clone(),
        replica: Replica {
            name: format!("dev-{}", std::process::id()),
            address: Some(format!("http://{address}")),
            run: Some(RunId::drawn()),
        },
        tree,
        bus: metrics.bus(Arc::new(bus.clone()) as Arc<dyn LeaderBus>),
        audit: Arc::new(
            AuditLog::open(folder.audit(), AuditOptions::default(), signer)?.observed_by(Arc::new(metrics.audit())),
        ),
        key: folder.broadcaster().clone(),
        other_keys: [].into(),
        identities,
        settings: metrics.settings(Arc::new(DevSettings {
            settings: SecretSettings { policy: policy(provider.id("dev")), schedule: None },
            provider,
        })),
        leader_ttl: LEADER_TTL,
        metrics: metrics.clone(),
        traces: Traces::off(),
        findings,
        home: Home::default(),
    };
    let log = LogName { name: CLUSTER.into(), named: true };
    let anchor = Anchor::new(environment.tree.clone(), log, environment.findings.clone());
    environment.audit.anchor(anchor).await?;
    metrics.count_refusals_of(&environment.identities);
    metrics.count_findings_of(&environment.findings);
    let broadcaster = Broadcaster {
        environment,
        secrets: Secrets::new(DEFAULT_SECRETS),
        instances: Arc::new(bus.clone()) as Arc<dyn InstanceBus>,
        operators: watch::Sender::new(Arc::new(operators)).subscribe(),
        hosts: Vec::new(),
        importer: None,
        listener,
        connections: Connections::new(&ListenLimits::default()),
        tls: None,
        clients_certified: false,
    };
    Ok((broadcaster, bus))
}
