//! The log as the rest of the broadcaster sees it: a handle, and a thread that writes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::entry::Entry;
use super::error::AuditError;
use super::line::{Head, Receipt};
use super::medium::FileMedium;
use super::writer::{Open, Writer};

/// Most entries that wait for the writer; beyond, the caller waits.
const MAX_WAITING: usize = 1024;
/// Most entries that share one sync: what comes in during one sync goes with the next.
const MAX_BATCH: usize = 256;

/// How a log is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AuditOptions {
    /// A file at least this large, in bytes, is closed and a new one begun.
    pub max_file_bytes: u64,
}

impl Default for AuditOptions {
    /// Files of 64 MiB: about 150,000 entries, checked at start in under a second.
    fn default() -> Self {
        Self { max_file_bytes: 64 * 1024 * 1024 }
    }
}

/// Sees how each append went: metrics, for one.
pub trait AppendObserver: Send + Sync + 'static {
    /// One append has ended after `took`.
    fn appended(&self, took: Duration, outcome: Result<(), &AuditError>);
}

struct Request {
    entry: Entry,
    done: oneshot::Sender<Result<Receipt, AuditError>>,
}

/// The audit log of one broadcaster.
pub struct AuditLog {
    path: PathBuf,
    opened_at: Head,
    requests: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
    observer: Option<Arc<dyn AppendObserver>>,
    failing: Arc<AtomicBool>,
}

impl AuditLog {
    /// Opens the log at `path`, or begins one, and keeps other processes out until this is dropped.
    ///
    /// # Errors
    /// [`AuditError`]: in use elsewhere, broken, or not writable.
    pub fn open(path: impl AsRef<Path>, options: AuditOptions) -> Result<Self, AuditError> {
        Self::open_on(path.as_ref(), options, Box::new(|path| Ok(Box::new(FileMedium::open(path)?))))
    }

    pub(super) fn open_on(path: &Path, options: AuditOptions, open: Open) -> Result<Self, AuditError> {
        let writer = Writer::open(path, options.max_file_bytes, open, rotacast_clock::wall())?;
        let opened_at = writer.head();
        let (requests, waiting) = mpsc::channel(MAX_WAITING);
        let failing = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&failing);
        let thread = std::thread::Builder::new().name("audit".into()).spawn(move || write_all(writer, waiting, &told));
        let thread = thread.map_err(AuditError::io(path, "start its thread"))?;
        let requests = Some(requests);
        Ok(Self { path: path.into(), opened_at, requests, thread: Some(thread), observer: None, failing })
    }

    /// The same log; `observer` sees every append.
    #[must_use]
    pub fn observed_by(mut self, observer: Arc<dyn AppendObserver>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where it ended when it was opened.
    #[must_use]
    pub fn opened_at(&self) -> Head {
        self.opened_at
    }

    /// Whether the disk did not take what was to be written last.
    #[must_use]
    pub fn fails(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// Writes an entry. It is durable when this returns `Ok`. After an error it is not in the log, and the caller
    /// must not do what it was about; appending again later is safe.
    ///
    /// If this future is dropped, the entry may or may not be written.
    ///
    /// # Errors
    /// [`AuditError`]: the disk is full or failing, or the log was disturbed.
    pub async fn append(&self, entry: Entry) -> Result<Receipt, AuditError> {
        let began = Instant::now();
        let outcome = self.write(entry).await;
        if let Some(observer) = &self.observer {
            observer.appended(began.elapsed(), outcome.as_ref().map(|_| ()));
        }
        outcome
    }

    async fn write(&self, entry: Entry) -> Result<Receipt, AuditError> {
        let (done, outcome) = oneshot::channel();
        let requests = self.requests.as_ref().expect("taken only when dropped");
        requests.send(Request { entry, done }).await.map_err(|_| AuditError::Closed)?;
        outcome.await.map_err(|_| AuditError::Closed)?
    }
}

impl Drop for AuditLog {
    /// Waits for the entry being written, so that the file is free once this returns.
    fn drop(&mut self) {
        self.requests = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!(log = %self.path.display(), "the audit log's thread panicked");
        }
    }
}

/// Entries that come in while others are being synced share the next sync.
fn write_all(mut writer: Writer, mut waiting: mpsc::Receiver<Request>, failing: &AtomicBool) {
    while let Some(first) = waiting.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < MAX_BATCH {
            match waiting.try_recv() {
                Ok(request) => batch.push(request),
                Err(_) => break,
            }
        }
        let entries: Vec<&Entry> = batch.iter().map(|request| &request.entry).collect();
        let outcome = writer.append(&entries, rotacast_clock::wall());
        // An entry that is too large says nothing of the disk.
        failing.store(!matches!(outcome, Ok(_) | Err(AuditError::TooLarge { .. })), Ordering::Relaxed);
        match outcome {
            Ok(receipts) => {
                for (request, receipt) in batch.into_iter().zip(receipts) {
                    // The caller no longer waits: the entry stands all the same.
                    let _ = request.done.send(Ok(receipt));
                }
            }
            // One entry that is too large must not take its neighbours with it.
            Err(AuditError::TooLarge { .. }) if batch.len() > 1 => {
                for request in batch {
                    let outcome = writer.append(&[&request.entry], rotacast_clock::wall());
                    let _ = request.done.send(outcome.map(|receipts| receipts[0]));
                }
            }
            Err(error) => {
                for request in batch {
                    let _ = request.done.send(Err(error.clone()));
                }
            }
        }
    }
}
