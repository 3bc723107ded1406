//! Orders between the doors through which they come and the broadcaster that carries them out: whether who gives one may.
//!
//! If the role asks for it, an order waits for the approval of others: see `approvals`. gRPC and the dashboard parse an order and find out who gives it. The rest is the same for both, and is here.

mod approvals;
mod desk;
mod request;
#[cfg(test)]
mod tests;

use rotacast_protocol::SecretName;
use rotacast_protocol::coordinator::Reason;

pub use approvals::{Book, Waiting};
pub use desk::Desk;
pub use request::{Approval, OrderDigest, Request, RequestId, Standing};

use crate::api::{Action, CommandReply};
use crate::audit::OrderProof;
use crate::operators::OrderKind;

/// An order as it came in, well-formed, from an operator who is known.
pub struct Given {
    pub instruction: Instruction,
    /// Why.
    pub reason: Option<Reason>,
    /// Its operator wants to act alone, by a role for emergencies.
    pub emergency: bool,
    /// What shows that the operator wants it.
    pub proof: OrderProof,
}

/// What came of an order.
pub enum Outcome {
    /// It was carried out.
    Done(CommandReply),
    /// It waits for approvals.
    Waits(Box<Waiting>),
}

/// What is ordered.
pub enum Instruction {
    /// Something about a secret.
    Secret(SecretName, Action),
    /// To go on although entries of the audit log are lost: which doubt the operator has seen, and why.
    AcceptAuditLoss { doubt: String, reason: Reason },
}

impl Instruction {
    /// Which order it is.
    #[must_use]
    pub fn kind(&self) -> OrderKind {
        match self {
            Self::Secret(_, action) => action.kind(),
            Self::AcceptAuditLoss { .. } => OrderKind::AcceptAuditLoss,
        }
    }

    /// About which secret; none: about none.
    #[must_use]
    pub fn secret(&self) -> Option<&SecretName> {
        match self {
            Self::Secret(secret, _) => Some(secret),
            Self::AcceptAuditLoss { .. } => None,
        }
    }
}
