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
mod heard;
mod listener;
mod mail;
mod reads;
mod replica;
mod secret_task;
mod setbacks;
mod single_use;
mod sync_places;
mod term;
#[cfg(test)]
mod tests;
mod turns;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use rotacast_bus::LeaderBus;
use rotacast_proto::{Level, SigningKey, VerifyingKey};
use rotacast_protocol::{ClusterName, Epoch};
use rotacast_store::{Leadership, SecretTree, StoreError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::info;

pub use control::DriverControl;
pub use directory::{Secrets, TaskHandle};
pub use fetch::StoreFetch;
pub use mail::{Granted, Mail, OrderOutcome, Question};
pub use replica::{Replica, RunId};

use self::setbacks::Setbacks;

use crate::audit::AuditLog;
use crate::findings::{Findings, Topic};
use crate::home::Home;
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
    /// The other keys of this broadcaster: those that may sign in its place, and are announced to instances.
    pub other_keys: Arc<[VerifyingKey]>,
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
    /// Faults that last until they are repaired.
    pub findings: Findings,
    /// Whose the store is.
    pub home: Home,
}

impl Environment {
    /// This broadcaster's own keys; the first signs.
    pub fn own_keys(&self) -> impl Iterator<Item = &VerifyingKey> {
        std::iter::once(self.key.public()).chain(self.other_keys.iter())
    }
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

/// Runs for leader, and leads, until it is to stop.
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

    /// Campaigns, leads, and campaigns again, until `stop`. No error ends it: what a store refuses now, such as a changed
    /// password, it may grant in a minute, and a broadcaster that has ended grants no lease then. Only the start gives up.
    pub async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = self.campaign_and_lead(stop) => {}
            never = self.keep_looking_home() => match never {},
            never = self.keep_comparing_names() => match never {},
        }
    }

    async fn campaign_and_lead(&self, stop: CancellationToken) {
        let mut pauses = backoff();
        let setbacks = Arc::new(Setbacks::default());
        while !stop.is_cancelled() {
            let environment = &self.environment;
            let candidate = environment.replica.candidate();
            let campaign = async {
                environment.home.look(environment).await?;
                environment.tree.campaign(&candidate, environment.leader_ttl, stop.clone()).await
            };
            let campaigned = tokio::select! {
                campaigned = campaign => campaigned,
                // The next look says it by name.
                _ = environment.home.until_closed(), if environment.home.closed().is_none() => continue,
                never = self.clear_while_another_leads() => match never {},
            };
            let leadership = match campaigned {
                Ok(leadership) => leadership,
                Err(StoreError::Cancelled) => break,
                // A standing finding says so, until the store is this cluster's.
                Err(StoreError::Foreign { .. }) => {
                    pause(&mut pauses, &stop).await;
                    continue;
                }
                // A store that went back works from what it holds now, and the next term sees that it did.
                Err(problem) => {
                    let text = format!("cannot run for leader, and tries again: {problem}");
                    environment.findings.raise(Topic::Leadership, CAMPAIGN, Level::Error, text, way_out(&problem));
                    environment.metrics.leadership().refused();
                    pause(&mut pauses, &stop).await;
                    continue;
                }
            };
            environment.findings.clear(Topic::Leadership, CAMPAIGN);
            let epoch = leadership.epoch;
            info!(%epoch, "this broadcaster leads");
            environment.metrics.leadership().won(epoch);
            let ended = tokio::select! {
                ended = self.term(leadership, &setbacks, &stop) => ended,
                never = self.clear_once_the_term_lasts() => match never {},
            };
            self.role.send_replace(Role::Follower);
            environment.metrics.leadership().ended(ended.is_ok());
            self.secrets.clear();
            match ended {
                Ok(()) => {
                    info!(%epoch, "this broadcaster no longer leads");
                    environment.findings.clear(Topic::Leadership, TERM);
                    pauses = backoff();
                }
                Err(problem) => {
                    let text = format!("the last term ended with an error: {problem:#}");
                    let fix = "the next term begins by itself; if this stays, look at the store and the bus: `rotacast doctor`";
                    environment.findings.raise(Topic::Leadership, TERM, Level::Error, text, fix);
                    pause(&mut pauses, &stop).await;
                }
            }
        }
    }
}

impl Driver {
    /// A term in a store that is this cluster's: a campaign may have waited for months since it was looked at.
    async fn term(
        &self,
        leadership: Leadership,
        setbacks: &Arc<Setbacks>,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        let environment = &self.environment;
        if let Err(problem) = environment.home.look(environment).await {
            leadership.resign.cancel();
            leadership.resigned.await?;
            return Err(problem.into());
        }
        let over = stop.child_token();
        let term = term::run(environment, &self.secrets, leadership, &self.role, setbacks, &over);
        tokio::pin!(term);
        tokio::select! {
            ended = &mut term => ended,
            problem = environment.home.until_closed() => {
                over.cancel();
                term.await?;
                Err(anyhow::anyhow!("{problem}"))
            }
        }
    }

