//! Whether a log is the one that was written here, and all of it: the files against the heads that the store knows.

use std::fmt;

use rotacast_protocol::AuditChain;
use rotacast_store::AuditHead;
use sha2::{Digest as _, Sha256};

use super::error::{AuditError, Broken};
use super::line::{Hash, Head};

/// Whose log it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogName {
    pub name: String,
    /// Whether the configuration names the replica. Otherwise the name comes from the host and the file, and a file that
    /// is found under another one is still the same log.
    pub named: bool,
}

/// What the files hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Files {
    /// No entry.
    Empty,
    /// A chain that verifies as far as it was read: the newest full file and the one in use.
    Whole { chain: AuditChain, head: Head },
    /// What does not verify.
    Broken(Broken),
}

/// Why a log takes no entries, until it is put right or an operator accepts the loss.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Doubt {
    /// It ends before the entry that the store knows.
    Behind { known: Head, found: Head },
    /// It is longer, but does not have the entry that the store knows.
    Missing { known: Head, found: Head },
    /// There is no entry, and the store knows some.
    Gone { known: Head },
    /// Another entry has the number of the one that the store knows.
    Rewritten { known: Head, found: Hash },
    /// The file is another log than the one that this replica wrote.
    Replaced { ours: AuditChain, known: Head, found: AuditChain },
    /// The file is another replica's log.
    Foreign { log: String, found: AuditChain },
    /// It does not verify.
    Broken(Broken),
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Behind { known, found } => write!(
                f,
                "it ends with entry {}, but entry {} was written and the store knows it: the end was cut off, an older copy was \
                 put in its place, or a second broadcaster writes a copy of it",
                found.sequence, known.sequence
            ),
            Self::Missing { known, found } => write!(
                f,
                "its files have no entry {}, which the store knows as the last; they end with entry {}: files were taken away \
                 before the store was told of what followed them, or the store was restored from an old backup",
                known.sequence, found.sequence
            ),
            Self::Gone { known } => {
                write!(
                    f,
                    "it has no entry, but {} were written and the store knows the last: it was deleted",
                    known.sequence
                )
            }
            Self::Rewritten { known, found } => write!(
                f,
                "entry {} has hash {found}, but {} was written and the store knows it: the log was written anew",
                known.sequence, known.hash
            ),
            Self::Replaced { ours, known, found } => write!(
                f,
                "the file is log {found}, but this replica's is log {ours} with {} entries: another file was put in its place",
                known.sequence
            ),
            Self::Foreign { log, found } => write!(f, "the file is log {found}, which replica {log} writes"),
            Self::Broken(broken) => write!(f, "{broken}"),
        }
    }
}

/// A doubt, and how the log goes on once an operator accepts the loss.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Doubted {
    pub(super) doubt: Doubt,
    /// The log that goes on, behind the last entry that is known of it; none: a new one begins.
    pub(super) resume: Option<(AuditChain, Head)>,
    /// The files are the beginning of that log, and stay.
    pub(super) keeps_files: bool,
}

impl Doubted {
    /// Names exactly this doubt, so that an operator accepts what they have seen and nothing else.
    pub(super) fn id(&self) -> String {
        hex::encode(&Sha256::digest(format!("{self:?}").as_bytes())[..8])
    }
}

/// What comes of the comparison.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// It is the log of this replica, and whole. `known`: the newest entry that the store knows; none: it knows no log of it.
    Trusted {
        known: Option<u64>,
    },
    Doubted(Box<Doubted>),
}

/// Compares. `hash_at` looks up an entry's hash in the files.
pub(super) fn judge(
    log: &LogName,
    files: &Files,
    heads: &[AuditHead],
    hash_at: impl FnOnce(u64) -> Result<Option<Hash>, AuditError>,
) -> Result<Verdict, AuditError> {
    // Of several, the one written last: an operator may have let a replica begin anew.
    let ours = heads.iter().filter(|head| head.log == log.name && head.named == log.named).max_by_key(|head| head.time);
    let ours = ours.map(|head| head_of(head).map(|known| (head.chain, known))).transpose()?;
    let doubted = |doubt, resume, keeps_files| Ok(Verdict::Doubted(Box::new(Doubted { doubt, resume, keeps_files })));
    let (chain, found) = match files {
        Files::Broken(broken) => return doubted(Doubt::Broken(broken.clone()), ours, false),
        Files::Empty => {
            return match ours {
                Some((_, known)) if known.sequence > 0 => doubted(Doubt::Gone { known }, ours, true),
                Some((_, known)) => Ok(Verdict::Trusted { known: Some(known.sequence) }),
                None => Ok(Verdict::Trusted { known: None }),
            };
        }
        Files::Whole { chain, head } => (*chain, *head),
    };
    let Some(stored) = heads.iter().find(|head| head.chain == chain) else {
        return match ours {
            Some((ours_is, known)) => doubted(Doubt::Replaced { ours: ours_is, known, found: chain }, ours, false),
            None => Ok(Verdict::Trusted { known: None }),
        };
    };
    if stored.named && log.named && stored.log != log.name {
        return doubted(Doubt::Foreign { log: stored.log.clone(), found: chain }, ours, false);
    }
    let known = head_of(stored)?;
    let resume = Some((chain, known));
    match hash_at(known.sequence)? {
        Some(hash) if hash == known.hash => Ok(Verdict::Trusted { known: Some(known.sequence) }),
        Some(hash) => doubted(Doubt::Rewritten { known, found: hash }, resume, false),
        None if known.sequence == 0 => Ok(Verdict::Trusted { known: Some(0) }),
        None if found.sequence < known.sequence => doubted(Doubt::Behind { known, found }, resume, true),
        None => doubted(Doubt::Missing { known, found }, Some((chain, found)), true),
    }
}

fn head_of(stored: &AuditHead) -> Result<Head, AuditError> {
    let hash = stored.hash.parse().map_err(|problem| {
        AuditError::Doubtful(format!("the store's head of log {} cannot be read: {problem}", stored.chain))
    })?;
    Ok(Head { sequence: stored.sequence, hash })
}
