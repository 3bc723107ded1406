//! What an operator orders, to the wire and from it.

use std::collections::BTreeSet;

use rotacast_protocol::coordinator::{InvalidOrder, Order};
use rotacast_protocol::{InstanceKey, Version};
use thiserror::Error;

use super::field::{FieldError, at_most, instance_key, version};
use crate::v1;
use crate::v1::operator_command::Action;

/// Most instances one override may name.
pub const MAX_OVERRIDDEN: usize = 1024;

/// An action that is no order.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OrderError {
    /// A field breaks a rule of the contract.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// Such an order cannot exist.
    #[error(transparent)]
    Invalid(#[from] InvalidOrder),
    /// It writes a value.
    #[error("a value is no order")]
    Put,
    /// It is about the audit log.
    #[error("accepting a loss of audit entries is no order about a secret")]
    AcceptAuditLoss,
    /// It is about another operator's order.
    #[error("an approval is no order about a secret")]
    Approval,
}

impl From<&Order> for Action {
    /// The reason travels beside the action: see [`v1::OperatorCommand::reason`].
    fn from(order: &Order) -> Self {
        match order {
            Order::Rotate => Self::Rotate(v1::Rotate {}),
            Order::Pause { .. } => Self::Pause(v1::Pause {}),
            Order::Resume => Self::Resume(v1::Resume {}),
            Order::Approve => Self::Approve(v1::Approve {}),
            Order::Rollback { .. } => Self::RollBack(v1::RollBack {}),
            Order::Override(cut) => Self::Override(v1::Override {
                version: cut.version().get(),
                instances: cut.instances().iter().map(v1::InstanceKey::from).collect(),
                sessions: cut.sessions(),
            }),
            Order::Excuse { instance } => Self::Excuse(v1::Excuse { instance: Some(instance.into()) }),
            Order::Gone { instance, .. } => Self::Gone(v1::Gone { instance: Some(instance.into()) }),
            Order::Abandon { version, .. } => Self::Abandon(v1::Abandon { version: version.get() }),
            Order::LeaveSafeMode => Self::LeaveSafeMode(v1::LeaveSafeMode {}),
        }
    }
}

/// Reads an order and the reason beside it.
///
/// # Errors
/// [`OrderError`].
pub fn order_from_wire(action: Action, reason: &str) -> Result<Order, OrderError> {
    Ok(match action {
        Action::Put(_) => return Err(OrderError::Put),
        Action::AcceptAuditLoss(_) => return Err(OrderError::AcceptAuditLoss),
        Action::ApproveRequest(_) | Action::WithdrawRequest(_) => return Err(OrderError::Approval),
        Action::Rotate(_) => Order::Rotate,
        Action::Pause(_) => Order::pause(reason)?,
        Action::Resume(_) => Order::Resume,
        Action::Approve(_) => Order::Approve,
        Action::RollBack(_) => Order::rollback(reason)?,
        Action::Override(cut) => {
            at_most("instances", cut.instances.len(), MAX_OVERRIDDEN)?;
            let instances = cut.instances.into_iter().map(InstanceKey::try_from);
            let instances: BTreeSet<InstanceKey> = instances.collect::<Result<_, _>>()?;
            let version: Version = version("version", cut.version)?;
            Order::cut_off(version, instances, cut.sessions, reason)?
        }
        Action::Excuse(excuse) => Order::Excuse { instance: instance_key("instance", excuse.instance)? },
        Action::Gone(gone) => Order::gone(instance_key("instance", gone.instance)?, reason)?,
        Action::Abandon(given_up) => Order::abandon(version("version", given_up.version)?, reason)?,
        Action::LeaveSafeMode(_) => Order::LeaveSafeMode,
    })
}
