//! Versions: immutable, created once under the next number, destroyed by the leader only.

use std::collections::BTreeSet;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use rotacast_proto::SecretValue;
use rotacast_protocol::{Epoch, SecretName, Version};

use super::{SecretTree, as_read, check_value, deposed, parse_version_key};
use crate::{Check, Committed, Cursor, Entry, StoreError, StoredVersion, Write};

/// How often a commit that lost a race, or whose outcome is unknown, is tried again. Every lost race means that
/// another client made progress, so only a crowd larger than this at one secret can use it up.
const ATTEMPTS: usize = 64;
/// First and longest pause between these attempts; with jitter.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// A version's place in the store's history.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VersionStamp {
    /// Its number.
    pub version: Version,
    /// When it was created.
    pub created: Cursor,
    /// When it was last written: later than `created` only if a client broke the rule that versions never change.
    pub modified: Cursor,
}

/// How creating a version ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Created {
    /// It is stored, as of this cursor.
    Done(Cursor),
    /// The number is taken, by a stored version or by one that was destroyed. Nothing was written.
    Exists,
    /// One of the given checks did not hold. Nothing was written.
    Conflict,
}

/// The pauses between attempts at a contended key.
pub(super) fn attempts() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::new()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .with_max_times(ATTEMPTS)
        .with_jitter()
        .build()
}

impl SecretTree {
    /// See `SecretReader::read_version`.
    ///
    /// # Errors
    /// What the store says.
    pub async fn read_version(
        &self,
        secret: &SecretName,
        version: Version,
    ) -> Result<Option<StoredVersion>, StoreError> {
        self.reader.read_version(secret, version).await
    }

    /// All stored versions of a secret, ascending, linearizably. Keys that are no versions are left out here;
    /// [`SecretTree::watch_versions`] reports them.
    ///
    /// # Errors
    /// What the store says.
    pub async fn list_versions(&self, secret: &SecretName) -> Result<Vec<VersionStamp>, StoreError> {
        let stored = self.stored_versions(secret).await?;
        Ok(stored.into_iter().map(|(stamp, _)| stamp).collect())
    }

    /// The same with what is stored, which may be sealed.
    pub(super) async fn stored_versions(&self, secret: &SecretName) -> Result<Vec<(VersionStamp, Entry)>, StoreError> {
        let folder = self.versions_folder();
        let listing = self.store.list(&folder.child(secret)).await?;
        let mut versions: Vec<_> = listing
            .entries
            .into_iter()
            .filter_map(|entry| {
                // Below `versions/a/` also lie the versions of secrets such as `a/b`.
                let (found, version) = parse_version_key(entry.key.below(&folder)?).ok()?;
                let stamp = VersionStamp { version, created: entry.created, modified: entry.modified };
                (found == *secret).then_some((stamp, entry))
            })
            .collect();
        versions.sort_by_key(|(stamp, _)| stamp.version);
        Ok(versions)
    }

    /// Creates a version under a given number if that number was never used and `checks` hold.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] or [`StoreError::TooLarge`] for the value; what the store says. After a transient
    /// error the outcome is unknown; trying again answers `Exists` if it was done.
    pub async fn create_version(
        &self,
        secret: &SecretName,
        version: Version,
        value: SecretValue,
        mut checks: Vec<Check>,
    ) -> Result<Created, StoreError> {
        check_value(secret, &value)?;
        let value = self.seal(secret, version, &value)?;
        let key = self.version_key(secret, version);
        let (destroyed, destroyed_at) = self.read_destroyed(secret).await?;
        if destroyed.contains(version) {
            return Ok(Created::Exists);
        }
        checks.push(Check::Absent(key.clone()));
        checks.push(as_read(self.destroyed_key(secret), destroyed_at));
        match self.commit(checks, vec![Write::Put(key.clone(), value)]).await? {
            Committed::Done(cursor) => Ok(Created::Done(cursor)),
            Committed::Conflict if self.store.get(&key).await?.is_some() => Ok(Created::Exists),
            Committed::Conflict => Ok(Created::Conflict),
        }
    }

