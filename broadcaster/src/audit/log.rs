//! The log as the rest of the broadcaster sees it: a handle, and a thread that writes.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rotacast_protocol::{AuditChain, OperatorName};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::anchor::{Anchor, Standing};
use super::checkpoint::AuditSigner;
use super::doubt::{Doubt, Files};
use super::entry::Entry;
use super::error::AuditError;
use super::line::{Head, Receipt};
use super::loss;
use super::medium::FileMedium;
use super::writer::{MAX_BATCH, NOT_TOLD, Open, Writer};

/// Most entries that wait for the writer; beyond, the caller waits.
const MAX_WAITING: usize = 1024;

/// Longest wait at the end for what is being written: a file system that works answers well within it, and a supervisor waits
/// longer before it kills.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// How a log is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AuditOptions {
    /// A file at least this large, in bytes, is closed and a new one begun.
    pub max_file_bytes: u64,
    /// So is one whose first entry is at least this old.
    pub max_file_age: Duration,
}

impl AuditOptions {
    /// Files of 64 MiB: about 150,000 entries, checked at start in under a second.
    pub const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;
    /// A file a month: what is archived is at most a month behind.
    pub const MAX_FILE_AGE: Duration = Duration::from_secs(30 * 24 * 3600);
}

impl Default for AuditOptions {
    fn default() -> Self {
        Self { max_file_bytes: Self::MAX_FILE_BYTES, max_file_age: Self::MAX_FILE_AGE }
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

/// What the log's handle, its thread and its anchor work with.
pub(super) struct Shared {
    pub(super) path: PathBuf,
    writer: Mutex<Writer>,
    /// The disk did not take what was to be written last.
    pub(super) failing: AtomicBool,
    /// A loss is being accepted: the file and the store's head are changed one after the other.
    pub(super) accepting: AtomicBool,
    /// The newest entry, and of which log.
    pub(super) head: watch::Sender<(AuditChain, Head)>,
    /// The newest entry that the store knows; [`NOT_TOLD`]: no store is told.
    pub(super) known: Arc<AtomicU64>,
    /// How it stands with the store.
    pub(super) standing: watch::Sender<Standing>,
    /// A caller waits until the store knows its entry.
    pub(super) wanted: Notify,
}

impl Shared {
    pub(super) fn writer(&self) -> MutexGuard<'_, Writer> {
        // A panic leaves at most an append undone, which the next one repairs.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells how the last write went.
    pub(super) fn wrote<T>(&self, writer: &Writer, outcome: &Result<T, AuditError>) {
        // An entry that is too large says nothing of the disk.
        self.failing.store(!matches!(outcome, Ok(_) | Err(AuditError::TooLarge { .. })), Ordering::Relaxed);
        self.moved(writer);
    }

    /// Tells where the log ends.
    pub(super) fn moved(&self, writer: &Writer) {
        let newest = (writer.chain(), writer.head());
        self.head.send_if_modified(|head| std::mem::replace(head, newest) != newest);
    }
}

/// The audit log of one broadcaster.
pub struct AuditLog {
    opened_at: Head,
    shared: Arc<Shared>,
    anchor: OnceLock<Arc<Anchor>>,
    requests: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
    /// Disconnected once the thread has ended.
    ended: Mutex<Receiver<()>>,
    observer: Option<Arc<dyn AppendObserver>>,
    stop: CancellationToken,
}

impl AuditLog {
    /// Opens the log at `path`, or begins one, and keeps other processes out until this is dropped. One that does not verify
    /// is open and takes no entries: see [`AuditLog::doubt`]. One on a full disk takes none until there is room.
    ///
    /// # Errors
    /// [`AuditError`]: in use elsewhere, or not writable.
    pub fn open(path: impl AsRef<Path>, options: AuditOptions, signer: AuditSigner) -> Result<Self, AuditError> {
        Self::open_on(path.as_ref(), options, signer, Box::new(|path| Ok(Box::new(FileMedium::open(path)?))))
    }

    pub(super) fn open_on(
        path: &Path,
        options: AuditOptions,
        signer: AuditSigner,
        open: Open,
    ) -> Result<Self, AuditError> {
        let known = Arc::new(AtomicU64::new(NOT_TOLD));
        let now = rotacast_clock::wall();
        let mut writer = Writer::open(path, options, signer, open, Arc::clone(&known), now)?;
        let failing = match writer.files() {
            // Nothing is written to it, and `doubt` says why.
            Files::Broken(_) => false,
            Files::Empty | Files::Whole { .. } => match writer.ready(now) {
                Err(problem) if problem.is_full() => {
                    tracing::error!(%problem, "the audit log takes no entries until there is room");
                    true
                }
                ready => ready.map(|()| false)?,
            },
        };
        let opened_at = writer.head();
        let (requests, waiting) = mpsc::channel(MAX_WAITING);
        let shared = Arc::new(Shared {
            path: path.into(),
            failing: AtomicBool::new(failing),
            accepting: AtomicBool::new(false),
            head: watch::Sender::new((writer.chain(), opened_at)),
            known,
            standing: watch::Sender::new(Standing::of_files(writer.files())),
            wanted: Notify::new(),
            writer: Mutex::new(writer),
        });
        let its = Arc::clone(&shared);
        let (ends, ended) = std::sync::mpsc::sync_channel(0);
        let thread = std::thread::Builder::new().name("audit".into()).spawn(move || {
            let _ends = ends;
            write_all(&its, waiting);
        });
        let thread = thread.map_err(AuditError::io(path, "start its thread"))?;
        Ok(Self {
            opened_at,
            shared,
            anchor: OnceLock::new(),
            requests: Some(requests),
            thread: Some(thread),
            ended: Mutex::new(ended),
            observer: None,
            stop: CancellationToken::new(),
        })
    }

    /// The same log; `observer` sees every append.
    #[must_use]
    pub fn observed_by(mut self, observer: Arc<dyn AppendObserver>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Keeps the log's head in the store from now on: compares the two, and says what is wrong as a standing finding.
    ///
    /// # Errors
    /// What the store says; nothing is compared then, and the call may be repeated.
    pub async fn anchor(&self, anchor: Arc<Anchor>) -> Result<(), rotacast_store::StoreError> {
        let anchor = self.anchor.get_or_init(|| anchor);
        anchor.start(&self.shared, &self.stop).await
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Where it ended when it was opened.
    #[must_use]
    pub fn opened_at(&self) -> Head {
        self.opened_at
    }

    /// Whether it takes no entries: the disk did not take what was to be written last, or the log is in doubt.
    #[must_use]
    pub fn fails(&self) -> bool {
        self.shared.failing.load(Ordering::Relaxed) || self.shared.standing.borrow().doubt.is_some()
    }

    /// Why it takes no entries until it is put right or an operator accepts the loss, with the id of exactly this doubt.
    #[must_use]
    pub fn doubt(&self) -> Option<(String, Doubt)> {
        self.shared.standing.borrow().doubt.clone()
    }

    /// Writes an entry. It is durable when this returns `Ok`. After an error it is not in the log, and the caller
    /// must not do what it was about; appending again later is safe.
    ///
    /// If this future is dropped, the entry may or may not be written.
    ///
    /// # Errors
    /// [`AuditError`]: the disk is full or failing, or the log was disturbed or is in doubt.
    pub async fn append(&self, entry: Entry) -> Result<Receipt, AuditError> {
        let began = Instant::now();
        let outcome = self.write(entry).await;
        if let Some(observer) = &self.observer {
            observer.appended(began.elapsed(), outcome.as_ref().map(|_| ()));
        }
        outcome
    }

    /// As [`AuditLog::append`], and returns once the store knows the entry too, if it is told: whoever takes the entry away
    /// later is found out. For what is irreversible.
    ///
    /// # Errors
    /// As [`AuditLog::append`].
    pub async fn append_known(&self, entry: Entry) -> Result<Receipt, AuditError> {
        let receipt = self.append(entry).await?;
        let mut standing = self.shared.standing.subscribe();
        if self.anchor.get().is_none() {
            return Ok(receipt);
        }
        self.shared.wanted.notify_one();
        let known = |standing: &Standing| standing.known >= receipt.sequence || standing.doubt.is_some();
        let standing = standing.wait_for(known).await.map_err(|_| AuditError::Closed)?;
        match &standing.doubt {
            Some((_, doubt)) => Err(AuditError::Doubtful(doubt.to_string())),
            None => Ok(receipt),
        }
    }

    /// Goes on although entries are lost, by an operator's order. `id` names the doubt that the operator has seen; `signed`
    /// adds the order's proof to the entry.
    ///
    /// # Errors
    /// [`AuditError`]: another doubt stands, or none; the disk.
    pub async fn accept_loss(
        &self,
        by: &OperatorName,
        id: &str,
        reason: &str,
        signed: impl FnOnce(Entry) -> Entry + Send + 'static,
    ) -> Result<Receipt, AuditError> {
        let (stands, doubt) = self.doubt().ok_or_else(|| AuditError::Doubtful("nothing is wrong with it".into()))?;
        if stands != id {
            return Err(AuditError::Doubtful(format!("what stands is {stands} ({doubt}), not {id}")));
        }
        let (by, reason, shared) = (by.clone(), reason.to_owned(), Arc::clone(&self.shared));
        self.shared.accepting.store(true, Ordering::SeqCst);
        let work = tokio::task::spawn_blocking(move || {
            let mut writer = shared.writer();
            let known = writer.doubted().and_then(|doubted| doubted.resume).map_or(Head::EMPTY, |(_, known)| known);
            let entry = signed(loss::entry(&by, known, &doubt.to_string(), &reason));
            let outcome = writer.accept(&entry, rotacast_clock::wall());
            shared.wrote(&writer, &outcome);
            outcome
        });
        let outcome = work.await.map_err(|_| AuditError::Closed).and_then(std::convert::identity);
        match self.anchor.get() {
            // An error of the store stands as a finding, and is tried again.
            Some(anchor) => anchor.accepted(&self.shared).await,
            None => {
                self.shared.accepting.store(false, Ordering::SeqCst);
                self.shared.standing.send_modify(|standing| standing.doubt = None);
            }
        }
        outcome
    }

    /// Signs the end of the log and tells the store where it is. What comes later is written all the same.
    pub async fn close(&self) {
        let shared = Arc::clone(&self.shared);
        let (done, signed) = oneshot::channel();
        // Not a thread of the runtime, which would wait for it when it ends.
        let signing = std::thread::Builder::new().name("audit-end".into()).spawn(move || {
            let mut writer = shared.writer();
            let outcome = match writer.is_unsigned() {
                true => {
                    let outcome = writer.sign(rotacast_clock::wall());
                    shared.wrote(&writer, &outcome);
                    outcome
                }
                false => Ok(()),
            };
            // The stop may have given up waiting.
            let _ = done.send(outcome);
        });
        let problem = match (signing, tokio::time::timeout(STOP_PATIENCE, signed).await) {
            (Ok(_), Ok(Ok(Ok(())))) => None,
            (Ok(_), Ok(Ok(Err(problem)))) => Some(problem.to_string()),
            (Err(problem), _) => Some(problem.to_string()),
            (Ok(_), Ok(Err(_))) => Some("signing broke off".into()),
            (Ok(_), Err(_)) => Some(format!("its file system has not answered within {STOP_PATIENCE:?}")),
        };
        if let Some(problem) = problem {
            tracing::warn!(problem, "the end of the audit log is not signed");
        }
        if let Some(anchor) = self.anchor.get() {
            anchor.save(&self.shared).await;
        }
    }

    #[cfg(test)]
    pub(super) fn shared_for_tests(&self) -> &Shared {
        &self.shared
    }

    async fn write(&self, entry: Entry) -> Result<Receipt, AuditError> {
        let (done, outcome) = oneshot::channel();
        let requests = self.requests.as_ref().expect("taken only when dropped");
        requests.send(Request { entry, done }).await.map_err(|_| AuditError::Closed)?;
        outcome.await.map_err(|_| AuditError::Closed)?
    }
}

impl Drop for AuditLog {
    /// Waits for the entry being written, so that the file is free once this returns; not for a file system that does not
    /// answer.
    fn drop(&mut self) {
        self.stop.cancel();
        self.requests = None;
        if self.ended.get_mut().unwrap_or_else(PoisonError::into_inner).recv_timeout(STOP_PATIENCE)
            == Err(RecvTimeoutError::Timeout)
        {
            tracing::error!(
                log = %self.shared.path.display(),
                "the audit log's file system has not answered within {STOP_PATIENCE:?}: an entry may be unfinished"
            );
            return;
        }
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!(log = %self.shared.path.display(), "the audit log's thread panicked");
        }
        self.shared.writer().release();
    }
}

/// Entries that come in while others are being synced share the next sync.
fn write_all(shared: &Shared, mut waiting: mpsc::Receiver<Request>) {
    while let Some(first) = waiting.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < MAX_BATCH {
            match waiting.try_recv() {
                Ok(request) => batch.push(request),
                Err(_) => break,
            }
        }
        let entries: Vec<&Entry> = batch.iter().map(|request| &request.entry).collect();
        let mut writer = shared.writer();
        let outcome = writer.append(&entries, rotacast_clock::wall());
        shared.wrote(&writer, &outcome);
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
                    shared.wrote(&writer, &outcome);
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
