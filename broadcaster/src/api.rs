//! The gRPC admin service: authenticates operators, checks what they send, and asks [`Control`].
//!
//! Reads need no signature: the listener is on loopback, or behind TLS with client certificates.
//! Commands always carry a configured operator's signature.

mod admin;
pub mod control;
mod operator;
mod refusal;
#[cfg(test)]
mod tests;

pub use admin::{AdminFront, health, reflection};
pub use control::{Action, CommandReply, Control, OperatorCommand};
pub use operator::{FRESHNESS, Gate, Operators};
pub use refusal::Refusal;
