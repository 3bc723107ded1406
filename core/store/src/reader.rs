//! The keys Rotacast keeps, as an instance reads them.

use std::sync::Arc;

use rotacast_proto::SecretValue;
use rotacast_protocol::{ClusterName, SecretName, Version};
use rotacast_seal::{AddedReaders, Place, SealError, Sealed, SealingKeys, can_open, open};

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
/// | `versions/<secret>/<n>` | a version's value, sealed: created once, never changed, deleted when retired |
/// | `readers/<secret>/<n>` | the version's data key, wrapped for readers that came after the version was sealed |
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
    opening: Option<Arc<Opening>>,
}

/// What opens sealed values.
struct Opening {
    cluster: ClusterName,
    keys: SealingKeys,
}

impl SecretReader {
    /// The tree below `prefix`.
    #[must_use]
    pub fn new(store: Arc<dyn ReadStore>, prefix: Prefix) -> Self {
        Self { store, prefix, opening: None }
    }

    /// Opens sealed values of this cluster with these keys. Without, a sealed value is an error.
    #[must_use]
    pub fn opening(mut self, cluster: ClusterName, keys: SealingKeys) -> Self {
        self.opening = Some(Arc::new(Opening { cluster, keys }));
        self
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

    /// One version, opened, linearizably; `None` if it does not exist (yet, or any more).
    ///
    /// # Errors
    /// [`StoreError::Sealed`] if it does not open; what the store says.
    pub async fn read_version(
        &self,
        secret: &SecretName,
        version: Version,
    ) -> Result<Option<StoredVersion>, StoreError> {
        let Some(entry) = self.store.get(&self.version_key(secret, version)).await? else { return Ok(None) };
        let (created, modified) = (entry.created, entry.modified);
        let value = self.open(secret, version, entry).await?;
        Ok(Some(StoredVersion { value, created, modified }))
    }

    /// The value in what is stored for a version. One that is not sealed is the value itself.
    pub(crate) async fn open(
        &self,
        secret: &SecretName,
        version: Version,
        entry: Entry,
    ) -> Result<SecretValue, StoreError> {
        let refused = |problem| sealed_error(&entry.key, problem);
        let Some(sealed) = Sealed::decode(entry.value.expose()).map_err(refused)? else { return Ok(entry.value) };
        let none = SealingKeys::default();
        let keys = self.opening.as_ref().map_or(&none, |opening| &opening.keys);
        // Mostly the value was sealed for us, and one read is enough.
        let added = match can_open(&sealed, None, keys) {
            true => None,
            false => self.added_readers(secret, version).await?.map(|(added, _)| added),
        };
        let opened = self.sealing_place(secret, version, |place| match place {
            Some((place, keys)) => open(place, &sealed, added.as_ref(), keys),
            None => {
                let all = sealed.readers().iter().chain(added.iter().flat_map(AddedReaders::readers));
                let sealed_for = all.filter_map(|wrapped| Some((wrapped.reader()?, wrapped.key()?))).collect();
                Err(SealError::NoKey { sealed_for, at_hand: Vec::new() })
            }
        });
        opened.map_err(refused)
    }

    /// Where a version's value belongs, and the keys at hand; `None` without any.
    pub(crate) fn sealing_place<T>(
        &self,
        secret: &SecretName,
        version: Version,
        with: impl FnOnce(Option<(Place<'_>, &SealingKeys)>) -> T,
    ) -> T {
        let opening = self.opening.as_deref();
        with(opening.map(|Opening { cluster, keys }| (Place { cluster, secret, version }, keys)))
    }

    /// For whom a version's data key was wrapped later, and when that was written.
    pub(crate) async fn added_readers(
        &self,
        secret: &SecretName,
        version: Version,
    ) -> Result<Option<(AddedReaders, Cursor)>, StoreError> {
        let key = self.added_readers_key(secret, version);
        let Some(entry) = self.store.get(&key).await? else { return Ok(None) };
        let added = AddedReaders::decode(entry.value.expose()).map_err(|problem| sealed_error(&key, problem))?;
        Ok(Some((added, entry.modified)))
    }

    pub(crate) fn added_readers_key(&self, secret: &SecretName, version: Version) -> Key {
        self.folder("readers").child(secret).child(version)
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

pub(crate) fn sealed_error(key: &Key, problem: SealError) -> StoreError {
    StoreError::Sealed { key: key.to_string(), problem }
}

impl RecordEntry {
    pub(crate) fn new(secret: SecretName, entry: &Entry) -> Self {
        Self { secret, bytes: entry.value.expose().to_vec(), cursor: entry.modified }
    }
}
