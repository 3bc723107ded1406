//! What can go wrong with a bus, by whose fault it is.

use thiserror::Error;

/// An error of a bus.
#[derive(Debug, Error)]
pub enum BusError {
    /// It cannot be reached, or did not answer in time. Retry with the same message id.
    #[error("bus {endpoint} cannot be reached: {problem}")]
    Unreachable {
        /// Where it was expected.
        endpoint: String,
        /// What the client says.
        problem: String,
    },
    /// It is up, but no broadcaster answered the Sync.
    #[error("no broadcaster answers on {endpoint}: {problem}")]
    NoLeader {
        /// Which bus.
        endpoint: String,
        /// What the client says.
        problem: String,
    },
    /// It refuses who we are or what we ask.
    #[error("bus {endpoint} refuses access: {problem}")]
    Denied {
        /// Which bus.
        endpoint: String,
        /// What it says.
        problem: String,
    },
    /// Its streams or topics are set up in a way that cannot work.
    #[error("bus {endpoint} is set up wrongly: {problem}")]
    Misconfigured {
        /// Which bus.
        endpoint: String,
        /// Which setting, what was expected and found, and how to mend it.
        problem: String,
    },
    /// A message is beyond the bus's limit.
    #[error("message of {found} bytes is too large for {endpoint}, expected at most {limit}")]
    TooLarge {
        /// Which bus.
        endpoint: String,
        /// The message's size in bytes.
        found: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// Another broadcaster published this subject meanwhile: a later leader is at work.
    #[error("another broadcaster has published {subject} meanwhile")]
    Fenced {
        /// What was being published.
        subject: String,
    },
    /// Waiting was cancelled by a shutdown.
    #[error("cancelled")]
    Cancelled,
}

impl BusError {
    /// Whether trying again, unchanged, may succeed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, BusError::Unreachable { .. } | BusError::NoLeader { .. })
    }
}
