//! The store seam.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use rotacast_proto::{Finding, SecretValue};
use rotacast_protocol::{Epoch, Instant};
use tokio_util::sync::CancellationToken;

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

/// A condition of a commit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Check {
    /// The key does not exist.
    Absent(Key),
    /// The key was last written at this cursor.
    Unchanged(Key, Cursor),
    /// This term of the election held at this key still lasts, checked by the store itself within the commit.
    Leads(Key, Epoch),
}

/// One write of a commit. No `Debug`: it may carry a value.
#[derive(Clone)]
pub enum Write {
    /// Sets a key.
    Put(Key, SecretValue),
    /// Deletes a key; deleting an absent one is no error.
    Delete(Key),
}

/// Most checks, and most writes, of one [`Commit`]: with both and what a store may add of its own below Consul's
/// limit of 64 operations a transaction (etcd's default is 128). Rotacast's own commits have 5 of each at most.
pub const MAX_COMMIT_OPS: usize = 30;

/// Most bytes of values in one [`Commit`]: in Base64, with keys and overhead, below Consul's default limit of 512 KiB
/// a transaction (etcd's is 1.5 MiB). Room for one value of the greatest length and the notes that go with it.
pub const MAX_COMMIT_BYTES: usize = 320 * 1024;

/// Writes that happen together, if all checks hold, or not at all. At most [`MAX_COMMIT_OPS`] of each,
/// [`MAX_COMMIT_BYTES`] of values, and no key written twice.
#[derive(Clone, Default)]
pub struct Commit {
    /// The conditions.
    pub checks: Vec<Check>,
    /// The writes.
    pub writes: Vec<Write>,
}

impl Commit {
    /// Refuses what no store takes: too many operations, a key written twice, a value too long.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`], [`StoreError::Invalid`].
    pub fn validate(&self) -> Result<(), StoreError> {
        let bytes: usize =
            self.writes.iter().map(|write| if let Write::Put(_, value) = write { value.len() } else { 0 }).sum();
        if bytes > MAX_COMMIT_BYTES {
            return Err(StoreError::TooLarge { what: "a commit".into(), found: bytes, limit: MAX_COMMIT_BYTES });
        }
        for (what, found) in [("checks of a commit", self.checks.len()), ("writes of a commit", self.writes.len())] {
            if found > MAX_COMMIT_OPS {
                return Err(StoreError::Invalid {
                    what: what.into(),
                    problem: format!("{found} of them, expected at most {MAX_COMMIT_OPS}"),
                });
            }
        }
        let mut keys = BTreeSet::new();
        for write in &self.writes {
            let key = match write {
                Write::Put(key, value) if value.len() > SecretValue::MAX_BYTES => {
                    return Err(StoreError::TooLarge {
                        what: format!("the value of {key}"),
                        found: value.len(),
                        limit: SecretValue::MAX_BYTES,
                    });
                }
                Write::Put(key, _) | Write::Delete(key) => key,
            };
            if !keys.insert(key) {
                return Err(StoreError::Invalid { what: "commit".into(), problem: format!("it writes {key} twice") });
            }
        }
        Ok(())
    }
}

/// That a store went back in time, as one handle of it found: see [`Store::setback`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Setback {
    /// How many this handle has found.
    pub count: u64,
    /// What was expected and found at the newest.
    pub problem: String,
}

/// How a commit ended. An `Err` of [`Store::commit`] that is transient means: unknown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Committed {
    /// Done and durable, at this cursor: the `modified` of every key written. If it only deleted, a cursor that is not
    /// earlier than the commit.
    Done(Cursor),
    /// A check did not hold; nothing was written.
    Conflict,
}

/// A won election.
pub struct Leadership {
    /// The term: larger than that of every leadership ever granted before by this election.
    pub epoch: Epoch,
    /// Until when the leadership is surely ours, by CLOCK_BOOTTIME, counted from the send time of the
    /// newest renewal that succeeded. Moves forward while renewals succeed; the leader must stop
    /// granting and deciding once it is past.
    pub valid_until: tokio::sync::watch::Receiver<Instant>,
    /// Cancelled when the leadership is known to be lost.
    pub lost: CancellationToken,
    /// Cancel it to step down: gives up the leadership at once, so that a successor need not wait for the
    /// term's time-to-live. Dropping the `Leadership` without it lets the time-to-live run out.
    pub resign: CancellationToken,
    /// Ends when stepping down has reached the store (or failed to).
    pub resigned: tokio::task::JoinHandle<()>,
}

/// A linearizable key-value store.
///
/// The contract, which `conformance` checks on every implementation:
/// - `get` and `list` are linearizable: they show every commit that was acknowledged before they were sent.
/// - `watch` tells the changes of one prefix in the order of their commits, each commit whole. It may leave out
///   the earlier of several changes of one key, and a key altogether that came and went. A store that keeps no
///   history (Consul) may tell a deletion later, with the newest change that was made since.
/// - `watch` never skips: after a loss of continuity it lists anew (`Init` … `Ready`). It retries by
///   itself while the store is away and ends only with an error that retrying cannot mend.
/// - `commit` is atomic and durable before it returns `Done`.
/// - A store that is found to have gone back in time is told as [`StoreError::WentBackwards`] by every watch and call
///   that was under way, and goes on to work from what it holds now. [`Store::setback`] keeps showing it.
/// - Every call ends within [`CALL_TIMEOUT`] or with `Unreachable`.
/// - No error text, log line or metric carries a value.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Where it is, for people: `etcd http://127.0.0.1:2379`, `embedded ./rotacast-data/store.db`.
    fn describe(&self) -> String;

    /// One key, linearizably.
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError>;

    /// All keys below `parent` (those that begin with `parent/`), linearizably, as of one moment.
    async fn list(&self, parent: &Key) -> Result<Listing, StoreError>;

    /// Everything below `parent`, and then everything that changes.
    fn watch(&self, parent: &Key) -> BoxStream<'static, Result<StoreEvent, StoreError>>;

    /// All of it or nothing.
    async fn commit(&self, commit: Commit) -> Result<Committed, StoreError>;

    /// Waits until this broadcaster wins the election held at the key `election`, or `cancel`. Nothing else may
    /// write that key. `ttl` (whole seconds, rounded up; at least the store's own least, which is 10 s for Consul)
    /// sets how long a dead leader blocks its successor.
    async fn campaign(
        &self,
        election: &Key,
        candidate: &str,
        ttl: Duration,
        cancel: CancellationToken,
    ) -> Result<Leadership, StoreError>;

    /// The newest [`StoreError::WentBackwards`] this handle has found, if any. The error reaches whoever had a call or
    /// a watch under way and then the handle works on, so that what has to be noted can be committed; whoever comes
    /// later (such as a leader in its next term) must look here before it relies on what the store holds, and
    /// compare the count with that of the last setback it has dealt with.
    fn setback(&self) -> Option<Setback>;

    /// Checks version, health and settings, for `doctor` and the log at start.
    async fn examine(&self) -> Vec<Finding>;
}

/// How long one call to a store may take, retries included: beyond it, callers are told `Unreachable`. Far
/// above a healthy store's milliseconds, well below the shortest sensible lease.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(5);
