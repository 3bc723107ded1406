//! What a watch of the versions means: each number of a secret announced once, in order, without a gap. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use rotacast_protocol::{SecretName, Version};

use super::destroyed::Destroyed;
use super::{VersionStamp, parse_version_key};
use crate::{Cursor, Entry, Key, StoreEvent};

/// Most bad keys that are remembered so as to be reported once; beyond it they are reported at every listing.
const MAX_IGNORED_REMEMBERED: usize = 1024;
/// Most deleted versions of a secret that are remembered, the newest: more than can be in use. Older ones that are written again
/// are ignored.
const MAX_DELETED_REMEMBERED: usize = 64;

/// One step in the life of the versions. Never carries a value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum VersionEvent {
    /// A version that existed when the watch began. The first of a secret may have any number: older ones were
    /// destroyed.
    Listed {
        /// Whose.
        secret: SecretName,
        /// Which, and when.
        stamp: VersionStamp,
    },
    /// A version that came later, whether the watch saw it come or a listing after a loss of continuity showed it.
    Added {
        /// Whose.
        secret: SecretName,
        /// Which, and when.
        stamp: VersionStamp,
    },
    /// A version's key was written again, in place or after it was deleted, though versions never change. What it holds now
    /// may not be what was announced.
    Changed {
        /// Whose.
        secret: SecretName,
        /// Which, and when.
        stamp: VersionStamp,
    },
    /// A version's key was deleted.
    Deleted {
        /// Whose.
        secret: SecretName,
        /// Which.
        version: Version,
        /// When it was seen to be gone.
        cursor: Cursor,
    },
    /// Numbers were skipped that were never destroyed. `found` and what follows it is held back until the missing
    /// ones are stored, or noted as destroyed.
    Gap {
        /// Whose.
        secret: SecretName,
        /// The first missing number.
        missing: Version,
        /// The number that came instead.
        found: Version,
    },
    /// No version is held back any more.
    GapClosed {
        /// Whose.
        secret: SecretName,
    },
    /// A key that is no version, or a number below those announced. Reported once.
    Ignored {
        /// Which key.
        key: Key,
        /// What is wrong with it.
        problem: String,
    },
    /// Everything stored as of this cursor has been announced, or is behind a reported gap.
    Resynced(Cursor),
}

/// What is known of one secret.
#[derive(Default)]
struct Secret {
    /// The highest number that the reader knew before: no number up to it is missing.
    known: Option<Version>,
    /// The highest number announced, or skipped because it was destroyed.
    last: Option<Version>,
    /// The announced ones that still exist. No more than the store itself holds.
    living: BTreeMap<Version, VersionStamp>,
    /// The announced ones that were deleted.
    deleted: BTreeSet<Version>,
    /// The ones behind a gap. No more than the store itself holds.
    held: BTreeMap<Version, VersionStamp>,
    /// The missing number last reported.
    reported: Option<Version>,
}

/// Turns store events into version events. A gap is only reported once [`VersionLog::settle`] has been told which
/// numbers were destroyed.
pub(super) struct VersionLog {
    folder: Key,
    /// The highest number of each secret that the reader knew before, until the secret is met.
    known: BTreeMap<SecretName, Version>,
    secrets: BTreeMap<SecretName, Secret>,
    /// The secrets with versions behind a gap.
    gaps: BTreeSet<SecretName>,
    /// Those of them whose held versions have changed since they were settled.
    unsettled: BTreeSet<SecretName>,
    listing: Option<BTreeMap<SecretName, BTreeMap<Version, VersionStamp>>>,
    listed_before: bool,
    ignored: BTreeSet<Key>,
    out: Vec<VersionEvent>,
}

impl VersionLog {
    /// `known`: the highest number of each secret that the reader knows already.
    pub(super) fn new(folder: Key, known: BTreeMap<SecretName, Version>) -> Self {
        Self {
            folder,
            known,
            secrets: BTreeMap::new(),
            gaps: BTreeSet::new(),
            unsettled: BTreeSet::new(),
            listing: None,
            listed_before: false,
            ignored: BTreeSet::new(),
            out: Vec::new(),
        }
    }

