//! What the tree holds of the secrets to import.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use rotacast_proto::SecretValue;
use rotacast_protocol::{SecretName, Version};
use rotacast_seal::SealError;
use tokio::sync::OnceCell;

use super::super::destroyed::Destroyed;
use super::super::{SecretTree, parse_version_key};
use super::marker::{self, Marker};
use crate::{Cursor, Entry, Key, StoreError};

/// What the tree holds of one secret. No `Debug`: it has values.
#[derive(Default)]
pub(super) struct Held {
    /// Its stored versions, ascending. None: the value is damaged, and equals no other.
    pub(super) versions: Vec<(Version, Option<SecretValue>)>,
    destroyed: Destroyed,
    /// When the note about destroyed numbers was written.
    pub(super) destroyed_at: Option<Cursor>,
}

impl Held {
    pub(super) async fn read(tree: &SecretTree, secret: &SecretName) -> Result<Self, StoreError> {
        let (versions, (destroyed, destroyed_at)) =
            tokio::try_join!(tree.stored_versions(secret), tree.read_destroyed(secret))?;
        let versions = versions.into_iter().map(|(stamp, entry)| (stamp.version, entry)).collect();
        Ok(Self { versions: opened(tree, secret, versions).await?, destroyed, destroyed_at })
    }

    /// One more than the highest ever stored, destroyed, or named by `floor`.
    pub(super) fn next_number(&self, floor: Option<Version>) -> Version {
        let stored = self.versions.last().map(|(version, _)| *version);
        stored.max(self.destroyed.last()).max(floor).map_or(Version::FIRST, Version::next)
    }
}

/// What the tree holds of all secrets, read with one listing of each folder once a first key needs it: importing many
/// keys costs no reads of each.
#[derive(Default)]
pub(super) struct Listed {
    markers: OnceCell<BTreeMap<Key, Entry>>,
    /// Each is taken out by the one key that needs it.
    held: OnceCell<Mutex<Folders>>,
}

#[derive(Default)]
struct Folders {
    versions: BTreeMap<SecretName, Vec<(Version, Entry)>>,
    destroyed: BTreeMap<Key, Entry>,
}

impl Listed {
    pub(super) async fn marker(&self, tree: &SecretTree, secret: &SecretName) -> Result<marker::Read, StoreError> {
        let markers = self.markers.get_or_try_init(|| entries(tree, marker::folder(tree))).await?;
        markers.get(&Marker::key(tree, secret)).map_or(Ok((None, None)), Marker::of)
    }

    pub(super) async fn held(&self, tree: &SecretTree, secret: &SecretName) -> Result<Held, StoreError> {
        let folders = self.held.get_or_try_init(|| Folders::read(tree)).await?;
        let (versions, destroyed) = {
            let mut folders = folders.lock().unwrap_or_else(PoisonError::into_inner);
            (folders.versions.remove(secret), folders.destroyed.remove(&tree.destroyed_key(secret)))
        };
        let (destroyed, destroyed_at) = match destroyed {
            Some(entry) => (Destroyed::of(&entry)?, Some(entry.modified)),
            None => Default::default(),
        };
        let versions = opened(tree, secret, versions.unwrap_or_default()).await?;
        Ok(Held { versions, destroyed, destroyed_at })
    }
}

impl Folders {
    async fn read(tree: &SecretTree) -> Result<Mutex<Self>, StoreError> {
        let folder = tree.versions_folder();
        let (versions, destroyed) =
            tokio::try_join!(tree.store().list(&folder), entries(tree, tree.destroyed_folder()))?;
        let mut folders = Self { destroyed, ..Self::default() };
        for entry in versions.entries {
            // Keys that are no versions are reported by the watch of the versions.
            if let Some(Ok((secret, version))) = entry.key.below(&folder).map(parse_version_key) {
                folders.versions.entry(secret).or_default().push((version, entry));
            }
        }
        // Keys are in the order of their text: 10 comes before 9.
        folders.versions.values_mut().for_each(|versions| versions.sort_by_key(|(version, _)| *version));
        Ok(Mutex::new(folders))
    }
}

/// Without the key, whether a value is new cannot be told: that is an error, not a new version.
async fn opened(
    tree: &SecretTree,
    secret: &SecretName,
    stored: Vec<(Version, Entry)>,
) -> Result<Vec<(Version, Option<SecretValue>)>, StoreError> {
    let mut versions = Vec::with_capacity(stored.len());
    for (version, entry) in stored {
        let value = match tree.reader.open(secret, version, entry).await {
            Ok(value) => Some(value),
            Err(StoreError::Sealed { problem: SealError::DataKey { .. } | SealError::Ciphertext, .. }) => None,
            Err(problem) => return Err(problem),
        };
        versions.push((version, value));
    }
    Ok(versions)
}

async fn entries(tree: &SecretTree, folder: Key) -> Result<BTreeMap<Key, Entry>, StoreError> {
    let listing = tree.store().list(&folder).await?;
    Ok(listing.entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect())
}
