//! Rotation records: one opaque value per secret, written only by the leader and only over what it has read.

use rotacast_proto::SecretValue;
use rotacast_protocol::{Epoch, SecretName};

use super::{SecretTree, as_read};
use crate::{Committed, Cursor, Entry, Key, StoreError, Write};

/// One rotation record as stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordEntry {
    /// Whose.
    pub secret: SecretName,
    /// The encoded record.
    pub bytes: Vec<u8>,
    /// When it was written: what the next save must expect.
    pub cursor: Cursor,
}

impl SecretTree {
    /// All rotation records, as of one moment, linearizably.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] for a key below `records/` that is no secret's name; what the store says.
    pub async fn load_records(&self) -> Result<Vec<RecordEntry>, StoreError> {
        let folder = self.folder("records");
        let listing = self.store.list(&folder).await?;
        listing.entries.into_iter().map(|entry| parse(entry, &folder)).collect()
    }

    /// One rotation record, linearizably.
    ///
    /// # Errors
    /// What the store says.
    pub async fn read_record(&self, secret: &SecretName) -> Result<Option<RecordEntry>, StoreError> {
        let folder = self.folder("records");
        self.store.get(&folder.child(secret)).await?.map(|entry| parse(entry, &folder)).transpose()
    }

    /// Writes a rotation record, if `epoch` still leads and the record is as expected: written at that cursor, or
    /// not there at all.
    ///
    /// # Errors
    /// What the store says. After a transient error the outcome is unknown: read the record before going on.
    pub async fn save_record(
        &self,
        secret: &SecretName,
        bytes: Vec<u8>,
        expected: Option<Cursor>,
        epoch: Epoch,
    ) -> Result<Committed, StoreError> {
        let key = self.folder("records").child(secret);
        let checks = vec![self.leads(epoch), as_read(key.clone(), expected)];
        self.commit(checks, vec![Write::Put(key, SecretValue::new(bytes))]).await
    }
}

fn parse(entry: Entry, folder: &Key) -> Result<RecordEntry, StoreError> {
    let corrupt = |problem: String| StoreError::Corrupt { key: entry.key.to_string(), problem };
    let name = entry.key.below(folder).ok_or_else(|| corrupt(format!("the store listed it below {folder}")))?;
    let secret = SecretName::new(name).map_err(|problem| corrupt(problem.to_string()))?;
    Ok(RecordEntry { secret, bytes: entry.value.expose().to_vec(), cursor: entry.modified })
}
