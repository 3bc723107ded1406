//! Which logins were refused lately, or did not show that a role without a mark is the value's own.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rotacast_protocol::{SecretName, Version};
use tokio::time::Instant;

use crate::Credential;

/// How long a refusal counts. Each try is a line in the server's log, and may count towards a lockout of a role that has
/// another owner; a version that is on its way out is asked for every few seconds.
const REFUSAL_COUNTS: Duration = Duration::from_secs(600);

/// Most refusals that are remembered: far more values than are written by hand within [`REFUSAL_COUNTS`].
const MOST_REFUSALS: usize = 1024;

/// In memory alone: after a restart each is tried once more.
#[derive(Default)]
pub(super) struct Refusals {
    noted: Mutex<BTreeMap<(SecretName, Version), Instant>>,
}

impl Refusals {
    pub(super) fn note(&self, credential: &Credential) {
        let (now, mut noted) = (Instant::now(), self.noted());
        noted.retain(|_, at| now.duration_since(*at) < REFUSAL_COUNTS);
        if noted.len() < MOST_REFUSALS {
            noted.insert((credential.secret.clone(), credential.version), now);
        }
    }

    pub(super) fn forget(&self, credential: &Credential) {
        self.noted().remove(&(credential.secret.clone(), credential.version));
    }

    pub(super) fn has(&self, credential: &Credential) -> bool {
        let noted = self.noted();
        let at = noted.get(&(credential.secret.clone(), credential.version));
        at.is_some_and(|at| at.elapsed() < REFUSAL_COUNTS)
    }

    fn noted(&self) -> MutexGuard<'_, BTreeMap<(SecretName, Version), Instant>> {
        // A map is whole after every call on it.
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