    /// Looks from time to time whether the store still is this cluster's.
    async fn keep_looking_home(&self) -> Infallible {
        loop {
            tokio::time::sleep(LOOK_HOME).await;
            // What the store says otherwise is the campaign's and the term's to tell.
            let _ = self.environment.home.look(&self.environment).await;
            // And what the bus says otherwise, each publish's.
            let _ = self.environment.home.look_at_bus(&self.environment).await;
        }
    }

    /// Compares this broadcaster's name with the leader's from time to time.
    async fn keep_comparing_names(&self) -> Infallible {
        let mut seen = None;
        loop {
            tokio::time::sleep(self.environment.leader_ttl).await;
            let leader = follower::leader(&self.environment).await;
            self.compare_names(leader.as_ref(), &mut seen);
        }
    }

    /// Says that the leader is another broadcaster of this one's name, at the third look: its own term before a crash has run
    /// out by then. `seen` is that broadcaster, and how many looks found it.
    fn compare_names(&self, leader: Option<&Replica>, seen: &mut Option<(RunId, u32)>) {
        let Environment { replica, findings, .. } = &self.environment;
        let namesake = leader.filter(|leader| leader.name == replica.name).and_then(|leader| leader.run);
        let Some(run) = namesake.filter(|run| Some(*run) != replica.run) else {
            *seen = None;
            findings.clear(Topic::Replica, &replica.name);
            return;
        };
        let looks = seen.filter(|(before, _)| *before == run).map_or(1, |(_, looks)| looks + 1);
        *seen = Some((run, looks));
        if looks >= NAMESAKE_LOOKS {
            let at = leader.and_then(|leader| leader.address.as_deref()).unwrap_or("an address it does not tell");
            let text = format!("another broadcaster is also called {}, and leads; it is at {at}", replica.name);
            let fix = "give each replica a name of its own: `replica` in its configuration; without it the name is the host's \
                       with the process id";
            findings.raise(Topic::Replica, &replica.name, Level::Warning, text, fix);
        }
    }

    /// A campaign may wait for months: what was wrong with this broadcaster's is over once the store answers and names a
    /// leader.
    async fn clear_while_another_leads(&self) -> Infallible {
        loop {
            tokio::time::sleep(SETTLED).await;
            if follower::leader(&self.environment).await.is_some() {
                self.environment.findings.clear(Topic::Leadership, CAMPAIGN);
                self.environment.findings.clear(Topic::Leadership, TERM);
                return std::future::pending().await;
            }
        }
    }

    /// So may a term: how the one before ended is over by then.
    async fn clear_once_the_term_lasts(&self) -> Infallible {
        tokio::time::sleep(SETTLED).await;
        self.environment.findings.clear(Topic::Leadership, TERM);
        std::future::pending().await
    }
}

/// How long a campaign or a term goes on before what was wrong with an earlier one is over: longer than one that fails at
/// once takes, with the pause before it.
const SETTLED: Duration = if cfg!(test) { Duration::from_millis(200) } else { Duration::from_secs(30) };

/// How often a broadcaster looks whose the store is: one read. A store is replaced under its feet by an operator, who sees
/// what comes of it within the minute.
const LOOK_HOME: Duration = if cfg!(test) { Duration::from_millis(20) } else { Duration::from_secs(30) };

/// How many looks in a row, a time-to-live apart, must find the same other broadcaster of this name.
const NAMESAKE_LOOKS: u32 = 3;

/// The subjects of what is wrong with the leadership.
const CAMPAIGN: &str = "campaign";
const TERM: &str = "term";

/// What mends a store that refuses a campaign.
fn way_out(problem: &StoreError) -> &'static str {
    match problem {
        StoreError::Unreachable { .. } => {
            "start the store, or let its network through; it is asked again until it answers"
        }
        StoreError::Denied { .. } => {
            "give what the store's settings name the right to read and write below the prefix; a password or token that is renewed \
             in its file needs no restart"
        }
        StoreError::OwnFile { .. } => {
            "mend the file that the problem names; it is read again by itself, without a restart"
        }
        StoreError::Unwritable { .. } => "make room in the store, as its problem says",
        StoreError::WentBackwards { .. } => "nothing: the next term works from what the store holds now, in safe mode",
        StoreError::Corrupt { .. } => {
            "delete the key that the problem names, and find the client that wrote it: nothing but Rotacast should be able to write \
             below its prefix"
        }
        StoreError::Unknown { .. }
        | StoreError::TooLarge { .. }
        | StoreError::Invalid { .. }
        | StoreError::Sealed { .. }
        | StoreError::Foreign { .. }
        | StoreError::NotLeader { .. }
        | StoreError::Cancelled => "look at the store's own log, and at the settings of `[store]`",
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
