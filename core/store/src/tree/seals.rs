//! Values sealed on their way into the store.

use std::collections::BTreeSet;
use std::sync::Arc;

use rand::RngCore as _;
use rotacast_proto::{KeyId, SecretValue};
use rotacast_protocol::{ClusterName, SecretName, Version};
use rotacast_seal::{ReaderName, ReaderSet, SealError, Sealed, SealingKeys, add_readers, open, seal};

use super::versions::attempts;
use super::{SecretTree, as_read, parse_version_key};
use crate::reader::sealed_error;
use crate::{Check, Committed, Entry, Key, StoreError, Write};

/// Whom the values of a secret are sealed for. Asked each time one is sealed: the configuration may have changed.
pub trait Readers: Send + Sync + 'static {
    /// The broadcasters and every service that may use the secret and has a sealing key.
    fn readers(&self, secret: &SecretName) -> ReaderSet;
}

/// Who can open a stored version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SealState {
    /// It is the value itself: sealing was off, or another client wrote it.
    Plain,
    /// It is sealed.
    Sealed {
        /// For whom.
        readers: Vec<(ReaderName, KeyId)>,
        /// How many former readers could open it as well, whose entries made way for others.
        made_way: u64,
    },
}

/// What became of a version's readers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rewrapped {
    /// Its data key is wrapped for so many more readers.
    Added(usize),
    /// All of its readers could open it already, and it opens.
    Nothing,
    /// It is not sealed.
    Plain,
    /// It is gone.
    Gone,
}

impl SecretTree {
    /// Opens what is sealed with `keys`. With `readers`, seals every value that it writes.
    #[must_use]
    pub fn sealed(mut self, cluster: ClusterName, keys: SealingKeys, readers: Option<Arc<dyn Readers>>) -> Self {
        self.reader = self.reader.opening(cluster, keys);
        self.readers = readers;
        self
    }

    /// Stores new values as they are. What is sealed already is still opened, and wrapped for readers that come.
    #[must_use]
    pub fn in_the_clear(mut self) -> Self {
        self.in_the_clear = true;
        self
    }

    /// What is to be stored for a value of this version.
    pub(super) fn seal(
        &self,
        secret: &SecretName,
        version: Version,
        value: &SecretValue,
    ) -> Result<SecretValue, StoreError> {
        match &self.readers {
            Some(readers) if !self.in_the_clear => self.seal_for(secret, version, value, &readers.readers(secret)),
            _ => Ok(value.clone()),
        }
    }

    /// The same for a value that has no version yet: it is the broadcasters' alone.
    pub(super) fn seal_for_ourselves(
        &self,
        secret: &SecretName,
        version: Version,
        value: &SecretValue,
    ) -> Result<SecretValue, StoreError> {
        match &self.readers {
            Some(readers) if !self.in_the_clear => {
                self.seal_for(secret, version, value, &readers.readers(secret).broadcasters())
            }
            _ => Ok(value.clone()),
        }
    }

    fn seal_for(
        &self,
        secret: &SecretName,
        version: Version,
        value: &SecretValue,
        readers: &ReaderSet,
    ) -> Result<SecretValue, StoreError> {
        let sealed = self.reader.sealing_place(secret, version, |place| match place {
            Some((place, _)) => Ok(seal(place, value, readers, &mut |bytes| rand::rng().fill_bytes(bytes))),
            None => Err(SealError::NoKey { sealed_for: Vec::new(), at_hand: Vec::new() }),
        });
        let sealed = sealed.map_err(|problem| sealed_error(&self.version_key(secret, version), problem))?;
        Ok(sealed.encode())
    }

    /// Who can open a version that is stored. `None`: it is not stored.
    ///
    /// # Errors
    /// [`StoreError::Sealed`] if it does not parse; what the store says.
    pub async fn seal_state(&self, secret: &SecretName, version: Version) -> Result<Option<SealState>, StoreError> {
        let key = self.version_key(secret, version);
        let Some(entry) = self.store.get(&key).await? else { return Ok(None) };
        let sealed = Sealed::decode(entry.value.expose()).map_err(|problem| sealed_error(&key, problem))?;
        let Some(sealed) = sealed else { return Ok(Some(SealState::Plain)) };
        let added = self.reader.added_readers(secret, version).await?.map(|(added, _)| added);
        let all = sealed.readers().iter().chain(added.iter().flat_map(|added| added.readers()));
        let readers = all.filter_map(|wrapped| Some((wrapped.reader()?, wrapped.key()?))).collect();
        let made_way = added.as_ref().map_or(0, |added| added.made_way());
        Ok(Some(SealState::Sealed { readers, made_way }))
    }

    /// The readers of a secret that its values cannot be sealed for, because there are too many.
    #[must_use]
    pub fn left_out(&self, secret: &SecretName) -> Vec<ReaderName> {
        self.readers.as_ref().map_or_else(Vec::new, |readers| readers.readers(secret).left_out().to_vec())
    }

    /// The versions that have a journalled value, each with the keys that it is sealed for: none if it is in the clear.
    ///
    /// # Errors
    /// [`StoreError::Sealed`] if it does not parse; what the store says.
    pub async fn journal_keys(&self, secret: &SecretName) -> Result<Vec<(Version, Vec<KeyId>)>, StoreError> {
        let mut all = Vec::new();
        for (version, entry) in self.entries_of(&self.journal_folder(), secret).await? {
            let sealed = Sealed::decode(entry.value.expose()).map_err(|problem| sealed_error(&entry.key, problem))?;
            let keys = sealed.iter().flat_map(|sealed| sealed.readers()).filter_map(|wrapped| wrapped.key());
            all.push((version, keys.collect()));
        }
        Ok(all)
    }

