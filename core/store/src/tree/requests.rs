//! Orders that wait for approvals. What is in them is the broadcaster's; only a leader writes them.

use rotacast_proto::SecretValue;
use rotacast_protocol::Epoch;

use super::{SecretTree, as_read};
use crate::{Committed, Cursor, Entry, Key, StoreError, Write};

/// An order that waits, as stored.
pub struct StoredRequest {
    /// Its key below the folder.
    pub id: String,
    /// What the broadcaster has written.
    pub bytes: Vec<u8>,
    /// When it was written: what the next save must expect.
    pub cursor: Cursor,
}

impl SecretTree {
    /// All of them, linearizably.
    ///
    /// # Errors
    /// What the store says.
    pub async fn requests(&self) -> Result<Vec<StoredRequest>, StoreError> {
        let folder = self.folder("requests");
        let entries = self.store.list(&folder).await?.entries;
        Ok(entries.iter().filter_map(|entry| stored(entry, &folder)).collect())
    }

    /// One of them, linearizably.
    ///
    /// # Errors
    /// What the store says.
    pub async fn request(&self, id: &str) -> Result<Option<StoredRequest>, StoreError> {
        let folder = self.folder("requests");
        let entry = self.store.get(&folder.child(id)).await?;
        Ok(entry.and_then(|entry| stored(&entry, &folder)))
    }

    /// Writes one, if the leader of `epoch` still leads and the stored one is as expected: written at that cursor, or not there
    /// at all.
    ///
    /// # Errors
    /// What the store says. After a transient error the outcome is unknown.
    pub async fn save_request(
        &self,
        epoch: Epoch,
        id: &str,
        bytes: Vec<u8>,
        expected: Option<Cursor>,
    ) -> Result<Committed, StoreError> {
        let key = self.folder("requests").child(id);
        let checks = vec![as_read(key.clone(), expected), self.leads(epoch)];
        self.commit(checks, vec![Write::Put(key, SecretValue::new(bytes))]).await
    }

    /// Deletes one, if the leader of `epoch` still leads and no client has written it since. Of several that try, one gets
    /// [`Committed::Done`].
    ///
    /// # Errors
    /// As for [`SecretTree::save_request`].
    pub async fn remove_request(&self, epoch: Epoch, id: &str, read: Cursor) -> Result<Committed, StoreError> {
        let key = self.folder("requests").child(id);
        let checks = vec![as_read(key.clone(), Some(read)), self.leads(epoch)];
        self.commit(checks, vec![Write::Delete(key)]).await
    }
}

fn stored(entry: &Entry, folder: &Key) -> Option<StoredRequest> {
    let id = entry.key.below(folder)?.to_owned();
    Some(StoredRequest { id, bytes: entry.value.expose().to_vec(), cursor: entry.modified })
}
