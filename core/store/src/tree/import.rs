//! Importing a tree that has one key per secret, whose value changes: each observed change becomes the next version.

use std::collections::BTreeSet;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use rotacast_proto::SecretValue;
use rotacast_protocol::{SecretName, Version};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::versions::attempts;
use super::{SecretTree, as_read, check_value};
use crate::{Check, Committed, Cursor, Entry, Key, Prefix, StoreError, StoreEvent, Write};

/// Events waiting for a slow reader; when full, the import waits.
const QUEUE: usize = 64;
/// The newest format of the marker this code writes and reads.
const FORMAT: u32 = 1;
/// First and longest pause while the store is away; with jitter.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What an import did or could not do. Never carries a value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ImportEvent {
    /// A changed value became a version.
    Imported {
        /// Whose.
        secret: SecretName,
        /// Under which number.
        version: Version,
    },
    /// A source key was deleted. Its secret and versions stay.
    SourceDeleted {
        /// Whose.
        secret: SecretName,
    },
    /// A source key's value was not imported, and will not be until it changes.
    Refused {
        /// Which key.
        key: Key,
        /// Why.
        problem: String,
    },
    /// Everything that was in the source as of this cursor is imported or refused.
    Resynced(Cursor),
}

/// How far one source key was imported. Written in the same commit as the version.
#[derive(Clone, Serialize, Deserialize)]
struct Marker {
    format: u32,
    /// The source key.
    source: String,
    /// When the newest value that was dealt with was written to the source.
    modified: u64,
    /// The version made of the newest value that was imported.
    version: Option<Version>,
    /// What a later minor version wrote.
    #[serde(flatten)]
    unknown: serde_json::Map<String, serde_json::Value>,
}

/// What came of one observed value.
enum Outcome {
    Imported(Version),
    /// By an earlier life of this importer, or by another one.
    DealtWith,
    Refused(String),
}

/// Watches a tree of the same store that has one key per secret, and imports every change it observes as the
/// next version of that secret: never twice, in the order they were written, across crashes and with several
/// importers at once. (A store's watch may itself skip a value that was overwritten while nobody watched.)
#[derive(Clone)]
pub struct PlainImporter {
    tree: SecretTree,
    source: Prefix,
}

impl PlainImporter {
    /// Imports what lies below `source` into `tree`.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] if one of the two lies within the other: it would import its own versions.
    pub fn new(tree: SecretTree, source: Prefix) -> Result<Self, StoreError> {
        if source.overlaps(tree.prefix()) {
            return Err(StoreError::Invalid {
                what: format!("the source {source} of an import"),
                problem: format!("it overlaps {}, where the versions are kept", tree.prefix()),
            });
        }
        Ok(Self { tree, source })
    }

