//! The keys Rotacast keeps, as a leader's typed operations.

mod audit_heads;
mod destroyed;
mod import;
mod journal;
mod origin;
mod owner;
mod records;
mod requests;
mod roster;
mod seals;
mod version_log;
mod version_watch;
mod versions;

use std::sync::Arc;
use std::time::Duration;

use rotacast_proto::SecretValue;
use rotacast_protocol::{Epoch, SecretName, Version};
use rotacast_seal::Sealed;
use tokio_util::sync::CancellationToken;

use crate::{
    Check, Commit, Committed, Cursor, Finding, Key, Leadership, Level, Prefix, ReadStore, SecretReader, Store,
    StoreError,
};

pub use audit_heads::{AuditHead, AuditHeads, StoredAuditHead};
#[cfg(feature = "conformance")]
pub(crate) use import::AT_ONCE as IMPORTS_AT_ONCE;
pub use import::{ImportEvent, PlainImporter};
pub use journal::Published;
pub use owner::Owner;
pub use records::Records;
pub use requests::StoredRequest;
pub use roster::{Roster, RosterEntry};
pub use seals::{Readers, Rewrapped, SealState};
pub use version_log::VersionEvent;
pub use versions::{Created, VersionStamp};

/// A cursor that no store ever reaches, and every store can express.
const NEVER_WRITTEN: u64 = i64::MAX as u64;

/// Everything Rotacast keeps below one prefix of a store, read and written by a leader. [`SecretReader`] describes the
/// keys.
#[derive(Clone)]
pub struct SecretTree {
    store: Arc<dyn Store>,
    reader: SecretReader,
    /// Whom values are sealed for; none: there is no key.
    readers: Option<Arc<dyn Readers>>,
    /// Whether values are stored as they are, although there is a key.
    in_the_clear: bool,
}

