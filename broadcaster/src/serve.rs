//! `rotacast serve`: a broadcaster as the configuration says.

mod audit_heads;
mod backend;
mod certificates;
mod files;
#[cfg(feature = "kafka")]
mod kafka;
mod provider;
mod rehearsal;
mod seals;
mod start;
mod tls;

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Context as _;
use rotacast_proto::{Level, create_private_folder};
use rotacast_protocol::record::ProviderId;
use rotacast_protocol::schedule::Schedule;
use rotacast_protocol::{Policy, SecretName};
use rotacast_provider::Provider;
use rotacast_seal::SealingKeys;
use rotacast_store::{PlainImporter, Prefix, Readers, SecretTree};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::audit::{Anchor, AuditLog, AuditSigner, Entry, LogName};
use crate::broadcaster::Broadcaster;
use crate::certificates::Watch;
use crate::config::{Config, SecretPattern, ServiceConfig, StoreConfig, changes};
use crate::connections::Connections;
use crate::driver::{Environment, Mail, Replica, RunId, Secrets};
use crate::findings::{Findings, Topic};
use crate::home::Home;
use crate::identities::{Identities, Service, Services};
use crate::key_book;
use crate::metrics::Metrics;
use crate::operators::Operators;
use crate::sealing::ConfiguredReaders;
use crate::settings::{SecretSettings, Settings};
use crate::traces::{self, Exporting};
pub use audit_heads::{KnownLogs, known_logs};
use provider::Providers;
pub use rehearsal::rehearse;
pub use rotacast_store::Rewrapped;
pub use seals::{Found, ReaderKey, VersionSeal, needs, rewrap, seal_status};

