//! Appends to the log, one process at a time.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rotacast_protocol::WallTime;
use rustix::fs::{FlockOperation, flock};

use super::entry::Entry;
use super::error::AuditError;
use super::files;
use super::line::{self, Head, Receipt};
use super::medium::Medium;
use super::scan::{self, Scan};

/// How the writer opens the file in use.
pub(super) type Open = Box<dyn Fn(&Path) -> std::io::Result<Box<dyn Medium>> + Send>;

/// The one writer of a log.
pub(super) struct Writer {
    path: PathBuf,
    open: Open,
    /// None: to be opened (anew) with the next entry.
    medium: Option<Box<dyn Medium>>,
    head: Head,
    /// The first entry of the file in use; 0: it is empty.
    first: u64,
    /// Bytes of the file in use that are known to be durable.
    length: u64,
    /// Something may stand behind `length` that was never acknowledged.
    tainted: bool,
    max_file_bytes: u64,
    /// Held until this is dropped.
    _lock: File,
}

impl Writer {
    /// Opens a log, or begins one. Checks the file in use and the newest full one. An unfinished last line (the
    /// process died while writing it; it was never acknowledged) is kept in a file of its own and cut off.
    pub(super) fn open(path: &Path, max_file_bytes: u64, open: Open, now: WallTime) -> Result<Self, AuditError> {
        std::fs::create_dir_all(files::folder(path)).map_err(AuditError::io(path, "make its folder"))?;
        let lock = lock(path)?;
        let before = match files::all_full(path).map_err(AuditError::io(path, "list its folder"))?.last() {
            None => Head::EMPTY,
            Some(newest) => {
                let before = scan::before_first(newest)?.unwrap_or(Head::EMPTY);
                let scan = Scan::open(newest, before)?;
                let (head, _, unfinished) = scan.finish()?;
                if !unfinished.is_empty() {
                    let line = head.sequence - before.sequence + 1;
                    let problem = "unfinished line in a file that was full: it was cut off or written to".into();
                    return Err(super::Broken { file: newest.clone(), line, problem }.into());
                }
                head
            }
        };
        let mut writer = Self {
            path: path.into(),
            open,
            medium: None,
            head: before,
            first: 0,
            length: 0,
            tainted: false,
            max_file_bytes,
            _lock: lock,
        };
        if path.try_exists().map_err(AuditError::io(path, "look for it"))? {
            writer.take_over(before, now)?;
        }
        writer.ensure_open()?;
        Ok(writer)
    }

    /// The newest entry.
    pub(super) fn head(&self) -> Head {
        self.head
    }

    fn take_over(&mut self, before: Head, now: WallTime) -> Result<(), AuditError> {
        let (head, good_bytes, unfinished) = Scan::open(&self.path, before)?.finish()?;
        if !unfinished.is_empty() {
            let aside = files::with_suffix(&self.path, &format!("torn-{}", now.0));
            set_aside(&aside, &unfinished).map_err(AuditError::io(&aside, "keep an unfinished line"))?;
            let cut = || {
                let file = OpenOptions::new().write(true).open(&self.path)?;
                file.set_len(good_bytes)?;
                file.sync_all()
            };
            cut().map_err(AuditError::io(&self.path, "cut an unfinished line off"))?;
            tracing::warn!(
                log = %self.path.display(), kept = %aside.display(), bytes = unfinished.len(),
                "the audit log ended in an unfinished line, which was never acknowledged; it is kept aside"
            );
        }
        self.head = head;
        self.first = if head == before { 0 } else { before.sequence + 1 };
        self.length = good_bytes;
        Ok(())
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
        self.repair()?;
        self.rotate_if_full()?;
        let mut bytes = Vec::new();
        let mut receipts = Vec::with_capacity(entries.len());
        let mut head = self.head;
        for entry in entries {
            let (line, next) = line::write(entry, head, now)?;
            bytes.extend_from_slice(&line);
            receipts.push(next);
            head = next;
        }
        let (path, length) = (self.path.clone(), self.length);
        let medium = self.ensure_open()?;
        let disturbed = medium.disturbed(length).map_err(AuditError::io(&path, "look at it"))?;
        if let Some(problem) = disturbed {
            return Err(AuditError::Disturbed { path, problem });
        }
        let written = medium.write(&bytes).map_err(AuditError::io(&path, "write"));
        let durable = written.and_then(|()| medium.sync().map_err(AuditError::io(&path, "sync")));
        if let Err(error) = durable {
            self.tainted = true;
            return Err(error);
        }
        if self.first == 0 {
            self.first = self.head.sequence + 1;
        }
        self.head = head;
        self.length += bytes.len() as u64;
        Ok(receipts)
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

    fn rotate_if_full(&mut self) -> Result<(), AuditError> {
        if self.length < self.max_file_bytes || self.first == 0 {
            return Ok(());
        }
        let (path, length) = (self.path.clone(), self.length);
        let disturbed = self.ensure_open()?.disturbed(length).map_err(AuditError::io(&path, "look at it"))?;
        if let Some(problem) = disturbed {
            return Err(AuditError::Disturbed { path, problem });
        }
        let full = files::full(&path, self.first);
        std::fs::rename(&path, &full).map_err(AuditError::io(&path, "rename the full file"))?;
        self.medium = None;
        self.first = 0;
        self.length = 0;
        Ok(())
    }
}

fn lock(path: &Path) -> Result<File, AuditError> {
    let lock_path = files::with_suffix(path, "lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&lock_path);
    let file = file.map_err(AuditError::io(&lock_path, "open"))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(AuditError::InUse { path: path.into() }),
        Err(error) => Err(AuditError::io(&lock_path, "lock")(error.into())),
    }
}

fn set_aside(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    files::sync_folder(path)
}
