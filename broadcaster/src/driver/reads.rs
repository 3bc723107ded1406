//! Which values were read, for the audit log: the first read of a version by an incarnation makes an entry, and further ones
//! are counted by the minute.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rotacast_log_limit::LogLimit;
use rotacast_protocol::{InstanceKey, SecretName, ServiceName, Version};
use tokio::sync::Semaphore;
use tracing::warn;

use crate::audit::{AuditLog, Entry};

/// Most reads that are known as the first of their kind: more than there are instances that use a few secrets each. Beyond
/// it the oldest are forgotten, and make an entry once more.
const MAX_KNOWN: usize = 65_536;

/// Most entries that wait for the disk. A read beyond it is counted only: no value waits for the audit log.
const MAX_WAITING: usize = 1024;

/// How long further reads are counted together.
const COUNTED_FOR: Duration = if cfg!(test) { Duration::from_millis(200) } else { Duration::from_secs(60) };

/// The reads of one replica. Clones share it.
#[derive(Clone)]
pub(super) struct Reads(Arc<Inner>);

struct Inner {
    audit: Arc<AuditLog>,
    known: Mutex<Known>,
    waiting: Semaphore,
}

#[derive(Default)]
struct Known {
    first: HashSet<(InstanceKey, SecretName, Version)>,
    /// In the order in which they are forgotten.
    order: VecDeque<(InstanceKey, SecretName, Version)>,
    /// Since the last entry about them.
    further: BTreeMap<SecretName, u64>,
    /// Those refused since the last entry about them. Both are configured or exist, so they are bounded.
    refused: BTreeMap<(ServiceName, SecretName), u64>,
}

impl Known {
    /// Whether it is the first of its kind.
    fn note(&mut self, instance: &InstanceKey, secret: &SecretName, version: Version) -> bool {
        let read = (instance.clone(), secret.clone(), version);
        if !self.first.insert(read.clone()) {
            return false;
        }
        self.order.push_back(read);
        if self.order.len() > MAX_KNOWN
            && let Some(oldest) = self.order.pop_front()
        {
            self.first.remove(&oldest);
        }
        true
    }
}

impl Reads {
    pub(super) fn new(audit: Arc<AuditLog>) -> Self {
        let waiting = Semaphore::new(MAX_WAITING);
        Self(Arc::new(Inner { audit, known: Mutex::default(), waiting }))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Whole after every call on it.
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An instance is given a value. Never waits.
    pub(super) fn note(&self, instance: &InstanceKey, secret: &SecretName, version: Version) {
        let mut known = self.known();
        if known.note(instance, secret, version) && self.0.waiting.available_permits() > 0 {
            drop(known);
            let entry = Entry::new("broadcaster", "fetched")
                .secret(secret.clone())
                .detail("version", version.get())
                .detail("instance", instance.full_name());
            return self.write(entry);
        }
        let begins = known.further.is_empty();
        *known.further.entry(secret.clone()).or_default() += 1;
        drop(known);
        if begins {
            let reads = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep(COUNTED_FOR).await;
                let further = std::mem::take(&mut reads.known().further);
                for (secret, times) in further {
                    reads.write(Entry::new("broadcaster", "fetched_again").secret(secret).detail("times", times));
                }
            });
        }
    }

    /// An instance is given no value. The first of a minute makes an entry, and further ones are counted. Never waits.
    pub(super) fn refused(&self, instance: &InstanceKey, secret: &SecretName, problem: &str) {
        let about = (instance.service.clone(), secret.clone());
        if let Some(further) = self.known().refused.get_mut(&about) {
            *further += 1;
            return;
        }
        self.known().refused.insert(about.clone(), 0);
        let entry = || Entry::new("broadcaster", "fetch_refused").secret(secret.clone());
        self.write(entry().detail("instance", instance.full_name()).detail("problem", problem));
        let (reads, counted) = (self.clone(), entry().detail("service", instance.service.as_str()));
        tokio::spawn(async move {
            tokio::time::sleep(COUNTED_FOR).await;
            let further = reads.known().refused.remove(&about).unwrap_or_default();
            if further > 0 {
                reads.write(counted.detail("times", further));
            }
        });
    }

    fn write(&self, entry: Entry) {
        let reads = self.clone();
        tokio::spawn(async move {
            let Ok(_place) = reads.0.waiting.acquire().await else { return };
            if let Err(problem) = reads.0.audit.append(entry).await {
                // Counted as a failure, and a finding says so.
                static LIMIT: LogLimit = LogLimit::new();
                if let Some(left_out) = LIMIT.admit() {
                    warn!(%problem, left_out, "the audit log takes no entry about a value that was read");
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use rotacast_protocol::Incarnation;

    use super::*;

    #[test]
    fn the_first_read_of_each_kind_is_told_apart_and_the_oldest_is_forgotten() {
        let instance = |number| InstanceKey::new("api".parse().unwrap(), "api-0".parse().unwrap(), Incarnation(number));
        let (secret, version) = (SecretName::new("payments/db").unwrap(), Version::FIRST);
        let mut known = Known::default();
        assert!(known.note(&instance(0), &secret, version));
        assert!(!known.note(&instance(0), &secret, version));
        assert!(known.note(&instance(0), &secret, version.next()));
        for number in 1..MAX_KNOWN as u128 {
            assert!(known.note(&instance(number), &secret, version));
        }
        assert_eq!((known.first.len(), known.order.len()), (MAX_KNOWN, MAX_KNOWN));
        assert!(known.note(&instance(0), &secret, version), "it was forgotten");
    }
}
