//! What can go wrong with a store, by whose fault it is.

use rotacast_proto::ServerFault;
use rotacast_seal::SealError;
use thiserror::Error;

/// An error of a store.
#[derive(Debug, Error)]
pub enum StoreError {
    /// It cannot be reached, or did not answer in time. Retry; the outcome of a commit is unknown.
    #[error("store {endpoint} cannot be reached: {problem}")]
    Unreachable {
        /// Where it was expected.
        endpoint: String,
        /// What the client says.
        problem: String,
    },
    /// It refuses who we are or what we ask.
    #[error("store {endpoint} refuses access: {problem}")]
    Denied {
        /// Which store.
        endpoint: String,
        /// What it says.
        problem: String,
    },
    /// A file of ours that its login needs cannot be read: it was not asked.
    #[error("store {endpoint} is not asked: {problem}")]
    OwnFile {
        /// Which store.
        endpoint: String,
        /// Which file, what is wrong with it, and how to mend it.
        problem: String,
    },
    /// It is up but takes no writes: out of space, read-only, over quota.
    #[error("store {endpoint} takes no writes: {problem}")]
    Unwritable {
        /// Which store.
        endpoint: String,
        /// What it says.
        problem: String,
    },
    /// It answers with an error that is none of the known ones. Retry; the outcome of a commit is unknown.
    #[error("store {endpoint} answers with an error that Rotacast does not know: {problem}")]
    Unknown {
        /// Which store.
        endpoint: String,
        /// What it says.
        problem: String,
    },
    /// A value or key is beyond the store's limits.
    #[error("{what} is {found} bytes, expected at most {limit}")]
    TooLarge {
        /// Which thing.
        what: String,
        /// Its size in bytes.
        found: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// What was asked for makes no sense to any store: the caller's mistake.
    #[error("{what} is not valid: {problem}")]
    Invalid {
        /// Which thing.
        what: String,
        /// What is wrong, without contents.
        problem: String,
    },
    /// What is stored does not parse.
    #[error("store key {key:?}: {problem}")]
    Corrupt {
        /// Where.
        key: String,
        /// What is wrong, without contents.
        problem: String,
    },
    /// A sealed value does not open, or cannot be sealed.
    #[error("store key {key:?}: {problem}")]
    Sealed {
        /// Where it is, or is to be.
        key: String,
        /// Why not. No `source`: the text above says it.
        problem: SealError,
    },
    /// The store is another one than before, or went back in time (restored from a backup).
    #[error("store {endpoint} is not what it was: {problem}")]
    WentBackwards {
        /// Which store.
        endpoint: String,
        /// What was expected and found.
        problem: String,
    },
    /// The keys are another cluster's.
    #[error(
        "store {endpoint}: the keys below {prefix} belong to cluster {owner}; this broadcaster is configured as {ours}: \
         change `cluster` or `store.prefix`"
    )]
    Foreign {
        /// Which store.
        endpoint: String,
        /// Below which prefix.
        prefix: String,
        /// Name and id of the cluster that owns them.
        owner: String,
        /// Which cluster this broadcaster is of.
        ours: String,
    },
    /// The leadership was lost: another broadcaster leads, or the session is over.
    #[error("this broadcaster no longer leads: {problem}")]
    NotLeader {
        /// How it shows.
        problem: String,
    },
    /// Waiting was cancelled by a shutdown.
    #[error("cancelled")]
    Cancelled,
}

impl StoreError {
    /// Whether trying again, unchanged, may succeed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, StoreError::Unreachable { .. } | StoreError::Unwritable { .. } | StoreError::Unknown { .. })
    }

    /// Which fault of the server it is, if it is one.
    #[must_use]
    pub fn server_fault(&self) -> Option<ServerFault> {
        Some(match self {
            StoreError::Unreachable { .. } => ServerFault::NotReachable,
            StoreError::Denied { .. } => ServerFault::Refused,
            StoreError::Unwritable { .. } => ServerFault::Full,
            StoreError::Invalid { .. } | StoreError::OwnFile { .. } => ServerFault::Misconfigured,
            StoreError::Unknown { .. } => ServerFault::NotUnderstood,
            StoreError::TooLarge { .. }
            | StoreError::Corrupt { .. }
            | StoreError::Sealed { .. }
            | StoreError::WentBackwards { .. }
            | StoreError::Foreign { .. }
            | StoreError::NotLeader { .. }
            | StoreError::Cancelled => return None,
        })
    }
}
