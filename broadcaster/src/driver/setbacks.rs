//! Which records do not say yet that they may be older than what has happened: the store went back, they could not be read
//! and were written back, or another client wrote them. Kept by the process: the next term has to tell them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};

use rotacast_protocol::SecretName;

/// What every term so far has achieved.
#[derive(Default)]
pub(super) struct Setbacks(Mutex<Told>);

#[derive(Default)]
struct Told {
    /// The store's newest setback that the records know of.
    count: u64,
    /// Secrets whose record does not know of it even so: they were out of service. No more than the store has records.
    unaware: BTreeSet<SecretName>,
    /// Secrets whose record could not be read, or was written by another client. No more than the store has records.
    broken: BTreeSet<SecretName>,
}

impl Setbacks {
    /// The secret's record cannot be read, or another client has written it.
    pub(super) fn broken(&self, secret: SecretName) {
        self.told().broken.insert(secret);
    }

    /// Whether the secret's record could not be read or was not ours, and does not say so yet.
    pub(super) fn was_broken(&self, secret: &SecretName) -> bool {
        self.told().broken.contains(secret)
    }

    pub(super) fn all_broken(&self) -> BTreeSet<SecretName> {
        self.told().broken.clone()
    }

    /// The record says so now.
    pub(super) fn mended(&self, secret: &SecretName) {
        self.told().broken.remove(secret);
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.0.lock().expect("no code panics while it holds this lock")
    }
}

/// The store's newest setback when a term began.
pub(super) struct KnownSetback {
    /// Which it is, counted from the start of the process.
    pub(super) count: u64,
    /// What was seen.
    pub(super) reason: String,
    pub(super) setbacks: Arc<Setbacks>,
}

impl KnownSetback {
    /// No term has told all records yet.
    pub(super) fn is_new(&self) -> bool {
        self.count > self.setbacks.told().count
    }

    /// Whether a secret's record does not know of it.
    pub(super) fn concerns(&self, secret: &SecretName) -> bool {
        let told = self.setbacks.told();
        self.count > told.count || self.count == told.count && told.unaware.contains(secret)
    }

    pub(super) fn concerns_any(&self) -> bool {
        let told = self.setbacks.told();
        self.count > told.count || self.count == told.count && !told.unaware.is_empty()
    }

    /// Every other record knows of it now.
    pub(super) fn only_concerns(&self, unaware: BTreeSet<SecretName>) {
        let mut told = self.setbacks.told();
        if self.count < told.count {
            return;
        }
        let unaware = match self.count == told.count {
            true => unaware.intersection(&told.unaware).cloned().collect(),
            false => unaware,
        };
        (told.count, told.unaware) = (self.count, unaware);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(setbacks: &Arc<Setbacks>, count: u64) -> KnownSetback {
        KnownSetback { count, reason: "a backup was restored".into(), setbacks: Arc::clone(setbacks) }
    }

    #[test]
    fn a_setback_concerns_every_secret_and_later_those_that_were_out_of_service() {
        let [a, b] = ["a/db", "b/db"].map(|name| name.parse::<SecretName>().unwrap());
        let setbacks = Arc::new(Setbacks::default());
        let first = known(&setbacks, 1);
        assert!(first.is_new() && first.concerns(&a) && first.concerns(&b));
        first.only_concerns([b.clone()].into());
        let next_term = known(&setbacks, 1);
        assert!(!next_term.is_new() && !next_term.concerns(&a) && next_term.concerns(&b));
        // Out of service for another reason, after it was told.
        next_term.only_concerns([a.clone()].into());
        assert!(!next_term.concerns_any());
        let second = known(&setbacks, 2);
        assert!(second.is_new() && second.concerns(&a));
        second.only_concerns(BTreeSet::new());
        assert!(!second.concerns_any());
    }
}
