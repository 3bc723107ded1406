//! Every bus under the suite, direct and through a gateway, and the tests of what only one bus has.

#![allow(clippy::unwrap_used, clippy::print_stderr, unreachable_pub)]

mod conformance;
mod embedded;
mod fixtures;
mod gateway;
#[cfg(feature = "kafka")]
mod kafka;
mod nats;
