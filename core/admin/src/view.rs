//! What the command line shows besides statuses (`rotacast_protocol::status`), as `-o json` writes it. Documented in
//! `docs/operate/cli.md`; fields are added, never renamed.

#![allow(missing_docs, reason = "the fields are documented in docs/operate/cli.md")]

use rotacast_proto::v1;
use rotacast_proto::v1::operator_command::Action;
use rotacast_protocol::coordinator::Overlay;
use rotacast_protocol::status::{BlockerStatus, FindingStatus, FinishedStatus, InstanceStatus, RotationStatus, moment};
use rotacast_protocol::{RotationNumber, SecretName, Version, WallTime};
use serde::Serialize;

#[derive(Serialize)]
pub struct InstancesView {
    pub instances: Vec<InstanceStatus>,
    /// Secrets whose instances are missing in the list.
    pub unanswered: Vec<String>,
}

/// What came of an order.
#[derive(Serialize)]
pub struct OrderView {
    pub secret: SecretName,
    pub command: &'static str,
    pub version: Option<Version>,
    pub number: Option<RotationNumber>,
    /// How the rotation ended, if it was waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotation: Option<FinishedStatus>,
    /// The order waits for approvals.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestView>,
}

impl OrderView {
    /// An order that makes neither a version nor a rotation, or that waits for approvals.
    #[must_use]
    pub fn plain(secret: SecretName, command: &'static str, request: Option<RequestView>) -> Self {
        Self { secret, command, version: None, number: None, rotation: None, request }
    }
}

/// The arguments of an order, for people.
#[must_use]
pub fn arguments(action: Option<&Action>) -> Vec<String> {
    let instance =
        |key: &v1::InstanceKey| format!("{}/{}/{}", key.service, key.instance, hex::encode(&key.incarnation));
    match action {
        Some(Action::Override(cut)) => {
            let version = std::iter::once(format!("version {}", cut.version));
            let sessions = cut.sessions.then(|| "the provider's live sessions".to_owned());
            version.chain(cut.instances.iter().map(instance)).chain(sessions).collect()
        }
        Some(Action::Excuse(it)) => it.instance.iter().map(instance).collect(),
        Some(Action::Gone(it)) => it.instance.iter().map(instance).collect(),
        Some(Action::Abandon(it)) => vec![format!("version {}", it.version)],
        Some(Action::AcceptAuditLoss(it)) => vec![format!("doubt {}", it.doubt)],
        _ => Vec::new(),
    }
}

/// What came of a wait.
#[derive(Serialize)]
pub struct WaitView {
    pub secret: SecretName,
    #[serde(rename = "for")]
    pub goal: String,
    pub reached: bool,
    pub current: Option<Version>,
    /// The rotation whose end was waited for.
    pub rotation: Option<FinishedStatus>,
}

#[derive(Serialize)]
pub struct WhyView {
    pub secret: SecretName,
    pub current: Option<Version>,
    pub rotation: Option<RotationStatus>,
    pub overlays: Vec<Overlay>,
    /// Whether anything waits.
    pub waiting: bool,
    pub blockers: Vec<BlockerStatus>,
    /// Faults about it that last until they are repaired.
    pub findings: Vec<FindingStatus>,
    pub last: Option<FinishedStatus>,
}

#[derive(Serialize)]
pub struct DoctorView {
    pub findings: Vec<FindingView>,
}

#[derive(Serialize)]
pub struct FindingView {
    pub level: String,
    pub subject: String,
    pub text: String,
    pub fix: Option<String>,
}

impl From<v1::DoctorReply> for DoctorView {
    fn from(wire: v1::DoctorReply) -> Self {
        let findings = wire.findings.into_iter().map(|it| FindingView {
            level: it.level,
            subject: it.subject,
            text: it.text,
            fix: Some(it.fix).filter(|fix| !fix.is_empty()),
        });
        Self { findings: findings.collect() }
    }
}

/// A configuration that can be used.
#[derive(Serialize)]
pub struct ConfigView {
    pub file: String,
    pub cluster: String,
    pub operators: usize,
    pub services: usize,
    pub secrets: usize,
    /// What may be meant, and more likely is not.
    pub warnings: Vec<String>,
}

/// Orders that wait for approvals.
#[derive(Serialize)]
pub struct RequestsView {
    pub requests: Vec<RequestView>,
}

#[derive(Serialize)]
pub struct RequestView {
    pub id: String,
    /// What an approval names, in hexadecimal.
    pub digest: String,
    pub operator: String,
    pub order: String,
    pub secret: Option<String>,
    /// The order's arguments, for people.
    pub arguments: Vec<String>,
    pub reason: Option<String>,
    pub role: String,
    #[serde(serialize_with = "moment")]
    pub asked_at: WallTime,
    #[serde(serialize_with = "moment")]
    pub expires_at: WallTime,
    pub needed: u32,
    pub missing: u32,
    /// Why it cannot be carried out at the moment.
    pub void: Option<String>,
    pub approvals: Vec<ApprovalView>,
}

#[derive(Serialize)]
pub struct ApprovalView {
    pub operator: String,
    #[serde(serialize_with = "moment")]
    pub at: WallTime,
}

/// A failure, on standard error.
#[derive(Serialize)]
pub struct ErrorView<'a> {
    pub error: ErrorBody<'a>,
}

#[derive(Serialize)]
pub struct ErrorBody<'a> {
    pub kind: &'a str,
    pub exit_code: u8,
    pub problem: &'a str,
    pub fix: Option<&'a str>,
}
