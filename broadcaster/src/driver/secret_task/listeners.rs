//! Keeps those who watch the secret up to date.

use std::sync::Arc;
use std::time::Duration;

use rotacast_clock as clock;
use rotacast_protocol::Instant;
use rotacast_protocol::status::SecretStatus;

use super::SecretTask;
use crate::metrics::{Figures, Standings};

/// Shortest time between two status updates to listeners.
const STATUS_INTERVAL: Duration = Duration::from_millis(100);

/// Longest time for which an instance that fell silent is shown as live: while a secret has members, its status is made
/// anew at least this often.
const STANDINGS_INTERVAL: Duration = Duration::from_secs(60);

impl SecretTask {
    /// Updates listeners: of a new revision at once, of anything else at most every so often, since a status looks at
    /// every member.
    pub(super) fn publish_status(&mut self) {
        let coordinator = self.machine.coordinator();
        let (at, revision) = (clock::now(), coordinator.record().revision);
        let held_back = at.instant.since(self.told.0) < STATUS_INTERVAL;
        if revision == self.told.1 && (!self.changed || held_back) {
            return;
        }
        self.told = (at.instant, revision);
        self.changed = false;
        let fresh = SecretStatus::of(coordinator, self.settings.shown(coordinator.record()), at);
        self.figures.tell(Figures::of(coordinator, &fresh, Standings::of(coordinator, at)));
        let changed = self.status.send_if_modified(|status| {
            let changed = **status != fresh;
            if changed {
                *status = Arc::new(fresh);
            }
            changed
        });
        if changed {
            self.secrets.announce(self.secret.clone());
        }
    }

    /// When listeners are updated next, if nothing else happens before: a status that was held back is due soon after.
    pub(super) fn status_due(&self) -> Option<Instant> {
        let has_members = || self.machine.coordinator().members().any(|member| !member.is_gone());
        match self.changed {
            true => Some(self.told.0 + STATUS_INTERVAL),
            false => has_members().then(|| self.told.0 + STANDINGS_INTERVAL),
        }
    }
}