impl SecretTree {
    /// The tree below `prefix`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, prefix: Prefix) -> Self {
        let reader = SecretReader::new(Arc::clone(&store) as Arc<dyn ReadStore>, prefix);
        Self { store, reader, readers: None, in_the_clear: false }
    }

    /// The store below.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Where the tree begins.
    #[must_use]
    pub fn prefix(&self) -> &Prefix {
        self.reader.prefix()
    }

    /// Waits until this broadcaster leads, or `cancel`; see [`Store::campaign`].
    ///
    /// # Errors
    /// [`StoreError::Cancelled`], or what the store says if retrying cannot mend it.
    pub async fn campaign(
        &self,
        candidate: &str,
        ttl: Duration,
        cancel: CancellationToken,
    ) -> Result<Leadership, StoreError> {
        self.store.campaign(&self.leader_key(), candidate, ttl, cancel).await
    }

    /// Who leads, by the text it campaigned with, read linearizably. One that has just died is named until its time is
    /// over. `None`: no broadcaster leads, or the store (the embedded one) does not know.
    ///
    /// # Errors
    /// What the store says.
    pub async fn leader(&self) -> Result<Option<String>, StoreError> {
        let entry = self.store.get(&self.leader_key()).await?;
        Ok(entry.map(|entry| String::from_utf8_lossy(entry.value.expose()).into_owned()))
    }

    /// The check that this epoch's leadership still lasts.
    #[must_use]
    pub fn leads(&self, epoch: Epoch) -> Check {
        Check::Leads(self.leader_key(), epoch)
    }

    /// Whether this epoch's leadership lasts, linearizably.
    ///
    /// # Errors
    /// What the store says.
    pub async fn is_led_by(&self, epoch: Epoch) -> Result<bool, StoreError> {
        // Deletes what is never there: any member of etcd, which may lag behind, answers a transaction that writes nothing.
        let nothing = crate::Write::Delete(self.probe_key());
        Ok(matches!(self.commit(vec![self.leads(epoch)], vec![nothing]).await?, Committed::Done(_)))
    }

    /// What the store says about itself, and whether it lets us write below the prefix. Nothing is written.
    pub async fn examine(&self) -> Vec<Finding> {
        let mut findings = self.store.examine().await;
        let reachable = findings.iter().all(|finding| finding.level != Level::Error);
        let probe = self.probe_key();
        // A check that never holds: rights are looked at before it is.
        let refused = self
            .commit(
                vec![Check::Unchanged(probe.clone(), Cursor(NEVER_WRITTEN))],
                vec![crate::Write::Put(probe, SecretValue::new(b"probe".to_vec()))],
            )
            .await;
        let finding = |level, text: String, fix: &str| Finding {
            level,
            subject: "store prefix".into(),
            text,
            fix: fix.to_owned(),
        };
        findings.extend(match refused {
            Ok(_) => Some(finding(Level::Ok, format!("{} may be written", self.prefix()), "")),
            Err(error @ StoreError::Denied { .. }) => Some(finding(
                Level::Error,
                error.to_string(),
                "give what the store's settings name the right to read and write everything below the prefix",
            )),
            // Said already.
            Err(_) if !reachable => None,
            Err(error) => Some(finding(Level::Error, error.to_string(), "see the store's own log")),
        });
        findings
    }

    fn folder(&self, name: &str) -> Key {
        self.reader.folder(name)
    }

    fn leader_key(&self) -> Key {
        self.folder("leader")
    }

    /// A key that is never written.
    fn probe_key(&self) -> Key {
        self.folder("access-probe")
    }

    fn versions_folder(&self) -> Key {
        self.reader.versions_folder()
    }

    /// Where a version's value is stored.
    #[must_use]
    pub fn version_key(&self, secret: &SecretName, version: Version) -> Key {
        self.reader.version_key(secret, version)
    }

    fn journal_key(&self, secret: &SecretName, version: Version) -> Key {
        self.journal_folder().child(secret).child(version)
    }

    fn journal_folder(&self) -> Key {
        self.folder("journal")
    }

    async fn commit(&self, checks: Vec<Check>, writes: Vec<crate::Write>) -> Result<Committed, StoreError> {
        self.store.commit(Commit { checks, writes }).await
    }

    /// Another writer of a key was faster: waits before the next attempt, if there is one.
    async fn lost_to_others(&self, key: &Key, pause: Option<Duration>) -> Result<(), StoreError> {
        let Some(pause) = pause else {
            return Err(StoreError::Unreachable {
                endpoint: self.store.describe(),
                problem: format!("every attempt to write {key} lost to other writers"),
            });
        };
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// Below `versions/`: `<secret>/<n>`.
fn parse_version_key(below: &str) -> Result<(SecretName, Version), String> {
    let (secret, version) = below.rsplit_once('/').ok_or("expected <secret>/<number>")?;
    let version = version.parse().map_err(|problem| format!("{problem}"))?;
    let secret = SecretName::new(secret).map_err(|problem| problem.to_string())?;
    Ok((secret, version))
}

/// The leader of `epoch` found its commit refused though nothing else explains it.
fn deposed(epoch: Epoch) -> StoreError {
    StoreError::NotLeader { problem: format!("the store no longer knows epoch {epoch} as the leader's") }
}

fn check_value(secret: &SecretName, value: &SecretValue) -> Result<(), StoreError> {
    if value.is_empty() {
        return Err(StoreError::Invalid { what: format!("the value of {secret}"), problem: "it is empty".into() });
    }
    if value.len() > SecretValue::MAX_BYTES {
        return Err(StoreError::TooLarge {
            what: format!("the value of {secret}"),
            found: value.len(),
            limit: SecretValue::MAX_BYTES,
        });
    }
    if Sealed::is_sealed(value.expose()) {
        let problem = "it is a sealed value: was it copied out of the store? Give the value itself".into();
        return Err(StoreError::Invalid { what: format!("the value of {secret}"), problem });
    }
    Ok(())
}

/// The condition that a key is as it was read: absent, or last written at that cursor.
fn as_read(key: Key, modified: Option<Cursor>) -> Check {
    match modified {
        Some(cursor) => Check::Unchanged(key, cursor),
        None => Check::Absent(key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_segment_of_a_version_key_is_the_number() {
        let (secret, version) = parse_version_key("payments/db/7").unwrap();
        assert_eq!((secret.as_str(), version.get()), ("payments/db", 7));
        let (secret, version) = parse_version_key("a/1/2").unwrap();
        assert_eq!((secret.as_str(), version.get()), ("a/1", 2));
        for bad in ["7", "a/", "a/07", "a/0", "/1", "A/1", "a//1", "a/x"] {
            assert!(parse_version_key(bad).is_err(), "{bad:?}");
        }
    }
}
