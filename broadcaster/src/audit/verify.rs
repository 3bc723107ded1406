//! Checks a log from its first entry to its last.

use std::path::Path;

use super::entry::Recorded;
use super::error::{AuditError, Broken};
use super::files;
use super::line::{Hash, Head};
use super::scan::{Next, Scan};

/// What else is known about a log than what it says itself.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Expectations {
    /// A head seen earlier: it must be in the log. Without one, a log whose end was cut off looks whole.
    pub head: Option<Hash>,
    /// The head of what was archived: the oldest file must follow it. Without one, it must begin with entry 1.
    pub after: Option<Head>,
}

/// What a whole log holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verified {
    /// How many entries.
    pub entries: u64,
    /// In how many files.
    pub files: usize,
    /// The newest entry.
    pub head: Head,
    /// How many entries stand behind the expected head.
    pub since_expected: Option<u64>,
}

/// Checks every line of the log at `path`, full files included.
///
/// # Errors
/// [`AuditError::Broken`] names the first line that does not belong, and why.
pub fn verify(path: &Path, expectations: Expectations) -> Result<Verified, AuditError> {
    read(path, expectations, |_| Ok::<_, AuditError>(()))
}

/// Reads and checks the log at `path`, and hands out every entry up to the first that does not belong.
///
/// # Errors
/// [`AuditError`], or what `each` says.
pub fn read<E: From<AuditError>>(
    path: &Path,
    expectations: Expectations,
    mut each: impl FnMut(Recorded) -> Result<(), E>,
) -> Result<Verified, E> {
    let mut all = files::all_full(path).map_err(AuditError::io(path, "list its folder"))?;
    // Between a full file's renaming and the next entry there may be none in use.
    let in_use = path.try_exists().map_err(AuditError::io(path, "look for it"))?;
    if in_use || all.is_empty() {
        all.push(path.into());
    }
    let start = expectations.after.unwrap_or(Head::EMPTY);
    let mut head = start;
    let mut expected_at = None;
    let mut last_line = 0;
    if expectations.head == Some(start.hash) {
        expected_at = Some(start.sequence);
    }
    for file in &all {
        let mut scan = Scan::open(file, head)?;
        loop {
            match scan.next()? {
                Next::Entry(entry) => {
                    let hash: Hash = entry.hash.parse().map_err(|problem| scan.broken(scan.line(), problem))?;
                    if expectations.head == Some(hash) {
                        expected_at = Some(entry.sequence);
                    }
                    each(*entry)?;
                }
                Next::End { unfinished, .. } if !unfinished.is_empty() => {
                    let problem = "unfinished line: it is being written right now (verify again), its writer died \
                                   (it is set aside when the broadcaster starts), or it was cut off";
                    return Err(scan.broken(scan.line() + 1, problem.into()).into());
                }
                Next::End { head: last, .. } => {
                    head = last;
                    last_line = scan.line();
                    break;
                }
            }
        }
    }
    if let (Some(expected), None) = (expectations.head, expected_at) {
        let file = all.last().map_or_else(|| path.into(), Clone::clone);
        let problem = format!(
            "the expected head {expected} is not in the log, which ends with entry {} ({}): its end was cut off or replaced",
            head.sequence, head.hash
        );
        return Err(AuditError::Broken(Broken { file, line: last_line, problem }).into());
    }
    Ok(Verified {
        entries: head.sequence - start.sequence,
        files: all.len(),
        head,
        since_expected: expected_at.map(|at| head.sequence - at),
    })
}
