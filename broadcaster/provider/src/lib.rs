//! What makes, tests and retires credentials in the outside system.

#![cfg_attr(test, allow(clippy::unwrap_used))]

#[cfg(feature = "conformance")]
pub mod conformance;
mod draw;
mod error;
mod generate;
#[cfg(feature = "postgres")]
pub mod postgres;
mod provider;

pub use draw::{Draw, InvalidAlphabet};
pub use error::ProviderError;
pub use generate::{GenerateProvider, judge_shape};
pub use provider::{Credential, Evidence, LiveSessions, Provider, Session, Trial, Verdict};
