//! A store that counts the calls to it, so that tests of cost need no clock.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use tokio_util::sync::CancellationToken;

use crate::{
    Commit, Committed, Entry, Finding, Key, Leadership, Listing, ReadStore, Setback, Store, StoreError, StoreEvent,
    Write,
};

/// The store that answers, and the calls to it.
pub struct Counting {
    store: Arc<dyn Store>,
    keys_read: AtomicUsize,
    listings: AtomicUsize,
    commits: AtomicUsize,
    under_way: AtomicUsize,
    most_under_way: AtomicUsize,
    written: Mutex<Vec<Key>>,
}

impl Counting {
    /// No call yet.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        let none = AtomicUsize::default;
        Self {
            store,
            keys_read: none(),
            listings: none(),
            commits: none(),
            under_way: none(),
            most_under_way: none(),
            written: Mutex::default(),
        }
    }

    /// Keys that were read one by one.
    #[must_use]
    pub fn keys_read(&self) -> usize {
        self.keys_read.load(Ordering::Relaxed)
    }

    /// Listings of the keys below a key.
    #[must_use]
    pub fn listings(&self) -> usize {
        self.listings.load(Ordering::Relaxed)
    }

    /// Commits asked for.
    #[must_use]
    pub fn commits(&self) -> usize {
        self.commits.load(Ordering::Relaxed)
    }

    /// The most commits in flight at once.
    #[must_use]
    pub fn most_under_way(&self) -> usize {
        self.most_under_way.load(Ordering::Relaxed)
    }
}

impl Counting {
    /// The keys that commits were asked to write, in the order of the calls.
    ///
    /// # Panics
    /// If another thread has panicked while it held the lock.
    #[must_use]
    pub fn written(&self) -> Vec<Key> {
        self.written.lock().unwrap().clone()
    }
}

#[async_trait]
impl ReadStore for Counting {
    fn describe(&self) -> String {
        self.store.describe()
    }

    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.keys_read.fetch_add(1, Ordering::Relaxed);
        self.store.get(key).await
    }

    async fn list(&self, parent: &Key) -> Result<Listing, StoreError> {
        self.listings.fetch_add(1, Ordering::Relaxed);
        self.store.list(parent).await
    }

    fn watch(&self, parent: &Key) -> BoxStream<'static, Result<StoreEvent, StoreError>> {
        self.store.watch(parent)
    }
}

#[async_trait]
impl Store for Counting {
    async fn commit(&self, commit: Commit) -> Result<Committed, StoreError> {
        self.commits.fetch_add(1, Ordering::Relaxed);
        let keys = commit.writes.iter().map(|write| match write {
            Write::Put(key, _) | Write::Delete(key) => key.clone(),
        });
        self.written.lock().unwrap().extend(keys);
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
