//! The leader's half of the etcd store.

mod commit;
mod election;
mod examine;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::EtcdStore;
use crate::{Commit, Committed, Finding, Key, Leadership, Setback, Store, StoreError};

#[async_trait]
impl Store for EtcdStore {
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
