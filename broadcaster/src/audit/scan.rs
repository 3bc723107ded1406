//! Reads one file line by line, checking the chain as it goes.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use super::entry::Recorded;
use super::error::{AuditError, Broken};
use super::line::{self, Head, MAX_LINE_BYTES};

/// A file being read.
pub(super) struct Scan {
    path: PathBuf,
    reader: BufReader<File>,
    line: u64,
    head: Head,
    good_bytes: u64,
    unfinished: Vec<u8>,
}

/// What comes next in a file.
pub(super) enum Next {
    /// An entry that follows the one before.
    Entry(Box<Recorded>),
    /// The end. `unfinished` is what stands behind the last newline.
    End {
        /// The last entry.
        head: Head,
        /// Bytes up to and with the last newline.
        good_bytes: u64,
        /// A line that was never finished; empty if there is none.
        unfinished: Vec<u8>,
    },
}

impl Scan {
    /// Reads `path`, whose first entry must follow `head`.
    pub(super) fn open(path: &Path, head: Head) -> Result<Self, AuditError> {
        let file = File::open(path).map_err(AuditError::io(path, "read"))?;
        Ok(Self {
            path: path.into(),
            reader: BufReader::with_capacity(64 * 1024, file),
            line: 0,
            head,
            good_bytes: 0,
            unfinished: Vec::new(),
        })
    }

    /// The next entry, or the end.
    pub(super) fn next(&mut self) -> Result<Next, AuditError> {
        let mut bytes = Vec::new();
        let limit = MAX_LINE_BYTES as u64 + 1;
        let read = self.reader.by_ref().take(limit).read_until(b'\n', &mut bytes);
        read.map_err(AuditError::io(&self.path, "read"))?;
        if bytes.last() != Some(&b'\n') {
            if bytes.len() > MAX_LINE_BYTES {
                return Err(self.broken(self.line + 1, format!("longer than {MAX_LINE_BYTES} bytes")));
            }
            self.unfinished = bytes;
            return Ok(Next::End {
                head: self.head,
                good_bytes: self.good_bytes,
                unfinished: std::mem::take(&mut self.unfinished),
            });
        }
        self.line += 1;
        let (recorded, head) = line::read(&bytes[..bytes.len() - 1])
            .and_then(|(recorded, head)| line::follows(&recorded, self.head).map(|()| (recorded, head)))
            .map_err(|problem| self.broken(self.line, problem))?;
        self.head = head;
        self.good_bytes += bytes.len() as u64;
        Ok(Next::Entry(Box::new(recorded)))
    }

    /// To the end.
    pub(super) fn finish(mut self) -> Result<(Head, u64, Vec<u8>), AuditError> {
        loop {
            if let Next::End { head, good_bytes, unfinished } = self.next()? {
                return Ok((head, good_bytes, unfinished));
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
}

/// The entry a file begins with says which one it must follow: for full files whose predecessors have been archived.
pub(super) fn before_first(path: &Path) -> Result<Option<Head>, AuditError> {
    let file = File::open(path).map_err(AuditError::io(path, "read"))?;
    let mut bytes = Vec::new();
    let limit = MAX_LINE_BYTES as u64;
    BufReader::new(file).take(limit).read_until(b'\n', &mut bytes).map_err(AuditError::io(path, "read"))?;
    if bytes.pop() != Some(b'\n') {
        return Ok(None);
    }
    let broken = |problem| AuditError::Broken(Broken { file: path.into(), line: 1, problem });
    let (recorded, _) = line::read(&bytes).map_err(broken)?;
    let hash = recorded.prev.parse().map_err(broken)?;
    let sequence = recorded.sequence.checked_sub(1).ok_or_else(|| broken("entry 0, expected 1 or more".into()))?;
    Ok(Some(Head { sequence, hash }))
}
