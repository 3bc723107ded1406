//! Subscriptions that run in a task of their own behind a bounded channel, and how long they wait
//! between attempts.

use std::future::Future;
#[cfg(any(feature = "nats", feature = "kafka"))]
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use futures::stream::BoxStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

#[cfg(any(feature = "nats", feature = "kafka"))]
use crate::BusError;

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

/// The newest problem of a call that repeats what it does: its result when its time runs out. Clones share it.
#[cfg(any(feature = "nats", feature = "kafka"))]
#[derive(Clone, Default)]
pub(crate) struct LastProblem(Arc<Mutex<Option<BusError>>>);

#[cfg(any(feature = "nats", feature = "kafka"))]
impl LastProblem {
    pub(crate) fn note(&self, problem: BusError) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(problem);
    }

    pub(crate) fn take(&self) -> Option<BusError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
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

/// The reader of a stream has gone away: stop.
pub(crate) struct Gone;

/// Hands one item on, waiting for room.
pub(crate) async fn deliver<T>(out: &mpsc::Sender<T>, item: T) -> Result<(), Gone> {
    out.send(item).await.map_err(|_| Gone)
}
