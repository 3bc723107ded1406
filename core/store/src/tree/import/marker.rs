//! How far a source was imported.

use rotacast_proto::SecretValue;
use rotacast_protocol::{HistoryId, SecretName, Version};
use serde::{Deserialize, Serialize};

use super::super::SecretTree;
use crate::{Cursor, Entry, Key, StoreError};

/// The newest format of the marker this code writes and reads.
const FORMAT: u32 = 1;

/// A marker, if there is one, and when it was written.
pub(super) type Read = (Option<Marker>, Option<Cursor>);

pub(super) fn folder(tree: &SecretTree) -> Key {
    tree.folder("imports")
}

/// How far one source key was imported. Written in the same commit as the version.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Marker {
    format: u32,
    /// The source key.
    source: String,
    /// The history that `modified` counts in.
    history: HistoryId,
    /// When the newest value that was dealt with was written to the source.
    modified: u64,
    /// The version made of the newest value that was imported.
    pub(super) version: Option<Version>,
    /// Why that value is no version. Never the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) refused: Option<String>,
    /// What a later minor version wrote.
    #[serde(flatten)]
    unknown: serde_json::Map<String, serde_json::Value>,
}

impl Marker {
    pub(super) fn key(tree: &SecretTree, secret: &SecretName) -> Key {
        folder(tree).child(secret)
    }

    /// One secret's, and when it was written.
    pub(super) async fn read(tree: &SecretTree, secret: &SecretName) -> Result<Read, StoreError> {
        let stored = tree.store().get(&Self::key(tree, secret)).await?;
        stored.as_ref().map_or(Ok((None, None)), Self::of)
    }

    pub(super) fn of(stored: &Entry) -> Result<Read, StoreError> {
        Ok((Some(Self::decode(&stored.key, stored.value.expose())?), Some(stored.modified)))
    }

    pub(super) fn new(source: &Key, history: HistoryId) -> Self {
        Self {
            format: FORMAT,
            source: source.to_string(),
            history,
            modified: 0,
            version: None,
            refused: None,
            unknown: serde_json::Map::new(),
        }
    }

    /// How far the source was imported: of a history that is over, nothing is known.
    pub(super) fn reached(&self, history: HistoryId) -> Option<Cursor> {
        self.is_of(history).then_some(Cursor(self.modified))
    }

    pub(super) fn is_of(&self, history: HistoryId) -> bool {
        self.history == history
    }

    pub(super) fn reach(&mut self, history: HistoryId, modified: Cursor) {
        (self.history, self.modified) = (history, modified.0);
    }

    fn decode(key: &Key, bytes: &[u8]) -> Result<Self, StoreError> {
        let corrupt = |problem: String| StoreError::Corrupt { key: key.to_string(), problem };
        let read: Self = serde_json::from_slice(bytes).map_err(|problem| corrupt(problem.to_string()))?;
        if read.format != FORMAT {
            return Err(corrupt(format!("format {}, expected {FORMAT}: written by a newer rotacast?", read.format)));
        }
        Ok(read)
    }

    pub(super) fn encode(&self) -> SecretValue {
        SecretValue::new(serde_json::to_vec(self).expect("numbers and text always serialise"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_keeps_what_it_does_not_know_and_refuses_a_newer_format() {
        let key = Key::new("k");
        let read = Marker::decode(&key, br#"{"format":1,"source":"s","history":"000102030405060708090a0b0c0d0e0f","modified":3,"version":2,"later":[1]}"#).unwrap();
        assert!(String::from_utf8(read.encode().expose().to_vec()).unwrap().contains(r#""later":[1]"#));
        let newer = Marker::decode(
            &key,
            br#"{"format":9,"source":"s","history":"000102030405060708090a0b0c0d0e0f","modified":3,"version":2}"#,
        )
        .err()
        .unwrap();
        assert!(newer.to_string().contains("format 9"), "{newer}");
    }
}