    /// Creates a version under the next number: one more than the highest ever stored, destroyed, or named by
    /// `floor` (the highest number the rotation record knows). Several callers at once get different numbers.
    ///
    /// A lost reply does no harm: the same number is tried again, and found to hold the same value.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] or [`StoreError::TooLarge`] for the value; what the store says, in which case the
    /// outcome is unknown if the error is transient.
    pub async fn put_next(
        &self,
        secret: &SecretName,
        value: SecretValue,
        floor: Option<Version>,
    ) -> Result<Version, StoreError> {
        check_value(secret, &value)?;
        let mut pauses = attempts();
        let mut unknown: Option<Version> = None;
        loop {
            let failed = match self.try_next(secret, &value, floor, &mut unknown).await {
                Ok(Some(version)) => return Ok(version),
                Ok(None) => StoreError::Unreachable {
                    endpoint: self.store.describe(),
                    problem: format!("{ATTEMPTS} attempts at the next number of {secret} lost to other writers"),
                },
                Err(error) if !error.is_transient() => return Err(error),
                Err(error) => error,
            };
            let Some(pause) = pauses.next() else { return Err(failed) };
            tokio::time::sleep(pause).await;
        }
    }

    /// One attempt. `unknown` is the number of an earlier attempt whose outcome is not known: that one is settled
    /// first, since it may still land.
    async fn try_next(
        &self,
        secret: &SecretName,
        value: &SecretValue,
        floor: Option<Version>,
        unknown: &mut Option<Version>,
    ) -> Result<Option<Version>, StoreError> {
        let version = match *unknown {
            Some(version) => version,
            None => self.next_number(secret, floor).await?,
        };
        match self.create_version(secret, version, value.clone(), Vec::new()).await {
            Ok(Created::Done(_)) => Ok(Some(version)),
            Ok(Created::Exists) if unknown.is_some() => {
                *unknown = None;
                let stored = self.read_version(secret, version).await.inspect_err(|_| *unknown = Some(version))?;
                Ok(stored.is_some_and(|stored| stored.value == *value).then_some(version))
            }
            Ok(Created::Exists | Created::Conflict) => Ok(None),
            Err(error) => {
                if error.is_transient() {
                    *unknown = Some(version);
                }
                Err(error)
            }
        }
    }

    pub(super) async fn next_number(&self, secret: &SecretName, floor: Option<Version>) -> Result<Version, StoreError> {
        let stored = self.list_versions(secret).await?.last().map(|stamp| stamp.version);
        let destroyed = self.read_destroyed(secret).await?.0.last();
        let highest = stored.max(destroyed).max(floor);
        Ok(highest.map_or(Version::FIRST, Version::next))
    }

    /// Notes that numbers were used in a history that the store has lost: they are no gap, and do not come again. A number
    /// whose key is there is left alone. Doing it again changes nothing.
    ///
    /// # Errors
    /// [`StoreError::NotLeader`] if `epoch` is over; what the store says.
    pub async fn note_lost(
        &self,
        secret: &SecretName,
        numbers: &BTreeSet<Version>,
        epoch: Epoch,
    ) -> Result<(), StoreError> {
        let there: BTreeSet<Version> = self.list_versions(secret).await?.iter().map(|stamp| stamp.version).collect();
        let lost: Vec<Version> = numbers.difference(&there).copied().collect();
        self.note_destroyed(secret, &lost, Vec::new(), epoch).await
    }

    /// Deletes a version's value for good and notes that its number was used. Doing it again changes nothing.
    ///
    /// # Errors
    /// [`StoreError::NotLeader`] if `epoch` is over; what the store says.
    pub async fn destroy_version(&self, secret: &SecretName, version: Version, epoch: Epoch) -> Result<(), StoreError> {
        let key = self.version_key(secret, version);
        let readers = self.reader.added_readers_key(secret, version);
        self.note_destroyed(secret, &[version], vec![Write::Delete(key), Write::Delete(readers)], epoch).await
    }

    async fn note_destroyed(
        &self,
        secret: &SecretName,
        versions: &[Version],
        with: Vec<Write>,
        epoch: Epoch,
    ) -> Result<(), StoreError> {
        let mut pauses = attempts();
        loop {
            let (mut destroyed, read_at) = self.read_destroyed(secret).await?;
            versions.iter().for_each(|version| destroyed.insert(*version));
            let note = self.destroyed_key(secret);
            let checks = vec![self.leads(epoch), as_read(note.clone(), read_at)];
            let mut writes = with.clone();
            writes.push(Write::Put(note, SecretValue::new(destroyed.encode())));
            if let Committed::Done(_) = self.commit(checks, writes).await? {
                return Ok(());
            }
            // Either deposed, or another of this leader's calls wrote the note meanwhile.
            if self.read_destroyed(secret).await?.1 == read_at {
                return Err(deposed(epoch));
            }
            match pauses.next() {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(deposed(epoch)),
            }
        }
    }
}
