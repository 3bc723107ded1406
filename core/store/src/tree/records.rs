//! Rotation records: one opaque value per secret, written only by the leader and only over what it has read.

use rotacast_proto::SecretValue;
use rotacast_protocol::{Epoch, SecretName};

use super::{SecretTree, as_read};
use crate::{Committed, Cursor, Key, RecordEntry, StoreError, Write};

/// All rotation records, as of one moment.
pub struct Records {
    /// One per secret. Whether each can be read is for the caller to find out.
    pub entries: Vec<RecordEntry>,
    /// Keys below `records/` that are no secret's name, and why. They belong to no secret.
    pub strangers: Vec<(Key, String)>,
}

impl SecretTree {
    /// All rotation records, as of one moment, linearizably.
    ///
    /// # Errors
    /// What the store says.
    pub async fn load_records(&self) -> Result<Records, StoreError> {
        let folder = self.folder("records");
        let mut records = Records { entries: Vec::new(), strangers: Vec::new() };
        for entry in self.store.list(&folder).await?.entries {
            match secret_of(&entry.key, &folder) {
                Ok(secret) => records.entries.push(RecordEntry::new(secret, &entry)),
                Err(problem) => records.strangers.push((entry.key, problem)),
            }
        }
        Ok(records)
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

fn secret_of(key: &Key, folder: &Key) -> Result<SecretName, String> {
    let name = key.below(folder).ok_or_else(|| format!("the store listed it below {folder}"))?;
    SecretName::new(name).map_err(|problem| problem.to_string())
}
