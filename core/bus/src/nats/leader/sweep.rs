//! Removing from the streams what no receiver accepts, so that a login without a signing key cannot fill them for others.
//!
//! What was read is removed, and what is older. What has been published to the same subject since may be good.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::nats::NatsBus;
use crate::nats::stream::Kind;

/// Subjects that wait to be emptied. Beyond it further ones are left: the stream forgets its oldest messages when it is
/// full, and the next reading of the whole stream finds what is still there.
const MAX_WAITING: usize = 4096;

/// Subjects that wait to be emptied, and whether a task empties them.
#[derive(Default)]
pub(in crate::nats) struct Sweeps {
    waiting: Mutex<Waiting>,
    /// How far registrations have been read, by the stream's sequence.
    registrations_read: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    /// Each with the stream's sequence up to which it is emptied.
    subjects: BTreeMap<(Kind, String), u64>,
    sweeping: bool,
}

impl Sweeps {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Whole after every call on it.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a task must be started for it.
    fn add(&self, kind: Kind, subject: String, up_to: u64) -> bool {
        let mut waiting = self.waiting();
        if waiting.subjects.len() >= MAX_WAITING {
            return false;
        }
        let waits = waiting.subjects.entry((kind, subject)).or_default();
        *waits = up_to.max(*waits);
        !std::mem::replace(&mut waiting.sweeping, true)
    }

    fn next(&self) -> Option<((Kind, String), u64)> {
        let mut waiting = self.waiting();
        let next = waiting.subjects.pop_first();
        waiting.sweeping = next.is_some();
        next
    }
}

impl NatsBus {
    /// Notes how far a stream has been read.
    pub(super) fn has_read(&self, kind: Kind, sequence: u64) {
        if kind == Kind::Registrations {
            self.inner.sweeps.registrations_read.store(sequence, Ordering::Relaxed);
        }
    }

    /// Forgets the registration that was read under this subject, and later ones only if they have been read too.
    pub(super) fn sweep_read(&self, subject: String) {
        let read = self.inner.sweeps.registrations_read.load(Ordering::Relaxed);
        self.sweep_subject(Kind::Registrations, subject, read);
    }

    /// Empties a subject soon, up to this sequence, beside the reading: a flood must not hold up what is good.
    pub(super) fn sweep_subject(&self, kind: Kind, subject: String, up_to: u64) {
        // A state is overwritten by the next one, and its stream denies this.
        if kind == Kind::State || !self.inner.sweeps.add(kind, subject, up_to) {
            return;
        }
        let bus = self.clone();
        tokio::spawn(async move {
            while let Some(((kind, subject), up_to)) = bus.inner.sweeps.next() {
                if let Err(problem) = bus.within(bus.forget(kind, subject.clone(), Some(up_to))).await {
                    // What is still there is found when the stream is read the next time.
                    tracing::debug!(%problem, %subject, "not removed");
                }
            }
        });
    }
}
