//! A service that queries PostgreSQL through a pool, and keeps doing so while its credential is rotated.
//!
//! ```console
//! export ROTACAST_CLUSTER=production ROTACAST_IDENTITY=payments-api.key ROTACAST_TRUST=broadcaster.pub
//! cargo run -p rotacast-subscriber --example pooled_postgres -- nats://127.0.0.1:4222 http://127.0.0.1:2379 payments/db
//! ```
//!
//! One pool per version. *Prepare* builds the new pool and logs in with it once, so that a credential that does not
//! work is refused before anything uses it. *Switch* needs to do nothing: every query asks for the current version and
//! takes that version's pool. *Release* closes the old pool and waits for its last connection, before Rotacast hears
//! that this instance has released the version.
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use rotacast_subscriber::{CredentialView, Hooks, Refusal, SecretHandle, Subscriber, Version};
use tokio_postgres::NoTls;

/// Connections per version.
const POOL_SIZE: usize = 8;
/// Queries at once.
const WORKERS: usize = 4;
/// Pause of a worker between two queries.
const PAUSE: Duration = Duration::from_millis(20);

/// The pools, by version.
#[derive(Clone, Default)]
struct Pools(Arc<Mutex<BTreeMap<Version, Pool>>>);

impl Pools {
    fn get(&self, version: Version) -> Option<Pool> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&version).cloned()
    }

    /// Builds a version's pool and proves that it logs in.
    async fn prepare(&self, new: &CredentialView) -> Result<(), Refusal> {
        let login = new.database().map_err(Refusal::new)?;
        let mut config = tokio_postgres::Config::new();
        config.host(&login.host).port(login.port).user(&login.username).password(login.password.as_bytes());
        config.dbname(&login.dbname).application_name("pooled_postgres").connect_timeout(Duration::from_secs(5));
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Verified };
        let manager = Manager::from_config(config, NoTls, recycling);
        let pool = Pool::builder(manager).max_size(POOL_SIZE).build().map_err(Refusal::new)?;
        let connection = pool.get().await.map_err(|error| Refusal::new(format!("login failed: {error}")))?;
        connection.simple_query("SELECT 1").await.map_err(|error| Refusal::new(format!("query failed: {error}")))?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(new.version(), pool);
        println!("version {}: pool ready", new.version());
        Ok(())
    }

    /// Closes a version's pool. Idle connections end at once, those in use when they are given back.
    async fn release(&self, old: &CredentialView) {
        let pool = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&old.version());
        let Some(pool) = pool else { return };
        pool.close();
        while pool.status().size > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        println!("version {}: pool closed", old.version());
    }
}

/// One query, with whatever version is current now.
async fn query(db: &SecretHandle, pools: &Pools) -> anyhow::Result<Version> {
    // The guard lives as long as the query: the credential cannot be retired under it.
    let credential = db.current()?;
    let version = credential.version();
    let pool = pools.get(version).with_context(|| format!("no pool of version {version}"))?;
    let work = async {
        let connection = pool.get().await.context("no connection")?;
        let row = connection.query_one("SELECT current_user::text", &[]).await.context("query")?;
        anyhow::Ok(row.get::<_, String>(0))
    };
    // A query must not outlive the right to use the credential.
    match tokio::time::timeout(credential.remaining(), work).await {
        Ok(Ok(_user)) => Ok(version),
        Ok(Err(error)) => {
            if is_auth_failure(&error) {
                db.report_auth_failure(version);
            }
            Err(error)
        }
        Err(_) => bail!("version {version}: the query outlived its lease"),
    }
}

/// SQLSTATE class 28: invalid authorization.
fn is_auth_failure(error: &anyhow::Error) -> bool {
    let postgres = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<tokio_postgres::Error>()?.code().map(|code| code.code().starts_with("28"))
    };
    error.chain().find_map(postgres).unwrap_or(false)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(bus), Some(store), Some(secret)) = (arguments.next(), arguments.next(), arguments.next()) else {
        bail!("expected: pooled_postgres <nats://…> <etcd http://…> <secret>");
    };
    let rotacast =
        Subscriber::builder().service("payments-api").values_from_etcd([store], "rotacast").connect(&bus).await?;
    let pools = Pools::default();
    let (preparing, releasing) = (pools.clone(), pools.clone());
    let hooks = Hooks::new()
        .on_prepare(move |new| {
            let pools = preparing.clone();
            async move { pools.prepare(&new).await }
        })
        .on_release(move |old| {
            let pools = releasing.clone();
            async move { pools.release(&old).await }
        });
    let db = rotacast.secret_with(&secret, hooks).await?;

    let mut workers = tokio::task::JoinSet::new();
    let stop = tokio_util::sync::CancellationToken::new();
    for _ in 0..WORKERS {
        let (db, pools, stop) = (db.clone(), pools.clone(), stop.clone());
        workers.spawn(async move {
            while !stop.is_cancelled() {
                if let Err(error) = query(&db, &pools).await {
                    println!("FAILED: {error:#}");
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
    }
    let mut changes = db.subscribe();
    // One future for the whole loop: it notices a Ctrl-C whatever else happens at that moment.
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        tokio::select! {
            version = changes.next() => println!("version {}: in use for new queries", version?),
            _ = &mut interrupted => break,
        }
    }
    stop.cancel();
    while workers.join_next().await.is_some() {}
    rotacast.leave().await?;
    println!("left");
    Ok(())
}