/// How long a reload waits for tasks that take nothing in, altogether.
const RELOAD_PATIENCE: Duration = Duration::from_secs(5);
/// How long the last spans may take at the end: a collector that answers does within milliseconds.
const LAST_SPANS: Duration = Duration::from_secs(2);

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// What is wrong with the configuration, what could not be reached, or what ended it.
pub async fn run(config_file: PathBuf) -> anyhow::Result<()> {
    let stop = crate::signal::stop_on_signals()?;
    // From the beginning: the default is to end the process. What comes during the start reloads after it.
    let hangups = signal(SignalKind::hangup()).context("SIGHUP cannot be handled")?;
    let config = Config::read(&config_file)?;
    create_private_folder(&config.data_dir)
        .with_context(|| format!("cannot create data_dir {}", config.data_dir.display()))?;
    let keys = rehearsal::read_signing_keys(&config)?;
    let key = keys.first().clone();
    let settings = Arc::new(ConfigSettings::new(&config)?);
    let prefix = Prefix::new(config.store.prefix()).context("store.prefix")?;
    let store = backend::store(&config.store).await?;
    let wait = config.start_timeout;
    let Some(()) = backend::answers(&*store, &config.store, &prefix, wait, &stop).await? else { return Ok(()) };
    let Some(buses) = backend::buses(&config.bus, &config.cluster, wait, &stop).await? else { return Ok(()) };
    let metrics = Metrics::default();
    let identities = Arc::new(Identities::new(config.cluster.clone(), services(&config)));
    let tree = SecretTree::new(metrics.store(store), prefix);
    let findings = Findings::default();
    let tree = sealed(tree, &config, rehearsal::read_sealing_keys(&config)?, &identities, &findings);
    if !config.seal_values {
        warn!("sealing.enabled = false: values are stored in the clear, for everyone who may read the store");
    }
    let importer = importer(&config.store, &tree)?;
    let operators = watch::Sender::new(Arc::new(config.operators.clone()));
    let signer = AuditSigner::new(key.clone(), config.cluster.clone());
    let audit = AuditLog::open(&config.audit.file, config.audit.options, signer)?;
    let listener = TcpListener::bind(config.listen.grpc)
        .await
        .with_context(|| format!("listen.grpc: cannot listen on {}", config.listen.grpc))?;
    let tls = config.listen.tls.as_ref().map(tls::Renewable::read).transpose()?.map(Arc::new);
    let name = config.replica.clone().unwrap_or_else(|| format!("{}-{}", host_name(), std::process::id()));
    let exporting = traces::start(&config.telemetry, &config.cluster, &name)?;
    let environment = Environment {
        cluster: config.cluster.clone(),
        replica: Replica { name, address: config.listen.advertised(), run: Some(RunId::drawn()) },
        tree,
        bus: metrics.bus(buses.leader),
        audit: Arc::new(audit.observed_by(Arc::new(metrics.audit()))),
        key,
        other_keys: keys.iter().skip(1).map(|key| key.public().clone()).collect(),
        identities,
        settings: metrics.settings(Arc::clone(&settings) as Arc<dyn Settings>),
        leader_ttl: config.leader_ttl,
        metrics: metrics.clone(),
        traces: exporting.as_ref().map(Exporting::traces).unwrap_or_default(),
        findings,
        home: Home::default(),
    };
    // Before anything is read or answered from a store that may be another cluster's.
    if !settle_home(&environment, &config, wait, &stop).await? {
        return Ok(());
    }
    if !anchor_audit(&environment, &config, wait, &stop).await? {
        return Ok(());
    }
    metrics.count_refusals_of(&environment.identities);
    metrics.count_findings_of(&environment.findings);
    let watch = Watch {
        files: certificates::of(&config),
        expiries: metrics.expiries(),
        findings: environment.findings.clone(),
        listener: match tls.clone() {
            Some(tls) => Box::new(move || {
                let tls = Arc::clone(&tls);
                Box::pin(tls.renew())
            }),
            None => Box::new(|| Box::pin(async {})),
        },
    };
    let watching = tokio::spawn(watch.run(stop.clone()));
    report_findings(&environment).await;
    let identities = Arc::clone(&environment.identities);
    let (findings, audit) = (environment.findings.clone(), Arc::clone(&environment.audit));
    let secrets = Secrets::new(config.limits.secrets);
    let broadcaster = Broadcaster {
        environment,
        secrets: secrets.clone(),
        instances: buses.instances,
        operators: operators.subscribe(),
        hosts: config.dashboard.hosts.clone(),
        importer,
        listener,
        connections: Connections::new(&config.listen.limits),
        tls: tls.as_ref().map(|tls| tls.subscribe()),
        clients_certified: config.listen.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some()),
    };
    let reloader = Reloader { path: config_file, config, settings, operators, identities, secrets, findings, audit };
    let reloading = tokio::spawn(reloader.run(hangups, stop.clone()));
    let result = broadcaster.run(stop.clone()).await;
    stop.cancel();
    reloading.await.context("the reloader broke off")?;
    watching.await.context("the watch of the certificates broke off")?;
    buses.close.run().await;
    if let Some(exporting) = exporting {
        exporting.close(LAST_SPANS).await;
    }
    result
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Sees to it that store and bus are this cluster's. `false`: stopped meanwhile.
async fn settle_home(
    environment: &Environment,
    config: &Config,
    wait: Duration,
    stop: &CancellationToken,
) -> anyhow::Result<bool> {
    let home = &environment.home;
    let (store, bus) = (start::Blame::store(&config.store), start::Blame::bus(&config.bus));
    let owner = async || environment.tree.owner().await;
    let Some(found) = start::until_there(&store, wait, stop, owner).await? else { return Ok(false) };
    if found.is_none() {
        let look = async || home.look_at_bus_first(environment).await;
        let Some(foreign) = start::until_there(&bus, wait, stop, look).await? else { return Ok(false) };
        // A replica of ours may have claimed both in between.
        let Some(claimed) = start::until_there(&store, wait, stop, owner).await? else { return Ok(false) };
        if let (Some(problem), None) = (foreign, claimed) {
            anyhow::bail!(problem);
        }
    }
    let look = async || home.look(environment).await;
    let Some(()) = start::until_there(&store, wait, stop, look).await? else { return Ok(false) };
    let look = async || home.look_at_bus(environment).await;
    let Some(foreign) = start::until_there(&bus, wait, stop, look).await? else { return Ok(false) };
    foreign.map_or(Ok(true), |problem| Err(anyhow::anyhow!(problem)))
}

/// Compares the audit log with its head in the store. `false`: stopped meanwhile.
async fn anchor_audit(
    environment: &Environment,
    config: &Config,
    wait: Duration,
    stop: &CancellationToken,
) -> anyhow::Result<bool> {
    let log = audit_name(config);
    let anchor = Anchor::new(environment.tree.clone(), log, environment.findings.clone());
    let store = start::Blame::store(&config.store);
    let anchored = async || environment.audit.anchor(Arc::clone(&anchor)).await;
    Ok(start::until_there(&store, wait, stop, anchored).await?.is_some())
}

/// Whose audit log it is: the replica's, or that of this file on this host.
pub fn audit_name(config: &Config) -> LogName {
    match &config.replica {
        Some(replica) => LogName { name: replica.clone(), named: true },
        None => {
            let file = std::path::absolute(&config.audit.file).unwrap_or_else(|_| config.audit.file.clone());
            LogName { name: format!("{}:{}", host_name(), file.display()), named: false }
        }
    }
}

