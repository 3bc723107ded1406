//! Where each replica's audit log ends, as far as the store has been told: a log that ends earlier was cut off.

use rotacast_proto::SecretValue;
use rotacast_protocol::{AuditChain, WallTime};
use serde::{Deserialize, Serialize};

use super::{SecretTree, as_read};
use crate::{Committed, Cursor, Entry, Key, StoreError, Write};

/// The newest format this code writes and reads.
const FORMAT: u32 = 1;

/// Where one replica's audit log ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuditHead {
    /// The chain of hashes that the log is.
    pub chain: AuditChain,
    /// The log's name: the replica's, or its host and file.
    pub log: String,
    /// Whether the configuration names the replica. Otherwise the name may change while the file stays.
    pub named: bool,
    /// The number of the newest entry.
    pub sequence: u64,
    /// Its hash, in hexadecimal.
    pub hash: String,
    /// When the head was written.
    pub time: WallTime,
}

/// A head as stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredAuditHead {
    /// The head.
    pub head: AuditHead,
    /// When it was written: what the next save must expect.
    pub cursor: Cursor,
}

/// All heads, as of one moment.
pub struct AuditHeads {
    /// One per chain.
    pub heads: Vec<StoredAuditHead>,
    /// Keys below `audit/` that cannot be read as heads, and why.
    pub strangers: Vec<(Key, String)>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    log: String,
    named: bool,
    sequence: u64,
    hash: String,
    time_ms: u64,
}

impl SecretTree {
    /// The heads of all replicas' logs, linearizably.
    ///
    /// # Errors
    /// What the store says.
    pub async fn audit_heads(&self) -> Result<AuditHeads, StoreError> {
        let folder = self.folder("audit");
        let mut all = AuditHeads { heads: Vec::new(), strangers: Vec::new() };
        for entry in self.store.list(&folder).await?.entries {
            match decode(&entry, &folder) {
                Ok(head) => all.heads.push(head),
                Err(problem) => all.strangers.push((entry.key, problem)),
            }
        }
        Ok(all)
    }

    /// The head of one chain, linearizably.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] for a head that cannot be read; what the store says.
    pub async fn audit_head(&self, chain: AuditChain) -> Result<Option<StoredAuditHead>, StoreError> {
        let folder = self.folder("audit");
        let Some(entry) = self.store.get(&folder.child(chain)).await? else { return Ok(None) };
        let corrupt = |problem| StoreError::Corrupt { key: entry.key.to_string(), problem };
        decode(&entry, &folder).map(Some).map_err(corrupt)
    }

    /// Writes a chain's head, if the stored one is as expected: written at that cursor, or not there at all. Any replica
    /// writes its own, whether it leads or not.
    ///
    /// # Errors
    /// What the store says. After a transient error the outcome is unknown: read the head before going on.
    pub async fn save_audit_head(&self, head: &AuditHead, expected: Option<Cursor>) -> Result<Committed, StoreError> {
        let key = self.folder("audit").child(head.chain);
        let stored = Stored {
            format: FORMAT,
            log: head.log.clone(),
            named: head.named,
            sequence: head.sequence,
            hash: head.hash.clone(),
            time_ms: head.time.0,
        };
        let value = SecretValue::new(serde_json::to_vec(&stored).expect("numbers and text always serialise"));
        self.commit(vec![as_read(key.clone(), expected)], vec![Write::Put(key, value)]).await
    }
}

fn decode(entry: &Entry, folder: &Key) -> Result<StoredAuditHead, String> {
    let chain = entry.key.below(folder).ok_or_else(|| format!("the store listed it below {folder}"))?;
    let chain = chain.parse().map_err(|_| "expected the id of a chain behind the folder".to_owned())?;
    let stored: Stored = serde_json::from_slice(entry.value.expose()).map_err(|problem| problem.to_string())?;
    if stored.format != FORMAT {
        return Err(format!("format {}, expected {FORMAT}: written by a newer rotacast?", stored.format));
    }
    let Stored { log, named, sequence, hash, time_ms, .. } = stored;
    let head = AuditHead { chain, log, named, sequence, hash, time: WallTime(time_ms) };
    Ok(StoredAuditHead { head, cursor: entry.modified })
}
