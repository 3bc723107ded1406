//! Removing from the streams what no receiver accepts, so that a login without a signing key cannot fill them for others.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::nats::NatsBus;
use crate::nats::stream::Kind;

/// Subjects that wait to be emptied. Beyond it further ones are left: the stream forgets its oldest messages when it is
/// full, and the next reading of the whole stream finds what is still there.
const MAX_WAITING: usize = 4096;

/// Subjects that wait to be emptied, and whether a task empties them.
#[derive(Default)]
pub(in crate::nats) struct Sweeps(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    subjects: BTreeSet<(Kind, String)>,
    sweeping: bool,
}

impl Sweeps {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Whole after every call on it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a task must be started for it.
    fn add(&self, kind: Kind, subject: String) -> bool {
        let mut waiting = self.waiting();
        if waiting.subjects.len() >= MAX_WAITING {
            return false;
        }
        waiting.subjects.insert((kind, subject));
        !std::mem::replace(&mut waiting.sweeping, true)
    }

    fn next(&self) -> Option<(Kind, String)> {
        let mut waiting = self.waiting();
        let next = waiting.subjects.pop_first();
        waiting.sweeping = next.is_some();
        next
    }
}

impl NatsBus {
    /// Empties a subject soon, beside the reading: a flood must not hold up what is good.
    pub(super) fn sweep_subject(&self, kind: Kind, subject: String) {
        // A state is overwritten by the next one, and its stream denies this.
        if kind == Kind::State || !self.inner.sweeps.add(kind, subject) {
            return;
        }
        let bus = self.clone();
        tokio::spawn(async move {
            while let Some((kind, subject)) = bus.inner.sweeps.next() {
                if let Err(problem) = bus.within(bus.forget(kind, subject.clone())).await {
                    // What is still there is found when the stream is read the next time.
                    tracing::debug!(%problem, %subject, "not removed");
                }
            }
        });
    }
}
