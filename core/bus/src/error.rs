//! What can go wrong with a bus, by whose fault it is.

use rotacast_proto::ServerFault;
#[cfg(feature = "leader")]
use rotacast_proto::{Finding, Level};
use thiserror::Error;

/// An error of a bus.
#[derive(Clone, Debug, Error)]
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
    /// It has no room for what it is to keep. Retry: room may be made.
    #[error("bus {endpoint} has no room: {problem}")]
    Full {
        /// Which bus.
        endpoint: String,
        /// What is full, what is needed, and how to make room.
        problem: String,
    },
    /// It answers with an error that is none of the known ones. Retry.
    #[error("bus {endpoint} answers with an error that Rotacast does not know: {problem}")]
    Unknown {
        /// Which bus.
        endpoint: String,
        /// What it says.
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
        use BusError::{Full, NoLeader, Unknown, Unreachable};
        matches!(self, Unreachable { .. } | NoLeader { .. } | Full { .. } | Unknown { .. })
    }

    /// As a finding about `subject`, with what repairs it.
    #[cfg(feature = "leader")]
    pub(crate) fn finding(&self, subject: String) -> Finding {
        let fix = self.server_fault().map_or("", ServerFault::advice).to_owned();
        Finding { level: Level::Error, subject, text: self.to_string(), fix }
    }

    /// Which fault of the server it is, if it is one.
    #[must_use]
    pub fn server_fault(&self) -> Option<ServerFault> {
        Some(match self {
            BusError::Unreachable { .. } => ServerFault::NotReachable,
            BusError::Denied { .. } => ServerFault::Refused,
            BusError::Full { .. } => ServerFault::Full,
            BusError::Misconfigured { .. } => ServerFault::Misconfigured,
            BusError::Unknown { .. } => ServerFault::NotUnderstood,
            BusError::NoLeader { .. } | BusError::TooLarge { .. } | BusError::Fenced { .. } | BusError::Cancelled => {
                return None;
            }
        })
    }
}
