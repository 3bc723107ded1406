//! Queries without a pause.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rotacast_subscriber::{Guard, SecretHandle};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_postgres::error::SqlState;

use super::Settings;
use super::pools::Pools;
use super::status::Counts;

/// After a failed query, so that an outage gives a count that can be read.
const PAUSE: Duration = Duration::from_millis(50);

/// The workers of one service.
pub(crate) struct Workers {
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
}

impl Workers {
    /// Lets each worker finish its query, and waits for that.
    pub(crate) async fn stop(mut self) {
        self.stop.send_replace(true);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("a worker does not panic");
        }
    }
}

/// Starts them.
pub(crate) fn start(settings: &Settings, secret: &SecretHandle, pools: &Arc<Pools>, counts: &Arc<Counts>) -> Workers {
    let (stop, stopped) = watch::channel(false);
    let mut tasks = JoinSet::new();
    for _ in 0..settings.workers {
        let worker = Worker {
            secret: secret.clone(),
            pools: Arc::clone(pools),
            counts: Arc::clone(counts),
            seconds: f64::from(settings.query_ms) / 1000.0,
            first: None,
            keep_first: settings.misbehaviour.ignore_reload,
        };
        tasks.spawn(worker.run(stopped.clone()));
    }
    Workers { tasks, stop }
}

struct Worker {
    secret: SecretHandle,
    pools: Arc<Pools>,
    counts: Arc<Counts>,
    seconds: f64,
    first: Option<Guard>,
    keep_first: bool,
}

impl Worker {
    async fn run(mut self, stopped: watch::Receiver<bool>) {
        while !*stopped.borrow() {
            if self.keep_first && self.first.is_none() {
                self.first = self.secret.current().ok();
            }
            // Read before the checkout, so that a process that is stopped in between never seems to have checked out
            // too late.
            let asked = rotacast_clock::instant();
            let outcome = match (&self.first, self.secret.current()) {
                (Some(first), _) => self.query(first).await.map(|()| first.version()),
                (None, Ok(current)) => {
                    self.counts.checked_out(current.version(), asked);
                    self.query(&current).await.map(|()| current.version())
                }
                (None, Err(error)) => {
                    self.pools.close_idle();
                    Err(error.into())
                }
            };
            match outcome {
                Ok(version) => self.counts.ok(version),
                Err(error) => {
                    self.counts.failed(format!("{error:#}"));
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// One query on a connection of this version, checked to have run as that version's login.
    async fn query(&self, credential: &Guard) -> anyhow::Result<()> {
        let version = credential.version();
        let pool = self.pools.get(version).with_context(|| format!("version {version} has no pool"))?;
        let client = match pool.get().await {
            Ok(client) => client,
            Err(error) => {
                if is_refused_login(&error) {
                    self.secret.report_auth_failure(version);
                }
                return Err(anyhow::Error::new(error).context(format!("version {version}: no connection")));
            }
        };
        // `session_user`, because a login role may act as the group that owns the objects.
        let row = client
            .query_one("SELECT session_user::text FROM pg_sleep($1)", &[&self.seconds])
            .await
            .with_context(|| format!("version {version}: query failed"))?;
        let (expected, found) = (credential.database()?.username, row.get::<_, String>(0));
        anyhow::ensure!(expected == found, "version {version}: expected to be {expected}, found {found}");
        Ok(())
    }
}

fn is_refused_login(error: &deadpool_postgres::PoolError) -> bool {
    let deadpool_postgres::PoolError::Backend(error) = error else { return false };
    let code = error.code();
    code == Some(&SqlState::INVALID_PASSWORD) || code == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
}
