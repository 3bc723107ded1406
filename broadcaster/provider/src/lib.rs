//! What makes, tests and retires credentials in the outside system.

mod error;
mod provider;

pub use error::ProviderError;
pub use provider::{Credential, Evidence, Provider, Session, Verdict};
