//! Importing a tree that has one key per secret, whose value changes: each observed change becomes the next version.

mod held;
mod marker;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use futures::StreamExt as _;
use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::{BoxStream, FuturesOrdered};
use rotacast_protocol::{HistoryId, SecretName, Version};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use self::held::{Held, Listed};
use self::marker::Marker;
use super::versions::attempts;
use super::{SecretTree, as_read, check_value};
use crate::{Check, Committed, Cursor, Entry, Key, Prefix, StoreError, StoreEvent, Write};

/// Events waiting for a slow reader; when full, the import waits.
const QUEUE: usize = 64;
/// Values imported at once. Commits that arrive together share one write to the store's disk, so that more than one
/// is many times as fast; far more would queue up there in front of the leader's renewals.
pub(crate) const AT_ONCE: usize = 32;
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
        /// The source key.
        key: Key,
    },
    /// A source key was written again with the newest value.
    Unchanged {
        /// The source key.
        key: Key,
    },
    /// A source key was deleted. Its secret, if it named one, and versions stay.
    SourceDeleted {
        /// Whose.
        secret: Option<SecretName>,
        /// The source key.
        key: Key,
    },
    /// A source key's value was not imported, and will not be until it changes.
    Refused {
        /// Which key.
        key: Key,
        /// Why.
        problem: String,
    },
    /// What was stored of a source key's import counts in the history of another server: its value was judged anew. The
    /// event that says what came of it follows.
    Moved {
        /// The source key.
        key: Key,
    },
    /// Everything that was in the source as of this cursor is imported or refused.
    Resynced(Cursor),
}

/// What came of one observed value.
enum Outcome {
    Imported(Version),
    /// By an earlier run of this importer, or by another one.
    DealtWith,
    Unchanged,
    Refused(String),
}

/// What came of it, and whether the marker counts in another history.
struct Judged {
    outcome: Outcome,
    moved: bool,
}

/// Watches a tree of the same store that has one key per secret, and imports every change it observes as the
/// next version of that secret: never twice, in the order they were written, across crashes and with several
/// importers at once. (A store's watch may itself skip a value that was overwritten while no importer was watching.)
#[derive(Clone)]
pub struct PlainImporter {
    tree: SecretTree,
    source: Prefix,
}

