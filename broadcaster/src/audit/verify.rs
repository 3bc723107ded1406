//! Checks a log from its first entry to its last.

use std::path::{Path, PathBuf};

use rotacast_proto::VerifyingKey;
use rotacast_protocol::{AuditChain, OperatorName};
use rotacast_store::AuditHead;

use super::checkpoint;
use super::doubt::{Doubt, Files, LogName, Verdict, judge};
use super::entry::Recorded;
use super::error::{AuditError, Broken};
use super::files;
use super::line::{Hash, Head, Special};
use super::loss::Loss;
use super::order::{self, Checked};
use super::scan::{self, Next, Scan};
use super::writer::MAX_BATCH;

/// Most entries without a checkpoint in a log that a broadcaster has written: those that share a write come before one.
const MAX_UNSIGNED: u64 = checkpoint::EVERY_ENTRIES + MAX_BATCH as u64;

/// What else is known about a log than what it says itself.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Expectations {
    /// A head seen earlier: it must be in the log. Without one, a log whose end was cut off looks whole.
    pub head: Option<Hash>,
    /// The head of what was archived: the oldest file must follow it. Without one, it must begin with entry 1.
    pub after: Option<Head>,
    /// The log that it must be.
    pub chain: Option<AuditChain>,
    /// The keys that broadcasters have signed with: checkpoints must be theirs. Empty: checkpoints are not looked at.
    pub signers: Vec<VerifyingKey>,
    /// The keys that operators have signed with: their orders must be theirs. Empty: orders are not looked at.
    pub operators: Vec<(OperatorName, VerifyingKey)>,
}

/// What a whole log holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verified {
    /// How many entries.
    pub entries: u64,
    /// In how many files.
    pub files: usize,
    /// Which log it is; none without an entry.
    pub chain: Option<AuditChain>,
    /// The newest entry.
    pub head: Head,
    /// How many entries stand behind the expected head.
    pub since_expected: Option<u64>,
    /// The newest entry that a checkpoint has signed; none without keys, or without a checkpoint.
    pub signed: Option<u64>,
    /// Orders whose signatures were checked.
    pub orders: u64,
    /// Losses that operators have accepted.
    pub losses: Vec<Loss>,
}

impl Verified {
    /// A log without a file.
    pub const EMPTY: Verified = Verified {
        entries: 0,
        files: 0,
        chain: None,
        head: Head::EMPTY,
        since_expected: None,
        signed: None,
        orders: 0,
        losses: Vec::new(),
    };
}

/// Checks every line of the log at `path`, full files included.
///
/// # Errors
/// [`AuditError::Broken`] names the first line that does not belong, and why.
pub fn verify(path: &Path, expectations: &Expectations) -> Result<Verified, AuditError> {
    verify_telling(path, expectations, &mut |_| {})
}

/// As [`verify`]; `tell` hears how many bytes were read, file by file and some thousand lines at a time.
///
/// # Errors
/// As [`verify`].
pub fn verify_telling(
    path: &Path,
    expectations: &Expectations,
    tell: &mut dyn FnMut(u64),
) -> Result<Verified, AuditError> {
    Check::new(expectations).all(path, tell, |_| Ok::<_, AuditError>(()))
}

/// Reads and checks the log at `path`, and hands out every entry up to the first that does not belong.
///
/// # Errors
/// [`AuditError`], or what `each` says.
pub fn read<E: From<AuditError>>(
    path: &Path,
    expectations: &Expectations,
    mut each: impl FnMut(Recorded) -> Result<(), E>,
) -> Result<Verified, E> {
    Check::new(expectations).all(path, &mut |_| {}, |scan| each(scan.recorded()?))
}

/// The files of a log, oldest first.
///
/// # Errors
/// [`AuditError::Io`].
pub fn files_of(path: &Path) -> Result<Vec<PathBuf>, AuditError> {
    let mut all = files::all_full(path).map_err(AuditError::io(path, "list its folder"))?;
    // Between a full file's renaming and the next entry there may be none in use.
    let in_use = path.try_exists().map_err(AuditError::io(path, "look for it"))?;
    if in_use || all.is_empty() {
        all.push(path.into());
    }
    Ok(all)
}

/// The hash of an entry, looked up in a log's files; none: it is not there.
pub(super) fn hash_at(path: &Path, sequence: u64) -> Result<Option<Hash>, AuditError> {
    for file in files_of(path)?.iter().rev() {
        let Some(before) = scan::before_first(file)? else { continue };
        if before.sequence >= sequence {
            continue;
        }
        let mut scan = Scan::open(file, None, before)?;
        while let Next::Entry { link, .. } = scan.next()? {
            if link.head.sequence >= sequence {
                return Ok((link.head.sequence == sequence).then_some(link.head.hash));
            }
        }
        return Ok(None);
    }
    Ok(None)
}

