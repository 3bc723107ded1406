//! Appends to the log, one process at a time.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rotacast_proto::open_regular;
use rotacast_protocol::{AuditChain, WallTime};
use rustix::fs::{FlockOperation, flock};

use super::checkpoint::{self, AuditSigner};
use super::doubt::{Doubted, Files};
use super::entry::Entry;
use super::error::AuditError;
use super::files;
use super::line::{self, Hash, Head, Receipt};
use super::log::AuditOptions;
use super::loss::{self, MAX_AHEAD};
use super::medium::Medium;
use super::scan::{self, Scan};
use super::verify::{files_of, hash_at};

/// Most entries that share one sync: what comes in during one sync goes with the next.
pub(super) const MAX_BATCH: usize = 256;

/// No store is told where the log ends.
pub(super) const NOT_TOLD: u64 = u64::MAX;

/// How the writer opens the file in use.
pub(super) type Open = Box<dyn Fn(&Path) -> std::io::Result<Box<dyn Medium>> + Send>;

/// The one writer of a log.
pub(super) struct Writer {
    path: PathBuf,
    open: Open,
    signer: AuditSigner,
    options: AuditOptions,
    /// None: to be opened (anew) with the next entry.
    medium: Option<Box<dyn Medium>>,
    chain: AuditChain,
    head: Head,
    /// The first entry of the file in use, and its time; none: it is empty.
    first: Option<(u64, WallTime)>,
    /// Bytes of the file in use that are known to be durable.
    length: u64,
    /// Something may stand behind `length` that was never acknowledged.
    tainted: bool,
    /// The line behind `length` that a crash left unfinished, until a copy of it is kept.
    unfinished: Vec<u8>,
    /// The newest checkpoint's number, of those in the newest files.
    checkpoint: u64,
    /// When the first entry without a checkpoint was written.
    unsigned_since: Option<WallTime>,
    files: Files,
    doubted: Option<Box<Doubted>>,
    /// The newest entry that the store knows, or [`NOT_TOLD`].
    known: Arc<AtomicU64>,
    /// Held until this is released.
    lock: Option<Lock>,
}

impl Writer {
    /// Opens a log, or begins one. Checks the file in use and the newest full one: if they do not verify, the log is open
    /// and takes no entries. [`Self::ready`] does what is left before the first entry.
    pub(super) fn open(
        path: &Path,
        options: AuditOptions,
        signer: AuditSigner,
        open: Open,
        known: Arc<AtomicU64>,
        now: WallTime,
    ) -> Result<Self, AuditError> {
        rotacast_proto::create_private_folder(files::folder(path)).map_err(AuditError::io(path, "make its folder"))?;
        let mut writer = Self {
            lock: Some(lock(path)?),
            path: path.into(),
            open,
            signer,
            options,
            medium: None,
            chain: AuditChain(rand::random()),
            head: Head::EMPTY,
            first: None,
            length: 0,
            tainted: false,
            unfinished: Vec::new(),
            checkpoint: 0,
            unsigned_since: None,
            files: Files::Empty,
            doubted: None,
            known,
        };
        writer.examine(now)?;
        Ok(writer)
    }

    /// The newest entry.
    pub(super) fn head(&self) -> Head {
        self.head
    }

    pub(super) fn chain(&self) -> AuditChain {
        self.chain
    }

    /// What the newest files hold, as of [`Self::examine`] and what was written since.
    pub(super) fn files(&self) -> &Files {
        &self.files
    }

    pub(super) fn set_doubted(&mut self, doubted: Option<Box<Doubted>>) {
        self.doubted = doubted;
    }

    pub(super) fn doubted(&self) -> Option<&Doubted> {
        self.doubted.as_deref()
    }

    /// Lets other processes write the log. The next one must not find what a failed write has left.
    pub(super) fn release(&mut self) {
        if let Err(problem) = self.repair() {
            tracing::warn!(%problem, "the audit log ends in the rest of a failed write; the next start cuts it off");
        }
        self.lock = None;
    }