/// What one event of the watch leads to.
type Step<'a> = BoxFuture<'a, Result<Vec<ImportEvent>, StoreError>>;

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

    /// Imports until it is dropped, and tells what it does, in the order of the source's changes. It retries by
    /// itself while the store is away, and ends with the first error that retrying cannot mend. Must be called
    /// within a tokio runtime.
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

    /// Up to [`AT_ONCE`] steps are under way, at most one for each source key; they end in the order they began.
    async fn import_all(&self, events: &mpsc::Sender<Result<ImportEvent, StoreError>>) -> Result<(), StoreError> {
        let mut watch = self.tree.store().watch(self.source.key());
        let mut source = Source::default();
        let mut steps = FuturesOrdered::new();
        let mut keys: VecDeque<Option<Key>> = VecDeque::new();
        let mut next: Option<(Option<Key>, Step<'_>)> = None;
        loop {
            if let Some((key, step)) =
                next.take_if(|(key, _)| steps.len() < AT_ONCE && (key.is_none() || !keys.contains(key)))
            {
                keys.push_back(key);
                steps.push_back(step);
            }
            let told = tokio::select! {
                Some(told) = steps.next() => told?,
                event = watch.next(), if next.is_none() => {
                    let Some(event) = event else { break };
                    let event = event?;
                    if let StoreEvent::Init = event {
                        source.history = Some(self.history().await?);
                    }
                    next = Some(self.step(event, &mut source));
                    continue;
                }
            };
            keys.pop_front();
            for event in told {
                if events.send(Ok(event)).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The history that the source's positions count in, for as long as it takes.
    async fn history(&self) -> Result<HistoryId, StoreError> {
        let mut pauses = backoff();
        loop {
            match self.tree.history().await {
                Err(error) if error.is_transient() => {
                    tracing::warn!(%error, "importing: trying again");
                    tokio::time::sleep(pauses.next().unwrap_or(LONGEST_PAUSE)).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// What to do about an event, and the source key whose earlier steps must have ended before.
    fn step(&self, event: StoreEvent, source: &mut Source) -> (Option<Key>, Step<'_>) {
        let deleted = |key: &Key| ImportEvent::SourceDeleted { secret: self.secret_of(key).ok(), key: key.clone() };
        let history = source.history;
        let told: Vec<ImportEvent> = match event {
            StoreEvent::Init => {
                source.listed.clear();
                source.tree = Arc::default();
                Vec::new()
            }
            StoreEvent::Listed(entry) => {
                source.listed.insert(entry.key.clone());
                let tree = Arc::clone(&source.tree);
                return (
                    Some(entry.key.clone()),
                    async move { self.import(entry, history, Some(&tree)).await }.boxed(),
                );
            }
            StoreEvent::Ready(cursor) => {
                source.tree = Arc::default();
                let listed = std::mem::take(&mut source.listed);
                let gone = source.known.difference(&listed).map(deleted);
                let told = gone.chain([ImportEvent::Resynced(cursor)]).collect();
                source.known = listed;
                told
            }
            StoreEvent::Put(entry) => {
                source.known.insert(entry.key.clone());
                return (Some(entry.key.clone()), async move { self.import(entry, history, None).await }.boxed());
            }
            StoreEvent::Deleted { key, .. } => source.known.remove(&key).then(|| deleted(&key)).into_iter().collect(),
        };
        (None, std::future::ready(Ok(told)).boxed())
    }

    fn secret_of(&self, key: &Key) -> Result<SecretName, String> {
        let name = key.below(self.source.key()).ok_or_else(|| format!("expected it below {}", self.source))?;
        SecretName::new(name).map_err(|problem| problem.to_string())
    }

    /// Imports one observed value, for as long as it takes. `listed` is what the tree held when the source was listed.
    async fn import(
        &self,
        entry: Entry,
        history: Option<HistoryId>,
        mut listed: Option<&Listed>,
    ) -> Result<Vec<ImportEvent>, StoreError> {
        let refused = |problem| Ok(vec![ImportEvent::Refused { key: entry.key.clone(), problem }]);
        let secret = match self.secret_of(&entry.key) {
            Ok(secret) => secret,
            Err(problem) => return refused(problem),
        };
        // A watch begins with `Init`.
        let Some(history) = history else { return Ok(Vec::new()) };
        let mut pauses = backoff();
        loop {
            match self.import_once(&secret, &entry, history, listed.take()).await {
                Ok(Judged { outcome, moved }) => {
                    let key = entry.key;
                    let moved = moved.then(|| ImportEvent::Moved { key: key.clone() });
                    let told = match outcome {
                        Outcome::Imported(version) => Some(ImportEvent::Imported { secret, version, key }),
                        Outcome::DealtWith => None,
                        Outcome::Unchanged => Some(ImportEvent::Unchanged { key }),
                        Outcome::Refused(problem) => Some(ImportEvent::Refused { key, problem }),
                    };
                    return Ok(moved.into_iter().chain(told).collect());
                }
                // One secret's broken marker or value must not stop the others.
                Err(error @ (StoreError::Corrupt { .. } | StoreError::Sealed { .. })) => {
                    return refused(error.to_string());
                }
                Err(error) if error.is_transient() => {
                    tracing::warn!(%secret, %error, "importing: trying again");
                    tokio::time::sleep(pauses.next().unwrap_or(LONGEST_PAUSE)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// One round of attempts. Whatever was done before, here or elsewhere, shows in the marker. The first attempt may
    /// work from what was `listed`: if another writer has changed it since, the commit's checks fail.
    async fn import_once(
        &self,
        secret: &SecretName,
        entry: &Entry,
        history: HistoryId,
        mut listed: Option<&Listed>,
    ) -> Result<Judged, StoreError> {
        let tree = &self.tree;
        let mut pauses = attempts();
        loop {
            let listed = listed.take();
            let (marker, read_at) = match listed {
                Some(listed) => listed.marker(tree, secret).await?,
                None => Marker::read(tree, secret).await?,
            };
            let reached = marker.as_ref().and_then(|marker| marker.reached(history));
            if let (Some(marker), Some(reached)) = (&marker, reached.filter(|reached| *reached >= entry.modified)) {
                // It stays refused for every leader.
                let refused = marker.refused.clone().filter(|_| reached == entry.modified);
                let outcome = refused.map_or(Outcome::DealtWith, Outcome::Refused);
                return Ok(Judged { outcome, moved: false });
            }
            let moved = marker.as_ref().is_some_and(|marker| !marker.is_of(history));
            let held = match listed {
                Some(listed) => listed.held(tree, secret).await?,
                None => Held::read(tree, secret).await?,
            };
            let mut next = marker.unwrap_or_else(|| Marker::new(&entry.key, history));
            next.reach(history, entry.modified);
            let marker_key = Marker::key(tree, secret);
            let mut checks = vec![as_read(marker_key.clone(), read_at)];
            let mut writes = Vec::new();
            let outcome = match judge(secret, entry, &held) {
                None => {
                    let number = held.next_number(next.version);
                    next.version = Some(number);
                    let key = tree.version_key(secret, number);
                    checks.push(Check::Absent(key.clone()));
                    checks.push(as_read(tree.destroyed_key(secret), held.destroyed_at));
                    writes.push(Write::Put(key, tree.seal(secret, number, &entry.value)?));
                    Outcome::Imported(number)
                }
                Some(outcome) => outcome,
            };
            next.refused = match &outcome {
                Outcome::Refused(problem) => Some(problem.clone()),
                Outcome::Imported(_) | Outcome::Unchanged | Outcome::DealtWith => None,
            };
            writes.push(Write::Put(marker_key, next.encode()));
            if let Committed::Done(_) = tree.commit(checks, writes).await? {
                return Ok(Judged { outcome, moved });
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
}

/// The pauses while the store is away.
fn backoff() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::new()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .with_jitter()
        .without_max_times()
        .build()
}

/// What is known of the source.
#[derive(Default)]
struct Source {
    /// What its positions count in, as of the listing.
    history: Option<HistoryId>,
    /// The keys that exist: what the last listing showed, and what came and went since.
    known: BTreeSet<Key>,
    /// The keys of the listing that is being read.
    listed: BTreeSet<Key>,
    /// What the tree held at that listing.
    tree: Arc<Listed>,
}

/// Why a value is no new version, if it is none.
fn judge(secret: &SecretName, entry: &Entry, held: &Held) -> Option<Outcome> {
    if let Err(problem) = check_value(secret, &entry.value) {
        return Some(Outcome::Refused(problem.to_string()));
    }
    let at = held.versions.iter().rposition(|(_, value)| value.as_ref() == Some(&entry.value))?;
    if at + 1 == held.versions.len() {
        return Some(Outcome::Unchanged);
    }
    // Retiring the older version would revoke this one with it.
    let version = held.versions[at].0;
    Some(Outcome::Refused(format!("it is the value of version {version} again; a credential is used only once")))
}
