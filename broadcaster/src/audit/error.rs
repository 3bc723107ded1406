//! What can go wrong with the audit log.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// A line that does not belong: the log was changed after it was written.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{file}:{line}: {problem}", file = .file.display())]
pub struct Broken {
    /// In which file.
    pub file: PathBuf,
    /// Its line, from 1.
    pub line: u64,
    /// Expected and found.
    pub problem: String,
}

/// The audit log cannot be used, or not now.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum AuditError {
    /// Another process writes to it.
    #[error("audit log {path} is in use by another process; two broadcasters need two logs: stop the other, or set [audit] file", path = .path.display())]
    InUse {
        /// The log.
        path: PathBuf,
    },
    /// What is there is not what was written.
    #[error("audit log does not verify: {0}")]
    Broken(#[from] Broken),
    /// It is not the log that was written here, or not all of it: see [`super::Doubt`].
    #[error("audit log is in doubt and takes no entries: {0}")]
    Doubtful(String),
    /// The store has not been told of too many entries.
    #[error(
        "audit log is {found} entries ahead of its head in the store, expected at most {limit}: the store takes no writes"
    )]
    Ahead {
        /// How many.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// The operating system says no. The entry is not in the log; the next one is tried afresh.
    #[error("audit log {path}: cannot {action}: {problem}", path = .path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What kind of error it is.
        kind: io::ErrorKind,
        /// What the system says.
        problem: String,
    },
    /// Another program moved, cut or wrote to the file while it was in use.
    #[error("audit log {path} was changed from outside while in use: {problem}; put it back as it was: it is taken up again without a restart", path = .path.display())]
    Disturbed {
        /// Which file.
        path: PathBuf,
        /// Expected and found.
        problem: String,
    },
    /// The entry is larger than any should be.
    #[error("audit entry of {found} bytes, expected at most {limit}")]
    TooLarge {
        /// Its size.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// The log was closed.
    #[error("audit log is closed: the broadcaster is shutting down")]
    Closed,
}

impl AuditError {
    pub(super) fn io(path: impl Into<PathBuf>, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |error| AuditError::Io { path, action, kind: error.kind(), problem: error.to_string() }
    }

    /// Whether the disk, or the quota on it, is full: a condition that passes, also at the start.
    pub(super) fn is_full(&self) -> bool {
        matches!(self, Self::Io { kind: io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded, .. })
    }
}