/// What store and bus say about themselves, once at the start.
async fn report_findings(environment: &Environment) {
    let mut findings = environment.tree.examine().await;
    findings.extend(environment.bus.examine().await);
    for finding in findings {
        match finding.level {
            Level::Ok => info!(subject = finding.subject, "{}", finding.text),
            Level::Warning => warn!(subject = finding.subject, fix = finding.fix, "{}", finding.text),
            Level::Error => error!(subject = finding.subject, fix = finding.fix, "{}", finding.text),
        }
    }
}

fn importer(store: &StoreConfig, tree: &SecretTree) -> anyhow::Result<Option<PlainImporter>> {
    let Some(source_prefix) = store.source_prefix() else { return Ok(None) };
    // A leading slash is part of an existing tree's keys, not of ours.
    let source = Prefix::new(source_prefix).context("store.source_prefix")?;
    Ok(Some(PlainImporter::new(tree.clone(), source).context("store.source_prefix")?))
}

/// The tree with sealed values, as the configuration has it.
fn sealed(
    tree: SecretTree,
    config: &Config,
    keys: SealingKeys,
    identities: &Arc<Identities>,
    findings: &Findings,
) -> SecretTree {
    let readers = keys.first().map(|ours| {
        let (ours, identities) = (ours.public().clone(), Arc::clone(identities));
        Arc::new(ConfiguredReaders::new(ours, identities, findings.clone())) as Arc<dyn Readers>
    });
    let tree = tree.sealed(config.cluster.clone(), keys, readers);
    if config.seal_values { tree } else { tree.in_the_clear() }
}

fn service(config: &ServiceConfig) -> Service {
    Service { keys: config.keys.clone(), sealing_key: config.sealing_key.clone(), secrets: config.secrets.clone() }
}

fn services(config: &Config) -> Services {
    Services {
        named: config.services.iter().map(|(name, config)| (name.clone(), service(config))).collect(),
        anyone: config.any_service.as_ref().map(service),
    }
}

/// What applies to each secret, as configured; replaced by a reload.
struct ConfigSettings {
    inner: RwLock<Arc<(Config, Providers)>>,
}

impl ConfigSettings {
    fn new(config: &Config) -> anyhow::Result<Self> {
        let providers = Providers::new(config)?;
        Ok(Self { inner: RwLock::new(Arc::new((config.clone(), providers))) })
    }

    fn replace(&self, config: &Config) -> anyhow::Result<()> {
        let providers = Providers::new(config)?;
        *self.inner.write().unwrap_or_else(PoisonError::into_inner) = Arc::new((config.clone(), providers));
        Ok(())
    }

