//! The instance's side of the Rotacast protocol: which version may be handed out, under which lease,
//! and what to report.
//!
//! Pure: no IO, no clock, no randomness, no threads. One [`Holder`] per secret decides; an
//! [`Instance`] ties the holders of one incarnation into one registration and one report. Their
//! driver passes in what happened and carries out the [`commands`](Holder::commands), which are
//! derived from state alone: the same command is listed until it is done, and the driver runs those
//! that are not in flight.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod holder;
mod input;
mod instance;
mod lease;
mod slot;

#[cfg(rotacast_mutants)]
use rotacast_protocol::mutation;

pub use holder::{Holder, READ_PATIENCE, SYNC_PACE_CEILING, SYNC_PACE_FLOOR};
pub use input::{Command, Input, Rejection, Setback, Step, StepFailure};
pub use instance::{Instance, InstanceCommand, InstanceInput};
pub use lease::{Leases, MAX_OUTSTANDING};
