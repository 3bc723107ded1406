//! A watch that never skips: a listing, then blocking queries, each of which answers with the whole listing again. What
//! is told is the difference, so that any number of changes within one wait is seen. Whatever interrupts the queries,
//! everything is listed anew.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use rotacast_log_limit::LogLimit;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_stream::wrappers::ReceiverStream;

use super::Shared;
use super::read::Listed;
use crate::history::Floor;
use crate::{Cursor, Entry, Key, StoreError, StoreEvent};

/// Events waiting for a slow reader; when full, the watch waits.
const QUEUE: usize = 64;
/// How long a query waits for news. Every answer is the whole listing, news or not, so it is not short; a server that
/// is silent is noticed no earlier.
const WAIT: Duration = Duration::from_secs(30);
/// Consul adds a random part of up to a sixteenth to a wait, so that watches do not come back together.
const CONSUL_JITTER: u32 = 16;
/// What an answer may be late beyond that.
const LATE: Duration = Duration::from_secs(5);
/// First and longest pause before a lost watch is taken up, or an answer without news is asked for again; with jitter.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Pause between queries per key that was listed, and the longest: under a storm of writes to a large tree, a watch
/// takes up half of one connection at most.
const PAUSE_PER_KEY: Duration = Duration::from_micros(20);
const LONGEST_PACE: Duration = Duration::from_secs(1);

type Told = Result<StoreEvent, StoreError>;

/// How long to wait for the first byte of the answer to a query that waits for `wait`.
pub(super) fn patience(wait: Duration) -> Duration {
    wait + wait / CONSUL_JITTER + LATE
}

/// Why a watch ended.
enum End {
    /// The listener is gone.
    Unheard,
    /// List anew.
    Relist(StoreError),
    /// Retrying cannot mend it.
    Fatal(StoreError),
}

impl From<StoreError> for End {
    fn from(error: StoreError) -> Self {
        if error.is_transient() { End::Relist(error) } else { End::Fatal(error) }
    }
}

struct Watch {
    shared: Arc<Shared>,
    parent: Key,
    events: mpsc::Sender<Told>,
    /// The history it tells: a setback found by whomever ends it.
    begun: Floor,
    /// When each key of the newest listing was written. Kept when listing anew, to compare.
    known: BTreeMap<Key, u64>,
    /// Everything up to this index has been told. Never falls, though Consul's index of a listing may.
    told: u64,
}

pub(super) fn watch(shared: Arc<Shared>, parent: Key) -> BoxStream<'static, Told> {
    let (events, queue) = mpsc::channel(QUEUE);
    let begun = shared.history.floor();
    let watch = Watch { shared, parent, events: events.clone(), begun, known: BTreeMap::new(), told: 0 };
    tokio::spawn(async move {
        tokio::select! {
            () = events.closed() => {}
            () = watch.run() => {}
        }
    });
    ReceiverStream::new(queue).boxed()
}

fn pauses() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::new()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .with_jitter()
        .without_max_times()
        .build()
}

impl Watch {
    async fn run(mut self) {
        let mut waits = pauses();
        loop {
            let before = self.told;
            let Err(end) = self.list_and_follow().await;
            match end {
                End::Unheard => return,
                End::Fatal(error) => {
                    let _ = self.events.send(Err(error)).await;
                    return;
                }
                End::Relist(error) => {
                    self.tell_lost(&error);
                }
            }
            if self.told != before {
                waits = pauses();
            }
            sleep(waits.next().unwrap_or(LONGEST_PAUSE)).await;
        }
    }

    fn tell_lost(&self, error: &StoreError) {
        let (store, parent) = (&self.shared.name, &self.parent);
        if error.is_transient() {
            return tracing::info!(%store, %parent, %error, "watch lost: listing anew");
        }
        static LIMIT: LogLimit = LogLimit::new();
        if let Some(left_out) = LIMIT.admit() {
            tracing::warn!(%store, %parent, %error, left_out, "keys that were read before may not be read any more");
        }
    }

    async fn list_and_follow(&mut self) -> Result<std::convert::Infallible, End> {
        let floor = self.floor()?;
        let listed = self.shared.listed(&self.parent, None, floor).await?;
        self.shared.probe(&self.parent, floor).await?;
        self.still_readable(&self.deleted(&listed.entries)).await?;
        self.same_history(&listed, floor)?;
        let index = listed.index;
        self.told = self.told.max(index);
        self.known = known(&listed.entries);
        self.tell(StoreEvent::Init).await?;
        for entry in listed.entries {
            self.tell(StoreEvent::Listed(entry)).await?;
        }
        self.tell(StoreEvent::Ready(Cursor(self.told))).await?;
        self.follow(index).await
    }

