//! Orders between the doors through which they come and the broadcaster that carries them out: whether who gives one may.
//!
//! gRPC and the dashboard parse an order and find out who gives it. The rest is the same for both, and is here.

mod desk;

use rotacast_protocol::SecretName;
use rotacast_protocol::coordinator::Reason;

pub use desk::Desk;

use crate::api::Action;
use crate::audit::OrderProof;
use crate::operators::OrderKind;

/// An order as it came in, well-formed, from an operator who is known.
pub struct Given {
    pub instruction: Instruction,
    /// Why, as far as the order itself does not say so.
    pub reason: Option<Reason>,
    /// What shows that the operator wants it.
    pub proof: OrderProof,
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
