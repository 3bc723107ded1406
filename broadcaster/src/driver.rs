//! The thin shell around the pure core: elects, reads, decides, saves, acts.
//!
//! One task per secret is the shell of its [`Machine`](rotacast_protocol::machine::Machine) and the only writer of its
//! record. Around the tasks: the election ([`Driver`]), one term's watches (`term`), and
//! the effects (`effect`).

mod context;
mod control;
mod directory;
mod effect;
mod fetch;
mod follower;
mod listener;
mod mail;
mod replica;
mod secret_task;
mod sync_places;
mod term;
#[cfg(test)]
mod tests;
mod turns;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::Context as _;
use backon::{BackoffBuilder as _, ExponentialBuilder};
use rotacast_bus::LeaderBus;
use rotacast_proto::SigningKey;
use rotacast_protocol::{ClusterName, Epoch};
use rotacast_store::SecretTree;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

pub use control::DriverControl;
pub use directory::{Secrets, TaskHandle};
pub use fetch::StoreFetch;
pub use mail::{Granted, Mail, OrderOutcome, Question};
pub use replica::Replica;

use crate::audit::AuditLog;
use crate::identities::Identities;
use crate::metrics::Metrics;
use crate::settings::Settings;
use crate::traces::Traces;

/// Everything a broadcaster works with.
#[derive(Clone)]
pub struct Environment {
    /// The environment's name on the bus.
    pub cluster: ClusterName,
    /// How this replica is called in the election, and where others are sent to reach it.
    pub replica: Replica,
    /// Versions and records.
    pub tree: SecretTree,
    /// The broadcaster's side of the bus.
    pub bus: Arc<dyn LeaderBus>,
    /// The audit log.
    pub audit: Arc<AuditLog>,
    /// Signs states and replies.
    pub key: SigningKey,
    /// Who may say and read what.
    pub identities: Arc<Identities>,
    /// What applies to each secret.
    pub settings: Arc<dyn Settings>,
    /// How long a dead leader blocks its successor.
    pub leader_ttl: Duration,
    /// What is counted. Store, bus, settings and audit log are measured already.
    pub metrics: Metrics,
    /// Where spans go.
    pub traces: Traces,
}

/// What this replica is at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Another replica leads, or the election is still on.
    Follower,
    /// It leads.
    Leader {
        /// Its term.
        epoch: Epoch,
    },
}

/// Runs for leader, and leads, until it is told to stop.
pub struct Driver {
    environment: Environment,
    secrets: Secrets,
    role: watch::Sender<Role>,
}

impl Driver {
    /// A driver that has not started yet; it keeps its tasks in `secrets`.
    #[must_use]
    pub fn new(environment: Environment, secrets: Secrets) -> Self {
        Self { environment, secrets, role: watch::Sender::new(Role::Follower) }
    }

    /// What this replica is.
    #[must_use]
    pub fn role(&self) -> watch::Receiver<Role> {
        self.role.subscribe()
    }

    /// The tasks of the term in force; empty while this replica does not lead.
    #[must_use]
    pub fn secrets(&self) -> Secrets {
        self.secrets.clone()
    }

    /// Campaigns, leads, and campaigns again, until `stop`.
    ///
    /// # Errors
    /// An error that retrying cannot mend: access refused, a store of a later format.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut pauses = backoff();
        let setbacks = Arc::new(AtomicU64::new(0));
        while !stop.is_cancelled() {
            let environment = &self.environment;
            let candidate = environment.replica.candidate();
            let campaign = environment.tree.campaign(&candidate, environment.leader_ttl, stop.clone());
            let leadership = match campaign.await {
                Ok(leadership) => leadership,
                Err(rotacast_store::StoreError::Cancelled) => break,
                // A store that went back works from what it holds now, and the next term sees that it did.
                Err(problem)
                    if problem.is_transient()
                        || matches!(problem, rotacast_store::StoreError::WentBackwards { .. }) =>
                {
                    warn!(%problem, "cannot run for leader; trying again");
                    pause(&mut pauses, &stop).await;
                    continue;
                }
                Err(problem) => return Err(problem).context("running for leader"),
            };
            let epoch = leadership.epoch;
            info!(%epoch, "this broadcaster leads");
            environment.metrics.leadership().won(epoch);
            let ended = term::run(environment, &self.secrets, leadership, &self.role, &setbacks, &stop).await;
            self.role.send_replace(Role::Follower);
            environment.metrics.leadership().ended(ended.is_ok());
            self.secrets.clear();
            match ended {
                Ok(()) => {
                    info!(%epoch, "this broadcaster no longer leads");
                    pauses = backoff();
                }
                Err(problem) => {
                    error!(%epoch, problem = format!("{problem:#}"), "the term ended with an error");
                    pause(&mut pauses, &stop).await;
                }
            }
        }
        Ok(())
    }
}

/// Pauses between attempts to lead: short at first, since nothing rotates meanwhile, never above a few seconds.
fn backoff() -> backon::ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(5))
        .with_jitter()
        .without_max_times()
        .build()
}

async fn pause(pauses: &mut backon::ExponentialBackoff, stop: &CancellationToken) {
    let length = pauses.next().unwrap_or(Duration::from_secs(5));
    tokio::select! {
        () = tokio::time::sleep(length) => {}
        () = stop.cancelled() => {}
    }
}
