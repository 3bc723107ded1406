//! How Rotacast's broadcaster and instances reach each other.
//!
//! Two sides, one trait each: [`LeaderBus`] for the broadcaster and [`InstanceBus`] for the SDK.
//! Both carry signed [`Envelope`]s they do not look into. Safety never rests on a bus: it may lose,
//! double, reorder and replay, and costs time only.
//!
//! Implementations: NATS (both sides), embedded (both sides, in one process), and gRPC (the
//! instance's side, against a broadcaster that serves any [`InstanceBus`] through [`Gateway`]).
//!
//! [`Envelope`]: rotacast_proto::Envelope
//! [`Gateway`]: crate::Gateway

mod bus;
mod error;

pub use bus::{CALL_TIMEOUT, BusEvent, Finding, InstanceBus, LeaderBus, Level, Replier, SyncCall};
pub use error::BusError;
