//! One broadcaster put together: driver, gateway for instances, admin service, on one listener.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rotacast_bus::{Gateway, InstanceBus};
use rotacast_proto::Level;
use rotacast_store::{ImportEvent, PlainImporter};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tracing::{info, warn};

use crate::api::AdminFront;
use crate::connections::{Connections, Tls};
use crate::driver::{Driver, DriverControl, Environment, Role, Secrets, StoreFetch};
use crate::findings::{Findings, Topic};
use crate::health::{self, Health};
use crate::key_book::KeyBook;
use crate::metrics::Metrics;
use crate::operators::Operators;
use crate::orders::{Book, Desk};
use crate::sign_ins::SignIns;
use crate::systemd;
use crate::viewers::Viewers;
use crate::web::{self, WebOptions};

/// How long the end of the audit log may take: a store that answers does within milliseconds.
const LAST_ENTRIES: Duration = Duration::from_secs(5);

/// Everything one broadcaster is made of.
pub struct Broadcaster {
    /// What the driver works with.
    pub environment: Environment,
    /// The tasks of the term in force.
    pub secrets: Secrets,
    /// The bus behind the gateway, for instances without bus access.
    pub instances: Arc<dyn InstanceBus>,
    /// Who may do and read what; replaced when the configuration is reloaded.
    pub operators: watch::Receiver<Arc<Operators>>,
    /// Names, besides loopback's, under which browsers reach the dashboard without TLS.
    pub hosts: Vec<String>,
    /// An existing tree to import versions from.
    pub importer: Option<PlainImporter>,
    /// Where to listen.
    pub listener: TcpListener,
    /// What its peers may hold.
    pub connections: Connections,
    /// TLS for the listener; without it, it must be on loopback.
    pub tls: Option<Tls>,
    /// The listener lets in only clients with a certificate.
    pub clients_certified: bool,
}

impl Broadcaster {
    /// Runs until `stop`, or an error that retrying cannot mend.
    ///
    /// # Errors
    /// What ended it, in words.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let Self {
            environment,
            secrets,
            instances,
            operators,
            hosts,
            importer,
            listener,
            connections,
            tls,
            clients_certified,
        } = self;
        let driver = Driver::new(environment.clone(), secrets);
        let role = driver.role();
        let control = Arc::new(DriverControl::new(environment.clone(), driver.secrets(), role.clone(), stop.clone()));
        let address = listener.local_addr().context("the listener's address")?;
        let sign_ins = SignIns::default();
        environment.metrics.count_sign_ins_of(&sign_ins);
        let viewers = Viewers::new(operators.clone(), address.ip().is_loopback() || clients_certified);
        let viewers = viewers.counted_by(sign_ins.clone());
        let book = Book { tree: environment.tree.clone(), cluster: environment.cluster.clone() };
        let key_book = Arc::new(KeyBook::new(
            Arc::clone(&environment.identities),
            operators.clone(),
            environment.own_keys().cloned().collect(),
            Arc::clone(&environment.audit),
            environment.findings.clone(),
        ));
        let desk = Desk::new(Arc::clone(&control) as _, operators).with_book(book);
        let desk = Arc::new(desk.telling(environment.findings.clone(), environment.metrics.orders()));
        let options = WebOptions {
            viewers: viewers.clone(),
            hosts,
            tls: tls.is_some(),
            audit: environment.audit.path().to_owned(),
            metrics: environment.metrics.clone(),
            findings: environment.findings.clone(),
        };
        let cluster = environment.cluster.clone();
        let web = web::router(Arc::clone(&control) as _, Arc::clone(&desk), cluster.to_string(), options, stop.clone());
        let keeping = Arc::clone(&desk);
        let recording = sign_ins.keep(Arc::clone(&control) as _, environment.findings.clone(), stop.clone());
        let recording = tokio::spawn(recording);
        let keeping_keys = tokio::spawn(Arc::clone(&key_book).keep(stop.clone()));
        let admin = AdminFront::new(control, desk, cluster, viewers).with_keys(key_book).into_service();
        let values = Arc::new(StoreFetch::new(&environment));
        let gateway = Gateway::new(instances, values)
            .with_admission(Arc::clone(&environment.identities) as Arc<dyn rotacast_bus::Admission>)
            .with_shutdown(stop.clone())
            .into_service();
        let health = Health::new(environment.clone(), role.clone(), stop.clone());
        let web = web.merge(health::router(health.clone()));
        let (reporter, health_service) = crate::api::health();

        let routes = Routes::from(web)
            .add_service(admin)
            .add_service(gateway)
            .add_service(health_service)
            .add_service(crate::api::reflection());
        environment.metrics.count_connections_of(&connections);
        let serving = connections.serve(listener, tls, routes.into_axum_router(), stop.clone());
        let telling = tokio::spawn(health.clone().run(reporter));
        let notifying = tokio::spawn(systemd::run(health, stop.clone()));

        let ended = CancellationToken::new();
        tokio::spawn(keeping.keep(ended.clone()));
        let _guard = ended.clone().drop_guard();
        let looking = environment.metrics.servers();
        let findings = environment.findings.clone();
        tokio::spawn(looking.look(environment.tree.clone(), Arc::clone(&environment.bus), findings, ended.clone()));
        if let Some(importer) = importer {
            tokio::spawn(import(
                importer,
                environment.findings.clone(),
                environment.metrics.clone(),
                role,
                ended.clone(),
            ));
        }
        let audit = Arc::clone(&environment.audit);
        let driving = driver.run(stop.clone());
        tokio::pin!(serving, driving);
        let served = tokio::select! {
            served = &mut serving => {
                stop.cancel();
                driving.await;
                served
            }
            () = &mut driving => {
                stop.cancel();
                serving.await
            }
        };
        // Both end with the stop.
        telling.await.context("telling how it is broke off")?;
        notifying.await.context("telling systemd broke off")?;
        recording.await.context("putting sign-ins on record broke off")?;
        keeping_keys.await.context("putting refused keys on record broke off")?;
        if tokio::time::timeout(LAST_ENTRIES, audit.close()).await.is_err() {
            warn!("the store was not told where the audit log ends; it is told at the next start");
        }
        served
    }
}

