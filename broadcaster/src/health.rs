//! Whether a broadcaster is alive and ready, with reasons: for probes, load balancers and systemd.
//!
//! **Alive** says that a restart would not help: its own loop turns. Nothing outside counts, since a restart mends no store.
//! **Ready** says that asking it makes sense: it has heard from the store lately. A follower is ready, since it answers reads
//! and Fetch; so is one without any leader at the moment, since instances then need it most.

mod decision;
mod http;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rotacast_proto::v1::admin_server::AdminServer;
use rotacast_proto::v1::instances_server::InstancesServer;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::server::NamedService;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tracing::{info, warn};

pub use decision::{ALIVE_WITHIN, Facts, HealthReport, STORE_WITHIN, decide};
pub use http::router;

use crate::api::AdminFront;
use crate::driver::{Environment, Replica, Role};

/// How often the store is asked whether it is there: one small read.
pub const PROBE_EVERY: Duration = Duration::from_secs(5);

/// How long it may take to answer.
const PROBE_LIMIT: Duration = Duration::from_secs(3);

/// The name under which gRPC's health service tells whether it is alive; under every other, whether it is ready.
pub const LIVENESS: &str = "liveness";

/// What is known so far.
struct Known {
    beat: Instant,
    store: Option<Instant>,
    leader: Option<Replica>,
}

/// See the module; cheap to clone.
#[derive(Clone)]
pub struct Health(Arc<Inner>);

struct Inner {
    environment: Environment,
    role: watch::Receiver<Role>,
    stop: CancellationToken,
    known: Mutex<Known>,
    report: watch::Sender<HealthReport>,
}

impl Health {
    /// Of the broadcaster that works with this; [`run`](Self::run) keeps it up to date.
    #[must_use]
    pub fn new(environment: Environment, role: watch::Receiver<Role>, stop: CancellationToken) -> Self {
        let known = Known { beat: Instant::now(), store: None, leader: None };
        let report = watch::Sender::new(HealthReport::default());
        let inner = Inner { environment, role, stop, known: Mutex::new(known), report };
        let health = Self(Arc::new(inner));
        health.0.report.send_replace(health.report());
        health
    }

    /// How it is now.
    #[must_use]
    pub fn report(&self) -> HealthReport {
        decide(&self.facts())
    }

    /// Told whenever that changes.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<HealthReport> {
        self.0.report.subscribe()
    }

    fn facts(&self) -> Facts {
        let Inner { environment, role, stop, known, .. } = &*self.0;
        // Whole after every call on it.
        let known = known.lock().unwrap_or_else(PoisonError::into_inner);
        Facts {
            replica: environment.replica.name.clone(),
            leads: matches!(*role.borrow(), Role::Leader { .. }),
            leader: known.leader.as_ref().map(|leader| leader.name.clone()),
            stopping: stop.is_cancelled(),
            since_beat: known.beat.elapsed(),
            since_store: known.store.map(|at| at.elapsed()),
            foreign: environment.home.closed().is_some(),
            audit_fails: environment.audit.fails(),
            findings: environment.findings.counts().into_iter().filter(|(_, count)| *count > 0).collect(),
        }
    }

    /// Asks the store again and again, and tells gRPC's health service, until the broadcaster stops.
    pub async fn run(self, reporter: HealthReporter) {
        let mut role = self.0.role.clone();
        let mut tick = tokio::time::interval(PROBE_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !self.0.stop.is_cancelled() {
            self.tell(&reporter).await;
            tokio::select! {
                _ = tick.tick() => tokio::select! {
                    () = self.probe() => {}
                    () = self.0.stop.cancelled() => {}
                },
                Ok(()) = role.changed() => {}
                () = self.0.stop.cancelled() => {}
            }
        }
        self.tell(&reporter).await;
    }

    async fn probe(&self) {
        let asked = tokio::time::timeout(PROBE_LIMIT, self.0.environment.tree.leader()).await;
        let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.beat = Instant::now();
        if let Ok(Ok(candidate)) = asked {
            known.store = Some(known.beat);
            known.leader = candidate.as_deref().map(Replica::of_candidate);
        }
    }

    async fn tell(&self, reporter: &HealthReporter) {
        let report = self.report();
        let before = self.0.report.send_replace(report.clone());
        if before.ready != report.ready {
            match report.ready {
                true => info!(role = report.role, "ready"),
                false => warn!(problems = report.problems.join("; "), "not ready"),
            }
        }
        let status = |good| if good { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in ["", AdminServer::<AdminFront>::NAME, INSTANCES] {
            reporter.set_service_status(service, status(report.ready)).await;
        }
        reporter.set_service_status(LIVENESS, status(report.alive)).await;
    }
}

/// The name of the service for instances.
const INSTANCES: &str = <InstancesServer<()> as NamedService>::NAME;
