//! A topic folded in memory: the last message of every key, in the order they were written, and how far
//! the topic has been read.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rotacast_proto::Envelope;
use rotacast_protocol::Revision;
use tokio::sync::watch;

/// The last message of one key.
#[derive(Clone)]
pub(super) struct Last {
    tick: u64,
    pub(super) envelope: Arc<Envelope>,
    pub(super) revision: Revision,
}

/// How far one partition has been read.
#[derive(Clone, Copy, Default)]
pub(super) struct Place {
    /// Everything below this offset has been read.
    pub(super) reached: i64,
    /// Its end was reached, and no message has come since.
    pub(super) at_end: bool,
    /// A fresh look at the end is under way; once it is there, this offset is reached.
    pub(super) confirming: Option<i64>,
}

pub(super) struct Folded {
    /// Moves whenever the topic is read anew.
    pub(super) generation: u64,
    pub(super) places: Vec<Place>,
    last: HashMap<String, Last>,
    /// Keys by when they were last written.
    by_age: BTreeMap<u64, String>,
    tick: u64,
}

pub(super) struct Replica {
    folded: Mutex<Folded>,
    /// Moves with every change.
    changed: watch::Sender<u64>,
    /// Most keys kept: the newest.
    bound: usize,
}

impl Replica {
    pub(super) fn new(bound: usize) -> Self {
        let folded =
            Folded { generation: 0, places: Vec::new(), last: HashMap::new(), by_age: BTreeMap::new(), tick: 0 };
        Self { folded: Mutex::new(folded), changed: watch::Sender::new(0), bound }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Folded> {
        // Whole after every step, so a panic elsewhere poisons nothing.
        self.folded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(super) fn tell(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// Forgets everything: the topic is read from its beginning.
    pub(super) fn begin(&self, partitions: usize) -> u64 {
        let generation = {
            let mut folded = self.lock();
            folded.generation += 1;
            folded.places = vec![Place::default(); partitions];
            folded.last.clear();
            folded.by_age.clear();
            folded.generation
        };
        self.tell();
        generation
    }

    pub(super) fn put(&self, key: String, envelope: Envelope, revision: Revision) {
        let mut folded = self.lock();
        folded.tick += 1;
        let tick = folded.tick;
        let last = Last { tick, envelope: Arc::new(envelope), revision };
        if let Some(before) = folded.last.insert(key.clone(), last) {
            folded.by_age.remove(&before.tick);
        }
        folded.by_age.insert(tick, key);
        while folded.last.len() > self.bound {
            let Some((_, oldest)) = folded.by_age.pop_first() else { break };
            folded.last.remove(&oldest);
        }
    }

    pub(super) fn remove(&self, key: &str) {
        let mut folded = self.lock();
        if let Some(before) = folded.last.remove(key) {
            folded.by_age.remove(&before.tick);
        }
    }
}

impl Folded {
    pub(super) fn get(&self, key: &str) -> Option<&Last> {
        self.last.get(key)
    }

    pub(super) fn all(&self) -> Vec<Envelope> {
        self.by_age.values().filter_map(|key| self.last.get(key)).map(|last| (*last.envelope).clone()).collect()
    }

    /// Up to `count` messages written after `tick` whose keys are wanted, and the tick they reach.
    pub(super) fn after(&self, tick: u64, count: usize, wanted: impl Fn(&str) -> bool) -> (Vec<Arc<Envelope>>, u64) {
        let mut found = Vec::new();
        for (at, key) in self.by_age.range(tick + 1..) {
            if found.len() == count {
                return (found, at - 1);
            }
            if wanted(key)
                && let Some(last) = self.last.get(key)
            {
                found.push(Arc::clone(&last.envelope));
            }
        }
        (found, self.tick)
    }
}
