//! Whether the cluster is still the one it was, and has not gone back in time.

use std::sync::{Mutex, MutexGuard, PoisonError};

use etcd_client::ResponseHeader;

use crate::StoreError;

/// What this process has seen of the cluster.
#[derive(Default)]
pub(super) struct History {
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    cluster: Option<u64>,
    revision: i64,
    /// Why nothing it says is believed any more. Stays, even when the revisions have caught up: what lies between
    /// is another history.
    broken: Option<String>,
}

impl History {
    /// The revision that a linearizable call sent from now on must answer with at least. Taken before the call:
    /// answers to concurrent calls may arrive in any order.
    pub(super) fn floor(&self) -> i64 {
        self.lock().revision
    }

    /// Takes note of the answer to a linearizable call that was sent when the floor was `floor`.
    pub(super) fn answered(&self, name: &str, floor: i64, header: &ResponseHeader) -> Result<(), StoreError> {
        self.same_cluster(name, header)?;
        if header.revision() < floor {
            return Err(self.went_backwards(
                name,
                format!(
                    "its revision is {}, expected at least {floor}: was it restored from a backup?",
                    header.revision()
                ),
            ));
        }
        let mut seen = self.lock();
        seen.revision = seen.revision.max(header.revision());
        Ok(())
    }

    /// Takes note of an answer that tells the cluster but need not be up to date.
    pub(super) fn same_cluster(&self, name: &str, header: &ResponseHeader) -> Result<(), StoreError> {
        let mut seen = self.lock();
        if let Some(problem) = &seen.broken {
            return Err(StoreError::WentBackwards { endpoint: name.into(), problem: problem.clone() });
        }
        let expected = *seen.cluster.get_or_insert(header.cluster_id());
        drop(seen);
        if expected == header.cluster_id() {
            return Ok(());
        }
        Err(self.went_backwards(name, format!("its cluster id is {:x}, expected {expected:x}", header.cluster_id())))
    }

    /// From here on nothing this cluster says is believed.
    pub(super) fn went_backwards(&self, name: &str, problem: String) -> StoreError {
        self.lock().broken = Some(problem.clone());
        StoreError::WentBackwards { endpoint: name.into(), problem }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        // Every field is whole at any moment, even if a thread panicked while it held the lock.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
