//! Who may have how many Syncs under way, so that one who floods takes no place from the others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rotacast_protocol::{InstanceKey, ServiceName};

/// Syncs of one process life under way. It sends one, and another when it has given that one up.
pub(super) const SYNCS_OF_ONE_LIFE: usize = 2;

/// Syncs under way of all lives of one service that the roster does not know: whoever floods may make lives up. Each is
/// only told to register, so a place is taken for a moment; a quarter of all places leaves the others theirs.
pub(super) const SYNCS_UNREGISTERED: usize = 256;

#[derive(Clone, PartialEq, Eq, Hash)]
enum Whose {
    Life(InstanceKey),
    Unregistered(ServiceName),
}

/// The places taken; no more entries than Syncs under way.
#[derive(Default)]
pub(super) struct Shares {
    taken: Mutex<HashMap<Whose, usize>>,
}

/// One place, until it is dropped.
pub(super) struct Share {
    shares: Arc<Shares>,
    whose: Whose,
}

impl Shares {
    /// A place for a Sync of this life; nothing when it has all that it may have. The caller has checked who it is.
    pub(super) fn take(self: &Arc<Self>, key: &InstanceKey, registered: bool) -> Option<Share> {
        let (whose, most) = if registered {
            (Whose::Life(key.clone()), SYNCS_OF_ONE_LIFE)
        } else {
            (Whose::Unregistered(key.service.clone()), SYNCS_UNREGISTERED)
        };
        let mut taken = self.taken();
        let count = taken.entry(whose.clone()).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Share { shares: Arc::clone(self), whose })
    }

    fn taken(&self) -> std::sync::MutexGuard<'_, HashMap<Whose, usize>> {
        // Whole after every call on it.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.shares.taken();
        if let Some(count) = taken.get_mut(&self.whose) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.whose);
            }
        }
    }
}
