//! Which numbers of a secret were destroyed.
//!
//! A destroyed version leaves no key behind. Without this note, a watch could not tell a number that was
//! destroyed from one that it missed, and a number could be used again for another value.

use std::collections::BTreeMap;

use rotacast_protocol::{SecretName, Version};
use serde::{Deserialize, Serialize};

use super::SecretTree;
use crate::{Cursor, Entry, Key, StoreError};

/// The newest format this code writes and reads.
const FORMAT: u32 = 1;

/// The destroyed numbers of one secret, as ranges. There are about as many ranges as living versions: the note
/// stays short for ever.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Destroyed {
    format: u32,
    /// First and last number of each range, ascending, apart from each other.
    ranges: Vec<(u64, u64)>,
    /// What a later minor version wrote.
    #[serde(flatten)]
    unknown: serde_json::Map<String, serde_json::Value>,
}

impl Default for Destroyed {
    fn default() -> Self {
        Self { format: FORMAT, ranges: Vec::new(), unknown: serde_json::Map::new() }
    }
}

impl Destroyed {
    pub(super) fn contains(&self, version: Version) -> bool {
        self.range_of(version.get()).is_some()
    }

    /// The last number of the range `version` lies in.
    pub(super) fn last_of_range(&self, version: Version) -> Option<Version> {
        Version::new(self.range_of(version.get())?.1).ok()
    }

    pub(super) fn last(&self) -> Option<Version> {
        Version::new(self.ranges.last()?.1).ok()
    }

    pub(super) fn insert(&mut self, version: Version) {
        let number = version.get();
        if self.contains(version) {
            return;
        }
        let at = self.ranges.partition_point(|&(_, last)| last < number);
        let joins_before = at > 0 && self.ranges[at - 1].1 + 1 == number;
        let joins_after = at < self.ranges.len() && number + 1 == self.ranges[at].0;
        match (joins_before, joins_after) {
            (true, true) => {
                self.ranges[at - 1].1 = self.ranges[at].1;
                self.ranges.remove(at);
            }
            (true, false) => self.ranges[at - 1].1 = number,
            (false, true) => self.ranges[at].0 = number,
            (false, false) => self.ranges.insert(at, (number, number)),
        }
    }

    fn range_of(&self, number: u64) -> Option<(u64, u64)> {
        let at = self.ranges.partition_point(|&(_, last)| last < number);
        self.ranges.get(at).copied().filter(|&(first, _)| first <= number)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("numbers and text always serialise")
    }

    pub(super) fn of(entry: &Entry) -> Result<Self, StoreError> {
        Self::decode(&entry.key, entry.value.expose())
    }

    fn decode(key: &Key, bytes: &[u8]) -> Result<Self, StoreError> {
        let corrupt = |problem: String| StoreError::Corrupt { key: key.to_string(), problem };
        let read: Self = serde_json::from_slice(bytes).map_err(|problem| corrupt(problem.to_string()))?;
        if read.format != FORMAT {
            return Err(corrupt(format!("format {}, expected {FORMAT}: written by a newer rotacast?", read.format)));
        }
        let ordered = read.ranges.windows(2).all(|pair| pair[0].1 < pair[1].0);
        if !ordered || read.ranges.iter().any(|&(first, last)| first == 0 || first > last) {
            return Err(corrupt("its ranges are out of order".into()));
        }
        Ok(read)
    }
}

impl SecretTree {
    pub(super) fn destroyed_key(&self, secret: &SecretName) -> Key {
        self.destroyed_folder().child(secret)
    }

    pub(super) fn destroyed_folder(&self) -> Key {
        self.folder("destroyed")
    }

    pub(super) async fn read_destroyed(&self, secret: &SecretName) -> Result<(Destroyed, Option<Cursor>), StoreError> {
        let key = self.destroyed_key(secret);
        match self.store.get(&key).await? {
            Some(entry) => Ok((Destroyed::of(&entry)?, Some(entry.modified))),
            None => Ok((Destroyed::default(), None)),
        }
    }

    /// Of every secret that has any, with one listing.
    pub(super) async fn all_destroyed(&self) -> Result<BTreeMap<SecretName, Destroyed>, StoreError> {
        let folder = self.destroyed_folder();
        let mut all = BTreeMap::new();
        for entry in self.store.list(&folder).await?.entries {
            // A key that is no secret's name is no note of ours.
            if let Some(Ok(secret)) = entry.key.below(&folder).map(SecretName::new) {
                all.insert(secret, Destroyed::of(&entry)?);
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(numbers: &[u64]) -> Destroyed {
        let mut destroyed = Destroyed::default();
        numbers.iter().for_each(|&number| destroyed.insert(Version::new(number).unwrap()));
        destroyed
    }

    #[test]
    fn neighbours_become_one_range_in_any_order() {
        assert_eq!(of(&[1, 2, 3]).ranges, [(1, 3)]);
        assert_eq!(of(&[3, 1, 2]).ranges, [(1, 3)]);
        assert_eq!(of(&[5, 1, 9, 2, 8, 2]).ranges, [(1, 2), (5, 5), (8, 9)]);
        let destroyed = of(&[5, 1, 9, 2, 8]);
        for number in 1..=10 {
            let version = Version::new(number).unwrap();
            assert_eq!(destroyed.contains(version), [1, 2, 5, 8, 9].contains(&number), "{number}");
        }
        assert_eq!(destroyed.last_of_range(Version::FIRST), Version::new(2).ok());
    }

    #[test]
    fn unknown_fields_survive_and_a_newer_format_is_refused() {
        let key = Key::new("k");
        let read = Destroyed::decode(&key, br#"{"format":1,"ranges":[[1,2]],"later":{"x":1}}"#).unwrap();
        assert!(String::from_utf8(read.encode()).unwrap().contains(r#""later":{"x":1}"#));
        let newer = Destroyed::decode(&key, br#"{"format":2,"ranges":[]}"#).unwrap_err();
        assert!(newer.to_string().contains("format 2"), "{newer}");
        assert!(Destroyed::decode(&key, br#"{"format":1,"ranges":[[2,1]]}"#).is_err());
        assert!(Destroyed::decode(&key, b"not json").is_err());
    }
}
