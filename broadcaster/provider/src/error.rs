//! What can go wrong with a provider, by whose fault it is.

use thiserror::Error;

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
}