    /// Takes in one event of the store. A `Ready` is answered by everything but the `Resynced`, which the caller
    /// adds with [`VersionLog::resynced`] once it has settled the gaps.
    pub(super) fn take(&mut self, event: StoreEvent) {
        match event {
            StoreEvent::Init => self.listing = Some(BTreeMap::new()),
            StoreEvent::Listed(entry) => {
                if let Some((secret, stamp)) = self.parse(&entry)
                    && let Some(listing) = &mut self.listing
                {
                    listing.entry(secret).or_default().insert(stamp.version, stamp);
                }
            }
            StoreEvent::Ready(cursor) => self.ready(cursor),
            StoreEvent::Put(entry) => {
                if let Some((secret, stamp)) = self.parse(&entry) {
                    self.put(&secret, stamp);
                }
            }
            StoreEvent::Deleted { key, cursor } => {
                if let Ok((secret, version)) = self.place(&key) {
                    self.deleted(&secret, version, cursor);
                }
                self.ignored.remove(&key);
            }
        }
    }

    /// Whether any secret has versions behind a gap.
    pub(super) fn has_gaps(&self) -> bool {
        !self.gaps.is_empty()
    }

    /// The secrets with versions behind a gap.
    pub(super) fn gaps(&self) -> Vec<SecretName> {
        self.gaps.iter().cloned().collect()
    }

    /// Those of them that have news since they were last settled.
    pub(super) fn unsettled(&self) -> Vec<SecretName> {
        self.unsettled.iter().cloned().collect()
    }

    /// Told which numbers of a secret were destroyed: announces what is no longer behind a gap, reports what is.
    pub(super) fn settle(&mut self, name: &SecretName, destroyed: &Destroyed) {
        let Some(secret) = self.secrets.get_mut(name) else { return };
        self.unsettled.remove(name);
        while let (Some(last), Some(first_held)) = (secret.last, secret.held.keys().next().copied()) {
            if first_held == last.next() {
                release(secret, name, self.listed_before, &mut self.out);
                continue;
            }
            let known = secret.known.filter(|known| *known > last);
            match known.or_else(|| destroyed.last_of_range(last.next())) {
                // Held ones exist, so a destroyed range cannot reach beyond the first of them; should the note
                // say so nevertheless, the stored key wins.
                Some(through) => {
                    let below = Version::new(first_held.get() - 1).expect("a held number is above last, so above 1");
                    secret.last = Some(through.min(below));
                }
                None => {
                    if secret.reported.replace(last.next()) != Some(last.next()) {
                        let event = VersionEvent::Gap { secret: name.clone(), missing: last.next(), found: first_held };
                        self.out.push(event);
                    }
                    return;
                }
            }
        }
        self.gaps.remove(name);
        close(secret, name, &mut self.out);
    }

    /// Something has changed about the versions of a secret that are behind a gap, if any are.
    fn held_changed(&mut self, name: &SecretName) {
        let Some(secret) = self.secrets.get_mut(name) else { return };
        if secret.held.is_empty() {
            self.gaps.remove(name);
            self.unsettled.remove(name);
            close(secret, name, &mut self.out);
        } else {
            self.gaps.insert(name.clone());
            self.unsettled.insert(name.clone());
        }
    }

    pub(super) fn resynced(&mut self, cursor: Cursor) {
        self.listed_before = true;
        self.out.push(VersionEvent::Resynced(cursor));
    }

    /// What came of it, in order.
    pub(super) fn drain(&mut self) -> Vec<VersionEvent> {
        mem::take(&mut self.out)
    }

    fn place(&self, key: &Key) -> Result<(SecretName, Version), String> {
        parse_version_key(key.below(&self.folder).ok_or_else(|| format!("expected it below {}", self.folder))?)
    }

    fn parse(&mut self, entry: &Entry) -> Option<(SecretName, VersionStamp)> {
        match self.place(&entry.key) {
            Ok((secret, version)) => {
                Some((secret, VersionStamp { version, created: entry.created, modified: entry.modified }))
            }
            Err(problem) => {
                self.ignore(entry.key.clone(), problem);
                None
            }
        }
    }

    fn ignore(&mut self, key: Key, problem: String) {
        if self.ignored.contains(&key) {
            return;
        }
        if self.ignored.len() < MAX_IGNORED_REMEMBERED {
            self.ignored.insert(key.clone());
        }
        self.out.push(VersionEvent::Ignored { key, problem });
    }

