//! Subscriptions that run in a task of their own behind a bounded channel, and how long they wait
//! between attempts.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use futures::stream::BoxStream;
use rotacast_proto::{Finding, Level};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

/// First pause between attempts; far above a healthy server's answer.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Longest pause: a returning server is found again within this and its jitter.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// Pauses between attempts, growing and with jitter, so that a thousand instances do not return at once.
pub(crate) fn pauses() -> impl Iterator<Item = Duration> + Send {
    ExponentialBuilder::default()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .with_jitter()
        .without_max_times()
        .build()
}

/// The next pause of an endless row.
pub(crate) fn next_pause(pauses: &mut impl Iterator<Item = Duration>) -> Duration {
    pauses.next().unwrap_or(LONGEST_PAUSE)
}

/// Runs `work` until it ends by itself or its stream has no reader any more. A reader that falls behind makes
/// `work` wait once `capacity` items are under way.
pub(crate) fn spawn<T, F, W>(capacity: usize, work: W) -> BoxStream<'static, T>
where
    T: Send + 'static,
    F: Future<Output = ()> + Send,
    W: FnOnce(mpsc::Sender<T>) -> F + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(capacity);
    let gone = sender.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = gone.closed() => {}
            () = work(sender) => {}
        }
    });
    Box::pin(ReceiverStream::new(receiver))
}

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

/// The reader of a stream has gone away: stop.
pub(crate) struct Gone;

/// Hands one item on, waiting for room.
pub(crate) async fn deliver<T>(out: &mpsc::Sender<T>, item: T) -> Result<(), Gone> {
    out.send(item).await.map_err(|_| Gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_does_not_get_on_is_a_finding_and_one_that_recovers_is_none() {
        let restarts = Restarts::default();
        for _ in 0..3 {
            restarts.note("ROSTER", "its server was restarted".into());
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
