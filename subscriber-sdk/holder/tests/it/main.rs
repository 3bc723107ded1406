//! The instance's rules.

#![allow(clippy::unwrap_used)]
// The environment says which seed to replay; the core itself never reads it.
#![allow(clippy::disallowed_methods)]

#[path = "../../../../core/protocol/src/bench.rs"]
mod bench;
mod instance;
mod released;
mod restored;
mod rules;
