//! The store seam: the half that reads.

use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use rotacast_proto::SecretValue;

use crate::{Key, StoreError};

/// A store's own position: etcd's revision, Consul's index, the embedded store's counter. Only
/// meaningful to the store that gave it.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Cursor(pub u64);

/// One stored key. No `Debug`: its value may be a secret's.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where.
    pub key: Key,
    /// What. Records travel in this type too; it costs them nothing.
    pub value: SecretValue,
    /// When the key was created.
    pub created: Cursor,
    /// When it was last written; equals `created` for a key that was never changed.
    pub modified: Cursor,
}

/// Everything below a prefix at one moment, in key order.
#[derive(Clone)]
pub struct Listing {
    /// The entries.
    pub entries: Vec<Entry>,
    /// The moment: a watch from here misses nothing.
    pub cursor: Cursor,
}

/// What a watch tells, like a Kubernetes informer: first (and again whenever continuity was lost)
/// the whole set between `Init` and `Ready`, then single changes in order.
pub enum StoreEvent {
    /// A whole listing begins: forget nothing yet, but what is not in it by `Ready` is gone.
    Init,
    /// One key of the listing.
    Listed(Entry),
    /// The listing is complete, as of this cursor.
    Ready(Cursor),
    /// A key was created or changed.
    Put(Entry),
    /// A key was deleted.
    Deleted {
        /// Which.
        key: Key,
        /// When.
        cursor: Cursor,
    },
}

/// A linearizable key-value store, read: the half that instances need. What writes is `Store`, of feature `leader`.
///
/// The contract, which `conformance` checks on every implementation:
/// - `get` and `list` are linearizable: they show every commit that was acknowledged before they were sent.
/// - `watch` tells the changes of one prefix in the order of their commits, each commit whole. It may leave out
///   the earlier of several changes of one key, and a key altogether that came and went. A store that keeps no
///   history (Consul) may tell a deletion later, with the newest change that was made since.
/// - `watch` never skips: after a loss of continuity it lists anew (`Init` … `Ready`). It retries by
///   itself while the store is away and ends only with an error that retrying cannot mend.
/// - A store that is found to have gone back in time is reported as [`StoreError::WentBackwards`] by every watch and call
///   that was under way, and goes on to work from what it holds now.
/// - Every call ends within [`CALL_TIMEOUT`] or with `Unreachable`.
/// - No error text, log line or metric carries a value.
#[async_trait]
pub trait ReadStore: Send + Sync + 'static {
    /// Where it is, for people: `etcd http://127.0.0.1:2379`, `embedded ./rotacast-data/store.db`.
    fn describe(&self) -> String;

    /// One key, linearizably.
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError>;

    /// All keys below `parent` (those that begin with `parent/`), linearizably, as of one moment.
    async fn list(&self, parent: &Key) -> Result<Listing, StoreError>;

    /// Everything below `parent`, and then everything that changes.
    fn watch(&self, parent: &Key) -> BoxStream<'static, Result<StoreEvent, StoreError>>;
}

/// How long one call to a store may take, retries included: beyond it, callers get `Unreachable`. Far
/// above a healthy store's milliseconds, well below the shortest sensible lease.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// The problem of a call that ran out of time without a word from the other side.
pub(crate) const NO_ANSWER: &str = "no answer in time";
