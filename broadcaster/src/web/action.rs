//! Orders given on the dashboard: the same that the CLI signs, in the name of the person who has signed in.

use rotacast_protocol::{Incarnation, InstanceKey, SecretName, Version};
use serde::{Deserialize, Serialize};

use rotacast_proto::MAX_OVERRIDDEN;
use rotacast_protocol::coordinator::{Order, OrderName};

use super::requests::RequestView;
use crate::api::{Action, Refusal, check_reason, given_reason};
use crate::audit::OrderProof;
use crate::operators::OrderKind;
use crate::orders::{Given, Instruction, Outcome};

/// As the page sends it. No action carries a value: those are written by the CLI or into the store.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ActionBody {
    secret: String,
    action: OrderName,
    #[serde(default)]
    reason: String,
    version: Option<u64>,
    #[serde(default)]
    instances: Vec<InstanceBody>,
    #[serde(default)]
    sessions: bool,
    #[serde(default)]
    emergency: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InstanceBody {
    service: String,
    instance: String,
    incarnation: String,
}

/// What came of it.
#[derive(Serialize)]
pub(super) struct DoneView {
    version: Option<u64>,
    number: Option<u64>,
    /// The order waits for approvals.
    request: Option<RequestView>,
}

impl From<Outcome> for DoneView {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done(reply) => Self {
                version: reply.version.map(Version::get),
                number: reply.number.map(|number| number.0),
                request: None,
            },
            Outcome::Waits(waiting) => {
                Self { version: None, number: None, request: Some(RequestView::from(&*waiting)) }
            }
        }
    }
}

fn invalid(error: impl std::fmt::Display) -> Refusal {
    Refusal::Invalid(error.to_string())
}

impl TryFrom<ActionBody> for Given {
    type Error = Refusal;

    fn try_from(body: ActionBody) -> Result<Self, Refusal> {
        let instances = || body.instances.iter().map(InstanceKey::try_from);
        let one_instance = || match instances().collect::<Result<Vec<_>, _>>()?.as_slice() {
            [instance] => Ok(instance.clone()),
            others => Err(Refusal::Invalid(format!("{} names one instance, found {}", body.action, others.len()))),
        };
        let version = || {
            let version = body.version.ok_or_else(|| Refusal::Invalid(format!("{} names the version", body.action)))?;
            Version::new(version).map_err(invalid)
        };
        let order = match body.action {
            OrderName::Rotate => Order::Rotate,
            OrderName::Pause => Order::pause(&body.reason)?,
            OrderName::Resume => Order::Resume,
            OrderName::Approve => Order::Approve,
            OrderName::Rollback => Order::rollback(&body.reason)?,
            OrderName::Excuse => Order::Excuse { instance: one_instance()? },
            OrderName::Gone => Order::gone(one_instance()?, &body.reason)?,
            OrderName::Abandon => Order::abandon(version()?, &body.reason)?,
            OrderName::Override => {
                let found = body.instances.len();
                if found > MAX_OVERRIDDEN {
                    return Err(Refusal::Invalid(format!("{found} instances; expected at most {MAX_OVERRIDDEN}")));
                }
                Order::cut_off(version()?, instances().collect::<Result<_, _>>()?, body.sessions, &body.reason)?
            }
            OrderName::LeaveSafeMode => Order::LeaveSafeMode,
        };
        let secret = SecretName::new(body.secret).map_err(invalid)?;
        let reason = given_reason(&body.reason)?;
        check_reason(OrderKind::Secret(body.action), reason.as_ref())?;
        let instruction = Instruction::Secret(secret, Action::Order(order));
        Ok(Self { instruction, reason, emergency: body.emergency, proof: OrderProof::Dashboard })
    }
}

impl TryFrom<&InstanceBody> for InstanceKey {
    type Error = Refusal;

    fn try_from(body: &InstanceBody) -> Result<Self, Refusal> {
        let mut incarnation = [0; 16];
        hex::decode_to_slice(&body.incarnation, &mut incarnation)
            .map_err(|error| Refusal::Invalid(format!("incarnation: {error}; expected 32 hexadecimal digits")))?;
        Ok(Self::new(
            body.service.parse().map_err(invalid)?,
            body.instance.parse().map_err(invalid)?,
            Incarnation(u128::from_be_bytes(incarnation)),
        ))
    }
}