    fn inner(&self) -> Arc<(Config, Providers)> {
        Arc::clone(&self.inner.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Settings for ConfigSettings {
    fn of(&self, secret: &SecretName) -> SecretSettings {
        let inner = self.inner();
        let (config, providers) = &*inner;
        let secret = config.secret(secret);
        let provider = secret.provider.and_then(|name| providers.id(&name));
        SecretSettings {
            policy: Policy { provider, ..secret.policy },
            schedule: secret.rotate_every.map(Schedule::every),
        }
    }

    fn provider(&self, id: &ProviderId) -> Option<Arc<dyn Provider>> {
        self.inner().1.find(id)
    }

    fn configured(&self) -> Vec<SecretName> {
        self.inner().0.named_secrets().collect()
    }

    fn patterns(&self) -> Vec<(String, SecretPattern)> {
        self.inner().0.patterns()
    }
}

/// Reads the configuration again at SIGHUP. A faulty one changes nothing.
struct Reloader {
    path: PathBuf,
    config: Config,
    settings: Arc<ConfigSettings>,
    operators: watch::Sender<Arc<Operators>>,
    identities: Arc<Identities>,
    secrets: Secrets,
    findings: Findings,
    audit: Arc<AuditLog>,
}

impl Reloader {
    async fn run(mut self, mut hangups: Signal, stop: CancellationToken) {
        loop {
            tokio::select! {
                Some(()) = hangups.recv() => {}
                () = stop.cancelled() => return,
            }
            crate::systemd::reloading();
            let outcome = tokio::select! {
                outcome = self.reload() => outcome,
                () = stop.cancelled() => return,
            };
            self.tell(outcome);
            crate::systemd::reloaded();
        }
    }

    /// A refused reload stands as a finding until one succeeds: what it was to take away, such as an operator's key, is
    /// still in force.
    fn tell(&self, outcome: anyhow::Result<()>) {
        let subject = self.path.display().to_string();
        match outcome {
            Ok(()) => self.findings.clear(Topic::Configuration, &subject),
            Err(problem) => {
                let text = format!("it was not reloaded, and the one read before stays in force: {problem:#}");
                let fix = "mend what the text names, then send SIGHUP again; a restart would fail until then";
                self.findings.raise(Topic::Configuration, subject, Level::Error, text, fix);
            }
        }
    }

    /// What a log that takes no entries must not hold up: a key that is taken away counts no more.
    async fn put_on_record(&self, entries: Vec<Entry>) {
        for entry in entries {
            if let Err(problem) = self.audit.append(entry).await {
                warn!(%problem, "that keys were changed is not on record");
            }
        }
    }

    async fn reload(&mut self) -> anyhow::Result<()> {
        let (path, settings) = (self.path.clone(), Arc::clone(&self.settings));
        // Every file that it names is read, each for as long as a file system may take.
        let reading = tokio::task::spawn_blocking(move || {
            let new = Config::read(&path)?;
            settings.replace(&new)?;
            anyhow::Ok(new)
        });
        let new = reading.await.context("reading the configuration broke off")??;
        let changes = changes(&self.config, &new);
        for change in &changes {
            if change.live {
                info!(setting = change.setting, "reloaded");
            } else {
                warn!(setting = change.setting, "takes effect with the next start");
            }
        }
        let named = |live: bool| {
            let of =
                changes.iter().filter(|change| change.live == live).map(|change| change.setting).collect::<Vec<_>>();
            if of.is_empty() { "nothing".to_owned() } else { of.join(", ") }
        };
        info!(
            taken_over = named(true),
            with_the_next_start = named(false),
            "the configuration was read again; logins and certificates in files count without that, once they change"
        );
        self.operators.send_replace(Arc::new(new.operators.clone()));
        let keys = key_book::changes(&self.config, &new, &self.identities, std::time::Instant::now());
        self.identities.replace(services(&new));
        self.put_on_record(keys).await;
        let over = tokio::time::Instant::now() + RELOAD_PATIENCE;
        for (secret, task) in self.secrets.all() {
            match tokio::time::timeout_at(over, task.mail.send(Mail::Reconfigured)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => info!(%secret, "its term has ended; the next one begins with the new configuration"),
                Err(_) => warn!(
                    %secret,
                    "its task takes nothing in: it begins with the new configuration in the next term, or when that is read again"
                ),
            }
        }
        self.config = new;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::AuditOptions;

    #[tokio::test]
    async fn a_refused_reload_is_a_finding_until_one_succeeds() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rotacast.toml");
        std::fs::write(&path, "cluster = \"a\"\n").unwrap();
        let config = Config::read(&path).unwrap();
        let findings = Findings::default();
        let signer = AuditSigner::new(rotacast_proto::SigningKey::generate(), config.cluster.clone());
        let mut reloader = Reloader {
            path: path.clone(),
            settings: Arc::new(ConfigSettings::new(&config).unwrap()),
            operators: watch::Sender::new(Arc::new(config.operators.clone())),
            identities: Arc::new(Identities::new(config.cluster.clone(), services(&config))),
            secrets: Secrets::new(config.limits.secrets),
            findings: findings.clone(),
            audit: Arc::new(
                AuditLog::open(folder.path().join("audit.jsonl"), AuditOptions::default(), signer).unwrap(),
            ),
            config,
        };
        let unreadable = "[providers.p]\nkind = \"postgres\"\nadmin_file = \".\"\ngroup_role = \"g\"\ndatabase = \"d\"\n\
                          host = \"localhost\"\n";
        for (held, says) in
            [("cluster = 7\n".to_owned(), "cluster"), (format!("cluster = \"a\"\n{unreadable}"), "it is a directory")]
        {
            std::fs::write(&path, held).unwrap();
            let outcome = reloader.reload().await;
            reloader.tell(outcome);
            let standing = findings.standing();
            assert_eq!((standing.len(), standing[0].topic, standing[0].level), (1, Topic::Configuration, Level::Error));
            assert!(standing[0].text.contains(says), "{}", standing[0].text);
        }
        std::fs::write(&path, "cluster = \"a\"\n").unwrap();
        let outcome = reloader.reload().await;
        reloader.tell(outcome);
        assert_eq!(findings.standing(), []);
    }
}
