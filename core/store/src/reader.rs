//! The keys Rotacast keeps, as an instance reads them.

use std::sync::Arc;

use rotacast_proto::SecretValue;
use rotacast_protocol::{SecretName, Version};

use crate::{Cursor, Entry, Key, Prefix, ReadStore, StoreError};

/// A version's value and its place in the store's history. No `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredVersion {
    /// The value.
    pub value: SecretValue,
    /// When it was created.
    pub created: Cursor,
    /// When it was last written: later than `created` only if a client broke the rule that versions never change.
    pub modified: Cursor,
}

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

/// Everything Rotacast keeps below one prefix of a store:
///
/// | key | what |
/// |---|---|
/// | `versions/<secret>/<n>` | a version's value: created once, never changed, deleted when retired |
/// | `destroyed/<secret>` | which numbers were destroyed: they are never used again |
/// | `records/<secret>` | the rotation record |
/// | `journal/<secret>/<n>` | a new credential, kept before the outside system hears of it |
/// | `imports/<secret>` | how far a `plain` source tree was imported |
/// | `roster/<service>/<instance>/<incarnation>` | an incarnation that may have leases |
/// | `leader` | who leads |
/// | `history` | which history of the store the positions in `imports` count in |
/// | `cluster` | which cluster the tree belongs to |
/// | `audit/<chain>` | where a replica's audit log ends |
///
/// The kinds are the top folders, so that a store's access rules can be given by prefix, and so that no secret's
/// name can be taken for a folder.
#[derive(Clone)]
pub struct SecretReader {
    store: Arc<dyn ReadStore>,
    prefix: Prefix,
}

impl SecretReader {
    /// The tree below `prefix`.
    #[must_use]
    pub fn new(store: Arc<dyn ReadStore>, prefix: Prefix) -> Self {
        Self { store, prefix }
    }

    /// The store below.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn ReadStore> {
        &self.store
    }

    /// Where the tree begins.
    #[must_use]
    pub fn prefix(&self) -> &Prefix {
        &self.prefix
    }

    /// One version, linearizably; `None` if it does not exist (yet, or any more).
    ///
    /// # Errors
    /// What the store says.
    pub async fn read_version(
        &self,
        secret: &SecretName,
        version: Version,
    ) -> Result<Option<StoredVersion>, StoreError> {
        let entry = self.store.get(&self.version_key(secret, version)).await?;
        Ok(entry.map(|entry| StoredVersion { value: entry.value, created: entry.created, modified: entry.modified }))
    }

    /// One rotation record, linearizably.
    ///
    /// # Errors
    /// What the store says.
    pub async fn read_record(&self, secret: &SecretName) -> Result<Option<RecordEntry>, StoreError> {
        let entry = self.store.get(&self.folder("records").child(secret)).await?;
        Ok(entry.map(|entry| RecordEntry::new(secret.clone(), &entry)))
    }

    pub(crate) fn folder(&self, name: &str) -> Key {
        self.prefix.key().child(name)
    }

    pub(crate) fn versions_folder(&self) -> Key {
        self.folder("versions")
    }

    pub(crate) fn version_key(&self, secret: &SecretName, version: Version) -> Key {
        self.versions_folder().child(secret).child(version)
    }
}

impl RecordEntry {
    pub(crate) fn new(secret: SecretName, entry: &Entry) -> Self {
        Self { secret, bytes: entry.value.expose().to_vec(), cursor: entry.modified }
    }
}
