//! The whole observed state of one instance.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;
use rotacast_protocol::message::{
    Failure, FailureKind, InstanceReport, MAX_FAILURE_TEXT_BYTES, MAX_HELD_VERSIONS, MAX_SECRETS_PER_INSTANCE,
    SecretReport, Stage,
};
use rotacast_protocol::{Generation, LeaseSequence, ReportSequence, Revision, SecretName};

use super::WireMessage;
use super::field::{
    FieldError, at_most, insert_new, instance_key, instance_subject, parse, secret_name, version, version_or_none,
    versions,
};
use crate::envelope::{EnvelopeError, Kind};
use crate::v1;

/// Most versions of one secret a report counts failed logins for. A process that lives through more
/// rotations with failures than this sends the newest versions' counts: only those can still matter.
pub const MAX_AUTH_FAILURE_VERSIONS: usize = 16;

impl WireMessage for InstanceReport {
    const KIND: Kind = Kind::InstanceReport;

    fn subject(&self) -> String {
        instance_subject(&self.key)
    }

    fn encode(&self) -> Bytes {
        to_wire(self).encode_to_vec().into()
    }

    fn decode(payload: &Bytes) -> Result<Self, EnvelopeError> {
        parse(Self::KIND, payload, from_wire)
    }
}

pub(super) fn to_wire(report: &InstanceReport) -> v1::InstanceReport {
    v1::InstanceReport {
        key: Some((&report.key).into()),
        sequence: report.sequence.0,
        secrets: report.secrets.iter().map(|(secret, report)| secret_to_wire(secret, report)).collect(),
    }
}

pub(super) fn from_wire(wire: v1::InstanceReport) -> Result<InstanceReport, FieldError> {
    at_most("secrets", wire.secrets.len(), MAX_SECRETS_PER_INSTANCE)?;
    let mut secrets = BTreeMap::new();
    for (index, wire) in wire.secrets.into_iter().enumerate() {
        let at = || format!("secrets[{index}]");
        let (secret, report) = secret_from_wire(wire).map_err(|error| error.within(at()))?;
        insert_new(&mut secrets, at, secret, report)?;
    }
    Ok(InstanceReport { key: instance_key("key", wire.key)?, sequence: ReportSequence(wire.sequence), secrets })
}

fn secret_to_wire(secret: &SecretName, report: &SecretReport) -> v1::SecretReport {
    let uncounted = report.auth_failures.len().saturating_sub(MAX_AUTH_FAILURE_VERSIONS);
    v1::SecretReport {
        secret: secret.to_string(),
        generation: report.generation.0,
        revision: report.revision.0,
        version: report.reached.map_or(0, |(version, _)| version.get()),
        stage: report.reached.map_or(v1::Stage::Unspecified, |(_, stage)| stage.into()).into(),
        // Never cut short: a version left out would be one that no leader waits for.
        held: report.held.iter().map(|version| version.get()).collect(),
        lease_sequence: report.lease.0,
        failure: report.failure.as_ref().map(|failure| v1::Failure {
            kind: v1::FailureKind::from(failure.kind).into(),
            version: failure.version.get(),
            text: cut(&failure.text, MAX_FAILURE_TEXT_BYTES).to_owned(),
        }),
        auth_failures: report
            .auth_failures
            .iter()
            .skip(uncounted)
            .map(|(version, count)| v1::AuthFailures { version: version.get(), count: *count })
            .collect(),
    }
}

fn secret_from_wire(wire: v1::SecretReport) -> Result<(SecretName, SecretReport), FieldError> {
    let secret = secret_name("secret", wire.secret)?;
    let reached = match (version_or_none(wire.version), stage(wire.stage)?) {
        (Some(version), Some(stage)) => Some((version, stage)),
        (None, None) => None,
        (Some(_), None) => {
            return Err(FieldError::new("stage", "is unspecified, expected one for the version reached"));
        }
        (None, Some(_)) => return Err(FieldError::new("version", "is 0, expected the version whose stage is given")),
    };
    let held = versions("held", wire.held, MAX_HELD_VERSIONS)?;
    let failure = wire.failure.map(failure).transpose().map_err(|error| error.within("failure"))?;
    at_most("auth_failures", wire.auth_failures.len(), MAX_AUTH_FAILURE_VERSIONS)?;
    let mut auth_failures = BTreeMap::new();
    for (index, wire) in wire.auth_failures.into_iter().enumerate() {
        let at = || format!("auth_failures[{index}]");
        let version = version("version", wire.version).map_err(|error| error.within(at()))?;
        insert_new(&mut auth_failures, at, version, wire.count)?;
    }
    let report = SecretReport {
        generation: Generation(wire.generation),
        revision: Revision(wire.revision),
        reached,
        held,
        lease: LeaseSequence(wire.lease_sequence),
        failure,
        auth_failures,
    };
    Ok((secret, report))
}

/// A stage this build does not know is refused: taking it for a lower or a higher one would be a guess
/// about who still uses the old version.
pub(super) fn stage(number: i32) -> Result<Option<Stage>, FieldError> {
    match v1::Stage::try_from(number) {
        Ok(stage) => Ok(stage.known()),
        Err(_) => Err(FieldError::new("stage", format!("{number} is no stage, expected 0 to 4"))),
    }
}

fn failure(wire: v1::Failure) -> Result<Failure, FieldError> {
    let kind = v1::FailureKind::try_from(wire.kind).ok().and_then(v1::FailureKind::known);
    let kind = kind.ok_or_else(|| FieldError::new("kind", format!("{} is no kind, expected 1 to 5", wire.kind)))?;
    if wire.text.len() > MAX_FAILURE_TEXT_BYTES {
        let problem = format!("{} bytes, expected at most {MAX_FAILURE_TEXT_BYTES}", wire.text.len());
        return Err(FieldError::new("text", problem));
    }
    Ok(Failure { kind, version: version("version", wire.version)?, text: wire.text })
}

/// The longest beginning of `text` that fits `most` bytes and ends between two characters.
fn cut(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

impl From<Stage> for v1::Stage {
    fn from(stage: Stage) -> Self {
        match stage {
            Stage::Seen => Self::Seen,
            Stage::Prepared => Self::Prepared,
            Stage::Switched => Self::Switched,
            Stage::Released => Self::Released,
        }
    }
}

impl v1::Stage {
    /// The stage, unless it is unspecified.
    #[must_use]
    pub fn known(self) -> Option<Stage> {
        Some(match self {
            Self::Unspecified => return None,
            Self::Seen => Stage::Seen,
            Self::Prepared => Stage::Prepared,
            Self::Switched => Stage::Switched,
            Self::Released => Stage::Released,
        })
    }
}

impl From<FailureKind> for v1::FailureKind {
    fn from(kind: FailureKind) -> Self {
        match kind {
            FailureKind::Fetch => Self::Fetch,
            FailureKind::PrepareRefused => Self::PrepareRefused,
            FailureKind::SwitchFailed => Self::SwitchFailed,
            FailureKind::NotReady => Self::NotReady,
            FailureKind::ReleaseFailed => Self::ReleaseFailed,
        }
    }
}

impl v1::FailureKind {
    /// The kind, unless it is unspecified.
    #[must_use]
    pub fn known(self) -> Option<FailureKind> {
        Some(match self {
            Self::Unspecified => return None,
            Self::Fetch => FailureKind::Fetch,
            Self::PrepareRefused => FailureKind::PrepareRefused,
            Self::SwitchFailed => FailureKind::SwitchFailed,
            Self::NotReady => FailureKind::NotReady,
            Self::ReleaseFailed => FailureKind::ReleaseFailed,
        })
    }
}
