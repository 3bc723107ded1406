//! A store, measured.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use rotacast_proto::Finding;
use rotacast_store::{
    Commit, Committed, Entry, Key, Leadership, Listing, ReadStore, Setback, Store, StoreError, StoreEvent, Write,
};
use tokio_util::sync::CancellationToken;

use super::calls::{Calls, Kind};
use super::label::{Counters, counter, counters, histogram, of_calls};

const CALLS: [&str; 3] = ["get", "list", "commit"];
const WAITS: [&str; 2] = ["watch", "campaign"];

/// Own writes whose event a watch has not told yet. A healthy watch tells within milliseconds, and a version is written
/// now and then; beyond it the oldest are forgotten, which costs a measurement.
const MAX_UNTOLD: usize = 256;

impl Kind for StoreError {
    const ALL: &'static [&'static str] = &[
        "unreachable",
        "denied",
        "own_file",
        "unwritable",
        "unknown",
        "too_large",
        "invalid",
        "corrupt",
        "went_backwards",
        "foreign",
        "not_leader",
    ];

    fn kind(&self) -> Option<&'static str> {
        Some(match self {
            StoreError::Unreachable { .. } => "unreachable",
            StoreError::Denied { .. } => "denied",
            StoreError::OwnFile { .. } => "own_file",
            StoreError::Unwritable { .. } => "unwritable",
            StoreError::Unknown { .. } => "unknown",
            StoreError::TooLarge { .. } => "too_large",
            StoreError::Invalid { .. } => "invalid",
            StoreError::Corrupt { .. } => "corrupt",
            StoreError::WentBackwards { .. } => "went_backwards",
            StoreError::Foreign { .. } => "foreign",
            StoreError::NotLeader { .. } => "not_leader",
            // Found above the store, which has answered.
            StoreError::Sealed { .. } | StoreError::Cancelled => return None,
        })
    }
}

/// What is counted of a store.
#[derive(Clone, Debug)]
pub(super) struct StoreCounts {
    calls: Calls,
    conflicts: Counter,
    listings: Counter,
    events: Counters<1>,
    lag: Histogram,
}

impl StoreCounts {
    pub(super) fn register(registry: &mut Registry) -> Self {
        Self {
            calls: Calls::register::<StoreError>(registry, "store", &CALLS, &WAITS),
            conflicts: counter(
                registry,
                "store_conflicts",
                "Commits that conflicted with another write and wrote nothing",
            ),
            listings: counter(
                registry,
                "store_watch_listings",
                "Full listings by watches, at their start or after they lost continuity",
            ),
            events: counters(
                registry,
                "store_watch_events",
                "Events of watches: entries of listings, and single changes",
                "event",
                &["listed", "put", "deleted"],
            ),
            lag: histogram(
                registry,
                "store_watch_lag_seconds",
                "Time from a write of this broadcaster until its own watch reported it; writes of others are not measured",
                of_calls,
            ),
        }
    }
}

impl StoreCounts {
    fn event(&self, event: &Result<StoreEvent, StoreError>) {
        let label = match event {
            Ok(StoreEvent::Listed(_)) => "listed",
            Ok(StoreEvent::Put(_)) => "put",
            Ok(StoreEvent::Deleted { .. }) => "deleted",
            Ok(StoreEvent::Ready(_)) => return,
            Ok(StoreEvent::Init) => {
                self.listings.inc();
                return;
            }
            Err(problem) => return self.calls.failed("watch", problem),
        };
        self.events.get_or_create(&[("event", label)]).inc();
    }
}

/// Own writes below a watched folder that no watch has told yet.
#[derive(Default)]
struct Untold {
    watched: Vec<Key>,
    writes: VecDeque<(Key, Instant)>,
}

