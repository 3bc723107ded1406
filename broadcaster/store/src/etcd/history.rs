//! Whether the cluster is still the one it was, and has not gone back in time.

use std::sync::{Mutex, MutexGuard, PoisonError};

use etcd_client::ResponseHeader;

use crate::StoreError;

/// What this process has seen of the cluster.
#[derive(Default)]
pub(super) struct History {
    seen: Mutex<Option<Seen>>,
}

#[derive(Clone, Copy)]
struct Seen {
    cluster: u64,
    revision: i64,
}

impl History {
    /// The revision that a linearizable call sent from now on must answer with at least. Taken before the call:
    /// answers to concurrent calls may arrive in any order.
    pub(super) fn floor(&self) -> i64 {
        self.lock().map_or(0, |seen| seen.revision)
    }

    /// Takes note of the answer to a linearizable call that was sent when the floor was `floor`.
    pub(super) fn answered(&self, name: &str, floor: i64, header: &ResponseHeader) -> Result<(), StoreError> {
        self.same_cluster(name, header)?;
        if header.revision() < floor {
            return Err(StoreError::WentBackwards {
                endpoint: name.into(),
                problem: format!(
                    "its revision is {}, expected at least {floor}: was it restored from a backup?",
                    header.revision()
                ),
            });
        }
        let mut seen = self.lock();
        let revision = seen.map_or(0, |seen| seen.revision).max(header.revision());
        *seen = Some(Seen { cluster: header.cluster_id(), revision });
        Ok(())
    }

    /// Takes note of an answer that tells the cluster but need not be up to date.
    pub(super) fn same_cluster(&self, name: &str, header: &ResponseHeader) -> Result<(), StoreError> {
        match *self.lock() {
            Some(seen) if seen.cluster != header.cluster_id() => Err(StoreError::WentBackwards {
                endpoint: name.into(),
                problem: format!("its cluster id is {:x}, expected {:x}", header.cluster_id(), seen.cluster),
            }),
            _ => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Seen>> {
        // Two plain numbers: they are whole even if a thread panicked while it held the lock.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
