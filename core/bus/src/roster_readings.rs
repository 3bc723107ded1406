//! Readings of the whole roster that callers share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use rotacast_proto::Envelope;

use crate::BusError;

/// A reading that takes longer is given up: its callers have gone long before, and the next one begins.
const READING: Duration = Duration::from_secs(30);

type Outcome = Result<Arc<[Envelope]>, BusError>;

/// One reading at a time, which answers every caller that asked before it began. When all secrets rotate at once, a
/// reading for each would keep the server so busy that none of them ends in time.
#[derive(Default)]
pub(crate) struct RosterReadings {
    newest: Mutex<Option<Newest>>,
}

struct Newest {
    /// In a task of its own: a caller that gives up takes nothing from the others.
    outcome: Shared<BoxFuture<'static, Outcome>>,
    /// Callers from now on need another one.
    begun: Arc<AtomicBool>,
}

impl RosterReadings {
    /// What a reading that begins after this call shows: `reading`, unless another one waits to begin.
    pub(crate) async fn read(
        &self,
        endpoint: &str,
        reading: impl Future<Output = Result<Vec<Envelope>, BusError>> + Send + 'static,
    ) -> Result<Vec<Envelope>, BusError> {
        let outcome = self.newest_or(endpoint, reading);
        outcome.await.map(|roster| roster.to_vec())
    }

    fn newest_or(
        &self,
        endpoint: &str,
        reading: impl Future<Output = Result<Vec<Envelope>, BusError>> + Send + 'static,
    ) -> Shared<BoxFuture<'static, Outcome>> {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiting) = newest.as_ref().filter(|newest| !newest.begun.load(Ordering::SeqCst)) {
            return waiting.outcome.clone();
        }
        let before = newest.take().map(|newest| newest.outcome);
        let (begun, endpoint) = (Arc::new(AtomicBool::new(false)), endpoint.to_owned());
        let begins = Arc::clone(&begun);
        let reading = async move {
            if let Some(before) = before {
                drop(before.await);
            }
            begins.store(true, Ordering::SeqCst);
            match tokio::time::timeout(READING, reading).await {
                Ok(outcome) => outcome.map(Into::into),
                Err(_) => Err(BusError::Unreachable { endpoint, problem: "the roster was not read in time".into() }),
            }
        };
        let outcome = reading.boxed().shared();
        tokio::spawn(outcome.clone());
        *newest = Some(Newest { outcome: outcome.clone(), begun });
        outcome
    }
}
