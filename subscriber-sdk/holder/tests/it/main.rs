//! The instance's rules.

#![allow(clippy::unwrap_used)]
// A variable says which seed to replay. The core itself reads no environment.
#![allow(clippy::disallowed_methods)]

#[path = "../../../../core/protocol/src/bench.rs"]
mod bench;
mod instance;
mod released;
mod restored;
mod rules;
