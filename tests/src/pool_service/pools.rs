//! One pool of connections per version.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use rotacast_subscriber::{CredentialView, Refusal, Version};
use tokio_postgres::NoTls;

/// Timeout for opening a connection. The database is on the same machine: longer than this means that it is down.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// How often a closed pool is looked at until its last connection is back.
const LOOK_EVERY: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub(crate) struct Pools {
    size: usize,
    leak: bool,
    open: Mutex<BTreeMap<Version, Pool>>,
    leaked: Mutex<Vec<Object>>,
}

impl Pools {
    pub(crate) fn new(size: usize, leak: bool) -> Self {
        Self { size, leak, open: Mutex::default(), leaked: Mutex::default() }
    }

    /// Opens the pool of this version, unless it is open, and tries it with a query.
    pub(crate) async fn open(&self, credential: &CredentialView) -> Result<(), Refusal> {
        let version = credential.version();
        if self.get(version).is_some() {
            return Ok(());
        }
        let pool = self.make(credential)?;
        let client = pool.get().await.map_err(Refusal::new)?;
        client.simple_query("SELECT 1").await.map_err(Refusal::new)?;
        drop(client);
        if self.leak {
            // Removed from the pool for good, and kept open at the database.
            let kept = pool.get().await.map_err(Refusal::new)?;
            self.leaked.lock().unwrap_or_else(PoisonError::into_inner).push(kept);
        }
        self.all().insert(version, pool);
        Ok(())
    }

    /// Closes the pool of this version and waits until its last connection is closed.
    pub(crate) async fn close(&self, version: Version) {
        let Some(pool) = self.all().remove(&version) else { return };
        pool.close();
        let kept = usize::from(self.leak);
        // The caller bounds this: a hook has a time limit.
        while pool.status().size > kept {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    pub(crate) fn get(&self, version: Version) -> Option<Pool> {
        self.all().get(&version).cloned()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all().is_empty()
    }

    pub(crate) fn oldest(&self) -> Option<Version> {
        self.all().keys().next().copied()
    }

    /// Closes every idle connection: the lease has expired, and no query may use them.
    pub(crate) fn close_idle(&self) {
        for pool in self.all().values() {
            pool.retain(|_, _| false);
        }
    }

    fn make(&self, credential: &CredentialView) -> Result<Pool, Refusal> {
        let database = credential.database().map_err(Refusal::new)?;
        let mut config = tokio_postgres::Config::new();
        config
            .host(&database.host)
            .port(database.port)
            .user(&database.username)
            .password(database.password.as_bytes())
            .dbname(&database.dbname)
            .application_name("pool-service")
            .connect_timeout(CONNECT_LIMIT);
        let manager = Manager::from_config(config, NoTls, ManagerConfig { recycling_method: RecyclingMethod::Fast });
        // One more for the connection that `leak` takes away.
        let size = self.size + usize::from(self.leak);
        Pool::builder(manager).max_size(size).runtime(Runtime::Tokio1).build().map_err(Refusal::new)
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<Version, Pool>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