    fn ready(&mut self, cursor: Cursor) {
        let Some(listing) = self.listing.take() else { return };
        for (name, secret) in &mut self.secrets {
            let listed = listing.get(name);
            let stays = |version: &Version| listed.is_some_and(|listed| listed.contains_key(version));
            secret.held.retain(|version, _| stays(version));
            if secret.held.is_empty() {
                self.gaps.remove(name);
                self.unsettled.remove(name);
                close(secret, name, &mut self.out);
            }
            let gone: Vec<Version> = secret.living.keys().copied().filter(|version| !stays(version)).collect();
            for version in gone {
                secret.is_deleted(version);
                self.out.push(VersionEvent::Deleted { secret: name.clone(), version, cursor });
            }
        }
        for (name, stamps) in listing {
            for stamp in stamps.into_values() {
                self.put(&name, stamp);
            }
        }
    }

    fn put(&mut self, name: &SecretName, stamp: VersionStamp) {
        let known = &mut self.known;
        let new = || Secret { known: known.remove(name), ..Secret::default() };
        let secret = self.secrets.entry(name.clone()).or_insert_with(new);
        let version = stamp.version;
        if secret.last.is_none() && secret.known.is_some_and(|known| version > known) {
            secret.last = secret.known;
        }
        if let Some(known) = secret.living.get(&version).copied() {
            // An older stamp is a late repetition of what is known.
            if stamp.modified > known.modified {
                secret.living.insert(version, stamp);
                self.out.push(VersionEvent::Changed { secret: name.clone(), stamp });
            }
            return;
        }
        match secret.last {
            Some(_) if secret.deleted.remove(&version) => {
                secret.living.insert(version, stamp);
                self.out.push(VersionEvent::Changed { secret: name.clone(), stamp });
            }
            Some(last) if version <= last => {
                let key = self.folder.child(name).child(version);
                self.ignore(key, format!("its number is not above {last}, the highest that was announced"));
            }
            Some(last) if version > last.next() => {
                secret.held.insert(version, stamp);
                self.held_changed(name);
            }
            _ => {
                secret.held.insert(version, stamp);
                release(secret, name, self.listed_before, &mut self.out);
                self.held_changed(name);
            }
        }
    }

    fn deleted(&mut self, name: &SecretName, version: Version, cursor: Cursor) {
        let Some(secret) = self.secrets.get_mut(name) else { return };
        let held = secret.held.remove(&version).is_some();
        if secret.is_deleted(version) {
            self.out.push(VersionEvent::Deleted { secret: name.clone(), version, cursor });
        }
        if held {
            self.held_changed(name);
        }
    }
}

impl Secret {
    /// Whether it was announced, and not known to be deleted.
    fn is_deleted(&mut self, version: Version) -> bool {
        let lived = self.living.remove(&version).is_some();
        if lived {
            self.deleted.insert(version);
            if self.deleted.len() > MAX_DELETED_REMEMBERED {
                self.deleted.pop_first();
            }
        }
        lived
    }
}

/// Nothing is behind a gap any more: tells it once, if it has reported the gap.
fn close(secret: &mut Secret, name: &SecretName, out: &mut Vec<VersionEvent>) {
    if secret.reported.take().is_some() {
        out.push(VersionEvent::GapClosed { secret: name.clone() });
    }
}

/// Announces the held versions that follow on the last one.
fn release(secret: &mut Secret, name: &SecretName, listed_before: bool, out: &mut Vec<VersionEvent>) {
    while let Some((&version, &stamp)) = secret.held.first_key_value() {
        if secret.last.is_some_and(|last| version != last.next()) {
            return;
        }
        secret.held.remove(&version);
        secret.living.insert(version, stamp);
        secret.last = Some(version);
        let secret = name.clone();
        out.push(if listed_before {
            VersionEvent::Added { secret, stamp }
        } else {
            VersionEvent::Listed { secret, stamp }
        });
        if stamp.modified != stamp.created {
            out.push(VersionEvent::Changed { secret: name.clone(), stamp });
        }
    }
}

#[cfg(test)]
mod tests {
    use rotacast_proto::SecretValue;

    use super::*;

    struct Play {
        log: VersionLog,
        cursor: u64,
        destroyed: Destroyed,
    }

    impl Play {
        fn new() -> Self {
            Self::knowing([])
        }

        fn knowing<const N: usize>(known: [(&str, u64); N]) -> Self {
            let known = known.map(|(name, last)| (SecretName::new(name).unwrap(), Version::new(last).unwrap()));
            Self {
                log: VersionLog::new(Key::new("p/versions"), known.into()),
                cursor: 100,
                destroyed: Destroyed::default(),
            }
        }

