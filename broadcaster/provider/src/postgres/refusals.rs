//! Which logins were refused lately, or did not show that a role without a mark is the value's own.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rotacast_protocol::{SecretName, Version};
use tokio::time::Instant;
use tracing::warn;

use crate::Credential;

/// How long a refusal counts. Each try is a line in the server's log, and may count towards a lockout of a role that has
/// another owner; a version that is on its way out is asked for every few seconds.
const REFUSAL_COUNTS: Duration = Duration::from_secs(600);

/// Most refusals that are remembered: far more values than are written by hand within [`REFUSAL_COUNTS`]. With as many, no
/// further login is tried.
const MOST_REFUSALS: usize = 1024;

/// In memory alone: after a restart each is tried once more.
#[derive(Default)]
pub(super) struct Refusals {
    noted: Mutex<BTreeMap<(SecretName, Version), Noted>>,
    /// Of this process: what is kept of a value tells nothing about it.
    prints: RandomState,
}

struct Noted {
    at: Instant,
    /// Of the value: after a restore another one may have its number.
    print: u64,
    /// What the server said.
    why: String,
}

impl Refusals {
    pub(super) fn note(&self, credential: &Credential, why: &str) {
        let mut noted = self.noted();
        if noted.len() >= MOST_REFUSALS {
            return;
        }
        let print = self.prints.hash_one(credential.value.expose());
        noted.insert(
            (credential.secret.clone(), credential.version),
            Noted { at: Instant::now(), print, why: why.to_owned() },
        );
        if noted.len() == MOST_REFUSALS {
            warn!(
                MOST_REFUSALS,
                "as many logins as are remembered were refused lately: values that others wrote are not tried"
            );
        }
    }

    pub(super) fn forget(&self, credential: &Credential) {
        self.noted().remove(&(credential.secret.clone(), credential.version));
    }

    /// Why no login is to be tried now, if none is.
    pub(super) fn against(&self, credential: &Credential) -> Option<String> {
        let noted = self.noted();
        let print = self.prints.hash_one(credential.value.expose());
        match noted.get(&(credential.secret.clone(), credential.version)) {
            Some(noted) if noted.print == print => Some(format!(
                "{}; it is not tried again within {} minutes of that try",
                noted.why,
                REFUSAL_COUNTS.as_secs() / 60
            )),
            _ if noted.len() >= MOST_REFUSALS => Some(format!(
                "{MOST_REFUSALS} logins were refused within {} minutes, so no further one is tried until they are over",
                REFUSAL_COUNTS.as_secs() / 60
            )),
            _ => None,
        }
    }

    /// Those that count still.
    fn noted(&self) -> MutexGuard<'_, BTreeMap<(SecretName, Version), Noted>> {
        // A map is whole after every call on it.
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        noted.retain(|_, noted| noted.at.elapsed() < REFUSAL_COUNTS);
        noted
    }
}

#[cfg(test)]
mod tests {
    use rotacast_proto::SecretValue;

    use super::*;

    fn credential(number: u64, value: &str) -> Credential {
        let value = SecretValue::new(value.as_bytes().to_vec());
        Credential { secret: "payments/db".parse().unwrap(), version: Version::new(number).unwrap(), value }
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_login_is_not_repeated_and_with_too_many_of_them_none_is_tried_unseen() {
        let refusals = Refusals::default();
        let why = |number, value| refusals.against(&credential(number, value)).unwrap_or_default();
        refusals.note(&credential(1, "a"), "the login is refused: 28P01");
        let told = "the login is refused: 28P01; it is not tried again within 10 minutes of that try";
        assert_eq!(why(1, "a"), told, "at once");
        tokio::time::advance(REFUSAL_COUNTS / 2).await;
        assert_eq!(why(1, "a"), told, "later");
        assert_eq!(why(1, "another value under this number"), "");
        assert_eq!(why(2, "a"), "");
        for number in 2..=MOST_REFUSALS as u64 {
            refusals.note(&credential(number, "a"), "no");
        }
        refusals.note(&credential(5000, "a"), "no");
        assert!(why(5000, "a").contains("1024 logins were refused within 10 minutes"), "{}", why(5000, "a"));
        refusals.forget(&credential(7, "a"));
        assert_eq!(why(5000, "a"), "");
        tokio::time::advance(REFUSAL_COUNTS).await;
        assert_eq!(why(1, "a"), "");
    }
}
