//! How many messages were dropped because their sender had no business sending them.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::Stray;

/// How many of each since the start.
#[derive(Default)]
pub(in crate::nats) struct StrayCounts([AtomicU64; Stray::ALL.len()]);

impl StrayCounts {
    /// Counts one.
    pub(in crate::nats) fn note(&self, stray: Stray) {
        self.0[stray as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(in crate::nats) fn all(&self) -> [(Stray, u64); Stray::ALL.len()] {
        Stray::ALL.map(|stray| (stray, self.0[stray as usize].load(Ordering::Relaxed)))
    }
}
