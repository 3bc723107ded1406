//! Which history the positions that are stored in a tree count in.
//!
//! A position such as etcd's revision means nothing in another server. No server tells its history apart from every
//! other: Consul has no identity that a client sees, and etcd derives its cluster id from addresses and names, so that a
//! server set up anew in the same place has the same one. Therefore the tree has a key of its own with a random id, and
//! that key knows at which position it was created. A copy of the tree (an export and an import, key by key) has the key
//! at another position, or as a single write, and is a new history.

use rotacast_proto::SecretValue;
use rotacast_protocol::HistoryId;
use serde::{Deserialize, Serialize};

use super::versions::attempts;
use super::{SecretTree, as_read};
use crate::{Committed, Entry, Key, StoreError, Write};

/// The newest format this code writes and reads.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Origin {
    format: u32,
    id: HistoryId,
    /// Where the key was created; none until the second of its two writes.
    created: Option<u64>,
    /// What a later minor version wrote.
    #[serde(flatten)]
    unknown: serde_json::Map<String, serde_json::Value>,
}

impl Origin {
    fn drawn(created: Option<u64>) -> Self {
        Self { format: FORMAT, id: HistoryId(rand::random()), created, unknown: serde_json::Map::new() }
    }

    /// `None`: it does not parse, so nothing that is stored counts in it.
    fn decode(entry: &Entry) -> Result<Option<Self>, StoreError> {
        let Ok(read) = serde_json::from_slice::<Self>(entry.value.expose()) else { return Ok(None) };
        if read.format != FORMAT {
            let problem = format!("format {}, expected {FORMAT}: written by a newer rotacast?", read.format);
            return Err(StoreError::Corrupt { key: entry.key.to_string(), problem });
        }
        Ok(Some(read))
    }

    /// It was written twice, and first where it says.
    fn is_at_home(&self, entry: &Entry) -> bool {
        self.created == Some(entry.created.0) && entry.created < entry.modified
    }
}

impl SecretTree {
    /// The history that positions count in which are stored in this tree from now on. It is another one than before if the
    /// tree's keys were copied from another server.
    ///
    /// # Errors
    /// What the store says. After a transient error, ask again.
    pub async fn history(&self) -> Result<HistoryId, StoreError> {
        let key = self.origin_key();
        let mut pauses = attempts();
        loop {
            let stored = self.store.get(&key).await?;
            let next = match &stored {
                None => Origin::drawn(None),
                Some(entry) => match Origin::decode(entry)? {
                    Some(origin) if origin.is_at_home(entry) => return Ok(origin.id),
                    // Between the two writes. No position was stored under this id yet.
                    Some(origin) if origin.created.is_none() => Origin { created: Some(entry.created.0), ..origin },
                    before => {
                        let before = before.map_or_else(|| "one that does not parse".into(), |it| it.id.to_string());
                        tracing::warn!(
                            prefix = %self.prefix(), before,
                            "the keys below this prefix were copied from another server: positions stored in them are not \
                             trusted, and a plain tree is read anew"
                        );
                        Origin::drawn(Some(entry.created.0))
                    }
                },
            };
            let read_at = stored.as_ref().map(|entry| entry.modified);
            let value = SecretValue::new(serde_json::to_vec(&next).expect("numbers and text always serialise"));
            match self.commit(vec![as_read(key.clone(), read_at)], vec![Write::Put(key.clone(), value)]).await? {
                // Read once more: what counts is what is stored.
                Committed::Done(_) => {}
                Committed::Conflict => self.lost_to_others(&key, pauses.next()).await?,
            }
        }
    }

    fn origin_key(&self) -> Key {
        self.folder("history")
    }
}