    /// Reads the newest files anew.
    pub(super) fn examine(&mut self, now: WallTime) -> Result<(), AuditError> {
        self.medium = None;
        self.tainted = false;
        self.unfinished = Vec::new();
        match self.read(now) {
            Ok(()) => Ok(()),
            Err(AuditError::Broken(broken)) => {
                self.files = Files::Broken(broken);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn read(&mut self, now: WallTime) -> Result<(), AuditError> {
        let (mut chain, mut head, mut checkpoint) = (None, Head::EMPTY, 0);
        if let Some(newest) = files::all_full(&self.path).map_err(AuditError::io(&self.path, "list its folder"))?.last()
        {
            let before = scan::before_first(newest)?.unwrap_or(Head::EMPTY);
            let scanned = Scan::open(newest, None, before)?.finish()?;
            if !scanned.unfinished.is_empty() {
                let line = scanned.head.sequence - before.sequence + 1;
                let problem = "unfinished line in a file that was full: it was cut off or written to".into();
                return Err(super::Broken { file: newest.clone(), line, problem }.into());
            }
            (chain, head, checkpoint) = (scanned.chain, scanned.head, scanned.checkpoint.unwrap_or(0));
        }
        let (mut first, mut length, mut unfinished) = (None, 0, Vec::new());
        if self.path.try_exists().map_err(AuditError::io(&self.path, "look for it"))? {
            // A file whose predecessors were all archived says what it follows; the store knows whether that was so.
            let before = match chain {
                Some(_) => head,
                None => scan::before_first(&self.path)?.unwrap_or(Head::EMPTY),
            };
            let scanned = Scan::open(&self.path, chain, before)?.finish()?;
            unfinished = scanned.unfinished;
            (chain, head) = (scanned.chain, scanned.head);
            checkpoint = scanned.checkpoint.unwrap_or(checkpoint);
            (first, length) = (scanned.first, scanned.good_bytes);
        }
        self.files = Files::Empty;
        if let Some(chain) = chain {
            self.chain = chain;
            self.files = Files::Whole { chain, head };
        }
        self.head = head;
        self.first = first;
        self.length = length;
        self.unfinished = unfinished;
        self.checkpoint = checkpoint;
        self.unsigned_since = (head.sequence > checkpoint).then_some(now);
        Ok(())
    }

    /// What comes before an entry, and what a start does at once: the rest of a failed write is cut off, an unfinished line
    /// (the process died while it wrote it; it was never acknowledged) is kept in a file of its own and cut off, and the
    /// file is the one that was written.
    pub(super) fn ready(&mut self, now: WallTime) -> Result<(), AuditError> {
        self.cut_off(now)?;
        self.undisturbed()
    }

    fn cut_off(&mut self, now: WallTime) -> Result<(), AuditError> {
        if !self.unfinished.is_empty() {
            // It may have waited long for room.
            self.undisturbed()?;
            let aside = files::with_suffix(&self.path, &format!("torn-{}", now.0));
            set_aside(&aside, &self.unfinished).map_err(AuditError::io(&aside, "keep an unfinished line"))?;
            tracing::warn!(
                log = %self.path.display(), kept = %aside.display(), bytes = self.unfinished.len(),
                "the audit log ended in an unfinished line, which was never acknowledged; it is kept aside"
            );
            self.unfinished = Vec::new();
            self.tainted = true;
        }
        self.repair()
    }

    fn ensure_open(&mut self) -> Result<&mut Box<dyn Medium>, AuditError> {
        let medium = match self.medium.take() {
            Some(medium) => medium,
            None => {
                let mut medium = (self.open)(&self.path).map_err(AuditError::io(&self.path, "open"))?;
                medium.sync().map_err(AuditError::io(&self.path, "sync"))?;
                files::sync_folder(&self.path).map_err(AuditError::io(&self.path, "sync its folder"))?;
                medium
            }
        };
        Ok(self.medium.insert(medium))
    }

    /// Writes entries and makes them durable together. On an error, none of them is in the log.
    pub(super) fn append(&mut self, entries: &[&Entry], now: WallTime) -> Result<Vec<Receipt>, AuditError> {
        if let Some(doubted) = &self.doubted {
            return Err(AuditError::Doubtful(doubted.doubt.to_string()));
        }
        if let Files::Broken(broken) = &self.files {
            return Err(AuditError::Broken(broken.clone()));
        }
        let known = self.known.load(Ordering::Relaxed);
        if known != NOT_TOLD {
            let found = (self.head.sequence + entries.len() as u64).saturating_sub(known);
            if found > MAX_AHEAD {
                return Err(AuditError::Ahead { found, limit: MAX_AHEAD });
            }
        }
        self.ready(now)?;
        self.rotate_if_full(now)?;
        self.write(entries, now)
    }

    fn write(&mut self, entries: &[&Entry], now: WallTime) -> Result<Vec<Receipt>, AuditError> {
        let mut batch = Batch::new(self.chain, self.head);
        let mut receipts = Vec::with_capacity(entries.len());
        let mut checkpoint = self.checkpoint;
        // Entries that share a write share its signature.
        if self.head.sequence - checkpoint.min(self.head.sequence) >= checkpoint::EVERY_ENTRIES {
            checkpoint = batch.add(&self.signer.checkpoint(self.chain, batch.head, now), now)?.sequence;
        }
        for entry in entries {
            receipts.push(batch.add(entry, now)?);
        }
        self.put(batch, checkpoint, now)?;
        Ok(receipts)
    }

    /// Makes a batch durable.
    fn put(&mut self, batch: Batch, checkpoint: u64, now: WallTime) -> Result<(), AuditError> {
        let Batch { bytes, head, .. } = batch;
        if bytes.is_empty() {
            return Ok(());
        }
        let path = self.path.clone();
        let medium = self.ensure_open()?;
        let written = medium.write(&bytes).map_err(AuditError::io(&path, "write"));
        let durable = written.and_then(|()| medium.sync().map_err(AuditError::io(&path, "sync")));
        if let Err(error) = durable {
            self.tainted = true;
            // A process that ends now leaves nothing behind that a start would need room for.
            if let Err(problem) = self.repair() {
                tracing::warn!(%problem, "the rest of a failed write stays in the audit log until the next one");
            }
            return Err(error);
        }
        self.first = self.first.or(Some((self.head.sequence + 1, now)));
        self.head = head;
        self.files = Files::Whole { chain: self.chain, head };
        self.checkpoint = checkpoint;
        self.unsigned_since = (head.sequence > checkpoint).then(|| self.unsigned_since.unwrap_or(now));
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Signs what no checkpoint has signed yet, if it has waited long enough. Finds out whether another program has changed
    /// the file and, with `probe`, whether a log that was failing takes entries again.
    pub(super) fn look(&mut self, now: WallTime, probe: bool) -> Result<(), AuditError> {
        let waits = self.unsigned_since.is_some_and(|since| now.0.saturating_sub(since.0) >= checkpoint::EVERY_MS);
        match waits || probe {
            true => self.sign(now),
            false => self.append(&[], now).map(drop),
        }
    }

    /// Signs where the log ends.
    pub(super) fn sign(&mut self, now: WallTime) -> Result<(), AuditError> {
        self.append(&[], now)?;
        let mut batch = Batch::new(self.chain, self.head);
        let signed = batch.add(&self.signer.checkpoint(self.chain, self.head, now), now)?;
        self.put(batch, signed.sequence, now)
    }

    /// Whether entries wait for a checkpoint.
    pub(super) fn is_unsigned(&self) -> bool {
        self.unsigned_since.is_some()
    }

    /// Cuts off what a failed append left behind. What was written is written anew and synced anew: after a failed
    /// sync, a second one may report success for pages the system has already given up on.
    fn repair(&mut self) -> Result<(), AuditError> {
        if !self.tainted {
            return Ok(());
        }
        let (path, length) = (self.path.clone(), self.length);
        let medium = self.ensure_open()?;
        medium.truncate(length).map_err(AuditError::io(&path, "cut a failed write off"))?;
        medium.sync().map_err(AuditError::io(&path, "sync"))?;
        self.tainted = false;
        Ok(())
    }

    /// Finds out whether another program has touched the file. If it holds what was written, it is opened anew.
    fn undisturbed(&mut self) -> Result<(), AuditError> {
        let (path, length) = (self.path.clone(), self.length);
        let bytes = length + self.unfinished.len() as u64;
        let disturbed = self.ensure_open()?.disturbed(bytes).map_err(AuditError::io(&path, "look at it"))?;
        let Some(problem) = disturbed else { return Ok(()) };
        let disturbed = |problem| Err(AuditError::Disturbed { path: path.clone(), problem });
        if !path.try_exists().map_err(AuditError::io(&path, "look for it"))? {
            return disturbed(problem);
        }
        let before = match self.first {
            None => self.head,
            Some(_) => match scan::before_first(&path) {
                Ok(before) => before.unwrap_or(Head::EMPTY),
                Err(AuditError::Broken(broken)) => return disturbed(format!("{problem}; {broken}")),
                Err(error) => return Err(error),
            },
        };
        // The same end has the same beginning: each line has the hash of the one before.
        match Scan::open(&path, self.first.map(|_| self.chain), before)?.finish() {
            Ok(found)
                if found.head == self.head && found.good_bytes == length && found.unfinished == self.unfinished =>
            {
                self.medium = None;
                self.ensure_open().map(drop)
            }
            Ok(found) if found.head.sequence == self.head.sequence => disturbed(format!(
                "{problem}; it ends with entry {} {}, expected {}",
                found.head.sequence, found.head.hash, self.head.hash
            )),
            Ok(found) => disturbed(format!(
                "{problem}; it ends with entry {}, expected {}",
                found.head.sequence, self.head.sequence
            )),
            Err(AuditError::Broken(broken)) => disturbed(format!("{problem}; {broken}")),
            Err(error) => Err(error),
        }
    }

    fn rotate_if_full(&mut self, now: WallTime) -> Result<(), AuditError> {
        let Some((first, began)) = self.first else { return Ok(()) };
        let age = Duration::from_millis(now.0.saturating_sub(began.0));
        if self.length < self.options.max_file_bytes && age < self.options.max_file_age {
            return Ok(());
        }
        self.close_file(first)
    }

    fn close_file(&mut self, first: u64) -> Result<(), AuditError> {
        let full = files::full(&self.path, first);
        std::fs::rename(&self.path, &full).map_err(AuditError::io(&self.path, "rename the full file"))?;
        self.medium = None;
        self.first = None;
        self.length = 0;
        Ok(())
    }

    /// The hash of an entry, looked up in the files; none: it is not there.
    pub(super) fn hash_at(&self, sequence: u64) -> Result<Option<Hash>, AuditError> {
        if sequence == self.head.sequence {
            return Ok((sequence > 0).then_some(self.head.hash));
        }
        hash_at(&self.path, sequence)
    }

    /// Goes on behind what is lost, with the entry of the operator who accepts it.
    pub(super) fn accept(&mut self, entry: &Entry, now: WallTime) -> Result<Receipt, AuditError> {
        let Some(doubted) = self.doubted.clone() else {
            return Err(AuditError::Doubtful("it is not in doubt: there is nothing to accept".into()));
        };
        if doubted.keeps_files {
            self.cut_off(now)?;
        }
        self.medium = None;
        self.tainted = false;
        self.unfinished = Vec::new();
        match (self.first, doubted.keeps_files) {
            (Some((first, _)), true) => self.close_file(first)?,
            (None, true) => {}
            (_, false) => self.set_all_aside(now)?,
        }
        self.first = None;
        self.length = 0;
        let (chain, known) = doubted.resume.unwrap_or_else(|| (AuditChain(rand::random()), Head::EMPTY));
        let mut batch = Batch::new(chain, loss::before(known));
        let receipt = batch.add(entry, now)?;
        // What the lines before say is the operator's word from here on.
        let checkpoint = batch.add(&self.signer.checkpoint(chain, batch.head, now), now)?.sequence;
        // An empty file may be there; what is in it is none of ours.
        self.chain = chain;
        self.head = loss::before(known);
        self.put(batch, checkpoint, now)?;
        self.doubted = None;
        Ok(receipt)
    }

    /// Keeps every file of the log under another name, as evidence.
    fn set_all_aside(&self, now: WallTime) -> Result<(), AuditError> {
        for file in files_of(&self.path)? {
            let aside = files::with_suffix(&file, &format!("set-aside-{}", now.0));
            match std::fs::rename(&file, &aside) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                renamed => renamed.map_err(AuditError::io(&file, "set it aside"))?,
            }
        }
        files::sync_folder(&self.path).map_err(AuditError::io(&self.path, "sync its folder"))
    }
}

/// Lines that are written together.
struct Batch {
    chain: AuditChain,
    head: Head,
    bytes: Vec<u8>,
}

impl Batch {
    fn new(chain: AuditChain, head: Head) -> Self {
        Self { chain, head, bytes: Vec::new() }
    }

    fn add(&mut self, entry: &Entry, now: WallTime) -> Result<Receipt, AuditError> {
        let (line, next) = line::write(entry, self.chain, self.head, now)?;
        self.bytes.extend_from_slice(&line);
        self.head = next;
        Ok(next)
    }
}

/// The right to write a log.
struct Lock(File);

impl Drop for Lock {
    /// Not only closed: a program that another thread is starting has the same opened file until it begins.
    fn drop(&mut self) {
        if let Err(problem) = flock(&self.0, FlockOperation::Unlock) {
            tracing::warn!(%problem, "the audit log's lock is freed when the last program that has its file has ended");
        }
    }
}

fn lock(path: &Path) -> Result<Lock, AuditError> {
    let lock_path = files::with_suffix(path, "lock");
    let file = open_regular(&lock_path, OpenOptions::new().write(true).create(true).truncate(false).mode(0o600));
    let file = file.map_err(AuditError::io(&lock_path, "open"))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Lock(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(AuditError::InUse { path: path.into() }),
        Err(error) => Err(AuditError::io(&lock_path, "lock")(error.into())),
    }
}

/// Leaves no file behind that holds less than all of it.
fn set_aside(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| files::sync_folder(path));
    if written.is_err()
        && let Err(problem) = std::fs::remove_file(path)
    {
        tracing::warn!(file = %path.display(), %problem, "a half copy of an unfinished line stays");
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_being_started_does_not_keep_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let held = lock(&path).unwrap();
        let inherited = held.0.try_clone().unwrap();
        assert_eq!(lock(&path).err(), Some(AuditError::InUse { path: path.clone() }));
        drop(held);
        assert!(lock(&path).is_ok());
        drop(inherited);
    }
}
