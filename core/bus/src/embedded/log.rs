//! A compacted log in memory: the last message of every key, and a bounded channel of newer ones.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};

use futures::StreamExt as _;
use futures::stream::BoxStream;
use rotacast_proto::Envelope;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::lock;
use crate::{BusError, BusEvent};

/// How far a subscriber may fall behind before it has to begin anew. A slot costs two pointers.
const LIVE_MESSAGES: usize = 4096;

pub(super) struct Log<K> {
    last: BTreeMap<K, (u64, Arc<Envelope>)>,
    /// Keys by when they were last written.
    by_age: BTreeMap<u64, K>,
    tick: u64,
    live: broadcast::Sender<(K, Arc<Envelope>)>,
}

impl<K: Ord + Clone> Log<K> {
    pub(super) fn new() -> Self {
        let (live, _) = broadcast::channel(LIVE_MESSAGES);
        Self { last: BTreeMap::new(), by_age: BTreeMap::new(), tick: 0, live }
    }

    pub(super) fn put(&mut self, key: K, envelope: Envelope) {
        let envelope = Arc::new(envelope);
        self.tick += 1;
        if let Some((before, _)) = self.last.insert(key.clone(), (self.tick, Arc::clone(&envelope))) {
            self.by_age.remove(&before);
        }
        self.by_age.insert(self.tick, key.clone());
        // It is no error if no subscriber listens: newcomers read `last`.
        drop(self.live.send((key, envelope)));
    }

    pub(super) fn remove(&mut self, key: &K) {
        if let Some((tick, _)) = self.last.remove(key) {
            self.by_age.remove(&tick);
        }
    }

    pub(super) fn forget_oldest_beyond(&mut self, bound: usize) {
        while self.last.len() > bound {
            let Some((_, oldest)) = self.by_age.pop_first() else { break };
            self.last.remove(&oldest);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.last.len()
    }

    /// The last message of every wanted key; `None`: of every key.
    pub(super) fn all(&self, wanted: Option<&BTreeSet<K>>) -> Vec<Arc<Envelope>> {
        match wanted {
            None => self.last.values().map(|(_, envelope)| Arc::clone(envelope)).collect(),
            Some(keys) => {
                keys.iter().filter_map(|key| self.last.get(key)).map(|(_, envelope)| Arc::clone(envelope)).collect()
            }
        }
    }
}

/// A subscription that costs nothing but its place in the log: no task, dropped at any moment.
pub(super) fn watch<K: Ord + Clone + Send + Sync + 'static>(
    log: &Arc<Mutex<Log<K>>>,
    wanted: Option<BTreeSet<K>>,
    closed: CancellationToken,
) -> BoxStream<'static, Result<BusEvent, BusError>> {
    let subscription = Subscription::begin(Arc::clone(log), wanted, closed);
    futures::stream::unfold(Some(subscription), |state| async {
        let mut subscription = state?;
        match subscription.next().await {
            Some(event) => Some((Ok(event), Some(subscription))),
            // The error is the last item.
            None => Some((Err(BusError::Cancelled), None)),
        }
    })
    .boxed()
}

struct Subscription<K> {
    log: Arc<Mutex<Log<K>>>,
    wanted: Option<BTreeSet<K>>,
    live: broadcast::Receiver<(K, Arc<Envelope>)>,
    resync: bool,
    listing: VecDeque<Arc<Envelope>>,
    caught_up: bool,
    closed: CancellationToken,
}

impl<K: Ord + Clone> Subscription<K> {
    fn begin(log: Arc<Mutex<Log<K>>>, wanted: Option<BTreeSet<K>>, closed: CancellationToken) -> Self {
        let (live, listing) = Self::list(&log, wanted.as_ref());
        Self { log, wanted, live, resync: false, listing, caught_up: false, closed }
    }

    /// Listing and live channel under one lock: nothing is missed between them.
    #[allow(clippy::type_complexity)]
    fn list(
        log: &Mutex<Log<K>>,
        wanted: Option<&BTreeSet<K>>,
    ) -> (broadcast::Receiver<(K, Arc<Envelope>)>, VecDeque<Arc<Envelope>>) {
        let log = lock(log);
        (log.live.subscribe(), log.all(wanted).into())
    }

    /// The next event; `None` when the bus was closed.
    async fn next(&mut self) -> Option<BusEvent> {
        loop {
            if self.closed.is_cancelled() {
                return None;
            }
            if std::mem::take(&mut self.resync) {
                return Some(BusEvent::Resync);
            }
            if let Some(envelope) = self.listing.pop_front() {
                return Some(BusEvent::Message((*envelope).clone()));
            }
            if !self.caught_up {
                self.caught_up = true;
                return Some(BusEvent::CaughtUp);
            }
            let received = tokio::select! {
                received = self.live.recv() => received,
                () = self.closed.cancelled() => return None,
            };
            match received {
                Ok((key, envelope)) => {
                    if self.wanted.as_ref().is_none_or(|wanted| wanted.contains(&key)) {
                        return Some(BusEvent::Message((*envelope).clone()));
                    }
                }
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    (self.live, self.listing) = Self::list(&self.log, self.wanted.as_ref());
                    self.resync = true;
                    self.caught_up = false;
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}
