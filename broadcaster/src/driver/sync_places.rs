//! How many Syncs an instance may have under way, so that one that floods takes no place from the others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rotacast_protocol::{InstanceKey, ServiceName};

/// Syncs of one incarnation under way. It sends one, and another when it has given that one up.
pub(super) const SYNCS_OF_ONE_LIFE: usize = 2;

/// Syncs under way of all incarnations of one service that the roster does not know: a client that floods may make them up.
/// The answer is only to register, so a place is taken for a moment; a quarter of all places leaves the others theirs.
pub(super) const SYNCS_UNREGISTERED: usize = 256;

#[derive(Clone, PartialEq, Eq, Hash)]
enum Holder {
    Life(InstanceKey),
    Unregistered(ServiceName),
}

/// The places taken; no more entries than Syncs under way.
#[derive(Default)]
pub(super) struct SyncPlaces {
    taken: Mutex<HashMap<Holder, usize>>,
}

/// One place, until it is dropped.
pub(super) struct SyncPlace {
    places: Arc<SyncPlaces>,
    holder: Holder,
}

impl SyncPlaces {
    /// A place for a Sync of this incarnation; nothing when it has all that it may have. The caller has checked who it is.
    pub(super) fn take(self: &Arc<Self>, key: &InstanceKey, registered: bool) -> Option<SyncPlace> {
        let (holder, most) = if registered {
            (Holder::Life(key.clone()), SYNCS_OF_ONE_LIFE)
        } else {
            (Holder::Unregistered(key.service.clone()), SYNCS_UNREGISTERED)
        };
        let mut taken = self.taken();
        let count = taken.entry(holder.clone()).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(SyncPlace { places: Arc::clone(self), holder })
    }

    fn taken(&self) -> std::sync::MutexGuard<'_, HashMap<Holder, usize>> {
        // Whole after every call on it.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for SyncPlace {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        if let Some(count) = taken.get_mut(&self.holder) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.holder);
            }
        }
    }
}
