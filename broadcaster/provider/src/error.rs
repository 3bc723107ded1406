//! What can go wrong with a provider, by whose fault it is.

use std::fmt::Write as _;

use thiserror::Error;

use crate::Session;

/// Sessions named in a message; the rest are counted. A pool has tens of connections, a line has room for a few.
const SESSIONS_NAMED: usize = 5;

/// An error of a provider: the call did not come to an end. Its outcome is unknown, and the same call is made again.
#[derive(Debug, Error)]
pub enum ProviderError {
    /// It cannot be reached, or did not answer in time.
    #[error("provider {provider} cannot be reached: {problem}")]
    Unreachable {
        /// Which provider.
        provider: String,
        /// What the client says, without values.
        problem: String,
    },
    /// The file with the administrator's connection cannot be used: the provider was not asked. The same call is made again,
    /// with what the file holds then.
    #[error(
        "provider {provider} is not asked, since the file with the administrator's connection cannot be used: {problem}"
    )]
    OwnFile {
        /// Which provider.
        provider: String,
        /// Which file, what is wrong with it, and how to mend it.
        problem: String,
    },
    /// The administrator's login or its rights do not suffice.
    #[error("provider {provider} refuses Rotacast's administrator: {problem}")]
    Denied {
        /// Which provider.
        provider: String,
        /// What it says, and which right is missing.
        problem: String,
    },
    /// The call may not be made: it would hit something else than this one version's credential.
    #[error("provider {provider} will not touch version {version}: {problem}")]
    Refused {
        /// Which provider.
        provider: String,
        /// Of which version.
        version: u64,
        /// Why.
        problem: String,
    },
    /// Something outside is in the way: who or what, and what clears it. The same call is made again until it is gone.
    #[error("provider {provider} cannot end version {version} yet: {problem}")]
    Unfinished {
        /// Which provider.
        provider: String,
        /// Of which version.
        version: u64,
        /// What is in the way.
        problem: String,
    },
    /// No new login succeeds any more, but sessions that began earlier are still there. The same call is made again
    /// until they are gone.
    #[error("provider {provider} waits for the sessions of version {version}: {}; {next}", named(sessions))]
    InUse {
        /// Which provider.
        provider: String,
        /// Of which version.
        version: u64,
        /// Who.
        sessions: Vec<Session>,
        /// What ends the wait.
        next: String,
    },
}

fn named(sessions: &[Session]) -> String {
    let mut text =
        sessions.iter().take(SESSIONS_NAMED).map(|session| session.description.as_str()).collect::<Vec<_>>().join("; ");
    if let Some(more) = sessions.len().checked_sub(SESSIONS_NAMED).filter(|more| *more > 0) {
        // Writing to a string cannot fail.
        let _ = write!(text, "; and {more} more");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_named_up_to_a_bound() {
        let sessions = |count: usize| -> Vec<Session> {
            (0..count).map(|pid| Session { description: format!("pid {pid}") }).collect()
        };
        assert_eq!(named(&sessions(2)), "pid 0; pid 1");
        assert_eq!(named(&sessions(7)), "pid 0; pid 1; pid 2; pid 3; pid 4; and 2 more");
    }
}
