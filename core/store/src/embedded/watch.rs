//! A watch: a listing, and then the log of changes, read after every write.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;

use super::Shared;
use super::rows::{self, Changes};
use crate::{Cursor, Key, StoreError, StoreEvent};

/// Events waiting for a slow reader; when full, the watch waits. If it falls too far behind, it lists anew.
const QUEUE: usize = 64;
/// How often the log is read without a wake-up: other processes write too, and cannot wake this one.
const POLL: Duration = Duration::from_millis(100);
/// First and longest pause while the file cannot be read; with jitter.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

type Told = Result<StoreEvent, StoreError>;

/// Why a watch stops telling.
enum Stop {
    /// The listener is gone.
    Unheard,
    Error(StoreError),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Stop::Error(error)
    }
}

pub(super) fn watch(shared: Arc<Shared>, parent: Key) -> BoxStream<'static, Told> {
    let (events, queue) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let closed = events.clone();
        tokio::select! {
            () = closed.closed() => {}
            () = retry(&shared, &parent, &events) => {}
        }
    });
    ReceiverStream::new(queue).boxed()
}

/// Goes on from the last cursor told, until the listener is gone or an error that retrying cannot mend.
async fn retry(shared: &Shared, parent: &Key, events: &mpsc::Sender<Told>) {
    let backoff = ExponentialBuilder::new()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .with_jitter()
        .without_max_times();
    let mut told_upto: Option<Cursor> = None;
    let mut pauses = backoff.build();
    loop {
        let before = told_upto;
        match tell(shared, parent, events, &mut told_upto).await {
            Stop::Unheard => return,
            Stop::Error(error) if error.is_transient() => {
                tracing::warn!(%error, "watching: trying again");
                if told_upto != before {
                    pauses = backoff.build();
                }
                tokio::time::sleep(pauses.next().unwrap_or(LONGEST_PAUSE)).await;
            }
            Stop::Error(error) => {
                let _ = events.send(Err(error)).await;
                return;
            }
        }
    }
}

async fn tell(shared: &Shared, parent: &Key, events: &mpsc::Sender<Told>, upto: &mut Option<Cursor>) -> Stop {
    loop {
        let step = match *upto {
            None => list(shared, parent, events).await.map(Some),
            Some(cursor) => follow(shared, parent, events, cursor).await,
        };
        match step {
            Ok(next) => *upto = next,
            Err(stop) => return stop,
        }
    }
}

async fn list(shared: &Shared, parent: &Key, events: &mpsc::Sender<Told>) -> Result<Cursor, Stop> {
    let below = parent.clone();
    let listing = shared.reader.run(move |connection| rows::list(connection, &below)).await?;
    send(events, StoreEvent::Init).await?;
    for entry in listing.entries {
        send(events, StoreEvent::Listed(entry)).await?;
    }
    send(events, StoreEvent::Ready(listing.cursor)).await?;
    Ok(listing.cursor)
}

/// One batch of changes; waits if there are none. `None`: list anew.
async fn follow(
    shared: &Shared,
    parent: &Key,
    events: &mpsc::Sender<Told>,
    since: Cursor,
) -> Result<Option<Cursor>, Stop> {
    // Subscribed before reading, so that a write in between wakes.
    let mut newest = shared.newest.subscribe();
    newest.mark_unchanged();
    let below = parent.clone();
    match shared.reader.run(move |connection| rows::changes(connection, &below, since)).await? {
        Changes::Forgotten => Ok(None),
        Changes::Backwards(found) => {
            let problem = format!("expected at least cursor {}, found {}", since.0, found.0);
            let floor = shared.history.floor();
            Err(Stop::Error(shared.history.went_backwards(&shared.name, floor, problem, found.0)))
        }
        Changes::Events(changed, upto) => {
            let quiet = upto == since;
            for event in changed {
                send(events, event).await?;
            }
            if quiet {
                // Woken by this process's writes, or after a while in case another process wrote.
                let _ = timeout(POLL, newest.changed()).await;
            }
            Ok(Some(upto))
        }
    }
}

async fn send(events: &mpsc::Sender<Told>, event: StoreEvent) -> Result<(), Stop> {
    events.send(Ok(event)).await.map_err(|_| Stop::Unheard)
}
