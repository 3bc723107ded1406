//! Rotation records: one opaque value per secret, written only by the leader and only over what it has read.

use rotacast_proto::SecretValue;
use rotacast_protocol::{Epoch, SecretName};

use super::{SecretTree, as_read};
use crate::{Committed, Cursor, RecordEntry, StoreError, Write};

impl SecretTree {
    /// All rotation records, as of one moment, linearizably.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] for a key below `records/` that is no secret's name; what the store says.
    pub async fn load_records(&self) -> Result<Vec<RecordEntry>, StoreError> {
        let folder = self.folder("records");
        let listing = self.store.list(&folder).await?;
        listing.entries.into_iter().map(|entry| RecordEntry::parse(entry, &folder)).collect()
    }

    /// See `SecretReader::read_record`.
    ///
    /// # Errors
    /// What the store says.
    pub async fn read_record(&self, secret: &SecretName) -> Result<Option<RecordEntry>, StoreError> {
        self.reader.read_record(secret).await
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
