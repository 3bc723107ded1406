//! The etcd store.

mod call;
mod election;
mod examine;
mod kv;
mod options;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::Client;
use futures::stream::BoxStream;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use crate::history::History;
use crate::{Commit, Committed, Entry, Finding, Key, Leadership, Listing, Setback, Store, StoreError, StoreEvent};

pub use options::{EtcdOptions, EtcdTls, EtcdUser};

/// A store in an etcd cluster. Reads are linearizable, commits are transactions, leadership is a key bound to a
/// lease, and its epoch is the revision at which that key was created.
///
/// A cluster that shows another identity or an earlier revision than before is told as
/// [`StoreError::WentBackwards`] by every watch and call under way, and stays visible in [`Store::setback`]: a
/// restored backup must be looked at by a person.
#[derive(Clone)]
pub struct EtcdStore {
    shared: Arc<Shared>,
}

struct Shared {
    options: EtcdOptions,
    name: String,
    /// Connected at the first call, since with a user etcd must be there to connect.
    client: OnceCell<Client>,
    history: History,
}

impl EtcdStore {
    /// A store that connects when it is first used, and again whenever it must.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for options that cannot work.
    pub fn new(options: EtcdOptions) -> Result<Self, StoreError> {
        options.validate()?;
        let name = format!("etcd {}", options.endpoints.join(","));
        Ok(Self { shared: Arc::new(Shared { options, name, client: OnceCell::new(), history: History::default() }) })
    }
}

#[async_trait]
impl Store for EtcdStore {
    fn describe(&self) -> String {
        self.shared.name.clone()
    }

    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.shared.get(key).await
    }

    async fn list(&self, parent: &Key) -> Result<Listing, StoreError> {
        self.shared.list(parent).await
    }

    fn watch(&self, parent: &Key) -> BoxStream<'static, Result<StoreEvent, StoreError>> {
        watch::watch(Arc::clone(&self.shared), parent.clone())
    }

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