/// Compares a log that [`verify`] has found whole with the heads that the store knows. What is wrong, if anything is; and how
/// many entries the store does not know.
///
/// # Errors
/// [`AuditError`]: the files or a head cannot be read.
pub fn compare(
    path: &Path,
    verified: &Verified,
    log: &LogName,
    heads: &[AuditHead],
) -> Result<Result<Option<u64>, Doubt>, AuditError> {
    let files = match verified.chain {
        Some(chain) => Files::Whole { chain, head: verified.head },
        None => Files::Empty,
    };
    Ok(match judge(log, &files, heads, |sequence| hash_at(path, sequence))? {
        Verdict::Trusted { known } => Ok(known.map(|known| verified.head.sequence - known)),
        Verdict::Doubted(doubted) => Err(doubted.doubt),
    })
}

/// Lines between two words about how far it is.
const TELL_EVERY: u64 = 4096;

/// A check under way.
struct Check<'e> {
    expectations: &'e Expectations,
    expected_at: Option<u64>,
    entries: u64,
    unsigned: u64,
    signed: Option<u64>,
    orders: u64,
    losses: Vec<Loss>,
}

impl<'e> Check<'e> {
    fn new(expectations: &'e Expectations) -> Self {
        Self { expectations, expected_at: None, entries: 0, unsigned: 0, signed: None, orders: 0, losses: Vec::new() }
    }

    fn all<E: From<AuditError>>(
        mut self,
        path: &Path,
        tell: &mut dyn FnMut(u64),
        mut each: impl FnMut(&Scan) -> Result<(), E>,
    ) -> Result<Verified, E> {
        let all = files_of(path)?;
        let mut head = self.expectations.after.unwrap_or(Head::EMPTY);
        let mut chain = self.expectations.chain;
        let (mut last_line, mut read) = (0, 0);
        if self.expectations.head == Some(head.hash) {
            self.expected_at = Some(head.sequence);
        }
        for file in &all {
            let mut scan = Scan::open(file, chain, head)?;
            loop {
                match scan.next()? {
                    Next::Entry { link, before, loss } => {
                        self.entries += 1;
                        if self.expectations.head == Some(link.head.hash) {
                            self.expected_at = Some(link.head.sequence);
                        }
                        self.losses.extend(loss.map(|loss| *loss));
                        self.special(link.special, &scan, before)
                            .map_err(|problem| scan.broken(scan.line(), problem))?;
                        each(&scan)?;
                        if scan.line() % TELL_EVERY == 0 {
                            tell(read + scan.good_bytes());
                        }
                    }
                    Next::End { unfinished } if !unfinished.is_empty() => {
                        let problem = "unfinished line: it is being written right now (verify again), its writer died \
                                       (it is set aside when the broadcaster starts), or it was cut off";
                        return Err(scan.broken(scan.line() + 1, problem.into()).into());
                    }
                    Next::End { .. } => {
                        (head, chain) = (scan.head(), scan.chain());
                        last_line = scan.line();
                        read += scan.good_bytes();
                        tell(read);
                        break;
                    }
                }
            }
        }
        if let (Some(expected), None) = (self.expectations.head, self.expected_at) {
            let file = all.last().map_or_else(|| path.into(), Clone::clone);
            let problem = format!(
                "the expected head {expected} is not in the log, which ends with entry {} ({}): its end was cut off or replaced",
                head.sequence, head.hash
            );
            return Err(AuditError::Broken(Broken { file, line: last_line, problem }).into());
        }
        Ok(Verified {
            entries: self.entries,
            files: all.len(),
            chain,
            head,
            since_expected: self.expected_at.map(|at| head.sequence - at),
            signed: self.signed,
            orders: self.orders,
            losses: self.losses,
        })
    }

    /// What a line says about the log itself.
    fn special(&mut self, special: Special, scan: &Scan, before: Head) -> Result<(), String> {
        let recorded = || scan.recorded().map_err(|error| error.to_string());
        let Expectations { signers, operators, .. } = self.expectations;
        if special == Special::Checkpoint && !signers.is_empty() {
            checkpoint::check(&recorded()?, before, signers)?;
            self.signed = Some(before.sequence);
            self.unsigned = 0;
        } else {
            self.unsigned += 1;
        }
        if !signers.is_empty() && self.unsigned > MAX_UNSIGNED {
            return Err(format!(
                "{} entries without a checkpoint, expected at most {MAX_UNSIGNED}: a broadcaster did not write them",
                self.unsigned
            ));
        }
        if matches!(special, Special::Ordered | Special::LossAccepted) && !operators.is_empty() {
            match order::check(&recorded()?, operators)? {
                Checked::Signed => self.orders += 1,
                Checked::Unsigned => {}
            }
        }
        Ok(())
    }
}
