//! Orders given on the dashboard: the same that the CLI signs, in the name of whoever has signed in.

use rotacast_protocol::{Incarnation, InstanceKey, SecretName, Version};
use serde::{Deserialize, Serialize};

use rotacast_admin::limits::{MAX_OVERRIDDEN, MAX_REASON_BYTES};

use crate::api::{Action, CommandReply, OperatorCommand, Refusal};

/// As the page sends it. No action carries a value: those are written by the CLI or into the store.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ActionBody {
    secret: String,
    action: Kind,
    #[serde(default)]
    reason: String,
    version: Option<u64>,
    #[serde(default)]
    instances: Vec<InstanceBody>,
    #[serde(default)]
    sessions: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Rotate,
    Pause,
    Resume,
    Approve,
    Rollback,
    Excuse,
    Override,
    LeaveSafeMode,
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
    generation: Option<u64>,
}

impl From<CommandReply> for DoneView {
    fn from(reply: CommandReply) -> Self {
        Self { version: reply.version.map(Version::get), generation: reply.generation.map(|generation| generation.0) }
    }
}

fn invalid(error: impl std::fmt::Display) -> Refusal {
    Refusal::Invalid(error.to_string())
}

impl TryFrom<ActionBody> for OperatorCommand {
    type Error = Refusal;

    fn try_from(body: ActionBody) -> Result<Self, Refusal> {
        if body.reason.len() > MAX_REASON_BYTES {
            let found = body.reason.len();
            return Err(Refusal::Invalid(format!("reason of {found} bytes; expected at most {MAX_REASON_BYTES}")));
        }
        let needs_reason = |what: &str| match body.reason.trim().is_empty() {
            true => Err(Refusal::Invalid(format!("{what} needs a reason: it goes on record"))),
            false => Ok(()),
        };
        let instances = || body.instances.iter().map(InstanceKey::try_from).collect::<Result<Vec<_>, _>>();
        let action = match body.action {
            Kind::Rotate => Action::Rotate,
            Kind::Pause => {
                needs_reason("a pause")?;
                Action::Pause
            }
            Kind::Resume => Action::Resume,
            Kind::Approve => Action::Approve,
            Kind::Rollback => {
                needs_reason("a rollback")?;
                Action::RollBack
            }
            Kind::Excuse => match instances()?.as_slice() {
                [instance] => Action::Excuse(instance.clone()),
                others => {
                    return Err(Refusal::Invalid(format!("an excuse names one instance, found {}", others.len())));
                }
            },
            Kind::Override => {
                needs_reason("an override")?;
                if body.instances.is_empty() && !body.sessions {
                    return Err(Refusal::Invalid("an override names at least one instance, or the sessions".into()));
                }
                if body.instances.len() > MAX_OVERRIDDEN {
                    let found = body.instances.len();
                    return Err(Refusal::Invalid(format!("{found} instances; expected at most {MAX_OVERRIDDEN}")));
                }
                let version = body.version.ok_or_else(|| Refusal::Invalid("an override names the version".into()))?;
                Action::Override {
                    version: Version::new(version).map_err(invalid)?,
                    instances: instances()?,
                    sessions: body.sessions,
                }
            }
            Kind::LeaveSafeMode => Action::LeaveSafeMode,
        };
        Ok(Self { secret: SecretName::new(body.secret).map_err(invalid)?, reason: body.reason, action })
    }
}

impl TryFrom<&InstanceBody> for InstanceKey {
    type Error = Refusal;

    fn try_from(body: &InstanceBody) -> Result<Self, Refusal> {
        let mut incarnation = [0; 16];
        hex::decode_to_slice(&body.incarnation, &mut incarnation)
            .map_err(|error| Refusal::Invalid(format!("incarnation: {error}; expected 32 hexadecimal digits")))?;
        Ok(Self {
            service: body.service.parse().map_err(invalid)?,
            instance: body.instance.parse().map_err(invalid)?,
            incarnation: Incarnation(u128::from_be_bytes(incarnation)),
        })
    }
}
