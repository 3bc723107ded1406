//! The rules of Rotacast: when a credential may be announced, activated and retired.
//!
//! Pure: no IO, no clock, no randomness, no threads. Time is an argument, what happened comes in as
//! an input, side effects go out as commands.

#![allow(missing_docs, reason = "a comment stands where it says more than the name")]
#![cfg_attr(test, allow(clippy::unwrap_used))]

#[cfg(test)]
mod bench;
pub mod challenge;
pub mod coordinator;
pub mod id;
pub mod machine;
pub mod message;
#[cfg(rotacast_mutants)]
pub mod mutation;
pub mod name;
pub mod phase;
pub mod policy;
pub mod record;
pub mod schedule;
pub mod status;
pub mod time;
pub mod word;

/// `bench.rs` is also compiled into the tests of other crates, so it names this crate as they do.
#[cfg(test)]
extern crate self as rotacast_protocol;

pub use id::{
    AuditChain, Challenge, ClusterId, Epoch, Generation, HistoryId, Incarnation, InstanceKey, LeaseSequence, Nonce,
    ReportSequence, Revision, RotationId, RotationNumber, Version,
};
pub use name::{ClusterName, InstanceName, OperatorName, SecretName, ServiceName};
pub use phase::{Outcome, Phase};
pub use policy::Policy;
pub use time::{Instant, Now, WallTime};
