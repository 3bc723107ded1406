//! The gRPC admin service: authenticates operators, checks what they send, and asks [`Control`].
//!
//! Reads need a token where the dashboard needs one: see [`Readers`](crate::readers::Readers). Commands always carry a
//! configured operator's signature.

mod admin;
pub mod control;
mod operator;
mod refusal;
#[cfg(test)]
mod tests;

pub use admin::{AdminFront, health, reflection};
pub use control::{AcceptedLoss, Action, CommandReply, Control, Instances, OperatorCommand};
pub use operator::{Admitted, FRESHNESS, Gate, Operators};
pub use refusal::Refusal;
