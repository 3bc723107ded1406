//! The embedded store: one crash-safe SQLite file on one machine, no server.

mod election;
mod file;
mod rows;
mod watch;
mod worker;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use tokio_util::sync::CancellationToken;

use self::worker::Worker;
use crate::history::History;
use crate::{
    Commit, Committed, Cursor, Entry, Finding, Key, Leadership, Level, Listing, ReadStore, Setback, Store, StoreError,
    StoreEvent,
};

/// A store in a file. Every commit is on disk (write-ahead log, synced) before it is acknowledged. Several
/// processes of one machine may open the same file; one of them leads, by a lock that the operating system
/// frees the moment its holder dies.
///
/// A watch shows a key that was overwritten several times in quick succession only once, with its newest value:
/// the log of changes holds no values, so that a destroyed one is gone.
#[derive(Clone)]
pub struct EmbeddedStore {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    name: String,
    writer: Worker,
    reader: Worker,
    /// The newest cursor this process has written; wakes its watches.
    newest: tokio::sync::watch::Sender<u64>,
    history: History,
    /// Why the last write was refused; none: it was not. Reading tells nothing about a full disk.
    refused: Mutex<Option<String>>,
}

impl Shared {
    fn note_write<T>(&self, written: &Result<T, StoreError>) {
        let refused = match written {
            Ok(_) => None,
            Err(StoreError::Unwritable { problem, .. }) => Some(problem.clone()),
            // Which says nothing about the disk.
            Err(_) => return,
        };
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = refused;
    }

    fn refusal(&self) -> Option<Finding> {
        let problem = self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        Some(Finding {
            level: Level::Error,
            subject: "store writes".into(),
            text: format!("{} takes no writes: {problem}", self.path.display()),
            fix: "make room on its disk, or make its file system writable: what waits is tried again by itself".into(),
        })
    }
}

impl EmbeddedStore {
    /// Opens the file, making it first if there is none. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] for a damaged file, [`StoreError::Invalid`] for one that is not Rotacast's or that a
    /// newer Rotacast wrote, [`StoreError::Denied`] and [`StoreError::Unwritable`] for what the file system says.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref().to_path_buf();
        let name = format!("embedded {}", path.display());
        let opening = path.clone();
        let opened = tokio::task::spawn_blocking(move || file::open(&opening)).await;
        let (writer, reader) = opened.map_err(|problem| StoreError::Unreachable {
            endpoint: name.clone(),
            problem: format!("opening it was interrupted: {problem}"),
        })??;
        let writer = Worker::start("rotacast-write", &name, writer)?;
        let reader = Worker::start("rotacast-read", &name, reader)?;
        let (newest, _) = tokio::sync::watch::channel(0);
        let (history, refused) = (History::default(), Mutex::default());
        Ok(Self { shared: Arc::new(Shared { path, name, writer, reader, newest, history, refused }) })
    }

    /// Forgets the log of changes. Watches that have not read it to the end list anew.
    ///
    /// # Errors
    /// What the file system says.
    pub async fn compact(&self) -> Result<(), StoreError> {
        self.shared.writer.run(rows::forget_changes).await
    }
}

#[async_trait]
impl ReadStore for EmbeddedStore {
    fn describe(&self) -> String {
        self.shared.name.clone()
    }

    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        let key = key.clone();
        self.shared.reader.run(move |connection| rows::get(connection, &key)).await
    }

    async fn list(&self, parent: &Key) -> Result<Listing, StoreError> {
        let parent = parent.clone();
        self.shared.reader.run(move |connection| rows::list(connection, &parent)).await
    }

    fn watch(&self, parent: &Key) -> BoxStream<'static, Result<StoreEvent, StoreError>> {
        watch::watch(Arc::clone(&self.shared), parent.clone())
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn commit(&self, commit: Commit) -> Result<Committed, StoreError> {
        commit.validate()?;
        let shared = Arc::clone(&self.shared);
        let committed = self
            .shared
            .writer
            .run(move |connection| {
                let committed = rows::commit(connection, &commit)?;
                if let Committed::Done(Cursor(cursor)) = committed {
                    shared.newest.send_modify(|newest| *newest = cursor.max(*newest));
                }
                Ok(committed)
            })
            .await;
        self.shared.note_write(&committed);
        committed
    }

    async fn campaign(
        &self,
        election: &Key,
        candidate: &str,
        ttl: Duration,
        cancel: CancellationToken,
    ) -> Result<Leadership, StoreError> {
        election::campaign(Arc::clone(&self.shared), election.clone(), candidate.to_owned(), ttl, cancel).await
    }

    fn setback(&self) -> Option<Setback> {
        self.shared.history.setback()
    }

    async fn examine(&self) -> Vec<Finding> {
        let path = self.shared.path.clone();
        let mut findings = match self.shared.reader.run(move |connection| file::examine(connection, &path)).await {
            Ok(findings) => findings,
            Err(error) => vec![Finding {
                level: Level::Error,
                subject: "embedded store".into(),
                text: error.to_string(),
                fix: "check the data folder and its disk".into(),
            }],
        };
        findings.extend(self.shared.refusal());
        findings
    }
}

#[cfg(test)]
mod tests {
    use rotacast_proto::SecretValue;

    use super::*;
    use crate::Write;

    #[tokio::test]
    async fn a_full_disk_is_a_finding_until_a_write_succeeds() {
        let folder = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(folder.path().join("store.db")).await.unwrap();
        let write = |size: usize| {
            let value = SecretValue::new(vec![b'x'; size]);
            store.commit(Commit { checks: Vec::new(), writes: vec![Write::Put(Key::new("a"), value)] })
        };
        let room = async |pages: u32| {
            let limited = move |connection: &mut rusqlite::Connection| {
                connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |row| row.get::<_, i64>(0))?;
                Ok(())
            };
            store.shared.writer.run(limited).await.unwrap();
        };
        let finding = async || store.examine().await.into_iter().find(|it| it.subject == "store writes");
        write(10).await.unwrap();
        room(1).await;
        let refused = write(100_000).await.unwrap_err();
        assert!(matches!(refused, StoreError::Unwritable { .. }), "{refused}");
        let told = finding().await.expect("a finding");
        assert!(told.level == Level::Error && told.text.contains("full"), "{told:?}");
        room(1_000_000).await;
        write(100_000).await.unwrap();
        assert_eq!(finding().await, None);
    }
}