    async fn follow(&mut self, mut index: u64) -> Result<std::convert::Infallible, End> {
        let mut waits = pauses();
        loop {
            let floor = self.floor()?;
            let asked = Instant::now();
            let listed = self.shared.listed(&self.parent, Some((index, WAIT)), floor).await?;
            self.same_history(&listed, floor)?;
            let news = listed.index != index;
            let deleted = self.deleted(&listed.entries);
            // An index that fell, an early answer without news (restoring a backup wakes all queries), keys that
            // vanished, perhaps because they may no longer be read: each has an innocent explanation, or not.
            if listed.index <= index || !deleted.is_empty() {
                self.shared.probe(&self.parent, floor).await?;
            }
            self.still_readable(&deleted).await?;
            // Where the table is still ahead of all that was seen, tombstones were reaped: wait from the new index on.
            index = listed.index;
            let keys = u32::try_from(listed.entries.len()).unwrap_or(u32::MAX);
            self.tell_changes(listed, deleted).await?;
            if news {
                waits = pauses();
                sleep(PAUSE_PER_KEY.saturating_mul(keys).min(LONGEST_PACE)).await;
            } else if asked.elapsed() < WAIT {
                sleep(waits.next().unwrap_or(LONGEST_PAUSE)).await;
            }
        }
    }

    /// Whether keys vanished because they were deleted. If some of them may not be read any more, nothing is known of any: that is
    /// waited out, since the rest of the tree goes on by what was told before.
    async fn still_readable(&self, vanished: &[Key]) -> Result<(), End> {
        self.shared.may_read(vanished).await.map_err(|error| match error {
            StoreError::Denied { .. } => End::Relist(error),
            other => End::from(other),
        })
    }

    /// What an answer that is sent for now must show. Fails if another call found that the store went back.
    fn floor(&self) -> Result<Floor, StoreError> {
        self.shared.history.reached(&self.shared.name, self.begun, 0)?;
        Ok(self.shared.history.floor())
    }

    /// A key written at or before the index that was told, but not as it was told then, belongs to another history: all
    /// that was written up to there had been listed.
    fn same_history(&self, listed: &Listed, floor: Floor) -> Result<(), StoreError> {
        let other = listed.entries.iter().find(|entry| {
            let known = self.known.get(&entry.key);
            (entry.modified.0 <= self.told && known != Some(&entry.modified.0))
                || known.is_some_and(|known| entry.modified.0 < *known)
        });
        // Before the first listing nothing was told.
        let Some(entry) = other.filter(|_| self.told > 0) else { return Ok(()) };
        let problem = format!(
            "{} was written at index {}, which was not so when index {} was told: was it restored from a backup?",
            entry.key, entry.modified.0, self.told
        );
        Err(self.shared.history.went_backwards(&self.shared.name, floor, problem, listed.index))
    }

    fn deleted(&self, entries: &[Entry]) -> Vec<Key> {
        // Both are in key order.
        let mut there = entries.iter().map(|entry| &entry.key).peekable();
        let gone = self.known.keys().filter(|key| {
            while there.next_if(|there| there < key).is_some() {}
            there.peek() != Some(key)
        });
        gone.cloned().collect()
    }

    /// Changed keys in the order of their commits, then those that are gone: when each went is not known, only that
    /// it was not after the newest index.
    async fn tell_changes(&mut self, listed: Listed, deleted: Vec<Key>) -> Result<(), End> {
        let known = known(&listed.entries);
        let mut changed: Vec<Entry> =
            listed.entries.into_iter().filter(|entry| self.known.get(&entry.key) != Some(&entry.modified.0)).collect();
        changed.sort_by(|one, other| one.modified.cmp(&other.modified).then_with(|| one.key.cmp(&other.key)));
        self.told = self.told.max(listed.index);
        self.known = known;
        for entry in changed {
            self.tell(StoreEvent::Put(entry)).await?;
        }
        for key in deleted {
            self.tell(StoreEvent::Deleted { key, cursor: Cursor(self.told) }).await?;
        }
        Ok(())
    }

    async fn tell(&self, event: StoreEvent) -> Result<(), End> {
        self.events.send(Ok(event)).await.map_err(|_| End::Unheard)
    }
}

fn known(entries: &[Entry]) -> BTreeMap<Key, u64> {
    entries.iter().map(|entry| (entry.key.clone(), entry.modified.0)).collect()
}