    /// Imports until it is dropped, and tells what it does. It retries by itself while the store is away, and
    /// ends with the first error that retrying cannot mend. Must be called within a tokio runtime.
    #[must_use]
    pub fn run(&self) -> BoxStream<'static, Result<ImportEvent, StoreError>> {
        let (events, queue) = mpsc::channel(QUEUE);
        let importer = self.clone();
        tokio::spawn(async move {
            let closed = events.clone();
            tokio::select! {
                () = closed.closed() => {}
                ended = importer.import_all(&events) => {
                    if let Err(error) = ended {
                        let _ = events.send(Err(error)).await;
                    }
                }
            }
        });
        ReceiverStream::new(queue).boxed()
    }

    async fn import_all(&self, events: &mpsc::Sender<Result<ImportEvent, StoreError>>) -> Result<(), StoreError> {
        let mut watch = self.tree.store().watch(self.source.key());
        // The source keys that exist: what the last listing showed, and what came and went since.
        let mut known: BTreeSet<Key> = BTreeSet::new();
        let mut listed: BTreeSet<Key> = BTreeSet::new();
        while let Some(event) = watch.next().await {
            let mut told = Vec::new();
            match event? {
                StoreEvent::Init => listed.clear(),
                StoreEvent::Listed(entry) => {
                    listed.insert(entry.key.clone());
                    told.extend(self.import(&entry).await?);
                }
                StoreEvent::Ready(cursor) => {
                    let gone = known.difference(&listed).filter_map(|key| self.secret_of(key).ok());
                    told.extend(gone.map(|secret| ImportEvent::SourceDeleted { secret }));
                    told.push(ImportEvent::Resynced(cursor));
                    known = std::mem::take(&mut listed);
                }
                StoreEvent::Put(entry) => {
                    known.insert(entry.key.clone());
                    told.extend(self.import(&entry).await?);
                }
                StoreEvent::Deleted { key, .. } => {
                    if known.remove(&key)
                        && let Ok(secret) = self.secret_of(&key)
                    {
                        told.push(ImportEvent::SourceDeleted { secret });
                    }
                }
            }
            for event in told {
                if events.send(Ok(event)).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn secret_of(&self, key: &Key) -> Result<SecretName, String> {
        let name = key.below(self.source.key()).ok_or_else(|| format!("expected it below {}", self.source))?;
        SecretName::new(name).map_err(|problem| problem.to_string())
    }

    /// Deals with one observed value, as long as it takes.
    async fn import(&self, entry: &Entry) -> Result<Option<ImportEvent>, StoreError> {
        let refused = |problem| Ok(Some(ImportEvent::Refused { key: entry.key.clone(), problem }));
        let secret = match self.secret_of(&entry.key) {
            Ok(secret) => secret,
            Err(problem) => return refused(problem),
        };
        let backoff = ExponentialBuilder::new()
            .with_min_delay(FIRST_PAUSE)
            .with_max_delay(LONGEST_PAUSE)
            .with_jitter()
            .without_max_times();
        let mut pauses = backoff.build();
        loop {
            match self.import_once(&secret, entry).await {
                Ok(Outcome::Imported(version)) => return Ok(Some(ImportEvent::Imported { secret, version })),
                Ok(Outcome::DealtWith) => return Ok(None),
                Ok(Outcome::Refused(problem)) => return refused(problem),
                // One secret's broken marker must not stop the others.
                Err(error @ StoreError::Corrupt { .. }) => return refused(error.to_string()),
                Err(error) if error.is_transient() => {
                    tracing::warn!(%secret, %error, "importing: trying again");
                    tokio::time::sleep(pauses.next().unwrap_or(LONGEST_PAUSE)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// One round of attempts. Whatever was done before, here or elsewhere, shows in the marker.
    async fn import_once(&self, secret: &SecretName, entry: &Entry) -> Result<Outcome, StoreError> {
        let tree = &self.tree;
        let marker_key = tree.folder("imports").child(secret);
        let mut pauses = attempts();
        loop {
            let stored = tree.store().get(&marker_key).await?;
            let read_at = stored.as_ref().map(|stored| stored.modified);
            let marker = stored.map(|stored| Marker::decode(&marker_key, stored.value.expose())).transpose()?;
            if marker.as_ref().is_some_and(|marker| marker.modified >= entry.modified.0) {
                return Ok(Outcome::DealtWith);
            }
            let mut next = marker.unwrap_or_else(|| Marker::new(&entry.key));
            next.modified = entry.modified.0;
            let mut checks = vec![as_read(marker_key.clone(), read_at)];
            let mut writes = Vec::new();
            let outcome = match self.judge(secret, entry).await? {
                None => {
                    let number = tree.next_number(secret, next.version).await?;
                    next.version = Some(number);
                    let (key, destroyed) = (tree.version_key(secret, number), tree.read_destroyed(secret).await?);
                    checks.push(Check::Absent(key.clone()));
                    checks.push(as_read(tree.destroyed_key(secret), destroyed.1));
                    writes.push(Write::Put(key, entry.value.clone()));
                    Outcome::Imported(number)
                }
                Some(refusal) => refusal,
            };
            writes.push(Write::Put(marker_key.clone(), next.encode()));
            if let Committed::Done(_) = tree.commit(checks, writes).await? {
                return Ok(outcome);
            }
            let Some(pause) = pauses.next() else {
                return Err(StoreError::Unreachable {
                    endpoint: tree.store().describe(),
                    problem: format!("every attempt to import {secret} lost to other writers"),
                });
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Why a value is no new version, if it is none.
    async fn judge(&self, secret: &SecretName, entry: &Entry) -> Result<Option<Outcome>, StoreError> {
        if let Err(problem) = check_value(secret, &entry.value) {
            return Ok(Some(Outcome::Refused(problem.to_string())));
        }
        let versions = self.tree.stored_versions(secret).await?;
        let same = versions.iter().rposition(|(_, value)| *value == entry.value);
        Ok(same.map(|at| {
            if at + 1 == versions.len() {
                // Written again without a change.
                return Outcome::DealtWith;
            }
            // Retiring the older version would revoke this one with it.
            let version = versions[at].0.version;
            Outcome::Refused(format!("it is the value of version {version} again; a credential is used only once"))
        }))
    }
}

impl Marker {
    fn new(source: &Key) -> Self {
        Self { format: FORMAT, source: source.to_string(), modified: 0, version: None, unknown: serde_json::Map::new() }
    }

    fn decode(key: &Key, bytes: &[u8]) -> Result<Self, StoreError> {
        let corrupt = |problem: String| StoreError::Corrupt { key: key.to_string(), problem };
        let read: Self = serde_json::from_slice(bytes).map_err(|problem| corrupt(problem.to_string()))?;
        if read.format != FORMAT {
            return Err(corrupt(format!("format {}, expected {FORMAT}: written by a newer rotacast?", read.format)));
        }
        Ok(read)
    }

    fn encode(&self) -> SecretValue {
        SecretValue::new(serde_json::to_vec(self).expect("numbers and text always serialise"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_keeps_what_it_does_not_know_and_refuses_a_newer_format() {
        let key = Key::new("k");
        let read = Marker::decode(&key, br#"{"format":1,"source":"s","modified":3,"version":2,"later":[1]}"#).unwrap();
        assert!(String::from_utf8(read.encode().expose().to_vec()).unwrap().contains(r#""later":[1]"#));
        let newer = Marker::decode(&key, br#"{"format":9,"source":"s","modified":3,"version":2}"#).err().unwrap();
        assert!(newer.to_string().contains("format 9"), "{newer}");
    }
}