/// Imports versions from an existing tree while this replica leads.
pub(crate) async fn import(
    importer: PlainImporter,
    findings: Findings,
    metrics: Metrics,
    mut role: watch::Receiver<Role>,
    ended: CancellationToken,
) {
    loop {
        if *role.borrow() == Role::Follower {
            // The leader's import says what is wrong.
            findings.clear_all(Topic::Import);
        }
        let leads = role.wait_for(|role| matches!(role, Role::Leader { .. }));
        let leading = tokio::select! {
            leading = leads => leading.is_ok(),
            () = ended.cancelled() => false,
        };
        if !leading {
            return;
        }
        let mut events = importer.run();
        // Each source key is looked at anew. What is wrong with the import as a whole is over once it gets on.
        findings.keep_only(Topic::Import, |subject| subject == SOURCE);
        let mut moved = 0_u64;
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(event)) => {
                        findings.clear(Topic::Import, SOURCE);
                        metrics.intake().import(&event);
                        match event {
                            ImportEvent::Moved { .. } => moved += 1,
                            ImportEvent::Resynced(_) if moved > 0 => {
                                let keys = std::mem::take(&mut moved);
                                warn!(
                                    keys,
                                    "the plain tree was moved here from another server: every key of it was read anew, and \
                                     is followed here from now on"
                                );
                            }
                            _ => {}
                        }
                        note_import(&findings, event);
                    }
                    Some(Err(problem)) => {
                        let text = format!("the import from the plain tree ended, and begins anew: {problem}");
                        let fix = "look at the store, and at the rights below `store.source_prefix`";
                        findings.raise(Topic::Import, SOURCE, Level::Error, text, fix);
                        break;
                    }
                    None => break,
                },
                Ok(()) = role.changed() => if *role.borrow() == Role::Follower { break },
                () = ended.cancelled() => return,
            }
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            () = ended.cancelled() => return,
        }
    }
}

/// The subject of what is wrong with the import as a whole.
const SOURCE: &str = "source";

/// What one source key led to: it stands as a finding while its value is not imported.
fn note_import(findings: &Findings, event: ImportEvent) {
    match event {
        ImportEvent::Imported { secret, version, key } => {
            info!(%secret, %version, "imported a version from the plain tree");
            findings.clear(Topic::Import, key.as_str());
        }
        // Counted, and said once.
        ImportEvent::Moved { .. } => {}
        ImportEvent::Unchanged { key } => findings.clear(Topic::Import, key.as_str()),
        ImportEvent::Refused { key, problem } => {
            let text = format!("its value is not imported: {problem}");
            findings.raise(
                Topic::Import,
                key.as_str(),
                Level::Warning,
                text,
                "write a value that can be imported, or delete the key",
            );
        }
        ImportEvent::SourceDeleted { secret: Some(secret), key } => {
            let text = format!("the source key is gone; secret {secret} and its versions stay as they are");
            let fix = "write it again if that was a mistake; services go on with the current version";
            findings.raise(Topic::Import, key.as_str(), Level::Warning, text, fix);
        }
        ImportEvent::SourceDeleted { secret: None, key } => findings.clear(Topic::Import, key.as_str()),
        ImportEvent::Resynced(cursor) => info!(cursor = cursor.0, "the plain tree is read in full"),
    }
}