        fn entry(key: &str, created: u64, modified: u64) -> Entry {
            Entry {
                key: Key::new(format!("p/versions/{key}")),
                value: SecretValue::new(b"x".to_vec()),
                created: Cursor(created),
                modified: Cursor(modified),
            }
        }

        fn list(&mut self, keys: &[(&str, u64)]) -> Vec<String> {
            self.cursor += 1;
            self.log.take(StoreEvent::Init);
            for (key, at) in keys {
                self.log.take(StoreEvent::Listed(Self::entry(key, *at, *at)));
            }
            self.log.take(StoreEvent::Ready(Cursor(self.cursor)));
            self.settle();
            self.log.resynced(Cursor(self.cursor));
            self.told()
        }

        fn put(&mut self, key: &str, created: u64, modified: u64) -> Vec<String> {
            self.log.take(StoreEvent::Put(Self::entry(key, created, modified)));
            self.settle();
            self.told()
        }

        fn delete(&mut self, key: &str) -> Vec<String> {
            self.log.take(StoreEvent::Deleted { key: Key::new(format!("p/versions/{key}")), cursor: Cursor(1) });
            self.settle();
            self.told()
        }

        fn settle(&mut self) {
            for name in self.log.gaps() {
                self.log.settle(&name, &self.destroyed);
            }
        }

        fn told(&mut self) -> Vec<String> {
            let short = |event: VersionEvent| match event {
                VersionEvent::Listed { secret, stamp } => format!("listed {secret} {}", stamp.version),
                VersionEvent::Added { secret, stamp } => format!("added {secret} {}", stamp.version),
                VersionEvent::Changed { secret, stamp } => format!("changed {secret} {}", stamp.version),
                VersionEvent::Deleted { secret, version, .. } => format!("deleted {secret} {version}"),
                VersionEvent::Gap { secret, missing, found } => format!("gap {secret} {missing}<{found}"),
                VersionEvent::GapClosed { secret } => format!("closed {secret}"),
                VersionEvent::Ignored { key, .. } => format!("ignored {key}"),
                VersionEvent::Resynced(_) => "resynced".into(),
            };
            self.log.drain().into_iter().map(short).collect()
        }
    }

    #[test]
    fn numbers_are_announced_in_order_whatever_the_order_of_keys() {
        let mut play = Play::new();
        let told = play.list(&[("a/10", 10), ("a/11", 11), ("a/8", 8), ("a/9", 9), ("a/b/1", 1)]);
        assert_eq!(told, ["listed a 8", "listed a 9", "listed a 10", "listed a 11", "listed a/b 1", "resynced"]);
    }

    #[test]
    fn a_relist_tells_what_was_missed_and_nothing_twice() {
        let mut play = Play::new();
        play.list(&[("a/1", 1), ("b/1", 2)]);
        assert_eq!(play.put("a/2", 3, 3), ["added a 2"]);
        assert_eq!(play.put("a/2", 3, 3), Vec::<String>::new());
        assert_eq!(
            play.list(&[("a/2", 3), ("a/3", 5), ("c/4", 6)]),
            ["deleted a 1", "deleted b 1", "added a 3", "added c 4", "resynced"]
        );
    }

    #[test]
    fn a_gap_is_reported_once_and_holds_back_until_filled() {
        let mut play = Play::new();
        play.list(&[("a/1", 1)]);
        assert_eq!(play.put("a/4", 2, 2), ["gap a 2<4"]);
        assert_eq!(play.put("a/5", 3, 3), Vec::<String>::new());
        assert_eq!(play.put("a/2", 4, 4), ["added a 2", "gap a 3<4"]);
        assert_eq!(play.put("a/3", 5, 5), ["added a 3", "added a 4", "added a 5", "closed a"]);
        assert_eq!(play.put("a/8", 6, 6), ["gap a 6<8"]);
        assert_eq!(play.delete("a/8"), ["closed a"]);
        assert_eq!(play.put("a/8", 7, 7), ["gap a 6<8"], "a gap of its own");
        let told = play.list(&[("a/1", 1), ("a/2", 4), ("a/3", 5), ("a/4", 2), ("a/5", 3)]);
        assert_eq!(told, ["closed a", "resynced"]);
    }

