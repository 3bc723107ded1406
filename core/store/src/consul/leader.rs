//! The leader's half of the Consul store.

mod commit;
mod election;
mod examine;
mod session;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

pub(in crate::consul) use self::session::SessionId;
use super::{ConsulStore, Shared};
use crate::{Commit, Committed, Finding, Key, Leadership, Setback, Store, StoreError};

/// The sessions of the terms this handle holds, by election and epoch: see [`Shared::commit`].
pub(super) type Terms = Mutex<BTreeMap<(Key, u64), SessionId>>;

impl Shared {
    fn terms(&self) -> MutexGuard<'_, BTreeMap<(Key, u64), SessionId>> {
        // Every entry is whole at any moment, even if a thread panicked while it held the lock.
        self.terms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for ConsulStore {
    async fn commit(&self, commit: Commit) -> Result<Committed, StoreError> {
        commit.validate()?;
        self.shared.commit(&commit).await
    }

    async fn campaign(
        &self,
        election: &Key,
        candidate: &str,
        ttl: Duration,
        cancel: CancellationToken,
    ) -> Result<Leadership, StoreError> {
        election::campaign(Arc::clone(&self.shared), election.clone(), candidate.to_owned(), ttl, cancel).await
    }

    fn setback(&self) -> Option<Setback> {
        self.shared.history.setback()
    }

    async fn examine(&self) -> Vec<Finding> {
        self.shared.examine().await
    }
}
