//! The journal: a new credential is kept here before the outside system hears of it, so that a lost reply or a
//! crash leads to the same credential on retry.

use rotacast_proto::SecretValue;
use rotacast_protocol::{Epoch, SecretName, Version};

use super::versions::attempts;
use super::{SecretTree, as_read, check_value, deposed};
use crate::{Check, Committed, Cursor, Entry, StoreError, Write};

/// How moving a journalled value to its version ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Published {
    /// The version holds the journalled value, since this cursor.
    Done(Cursor),
    /// Another client has taken the number: another value is stored under it, or it was destroyed. The journal entry is kept:
    /// its credential may exist outside and must be revoked first.
    Taken,
    /// There is neither a journal entry nor a version.
    Missing,
}

impl SecretTree {
    /// Keeps a new credential's value, unless one is kept already: that one wins and is returned.
    ///
    /// # Errors
    /// [`StoreError::NotLeader`] if `epoch` is over; [`StoreError::Invalid`] or [`StoreError::TooLarge`] for the
    /// value; what the store says.
    pub async fn journal(
        &self,
        secret: &SecretName,
        version: Version,
        value: SecretValue,
        epoch: Epoch,
    ) -> Result<SecretValue, StoreError> {
        check_value(secret, &value)?;
        let key = self.journal_key(secret, version);
        let checks = vec![self.leads(epoch), Check::Absent(key.clone())];
        let sealed = self.seal_for_ourselves(secret, version, &value)?;
        match self.commit(checks, vec![Write::Put(key, sealed)]).await? {
            Committed::Done(_) => Ok(value),
            Committed::Conflict => self.read_journal(secret, version).await?.ok_or_else(|| deposed(epoch)),
        }
    }

    /// What is journalled for a version.
    ///
    /// # Errors
    /// What the store says.
    pub async fn read_journal(&self, secret: &SecretName, version: Version) -> Result<Option<SecretValue>, StoreError> {
        match self.store.get(&self.journal_key(secret, version)).await? {
            Some(entry) => self.reader.open(secret, version, entry).await.map(Some),
            None => Ok(None),
        }
    }

    /// Forgets a journalled value. Doing it again changes nothing.
    ///
    /// # Errors
    /// [`StoreError::NotLeader`] if `epoch` is over; what the store says.
    pub async fn clear_journal(&self, secret: &SecretName, version: Version, epoch: Epoch) -> Result<(), StoreError> {
        let write = Write::Delete(self.journal_key(secret, version));
        match self.commit(vec![self.leads(epoch)], vec![write]).await? {
            Committed::Done(_) => Ok(()),
            Committed::Conflict => Err(deposed(epoch)),
        }
    }

    /// Makes the journalled value the version's, and ends the journal entry, in one step. Doing it again answers
    /// `Done`: a version without a journal entry is one that was published before.
    ///
    /// # Errors
    /// [`StoreError::NotLeader`] if `epoch` is over; what the store says.
    pub async fn publish_journalled(
        &self,
        secret: &SecretName,
        version: Version,
        epoch: Epoch,
    ) -> Result<Published, StoreError> {
        let version_key = self.version_key(secret, version);
        let journal_key = self.journal_key(secret, version);
        let mut pauses = attempts();
        let mut seen: Option<(Option<Cursor>, Option<Cursor>)> = None;
        loop {
            let journal = self.store.get(&journal_key).await?;
            let stored = self.store.get(&version_key).await?;
            let (destroyed, destroyed_at) = self.read_destroyed(secret).await?;
            match (&journal, &stored) {
                (Some(journal), Some(stored)) => {
                    let ours = self.reader.open(secret, version, journal.clone()).await?;
                    if ours != self.reader.open(secret, version, stored.clone()).await? {
                        return Ok(Published::Taken);
                    }
                    self.clear_journal(secret, version, epoch).await?;
                    return Ok(Published::Done(stored.created));
                }
                (None, Some(stored)) => return Ok(Published::Done(stored.created)),
                (None, None) => return Ok(Published::Missing),
                (Some(_), None) if destroyed.contains(version) => return Ok(Published::Taken),
                (Some(journal), None) => {
                    let checks = vec![
                        self.leads(epoch),
                        Check::Absent(version_key.clone()),
                        Check::Unchanged(journal_key.clone(), journal.modified),
                        as_read(self.destroyed_key(secret), destroyed_at),
                    ];
                    let value = self.reader.open(secret, version, journal.clone()).await?;
                    let sealed = self.seal(secret, version, &value)?;
                    let writes = vec![Write::Put(version_key.clone(), sealed), Write::Delete(journal_key.clone())];
                    if let Committed::Done(cursor) = self.commit(checks, writes).await? {
                        return Ok(Published::Done(cursor));
                    }
                }
            }
            // A conflict with all keys as before leaves only the leadership to blame.
            let now = (modified(journal.as_ref()), destroyed_at);
            if seen.replace(now) == Some(now) {
                return Err(deposed(epoch));
            }
            match pauses.next() {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(deposed(epoch)),
            }
        }
    }
}

fn modified(entry: Option<&Entry>) -> Option<Cursor> {
    entry.map(|entry| entry.modified)
}
