//! The gRPC admin service: authenticates operators, checks what they send, and asks [`Control`].
//!
//! Reads need a token where the dashboard needs one: see [`Viewers`](crate::viewers::Viewers). Commands always carry a
//! configured operator's signature. Whether the operator may give the order is [`Desk`](crate::orders::Desk)'s to say.

mod admin;
pub mod control;
mod operator;
mod refusal;
#[cfg(test)]
mod tests;

pub use admin::{AdminFront, health, reflection};
pub use control::{AcceptedLoss, Action, CommandReply, Control, Instances, OperatorCommand};
pub use operator::{Asked, FRESHNESS, Gate};
pub(crate) use operator::{check_reason, given_reason, instruction_of};
pub use refusal::Refusal;
