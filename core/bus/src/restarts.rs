//! Readers that start anew again and again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
#[cfg(feature = "leader")]
use std::time::Duration;

#[cfg(feature = "leader")]
use rotacast_proto::{Finding, Level};
use tokio::time::Instant;

/// Readers that start anew again and again. One restart is how a reader recovers; many in a row are a fault that would
/// otherwise show in no call.
#[derive(Default)]
pub(crate) struct Restarts(Mutex<BTreeMap<String, Recent>>);

/// The restarts of one reader that count, at most [`MANY_RESTARTS`], and why the last one was.
#[derive(Default)]
struct Recent {
    at: VecDeque<Instant>,
    why: String,
}

/// So many restarts within so long are a finding: pauses between attempts grow to 3 s, so a reader that never gets on
/// restarts about twenty times in a minute, and one that follows a server's restart about twice.
const MANY_RESTARTS: usize = 6;
#[cfg(feature = "leader")]
const RESTARTS_WITHIN: Duration = Duration::from_secs(60);

impl Restarts {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Recent>> {
        // Whole after every call on it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more, of the reader of this log.
    pub(crate) fn note(&self, log: &str, why: String) {
        let mut all = self.all();
        let recent = all.entry(log.to_owned()).or_default();
        recent.at.push_back(Instant::now());
        if recent.at.len() > MANY_RESTARTS {
            recent.at.pop_front();
        }
        recent.why = why;
    }
}

/// For those that look at the bus as a whole.
#[cfg(feature = "leader")]
impl Restarts {
    /// The server was away: what happened until then has its reason.
    pub(crate) fn clear(&self) {
        self.all().clear();
    }

    /// Readers that do not get on.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        let many = |recent: &Recent| {
            recent.at.len() == MANY_RESTARTS && recent.at.front().is_some_and(|first| first.elapsed() < RESTARTS_WITHIN)
        };
        let finding = |(log, recent): (&String, &Recent)| Finding {
            level: Level::Error,
            subject: format!("reader of {log}"),
            text: format!("starts anew again and again: {}", recent.why),
            fix: "look at the settings of this log and at the server's own log".into(),
        };
        self.all().iter().filter(|(_, recent)| many(recent)).map(finding).collect()
    }
}

#[cfg(all(test, feature = "leader"))]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_does_not_get_on_is_a_finding_and_one_that_recovers_is_none() {
        let restarts = Restarts::default();
        for _ in 0..3 {
            restarts.note("REGISTRATIONS", "its server was restarted".into());
        }
        assert_eq!(restarts.findings(), []);
        for number in 0..50 {
            restarts.note("REPORTS", format!("reason {number}"));
            tokio::time::advance(Duration::from_secs(3)).await;
        }
        let found = restarts.findings();
        assert!(matches!(&found[..], [finding] if finding.subject == "reader of REPORTS"), "{found:?}");
        assert!(found[0].text.ends_with("reason 49"), "{found:?}");
        tokio::time::advance(RESTARTS_WITHIN).await;
        assert_eq!(restarts.findings(), []);
        for _ in 0..50 {
            restarts.note("REPORTS", "a gap".into());
            tokio::time::advance(Duration::from_secs(30)).await;
        }
        assert_eq!(restarts.findings(), [], "now and then");
    }
}
