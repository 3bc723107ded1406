//! Looks for entries from the newest back, for people: lines are checked by their own hash, the chain is `verify`'s.

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rotacast_proto::open_regular;
use rotacast_protocol::SecretName;
use serde::Deserialize;

use super::entry::Recorded;
use super::error::{AuditError, Broken};
use super::files;
use super::line::{self, MAX_LINE_BYTES};

/// Most bytes read for one search: some seconds' work of a disk. The answer says where to go on.
const MAX_READ: u64 = 256 * 1024 * 1024;

/// Whether entries about a secret, or about none, are shown.
pub type Admits = dyn Fn(Option<&SecretName>) -> bool + Send + Sync;

/// What is looked for.
#[derive(Clone, Default)]
pub struct Search {
    /// Entries about this secret only.
    pub secret: Option<SecretName>,
    /// Entries whose line has this text somewhere, in upper or lower case; empty: any.
    pub text: String,
    /// Entries before this one only.
    pub before: Option<u64>,
    /// Most entries found.
    pub limit: usize,
    /// Entries about secrets that this admits only, and of those about none if it admits `None`. None: all.
    pub only: Option<Arc<Admits>>,
}

/// What was found.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Found {
    /// Newest first.
    pub entries: Vec<Recorded>,
    /// Where to go on, as [`Search::before`]; none: there is no more.
    pub next_before: Option<u64>,
}

/// Looks through the log at `path`, full files included.
///
/// # Errors
/// [`AuditError`]: unreadable, or a line that was changed.
pub fn search(path: &Path, search: &Search) -> Result<Found, AuditError> {
    let mut all = files::all_full(path).map_err(AuditError::io(path, "list its folder"))?;
    if path.try_exists().map_err(AuditError::io(path, "look for it"))? {
        all.push(path.into());
    }
    let needle = Needle::new(search);
    let mut found = Found::default();
    let mut read = 0;
    for (at, file) in all.iter().enumerate().rev() {
        let wanted = search.limit - found.entries.len();
        let lines = needle.newest(file, wanted, &mut read)?;
        let more_here = lines.more;
        found.entries.extend(lines.parse(file)?);
        if more_here || (at > 0 && (found.entries.len() == search.limit || read >= MAX_READ)) {
            // Everything newer than this file's end has been looked through, and of this file all that was wanted.
            let last = found.entries.last().map(|entry| entry.sequence);
            found.next_before = if more_here { last } else { first_sequence(file)? };
            break;
        }
    }
    Ok(found)
}

/// The number of a file's first entry; none for a file without one.
fn first_sequence(file: &Path) -> Result<Option<u64>, AuditError> {
    let opened = open_regular(file, OpenOptions::new().read(true)).map_err(AuditError::io(file, "read"))?;
    let mut bytes = Vec::new();
    let limit = MAX_LINE_BYTES as u64;
    BufReader::new(opened).take(limit).read_until(b'\n', &mut bytes).map_err(AuditError::io(file, "read"))?;
    Ok(sequence(&bytes))
}

#[derive(Deserialize)]
struct About {
    secret: Option<SecretName>,
}

#[derive(Deserialize)]
struct Numbered {
    sequence: u64,
}

fn sequence(line: &[u8]) -> Option<u64> {
    serde_json::from_slice::<Numbered>(line).ok().map(|numbered| numbered.sequence)
}

/// A search, ready to be held against lines.
struct Needle<'s> {
    search: &'s Search,
    secret: Option<String>,
    text: String,
}

/// The newest matching lines of one file, oldest first, with their line numbers.
struct Lines {
    lines: VecDeque<(u64, Vec<u8>)>,
    /// There were more than wanted.
    more: bool,
}

impl<'s> Needle<'s> {
    fn new(search: &'s Search) -> Self {
        // A secret's name needs no escaping in JSON.
        let secret = search.secret.as_ref().map(|secret| format!("\"secret\":\"{secret}\""));
        Self { search, secret, text: search.text.to_lowercase() }
    }

    fn newest(&self, file: &Path, wanted: usize, read: &mut u64) -> Result<Lines, AuditError> {
        let opened = open_regular(file, OpenOptions::new().read(true)).map_err(AuditError::io(file, "read"))?;
        let mut reader = BufReader::with_capacity(256 * 1024, opened);
        let mut found = Lines { lines: VecDeque::new(), more: false };
        let (mut number, mut bytes) = (0, Vec::new());
        loop {
            bytes.clear();
            let length = reader.by_ref().take(MAX_LINE_BYTES as u64 + 1).read_until(b'\n', &mut bytes);
            *read += length.map_err(AuditError::io(file, "read"))? as u64;
            // The end, or a line that is being written at this moment.
            if bytes.pop() != Some(b'\n') {
                return Ok(found);
            }
            number += 1;
            if self.search.before.is_some_and(|before| sequence(&bytes).is_some_and(|found| found >= before)) {
                return Ok(found);
            }
            if self.matches(&bytes) {
                found.lines.push_back((number, std::mem::take(&mut bytes)));
                if found.lines.len() > wanted {
                    found.lines.pop_front();
                    found.more = true;
                }
            }
        }
    }

    fn matches(&self, line: &[u8]) -> bool {
        let Ok(line) = std::str::from_utf8(line) else { return self.search.only.is_none() };
        self.secret.as_ref().is_none_or(|secret| line.contains(secret))
            && (self.text.is_empty() || line.to_lowercase().contains(&self.text))
            && self.search.only.as_ref().is_none_or(|admits| {
                serde_json::from_str::<About>(line).is_ok_and(|about| admits(about.secret.as_ref()))
            })
    }
}

impl Lines {
    fn parse(self, file: &Path) -> Result<Vec<Recorded>, AuditError> {
        let broken = |line, problem| AuditError::Broken(Broken { file: PathBuf::from(file), line, problem });
        let newest_first = self.lines.into_iter().rev();
        newest_first
            .map(|(number, bytes)| {
                line::link(&bytes).and_then(|_| line::recorded(&bytes)).map_err(|problem| broken(number, problem))
            })
            .collect()
    }
}