    /// The secrets that have a stored version or a journalled value.
    ///
    /// # Errors
    /// What the store says.
    pub async fn stored_secrets(&self) -> Result<BTreeSet<SecretName>, StoreError> {
        let mut secrets = BTreeSet::new();
        for folder in [self.versions_folder(), self.journal_folder()] {
            let listing = self.store.list(&folder).await?;
            let keys = listing.entries.iter().filter_map(|entry| parse_version_key(entry.key.below(&folder)?).ok());
            secrets.extend(keys.map(|(secret, _)| secret));
        }
        Ok(secrets)
    }

    /// Sees to it that every reader of a secret can open its stored versions, the broadcasters what is journalled, and that all of
    /// it opens. One version's problem does not keep another one from its readers. Doing it again changes nothing, and no reader
    /// fails meanwhile: what it reads stays.
    ///
    /// It needs no leadership: a program that has the key and may write adds the readers of its configuration.
    ///
    /// # Errors
    /// What the store says when it lists the versions and the journal.
    pub async fn rewrap_all(
        &self,
        secret: &SecretName,
    ) -> Result<Vec<(Version, Result<Rewrapped, StoreError>)>, StoreError> {
        let mut outcomes = Vec::new();
        for (version, entry) in self.entries_of(&self.versions_folder(), secret).await? {
            outcomes.push((version, self.rewrap(secret, version, entry).await));
        }
        for (version, entry) in self.entries_of(&self.journal_folder(), secret).await? {
            outcomes.push((version, self.reseal_journalled(secret, version, entry).await));
        }
        Ok(outcomes)
    }

    /// What a folder has for a secret, by version.
    async fn entries_of(&self, folder: &Key, secret: &SecretName) -> Result<Vec<(Version, Entry)>, StoreError> {
        let listing = self.store.list(&folder.child(secret)).await?;
        // Below `versions/a/` also lie the versions of secrets such as `a/b`.
        let of_secret = |entry: Entry| {
            let (found, version) = parse_version_key(entry.key.below(folder)?).ok()?;
            (found == *secret).then_some((version, entry))
        };
        Ok(listing.entries.into_iter().filter_map(of_secret).collect())
    }

    /// A journalled value is the broadcasters' alone. One that is sealed for a key that is no longer the one in use is sealed
    /// anew.
    async fn reseal_journalled(
        &self,
        secret: &SecretName,
        version: Version,
        entry: Entry,
    ) -> Result<Rewrapped, StoreError> {
        let refused = |problem| sealed_error(&entry.key, problem);
        let Some(sealed) = Sealed::decode(entry.value.expose()).map_err(refused)? else { return Ok(Rewrapped::Plain) };
        let Some(readers) = &self.readers else { return Ok(Rewrapped::Nothing) };
        let value = self.reader.open(secret, version, entry.clone()).await?;
        let ours = readers.readers(secret).broadcasters();
        let opens = |key: &KeyId| sealed.readers().iter().any(|wrapped| wrapped.is_for(key));
        if ours.readers().iter().all(|reader| opens(reader.key.id())) {
            return Ok(Rewrapped::Nothing);
        }
        let anew = self.seal_for(secret, version, &value, &ours)?;
        let checks = vec![Check::Unchanged(entry.key.clone(), entry.modified)];
        match self.commit(checks, vec![Write::Put(entry.key.clone(), anew)]).await? {
            Committed::Done(_) => Ok(Rewrapped::Added(1)),
            // It has become a version, or another broadcaster was faster.
            Committed::Conflict => Ok(Rewrapped::Gone),
        }
    }

    async fn rewrap(&self, secret: &SecretName, version: Version, entry: Entry) -> Result<Rewrapped, StoreError> {
        let key = self.version_key(secret, version);
        let refused = |problem| sealed_error(&key, problem);
        let Some(sealed) = Sealed::decode(entry.value.expose()).map_err(refused)? else { return Ok(Rewrapped::Plain) };
        let wanted = self.readers.as_ref().map(|readers| readers.readers(secret)).unwrap_or_default();
        let added_key = self.reader.added_readers_key(secret, version);
        let mut pauses = attempts();
        loop {
            let (added, read_at) = match self.reader.added_readers(secret, version).await? {
                Some((added, read_at)) => (Some(added), Some(read_at)),
                None => (None, None),
            };
            let known: BTreeSet<KeyId> =
                added.iter().flat_map(|added| added.readers()).filter_map(|wrapped| wrapped.key()).collect();
            let next = self.reader.sealing_place(secret, version, |place| match place {
                Some((place, keys)) => {
                    let mut random = |bytes: &mut [u8]| rand::rng().fill_bytes(bytes);
                    let next = add_readers(place, &sealed, added.as_ref(), keys, &wanted, &mut random)?;
                    if next.is_none() {
                        open(place, &sealed, added.as_ref(), keys)?;
                    }
                    Ok(next)
                }
                None => Err(SealError::NoKey { sealed_for: Vec::new(), at_hand: Vec::new() }),
            });
            let Some(next) = next.map_err(refused)? else { return Ok(Rewrapped::Nothing) };
            let count =
                next.readers().iter().filter_map(|wrapped| wrapped.key()).filter(|key| !known.contains(key)).count();
            let checks = vec![Check::Unchanged(key.clone(), entry.modified), as_read(added_key.clone(), read_at)];
            let writes = vec![Write::Put(added_key.clone(), next.encode())];
            if let Committed::Done(_) = self.commit(checks, writes).await? {
                return Ok(Rewrapped::Added(count));
            }
            if self.store.get(&key).await?.is_none_or(|now| now.modified != entry.modified) {
                return Ok(Rewrapped::Gone);
            }
            self.lost_to_others(&added_key, pauses.next()).await?;
        }
    }
}
