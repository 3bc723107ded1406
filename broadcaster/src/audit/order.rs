//! The entry of an order as it came in, with the operator's signature.

use rotacast_proto::v1::operator_command::Action;
use rotacast_proto::{Envelope, Kind, VerifyingKey, order_from_wire, v1};
use rotacast_protocol::OperatorName;

use super::checkpoint::{signed, to_text};
use super::entry::{Entry, Recorded};
use crate::operators::{OrderKind, Warrant};

/// The action of the entry.
pub(super) const ACTION: &str = "ordered";

/// The action of the entry of an order that no role allows.
const DENIED: &str = "order_denied";

/// The action of the entry of further ones, which have no entry each.
const DENIED_AGAIN: &str = "orders_denied";

/// The action of the entry of an order that waits for approvals.
pub(crate) const REQUESTED: &str = "order_requested";
/// Of an approval of such an order.
pub(crate) const APPROVED: &str = "order_approved";
/// Of such an order that its operator has taken back.
pub(crate) const WITHDRAWN: &str = "order_withdrawn";
/// Of an approval that its operator has taken back.
pub(crate) const APPROVAL_WITHDRAWN: &str = "approval_withdrawn";

/// Whether entries of this action hold what an operator has signed.
pub(super) fn is_signed(action: &str) -> bool {
    [ACTION, DENIED, REQUESTED, APPROVED, WITHDRAWN, APPROVAL_WITHDRAWN].contains(&action)
}

/// The order that accepts a loss of entries. It is about the log, not about a secret.
pub const ACCEPT_LOSS: &str = "accept_audit_loss";

/// How an order came in.
#[derive(Clone, Debug)]
pub enum OrderProof {
    /// Signed by the operator: kept in the entry, where it can be checked.
    Signed(Box<Envelope>),
    /// Signed by the operator, over a value that is written. The log has no values, so it cannot have what was signed.
    CoversValue,
    /// On the dashboard, by an operator who had signed in with a token. No signature of theirs exists.
    Dashboard,
}

impl OrderProof {
    /// What the operator has signed, if the log may have it.
    pub(crate) fn signed(&self) -> Option<&Envelope> {
        match self {
            Self::Signed(envelope) => Some(envelope),
            Self::CoversValue | Self::Dashboard => None,
        }
    }
}

impl Entry {
    /// With the proof of the order that it is about.
    #[must_use]
    pub fn proved(self, proof: OrderProof) -> Self {
        match proof {
            OrderProof::Signed(envelope) => self.detail("through", "api").detail("signed", to_text(*envelope)),
            OrderProof::CoversValue => self.detail("through", "api"),
            OrderProof::Dashboard => self.detail("through", "dashboard"),
        }
    }
    /// An operator's order, before it is carried out. The entry is there whether the order is then taken or refused.
    #[must_use]
    pub fn ordered(by: &OperatorName, order: &str, proof: OrderProof) -> Self {
        Self::new(by.as_str(), ACTION).detail("order", order).proved(proof)
    }

    /// An operator's order that is not carried out, because no role of theirs allows it.
    #[must_use]
    pub fn denied(by: &OperatorName, order: OrderKind, proof: OrderProof) -> Self {
        Self::new(by.as_str(), DENIED).detail("order", order.as_str()).proved(proof)
    }

    /// So many more of an operator's orders that were refused for the same cause, beside those that have an entry each.
    #[must_use]
    pub fn denied_again(by: &OperatorName, times: u64) -> Self {
        Self::new("broadcaster", DENIED_AGAIN).detail("operator", by.as_str()).detail("times", times)
    }

    /// By what right an order is carried out, and why.
    #[must_use]
    pub fn warranted(self, warrant: &Warrant) -> Self {
        let Warrant { role, reason, emergency, approvals } = warrant;
        let entry = if *emergency { self.detail("emergency", true) } else { self };
        let names: Vec<&str> = approvals.iter().map(OperatorName::as_str).collect();
        let entry = if names.is_empty() { entry } else { entry.detail("approvals", names) };
        let entry = role.iter().fold(entry, |entry, role| entry.detail("role", role.as_str()));
        reason.iter().fold(entry, |entry, reason| entry.detail("reason", reason.as_str()))
    }
}

/// Whether the operator that the entry names has signed the order that it names.
///
/// `keys` has each operator's keys, present and past.
pub(super) fn check(entry: &Recorded, keys: &[(OperatorName, VerifyingKey)]) -> Result<Checked, String> {
    if entry.details.get("through").and_then(serde_json::Value::as_str) == Some("dashboard") {
        return Ok(Checked::Unsigned);
    }
    let named = if entry.action == super::loss::ACTION { Some(ACCEPT_LOSS) } else { None };
    let named = named.or_else(|| entry.details.get("order").and_then(serde_json::Value::as_str)).unwrap_or_default();
    if named == "put" {
        return Ok(Checked::Unsigned);
    }
    let (envelope, cluster) = signed(entry)?;
    let key = |id: &str| {
        let of_operator = keys.iter().filter(|(name, _)| name.as_str() == entry.actor);
        of_operator.map(|(_, key)| key).find(|key| key.id().as_str() == id)
    };
    let payload = envelope.verify(Kind::OperatorCommand, &cluster, key);
    let payload = payload.map_err(|error| format!("order of {}: {error}", entry.actor))?;
    let command = <v1::OperatorCommand as prost::Message>::decode(payload.clone());
    let command = command.map_err(|error| format!("order of {}: {error}", entry.actor))?;
    let secret = entry.secret.as_ref().map_or("", |secret| secret.as_str());
    if command.operator != entry.actor || command.secret != secret {
        return Err(format!(
            "the entry is about an order of {} for {secret:?}, the signature about one of {} for {:?}",
            entry.actor, command.operator, command.secret
        ));
    }
    let about_request = |signed: &str| {
        let request = entry.details.get("request").and_then(serde_json::Value::as_str).unwrap_or_default();
        match signed == request {
            true => Ok(Checked::Signed),
            false => Err(format!("the entry is about request {request}, the signature about {signed}")),
        }
    };
    let ordered = match command.action {
        Some(Action::ApproveRequest(approved)) if entry.action == APPROVED => return about_request(&approved.request),
        Some(Action::WithdrawRequest(it)) if [WITHDRAWN, APPROVAL_WITHDRAWN].contains(&entry.action.as_str()) => {
            return about_request(&it.request);
        }
        _ if [APPROVED, WITHDRAWN, APPROVAL_WITHDRAWN].contains(&entry.action.as_str()) => {
            return Err(format!("the entry says {}, the operator signed another thing", entry.action));
        }
        Some(action) => name(action, &command.reason)?,
        None => {
            return Err(format!(
                "the operator signed an order that this build does not know, the entry says {named:?}"
            ));
        }
    };
    if named != ordered {
        return Err(format!("the entry says {named:?}, the operator signed {ordered:?}"));
    }
    Ok(Checked::Signed)
}

fn name(action: Action, reason: &str) -> Result<&'static str, String> {
    Ok(match action {
        Action::AcceptAuditLoss(_) => ACCEPT_LOSS,
        action => order_from_wire(action, reason).map_err(|error| error.to_string())?.name().as_str(),
    })
}

/// What the signature of an order says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Checked {
    Signed,
    Unsigned,
}
