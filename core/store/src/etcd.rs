//! The etcd store.

mod call;
mod client;
#[cfg(feature = "leader")]
mod leader;
mod options;
mod read;
mod watch;

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use tokio::sync::Mutex;
use tonic::transport::Endpoint;

use self::client::Client;
use self::generated::etcdserverpb as pb;
use crate::history::History;
use crate::{Entry, Key, Listing, ReadStore, StoreError, StoreEvent};

use self::options::Endpoints;
pub use options::{EtcdOptions, EtcdUser};

/// The part of etcd's API that is used, from `core/store/proto/etcd` by `cargo run -p rotacast-proto-codegen`. Each side
/// uses its part of that.
#[allow(missing_docs, clippy::all, unreachable_pub, dead_code)]
mod generated {
    pub(crate) mod etcdserverpb {
        include!("etcd/generated/etcdserverpb.rs");
    }
    pub(crate) mod mvccpb {
        include!("etcd/generated/mvccpb.rs");
    }
}

/// A store in an etcd cluster. Reads are linearizable, commits are transactions, leadership is a key bound to a
/// lease, and its epoch is the revision at which that key was created.
///
/// A cluster that shows another identity or an earlier revision than before is reported as
/// [`StoreError::WentBackwards`] by every watch and call under way, and stays visible in `Store::setback`: a
/// restored backup must be looked at by a person.
#[derive(Clone)]
pub struct EtcdStore {
    shared: Arc<Shared>,
}

struct Shared {
    options: EtcdOptions,
    name: String,
    endpoints: Endpoints,
    /// Connected at the first call, since with a user etcd must be there to connect; and again with renewed certificates.
    client: Mutex<Option<(Arc<[Endpoint]>, Client)>>,
    history: History,
}

impl EtcdStore {
    /// A store that connects when it is first used, and again whenever it must.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for options that cannot work.
    pub fn new(options: EtcdOptions) -> Result<Self, StoreError> {
        let endpoints = options.endpoints()?;
        let name = format!("etcd {}", options.endpoints.join(","));
        let shared = Shared { options, name, endpoints, client: Mutex::default(), history: History::default() };
        Ok(Self { shared: Arc::new(shared) })
    }
}

#[async_trait]
impl ReadStore for EtcdStore {
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
}