impl Untold {
    fn sent(&mut self, commit: &Commit, at: Instant) {
        for write in &commit.writes {
            let Write::Put(key, _) = write else { continue };
            if self.watched.iter().any(|folder| is_below(key, folder)) {
                if self.writes.len() == MAX_UNTOLD {
                    self.writes.pop_front();
                }
                self.writes.push_back((key.clone(), at));
            }
        }
    }

    fn told(&mut self, key: &Key) -> Option<Duration> {
        let found = self.writes.iter().position(|(written, _)| written == key)?;
        self.writes.remove(found).map(|(_, at)| at.elapsed())
    }

    fn forget(&mut self, commit: &Commit) {
        self.writes.retain(|(written, _)| {
            !commit.writes.iter().any(|write| matches!(write, Write::Put(key, _) if key == written))
        });
    }
}

fn is_below(key: &Key, folder: &Key) -> bool {
    key.as_str().strip_prefix(folder.as_str()).is_some_and(|rest| rest.starts_with('/'))
}

/// The store inside, with every call and every event of its watches counted.
pub(super) struct MeasuredStore {
    inner: Arc<dyn Store>,
    counts: StoreCounts,
    untold: Arc<Mutex<Untold>>,
}

fn lock(untold: &Mutex<Untold>) -> MutexGuard<'_, Untold> {
    // Whole after every call on it.
    untold.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MeasuredStore {
    pub(super) fn new(inner: Arc<dyn Store>, counts: StoreCounts) -> Self {
        Self { inner, counts, untold: Arc::default() }
    }

    fn untold(&self) -> MutexGuard<'_, Untold> {
        lock(&self.untold)
    }
}

#[async_trait]
impl ReadStore for MeasuredStore {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.counts.calls.measure("get", self.inner.get(key)).await
    }

    async fn list(&self, parent: &Key) -> Result<Listing, StoreError> {
        self.counts.calls.measure("list", self.inner.list(parent)).await
    }

    fn watch(&self, parent: &Key) -> BoxStream<'static, Result<StoreEvent, StoreError>> {
        {
            let mut untold = self.untold();
            // As many as there are folders that Rotacast watches: two.
            if !untold.watched.contains(parent) {
                untold.watched.push(parent.clone());
            }
        }
        let (counts, untold) = (self.counts.clone(), Arc::clone(&self.untold));
        let told = move |event: &Result<StoreEvent, StoreError>| {
            // After an interruption a listing tells what the watch had no time to.
            if let Ok(StoreEvent::Listed(entry) | StoreEvent::Put(entry)) = event
                && let Some(lag) = lock(&untold).told(&entry.key)
            {
                counts.lag.observe(lag.as_secs_f64());
            }
            counts.event(event);
        };
        self.inner.watch(parent).inspect(told).boxed()
    }
}

#[async_trait]
impl Store for MeasuredStore {
    async fn commit(&self, commit: Commit) -> Result<Committed, StoreError> {
        // Noted before it is sent: the watch may be faster than the answer.
        self.untold().sent(&commit, Instant::now());
        let written = Commit { checks: Vec::new(), writes: commit.writes.clone() };
        let outcome = self.counts.calls.measure("commit", self.inner.commit(commit)).await;
        match &outcome {
            Ok(Committed::Done(_)) => {}
            Ok(Committed::Conflict) => {
                self.counts.conflicts.inc();
                self.untold().forget(&written);
            }
            Err(_) => self.untold().forget(&written),
        }
        outcome
    }

    async fn campaign(
        &self,
        election: &Key,
        candidate: &str,
        ttl: Duration,
        cancel: CancellationToken,
    ) -> Result<Leadership, StoreError> {
        // Waiting for one's turn is no call that takes long.
        let outcome = self.inner.campaign(election, candidate, ttl, cancel).await;
        outcome.inspect_err(|problem| self.counts.calls.failed("campaign", problem))
    }

    fn setback(&self) -> Option<Setback> {
        self.inner.setback()
    }

    async fn examine(&self) -> Vec<Finding> {
        self.inner.examine().await
    }
}
