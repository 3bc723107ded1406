//! The store seam: the half that only a leader needs.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use rotacast_proto::{Finding, SecretValue};
use rotacast_protocol::{Epoch, Instant};
use rotacast_seal::MAX_OVERHEAD;
use tokio_util::sync::CancellationToken;

use crate::{Cursor, Key, ReadStore, Setback, StoreError};

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

/// Most bytes of what is stored under one key: a value of the greatest length, sealed for as many readers as there may be.
pub const MAX_STORED_BYTES: usize = SecretValue::MAX_BYTES + MAX_OVERHEAD;

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
                Write::Put(key, value) if value.len() > MAX_STORED_BYTES => {
                    return Err(StoreError::TooLarge {
                        what: format!("the value of {key}"),
                        found: value.len(),
                        limit: MAX_STORED_BYTES,
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
    /// Until when the leadership is certain to be ours, by CLOCK_BOOTTIME, counted from the send time of the
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

/// A store that is written: commits, an election, and what a leader must know before it relies on the store.
///
/// The contract, beyond that of [`ReadStore`], which `conformance` checks on every implementation:
/// - `commit` is atomic and durable before it returns `Done`.
/// - [`Store::setback`] keeps showing that a store went back in time.
#[async_trait]
pub trait Store: ReadStore {
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

    /// The newest [`StoreError::WentBackwards`] this handle has found, if any. The error reaches every call and
    /// watch that was under way, and then the handle works on, so that what has to be noted can be committed; a caller that comes
    /// later (such as a leader in its next term) must look here before it relies on what the store holds, and
    /// compare the count with that of the last setback it has dealt with.
    fn setback(&self) -> Option<Setback>;

    /// Checks version, health and settings, for `doctor` and the log at start.
    async fn examine(&self) -> Vec<Finding>;
}
