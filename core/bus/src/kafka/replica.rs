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
    partition: usize,
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
    /// What the messages and keys take, about.
    bytes: usize,
    tick: u64,
}

pub(super) struct Replica {
    folded: Mutex<Folded>,
    /// Moves with every change.
    changed: watch::Sender<u64>,
    bound: Bound,
}

/// Most that is kept.
#[derive(Clone, Copy)]
pub(super) struct Bound {
    pub(super) keys: usize,
    pub(super) bytes: usize,
    /// What does not fit is refused, since a reader must see all of it; otherwise the newest are kept.
    pub(super) whole: bool,
}

/// What a message takes beside its payload and subject: the other attributes, and its places in two maps.
const OVERHEAD: usize = 512;

fn size(key: &str, envelope: &Envelope) -> usize {
    envelope.payload.len() + envelope.subject.len() + 2 * key.len() + OVERHEAD
}

impl Replica {
    pub(super) fn new(bound: Bound) -> Self {
        let folded = Folded {
            generation: 0,
            places: Vec::new(),
            last: HashMap::new(),
            by_age: BTreeMap::new(),
            bytes: 0,
            tick: 0,
        };
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

    /// Forgets everything: the topic is read from where each of its partitions begins.
    pub(super) fn begin(&self, starts: &[i64]) -> u64 {
        let generation = {
            let mut folded = self.lock();
            folded.generation += 1;
            folded.places = starts.iter().map(|&reached| Place { reached, ..Place::default() }).collect();
            folded.last.clear();
            folded.by_age.clear();
            folded.bytes = 0;
            folded.generation
        };
        self.tell();
        generation
    }

    /// `false`: it does not fit, and nothing may be left out.
    ///
    /// A key moves when its topic gets more partitions, and its old messages stay behind. Of two partitions the newer
    /// revision counts.
    pub(super) fn put(&self, key: String, partition: usize, envelope: Envelope, revision: Revision) -> bool {
        let mut folded = self.lock();
        if folded.get(&key).is_some_and(|last| last.partition != partition && last.revision > revision) {
            return true;
        }
        folded.tick += 1;
        let tick = folded.tick;
        folded.remove(&key);
        folded.bytes += size(&key, &envelope);
        folded.last.insert(key.clone(), Last { tick, partition, envelope: Arc::new(envelope), revision });
        folded.by_age.insert(tick, key);
        while folded.last.len() > self.bound.keys || folded.bytes > self.bound.bytes {
            if self.bound.whole {
                return false;
            }
            let Some(oldest) = folded.by_age.first_key_value().map(|(_, key)| key.clone()) else { break };
            folded.remove(&oldest);
        }
        true
    }

    pub(super) fn remove(&self, key: &str) {
        self.lock().remove(key);
    }
}

impl Folded {
    fn remove(&mut self, key: &str) {
        if let Some(before) = self.last.remove(key) {
            self.by_age.remove(&before.tick);
            self.bytes -= size(key, &before.envelope);
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Last> {
        self.last.get(key)
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn put(replica: &Replica, key: &str, bytes: usize) -> bool {
        put_at(replica, key, (0, 0), bytes)
    }

    fn put_at(replica: &Replica, key: &str, (partition, revision): (usize, u64), bytes: usize) -> bool {
        let envelope = Envelope {
            id: String::new(),
            kind: String::new(),
            source: String::new(),
            subject: key.into(),
            time: String::new(),
            traceparent: String::new(),
            key_id: String::new(),
            attestation: String::new(),
            signature: Bytes::new(),
            payload: Bytes::from(vec![0; bytes]),
        };
        replica.put(key.into(), partition, envelope, Revision(revision))
    }

    fn kept(replica: &Replica) -> Vec<String> {
        let (all, _) = replica.lock().after(0, usize::MAX, |_| true);
        all.iter().map(|envelope| envelope.subject.clone()).collect()
    }

    #[test]
    fn the_newest_within_both_bounds_are_kept() {
        let replica = Replica::new(Bound { keys: 3, bytes: 10_000, whole: false });
        for key in ["a", "b", "c", "d"] {
            assert!(put(&replica, key, 10));
        }
        assert_eq!(kept(&replica), ["b", "c", "d"]);
        assert!(put(&replica, "b", 8_000));
        assert_eq!(kept(&replica), ["c", "d", "b"]);
        assert!(put(&replica, "c", 4_000));
        assert_eq!(kept(&replica), ["c"], "the oldest go until the rest fits");
    }

    #[test]
    fn what_a_key_that_moved_left_behind_does_not_count() {
        let replica = Replica::new(Bound { keys: 3, bytes: 10_000, whole: true });
        let revision = |replica: &Replica| replica.lock().get("a").unwrap().revision;
        for place in [(4, 7), (1, 6), (4, 5), (1, 6)] {
            assert!(put_at(&replica, "a", place, 10));
        }
        // 6 is older than 7 of another partition; 5 follows on 7 in its own; then 6 is newer.
        assert_eq!(revision(&replica), Revision(6));
        assert!(put_at(&replica, "a", (4, 5), 10));
        assert_eq!(revision(&replica), Revision(6));
    }

    #[test]
    fn where_all_must_be_seen_what_does_not_fit_is_refused() {
        let replica = Replica::new(Bound { keys: 3, bytes: 10_000, whole: true });
        assert!(["a", "b", "c"].iter().all(|key| put(&replica, key, 10)));
        assert!(put(&replica, "a", 20), "it takes its own place");
        assert!(!put(&replica, "d", 10));
        let replica = Replica::new(Bound { keys: 3, bytes: 10_000, whole: true });
        assert!(put(&replica, "a", 8_000) && !put(&replica, "b", 8_000));
    }

    #[test]
    fn what_goes_gives_its_bytes_back() {
        let replica = Replica::new(Bound { keys: 3, bytes: 10_000, whole: false });
        for round in 0..100 {
            assert!(put(&replica, "a", 8_000 + round));
            assert_eq!(kept(&replica), ["a"]);
        }
        replica.remove("a");
        assert_eq!(replica.lock().bytes, 0);
        assert!(put(&replica, "b", 9_000));
        replica.begin(&[0]);
        assert_eq!(replica.lock().bytes, 0);
    }
}
