//! Orders that wait for approvals, as the page shows, approves and withdraws them.

use prost::Message as _;
use rotacast_admin::view::arguments;
use rotacast_proto::v1;
use rotacast_protocol::status::moment;
use rotacast_protocol::{SecretName, WallTime};
use serde::{Deserialize, Serialize};

use crate::api::Refusal;
use crate::operators::Reading;
use crate::orders::{OrderDigest, RequestId, Standing, Waiting};
use crate::viewers::Viewer;

/// All that a viewer may see.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize)]
pub(super) struct RequestsView {
    requests: Vec<RequestView>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct RequestView {
    id: String,
    /// What an approval names, in hexadecimal.
    digest: String,
    operator: String,
    order: &'static str,
    secret: Option<SecretName>,
    /// The order's arguments, for people.
    arguments: Vec<String>,
    reason: Option<String>,
    role: String,
    #[serde(serialize_with = "moment")]
    asked_at: WallTime,
    #[serde(serialize_with = "moment")]
    expires_at: WallTime,
    needed: u32,
    missing: u32,
    void: Option<String>,
    approved_by: Vec<String>,
}

impl From<&Waiting> for RequestView {
    fn from(waiting: &Waiting) -> Self {
        let Waiting { request, standing, digest } = waiting;
        let (missing, void) = match standing {
            Standing::Complete { .. } => (0, None),
            Standing::Waits { missing } => (*missing, None),
            Standing::Expired => (request.needed.get(), Some("it has expired".to_owned())),
            Standing::Void { why } => (request.needed.get(), Some(why.clone())),
        };
        let command = v1::OperatorCommand::decode(request.command.clone()).unwrap_or_default();
        Self {
            id: request.id.to_string(),
            digest: hex::encode(digest.0),
            operator: request.by.name.to_string(),
            order: request.order.as_str(),
            secret: request.secret.clone(),
            arguments: arguments(command.action.as_ref()),
            reason: Some(command.reason).filter(|reason| !reason.is_empty()),
            role: request.role.to_string(),
            asked_at: request.asked,
            expires_at: request.expires,
            needed: request.needed.get(),
            missing,
            void,
            approved_by: request.approvals.iter().map(|it| it.by.name.to_string()).collect(),
        }
    }
}

impl RequestsView {
    pub(super) fn of(waiting: &[Waiting], viewer: &Viewer) -> Self {
        let readable = waiting.iter().filter(|it| viewer.reads(Reading::Status, it.request.secret.as_ref()));
        Self { requests: readable.map(RequestView::from).collect() }
    }
}

/// What a person does with a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verb {
    Approve,
    Withdraw,
}

/// As the page sends it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RequestBody {
    request: String,
    pub(super) verb: Verb,
    #[serde(default)]
    secret: Option<SecretName>,
    #[serde(default)]
    digest: String,
}

impl RequestBody {
    pub(super) fn which(&self) -> Result<(RequestId, Option<SecretName>), Refusal> {
        Ok((self.request.parse().map_err(Refusal::Invalid)?, self.secret.clone()))
    }

    /// The order that the person has seen.
    pub(super) fn seen(&self) -> Result<OrderDigest, Refusal> {
        let mut digest = [0; 32];
        hex::decode_to_slice(&self.digest, &mut digest)
            .map_err(|error| Refusal::Invalid(format!("digest: {error}; expected 64 hexadecimal digits")))?;
        Ok(OrderDigest(digest))
    }
}
