//! How many Syncs of unknown senders may be under way, so that a service that floods takes no place from the others. An
//! incarnation in the roster has one at most that takes time: the next one has to echo its answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rotacast_protocol::ServiceName;

/// Syncs under way of all incarnations of one service that the roster does not know: a client that floods may make them up.
/// The answer is only to register, so a place is taken for a moment; a quarter of all places leaves the others theirs.
pub(super) const SYNCS_UNREGISTERED: usize = 256;

/// The places taken; no more entries than Syncs under way.
#[derive(Default)]
pub(super) struct SyncPlaces {
    taken: Mutex<HashMap<ServiceName, usize>>,
}

/// One place, until it is dropped.
pub(super) struct SyncPlace {
    places: Arc<SyncPlaces>,
    service: ServiceName,
}

impl SyncPlaces {
    /// A place for a Sync of an incarnation that the roster does not know; nothing when its service has all that it may have.
    pub(super) fn take(self: &Arc<Self>, service: &ServiceName) -> Option<SyncPlace> {
        let mut taken = self.taken();
        let count = taken.entry(service.clone()).or_default();
        if *count >= SYNCS_UNREGISTERED {
            return None;
        }
        *count += 1;
        Some(SyncPlace { places: Arc::clone(self), service: service.clone() })
    }

    fn taken(&self) -> std::sync::MutexGuard<'_, HashMap<ServiceName, usize>> {
        // Whole after every call on it.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for SyncPlace {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        if let Some(count) = taken.get_mut(&self.service) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.service);
            }
        }
    }
}
