//! Reads one file line by line, checking the chain as it goes.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use rotacast_proto::open_regular;
use rotacast_protocol::{AuditChain, WallTime};

use super::entry::Recorded;
use super::error::{AuditError, Broken};
use super::line::{self, Head, Link, MAX_LINE_BYTES, Special};
use super::loss::Loss;

/// A file being read.
pub(super) struct Scan {
    path: PathBuf,
    reader: BufReader<File>,
    /// The line read last, without its newline.
    bytes: Vec<u8>,
    line: u64,
    chain: Option<AuditChain>,
    head: Head,
    good_bytes: u64,
}

/// What comes next in a file.
pub(super) enum Next {
    /// An entry that follows the one before.
    Entry {
        link: Link,
        /// What it followed.
        before: Head,
        /// The loss that it accepts.
        loss: Option<Box<Loss>>,
    },
    /// The end. `unfinished` is what stands behind the last newline.
    End {
        /// A line that was never finished; empty if there is none.
        unfinished: Vec<u8>,
    },
}

/// A file that was read to its end.
pub(super) struct Scanned {
    pub(super) chain: Option<AuditChain>,
    /// The last entry.
    pub(super) head: Head,
    /// Bytes up to and with the last newline.
    pub(super) good_bytes: u64,
    /// A line that was never finished; empty if there is none.
    pub(super) unfinished: Vec<u8>,
    /// The first entry's number and time; none for a file without one.
    pub(super) first: Option<(u64, WallTime)>,
    /// The newest checkpoint's number.
    pub(super) checkpoint: Option<u64>,
}

impl Scan {
    /// Reads `path`, whose first entry must follow `head` in `chain`; `None`: the first entry says in which.
    pub(super) fn open(path: &Path, chain: Option<AuditChain>, head: Head) -> Result<Self, AuditError> {
        let file = open_regular(path, OpenOptions::new().read(true)).map_err(AuditError::io(path, "read"))?;
        Ok(Self {
            path: path.into(),
            reader: BufReader::with_capacity(64 * 1024, file),
            bytes: Vec::new(),
            line: 0,
            chain,
            head,
            good_bytes: 0,
        })
    }

    /// The next entry, or the end.
    pub(super) fn next(&mut self) -> Result<Next, AuditError> {
        self.bytes.clear();
        let limit = MAX_LINE_BYTES as u64 + 1;
        let read = self.reader.by_ref().take(limit).read_until(b'\n', &mut self.bytes);
        let read = read.map_err(AuditError::io(&self.path, "read"))? as u64;
        if self.bytes.last() != Some(&b'\n') {
            if self.bytes.len() > MAX_LINE_BYTES {
                return Err(self.broken(self.line + 1, format!("longer than {MAX_LINE_BYTES} bytes")));
            }
            return Ok(Next::End { unfinished: std::mem::take(&mut self.bytes) });
        }
        self.bytes.pop();
        self.line += 1;
        let (link, loss) = self.check().map_err(|problem| self.broken(self.line, problem))?;
        let before = std::mem::replace(&mut self.head, link.head);
        self.chain = Some(link.chain);
        self.good_bytes += read;
        Ok(Next::Entry { link, before, loss })
    }

    fn check(&self) -> Result<(Link, Option<Box<Loss>>), String> {
        let link = line::link(&self.bytes)?;
        if let Some(chain) = self.chain.filter(|chain| *chain != link.chain) {
            return Err(format!("entry of log {}, expected one of log {chain}: it was copied here", link.chain));
        }
        let loss = line::follows(&link, &self.bytes, self.head)?;
        Ok((link, loss.map(Box::new)))
    }

    /// The entry read last, in full.
    pub(super) fn recorded(&self) -> Result<Recorded, AuditError> {
        line::recorded(&self.bytes).map_err(|problem| self.broken(self.line, problem))
    }

    /// To the end.
    pub(super) fn finish(mut self) -> Result<Scanned, AuditError> {
        let (mut first, mut checkpoint) = (None, None);
        loop {
            match self.next()? {
                Next::Entry { link, .. } => {
                    first = first.or(Some((link.head.sequence, link.time)));
                    if link.special == Special::Checkpoint {
                        checkpoint = Some(link.head.sequence);
                    }
                }
                Next::End { unfinished } => {
                    let Self { chain, head, good_bytes, .. } = self;
                    return Ok(Scanned { chain, head, good_bytes, unfinished, first, checkpoint });
                }
            }
        }
    }

    pub(super) fn broken(&self, line: u64, problem: String) -> AuditError {
        AuditError::Broken(Broken { file: self.path.clone(), line, problem })
    }

    /// The line read last, from 1.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    pub(super) fn chain(&self) -> Option<AuditChain> {
        self.chain
    }

    pub(super) fn head(&self) -> Head {
        self.head
    }

    pub(super) fn good_bytes(&self) -> u64 {
        self.good_bytes
    }
}

/// The entry a file begins with says which one it must follow: for files whose predecessors have been archived.
pub(super) fn before_first(path: &Path) -> Result<Option<Head>, AuditError> {
    let file = open_regular(path, OpenOptions::new().read(true)).map_err(AuditError::io(path, "read"))?;
    let mut bytes = Vec::new();
    let limit = MAX_LINE_BYTES as u64;
    BufReader::new(file).take(limit).read_until(b'\n', &mut bytes).map_err(AuditError::io(path, "read"))?;
    if bytes.pop() != Some(b'\n') {
        return Ok(None);
    }
    let broken = |problem| AuditError::Broken(Broken { file: path.into(), line: 1, problem });
    let link = line::link(&bytes).map_err(broken)?;
    link.before().ok_or_else(|| broken("entry 0, expected 1 or more".into())).map(Some)
}