    #[test]
    fn a_gap_without_news_is_not_looked_up_again_until_its_turn() {
        let mut play = Play::new();
        play.list(&[("a/1", 1), ("b/1", 2)]);
        play.put("a/3", 3, 3);
        play.put("b/3", 4, 4);
        assert_eq!((play.log.unsettled().len(), play.log.gaps().len()), (0, 2));
        // News of another secret's is none of theirs.
        play.log.take(StoreEvent::Put(Play::entry("c/1", 5, 5)));
        assert_eq!((play.log.unsettled().len(), play.log.gaps().len()), (0, 2));
        play.log.take(StoreEvent::Put(Play::entry("a/2", 6, 6)));
        assert!(!play.log.gaps().contains(&SecretName::new("a").unwrap()), "nothing of it is held back any more");
        play.log.take(StoreEvent::Put(Play::entry("b/4", 7, 7)));
        assert_eq!(play.log.unsettled(), [SecretName::new("b").unwrap()]);
        play.log.take(StoreEvent::Deleted { key: Key::new("p/versions/b/3"), cursor: Cursor(8) });
        play.log.take(StoreEvent::Deleted { key: Key::new("p/versions/b/4"), cursor: Cursor(9) });
        assert!(!play.log.has_gaps() && play.log.unsettled().is_empty());
    }

    #[test]
    fn destroyed_numbers_are_no_gap() {
        let mut play = Play::new();
        play.list(&[("a/1", 1)]);
        [2, 3].into_iter().for_each(|number| play.destroyed.insert(Version::new(number).unwrap()));
        assert_eq!(play.put("a/4", 9, 9), ["added a 4"]);
        assert_eq!(play.put("a/6", 10, 10), ["gap a 5<6"]);
        play.destroyed.insert(Version::new(5).unwrap());
        play.settle();
        assert_eq!(play.told(), ["added a 6", "closed a"]);
    }

    #[test]
    fn a_number_behind_one_that_the_reader_knows_is_no_beginning() {
        let mut play = Play::knowing([("a", 2), ("b", 3), ("c", 5)]);
        let told = play.list(&[("a/4", 1), ("b/1", 2), ("b/3", 3), ("b/5", 4), ("c/4", 5)]);
        assert_eq!(told, ["listed b 1", "listed c 4", "gap a 3<4", "listed b 3", "gap b 4<5", "resynced"]);
        assert_eq!(play.put("a/3", 6, 6), ["added a 3", "added a 4", "closed a"]);
        assert_eq!(play.delete("b/5"), ["closed b"]);
        assert_eq!(play.put("b/4", 7, 7), ["added b 4"]);
        assert_eq!(play.put("c/6", 8, 8), ["added c 6"], "5 is known");
    }

    #[test]
    fn a_version_written_again_is_told_and_so_is_a_number_used_again() {
        let mut play = Play::new();
        play.list(&[("a/1", 1)]);
        assert_eq!(play.put("a/1", 1, 7), ["changed a 1"]);
        assert_eq!(play.put("a/1", 1, 7), Vec::<String>::new());
        assert_eq!(play.delete("a/1"), ["deleted a 1"]);
        assert_eq!(play.put("a/1", 9, 9), ["changed a 1"], "written again after it was deleted");
        assert_eq!(play.put("a/1", 9, 9), Vec::<String>::new());
        assert_eq!(play.put("b/5", 10, 10), ["added b 5"]);
        assert_eq!(play.put("b/4", 11, 11), ["ignored p/versions/b/4"], "never announced");
        assert_eq!(play.put("b/4", 11, 11), Vec::<String>::new());
        let told = play.list(&[("b/5", 10), ("Bad/1", 3)]);
        assert_eq!(told, ["ignored p/versions/Bad/1", "deleted a 1", "resynced"]);
        for number in 6..=5 + MAX_DELETED_REMEMBERED as u64 + 1 {
            play.put(&format!("b/{number}"), 20, 20);
        }
        let gone = |it: &String| it.starts_with("deleted");
        assert_eq!(play.list(&[]).into_iter().filter(gone).count(), MAX_DELETED_REMEMBERED + 2);
        assert_eq!(play.put("b/5", 30, 30), ["ignored p/versions/b/5"], "only the newest are remembered");
        assert_eq!(play.put("b/70", 31, 31), ["changed b 70"]);
    }
}
