//! Which cluster the tree belongs to.

use rotacast_proto::{SecretValue, VerifyingKey};
use rotacast_protocol::{ClusterId, ClusterName};
use serde::{Deserialize, Serialize};

use super::versions::attempts;
use super::{SecretTree, as_read};
use crate::{Committed, Cursor, Entry, Key, StoreError, Write};

/// The newest format this code writes and reads.
const FORMAT: u32 = 1;

/// Most broadcasters' keys that are kept, the newest: more than a cluster has replicas while their keys are replaced.
const MAX_KEYS: usize = 16;

/// The cluster that a tree belongs to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owner {
    /// Its name.
    pub cluster: ClusterName,
    /// Drawn when its first broadcaster started.
    pub id: ClusterId,
    /// The keys that its broadcasters have signed with, the newest last.
    pub keys: Vec<VerifyingKey>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    cluster: String,
    id: ClusterId,
    /// Public keys, as text.
    keys: Vec<String>,
    /// What a later minor version wrote.
    #[serde(flatten)]
    unknown: serde_json::Map<String, serde_json::Value>,
}

impl Stored {
    fn decode(entry: &Entry) -> Result<(Self, Owner), StoreError> {
        let corrupt = |problem: String| StoreError::Corrupt { key: entry.key.to_string(), problem };
        let stored: Self =
            serde_json::from_slice(entry.value.expose()).map_err(|problem| corrupt(problem.to_string()))?;
        if stored.format != FORMAT {
            return Err(corrupt(format!("format {}, expected {FORMAT}: written by a newer rotacast?", stored.format)));
        }
        let cluster = ClusterName::new(&stored.cluster).map_err(|problem| corrupt(problem.to_string()))?;
        let keys = stored.keys.iter().map(|text| VerifyingKey::parse(text));
        let keys = keys.collect::<Result<_, _>>().map_err(|problem| corrupt(problem.to_string()))?;
        let owner = Owner { cluster, id: stored.id, keys };
        Ok((stored, owner))
    }
}

impl SecretTree {
    /// The cluster that the tree belongs to; none before its first broadcaster has started.
    ///
    /// # Errors
    /// What the store says.
    pub async fn owner(&self) -> Result<Option<Owner>, StoreError> {
        Ok(self.read_owner().await?.map(|(_, owner, _)| owner))
    }

    /// Makes the tree this cluster's if it is no cluster's yet, and notes that its broadcasters sign with `key`. `known` is
    /// the id that this broadcaster has found before: it is written again if the store has lost it.
    ///
    /// # Errors
    /// [`StoreError::Foreign`] if it is another cluster's; what the store says.
    pub async fn claim(
        &self,
        cluster: &ClusterName,
        known: Option<ClusterId>,
        key: &VerifyingKey,
    ) -> Result<Owner, StoreError> {
        let mut pauses = attempts();
        loop {
            let read = self.read_owner().await?;
            let (stored, read_at) = match read {
                None => {
                    let id = known.unwrap_or_else(|| ClusterId(rand::random()));
                    let keys = vec![key.to_text()];
                    let unknown = serde_json::Map::new();
                    (Stored { format: FORMAT, cluster: cluster.to_string(), id, keys, unknown }, None)
                }
                Some((mut stored, owner, read_at)) => {
                    if owner.cluster != *cluster || known.is_some_and(|known| known != owner.id) {
                        return Err(StoreError::Foreign {
                            endpoint: self.store.describe(),
                            prefix: self.prefix().to_string(),
                            owner: format!("{} (id {})", owner.cluster, owner.id),
                            ours: known.map_or_else(|| cluster.to_string(), |id| format!("{cluster} (id {id})")),
                        });
                    }
                    if owner.keys.contains(key) {
                        return Ok(owner);
                    }
                    let beyond = (stored.keys.len() + 1).saturating_sub(MAX_KEYS);
                    stored.keys.drain(..beyond);
                    stored.keys.push(key.to_text());
                    (stored, Some(read_at))
                }
            };
            let value = SecretValue::new(serde_json::to_vec(&stored).expect("numbers and text always serialise"));
            let key = self.owner_key();
            match self.commit(vec![as_read(key.clone(), read_at)], vec![Write::Put(key.clone(), value)]).await? {
                // Read once more: what counts is what is stored.
                Committed::Done(_) => {}
                Committed::Conflict => self.lost_to_others(&key, pauses.next()).await?,
            }
        }
    }

    async fn read_owner(&self) -> Result<Option<(Stored, Owner, Cursor)>, StoreError> {
        let Some(entry) = self.store.get(&self.owner_key()).await? else { return Ok(None) };
        let (stored, owner) = Stored::decode(&entry)?;
        Ok(Some((stored, owner, entry.modified)))
    }

    fn owner_key(&self) -> Key {
        self.folder("cluster")
    }
}
