//! The Consul store: a thin client of our own over Consul's HTTP interface.
//!
//! # Why no Consul crate
//!
//! Blocking queries, transactions, sessions and plain errors are what a store needs of a client. `consul-rs` 0.1.14 has
//! no key-value interface, never reads Consul's index, sends the token where Consul ignores it and builds on
//! unmaintained crates. `rs-consul` loses the index of a 404, without which a blocking query on nothing cannot be
//! made, and fails a whole listing on one value that is no UTF-8. `consulrs` encodes keys twice and pulls in crates with
//! advisories. The part of the interface used here is four endpoints; `reqwest` with `rustls` carries them.
//!
//! # What Consul does that a reader of this code must know
//!
//! - A read of a missing key answers 404 *with* the index of the whole table, which only ever grows. The index of a
//!   listing is the newest among its keys and its tombstones and may fall when tombstones are reaped (after 15 minutes):
//!   that alone is no sign of a restored backup. [`Shared::probe`] reads the table's.
//! - Setting a key to the value it has changes nothing, not even its index. Every write carries a random number in
//!   the key's flags, so that it is always a change.
//! - A transaction that was refused, also for lack of rights, answers 409 with its reasons by operation.
//! - A listing leaves out what the token may not read, and says nothing about it: an empty one is confirmed by a probe,
//!   which is refused by name.
//! - A session is never invalidated before its time-to-live, and may live twice as long.

mod call;
#[cfg(feature = "leader")]
mod leader;
mod options;
mod read;
mod watch;

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::stream::BoxStream;
use reqwest::header::HeaderValue;

use crate::history::History;
use crate::{Entry, Key, Listing, ReadStore, StoreError, StoreEvent};

pub use options::ConsulOptions;

/// A store in Consul's key-value tree. Reads are `consistent`, commits are transactions, leadership is a key locked by
/// a session, and its epoch is the index at which the lock was taken.
///
/// Consul 1.8 or later, without namespaces. See `docs/operate/stores/consul.md` for what it needs and what it cannot do.
#[derive(Clone)]
pub struct ConsulStore {
    shared: Arc<Shared>,
}

struct Shared {
    options: ConsulOptions,
    name: String,
    http: options::Http,
    base: reqwest::Url,
    /// The token in use, once it was needed.
    token: Mutex<Option<HeaderValue>>,
    history: History,
    #[cfg(feature = "leader")]
    terms: leader::Terms,
}

impl ConsulStore {
    /// A store that connects when it is first used, and again whenever it must.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for options that cannot work.
    pub fn new(options: ConsulOptions) -> Result<Self, StoreError> {
        let (http, base) = options.client()?;
        let name = format!("consul {}", options.address);
        let shared = Shared {
            options,
            name,
            http,
            base,
            token: Mutex::default(),
            history: History::default(),
            #[cfg(feature = "leader")]
            terms: leader::Terms::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }
}

#[async_trait]
impl ReadStore for ConsulStore {
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
