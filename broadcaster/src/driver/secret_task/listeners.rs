//! Keeps those who watch the secret up to date.

use std::sync::Arc;
use std::time::Duration;

use rotacast_clock as clock;
use rotacast_protocol::Instant;
use rotacast_protocol::coordinator::Overlay;
use rotacast_protocol::status::SecretStatus;
use tracing::{info, warn};

use super::SecretTask;
use super::question::status;
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
        if revision != self.told.1 {
            self.secrets.heard().interval(self.secret.clone(), coordinator.record().longest_sync());
        }
        self.told = (at.instant, revision);
        self.changed = false;
        let fresh = status(coordinator, &self.settings, &self.environment.findings, at);
        let was_stuck = std::mem::replace(&mut self.stuck, fresh.overlays.contains(&Overlay::Stuck));
        log_stuck(&fresh, was_stuck, self.stuck);
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

/// Blockers that one line of the log names; `rotacast why` lists them all.
const BLOCKERS_LOGGED: usize = 3;

/// The log says when a secret becomes stuck, what it waits for then, and when that is over.
fn log_stuck(status: &SecretStatus, was: bool, is: bool) {
    let secret = &status.secret;
    match (was, is) {
        (false, true) => {
            let phase = status.rotation.as_ref().map_or("no rotation", |rotation| rotation.phase.words());
            let names = status.blockers.iter().take(BLOCKERS_LOGGED).map(|it| match &it.who {
                Some(who) => format!("{}: {who}: {}", it.condition, it.why),
                None => format!("{}: {}", it.condition, it.why),
            });
            let waits_for = names.collect::<Vec<_>>().join("; ");
            let things = status.blockers.len();
            warn!(%secret, phase, things, waits_for, "stuck: `rotacast why` says what it waits for and what can be done");
        }
        (true, false) => info!(%secret, "no longer stuck"),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Mutex;

    use rotacast_protocol::coordinator::ConditionName;
    use rotacast_protocol::status::BlockerStatus;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(text)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_log_says_once_when_a_secret_becomes_stuck_and_when_that_is_over() {
        let lines = Lines::default();
        let written = lines.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || written.clone()).finish();
        let mut status = SecretStatus::new("payments/db".parse().unwrap());
        status.blockers.push(BlockerStatus {
            condition: ConditionName::Prepared,
            who: Some("api/pod-1#0a0a0a0a".into()),
            why: "silent for 10 min".into(),
            since: None,
            next: String::new(),
            command: None,
        });
        tracing::subscriber::with_default(subscriber, || {
            for (was, is) in [(false, false), (false, true), (true, true), (true, false)] {
                log_stuck(&status, was, is);
            }
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let [begins, ends] = lines[..] else { panic!("{text}") };
        assert!(begins.contains("WARN") && begins.contains("stuck:") && begins.contains("payments/db"), "{begins}");
        assert!(begins.contains("prepared: api/pod-1#0a0a0a0a: silent for 10 min"), "{begins}");
        assert!(ends.contains("INFO") && ends.contains("no longer stuck"), "{ends}");
    }
}
