//! A store that counts what is asked of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use tokio_util::sync::CancellationToken;

use crate::{Commit, Committed, Entry, Finding, Key, Leadership, Listing, Setback, Store, StoreError, StoreEvent};

pub(super) struct Counting {
    store: Arc<dyn Store>,
    reads: AtomicUsize,
    commits: AtomicUsize,
    under_way: AtomicUsize,
    most_under_way: AtomicUsize,
}

impl Counting {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        let none = AtomicUsize::default;
        Self { store, reads: none(), commits: none(), under_way: none(), most_under_way: none() }
    }

    /// Keys read and listings made.
    pub(super) fn reads(&self) -> usize {
        self.reads.load(Ordering::Relaxed)
    }

    /// Commits asked for.
    pub(super) fn commits(&self) -> usize {
        self.commits.load(Ordering::Relaxed)
    }

    /// The most commits that were under way at once.
    pub(super) fn most_under_way(&self) -> usize {
        self.most_under_way.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Store for Counting {
    fn describe(&self) -> String {
        self.store.describe()
    }

    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.store.get(key).await
    }

    async fn list(&self, parent: &Key) -> Result<Listing, StoreError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.store.list(parent).await
    }

    fn watch(&self, parent: &Key) -> BoxStream<'static, Result<StoreEvent, StoreError>> {
        self.store.watch(parent)
    }

    async fn commit(&self, commit: Commit) -> Result<Committed, StoreError> {
        self.commits.fetch_add(1, Ordering::Relaxed);
        let under_way = self.under_way.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_under_way.fetch_max(under_way, Ordering::Relaxed);
        let committed = self.store.commit(commit).await;
        self.under_way.fetch_sub(1, Ordering::Relaxed);
        committed
    }

    async fn campaign(
        &self,
        election: &Key,
        candidate: &str,
        ttl: Duration,
        cancel: CancellationToken,
    ) -> Result<Leadership, StoreError> {
        self.store.campaign(election, candidate, ttl, cancel).await
    }

    fn setback(&self) -> Option<Setback> {
        self.store.setback()
    }

    async fn examine(&self) -> Vec<Finding> {
        self.store.examine().await
    }
}
