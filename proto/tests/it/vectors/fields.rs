//! Messages as JSON: the contract's field names, every field present, 64-bit numbers as decimal text
//! (JSON's numbers lose them), bytes in hexadecimal, enumerations by name, absent messages as null.

use rotacast_proto::{KeyId, ReplyWithKeys, SyncWithKeys, VerifyingKey, v1};
use rotacast_protocol::message::{FetchRequest, InstanceReport, Registration, SecretGrant, SecretReport, SecretState};
use rotacast_protocol::{Challenge, InstanceKey, SecretName, Version};
use serde_json::{Value, json};

pub(crate) trait Fields {
    fn fields(&self) -> Value;
}

pub(crate) fn number(number: u64) -> Value {
    Value::String(number.to_string())
}

fn or_zero(version: Option<Version>) -> Value {
    number(version.map_or(0, Version::get))
}

fn numbers<'v>(versions: impl IntoIterator<Item = &'v Version>) -> Value {
    versions.into_iter().map(|version| number(version.get())).collect()
}

fn millis(duration: std::time::Duration) -> Value {
    number(duration.as_millis().try_into().unwrap())
}

impl Fields for InstanceKey {
    fn fields(&self) -> Value {
        json!({
            "service": self.service.as_str(),
            "instance": self.instance.as_str(),
            "incarnation": self.incarnation.to_string(),
        })
    }
}

impl Fields for Registration {
    fn fields(&self) -> Value {
        let secrets: Vec<_> = self.secrets.iter().map(SecretName::as_str).collect();
        json!({ "key": self.key.fields(), "exclusive": self.exclusive, "secrets": secrets, "left": self.left })
    }
}

impl Fields for SecretState {
    fn fields(&self) -> Value {
        json!({
            "secret": self.secret.as_str(),
            "epoch": number(self.epoch.0),
            "revision": number(self.revision.0),
            "generation": number(self.generation.0),
            "rotation": number(self.rotation.as_ref().map_or(0, |rotation| rotation.generation.0)),
            "phase": self.phase.map_or(v1::Phase::Unspecified, Into::into).as_str_name(),
            "current": or_zero(self.current),
            "pending": or_zero(self.pending),
            "previous": or_zero(self.previous),
            "sealed": numbers(&self.sealed),
            "sync_interval_ms": millis(self.sync_interval),
            "self_lease_ms": millis(self.self_lease),
            "max_use_ms": millis(self.max_use),
            "stay": self.stay,
            "lost_history_noticed": number(self.lost_history.map_or(0, |lost| lost.noticed.0)),
            "lost_history_kept_to": or_zero(self.lost_history.and_then(|lost| lost.kept_to)),
        })
    }
}

fn secret_report(secret: &SecretName, report: &SecretReport) -> Value {
    let failure = report.failure.as_ref().map(|failure| {
        json!({
            "kind": v1::FailureKind::from(failure.kind).as_str_name(),
            "version": number(failure.version.get()),
            "text": failure.text,
        })
    });
    let auth_failures: Vec<_> = report
        .auth_failures
        .iter()
        .map(|(version, count)| json!({ "version": number(version.get()), "count": number(*count) }))
        .collect();
    json!({
        "secret": secret.as_str(),
        "generation": number(report.generation.0),
        "revision": number(report.revision.0),
        "version": or_zero(report.reached.map(|(version, _)| version)),
        "stage": report.reached.map_or(v1::Stage::Unspecified, |(_, stage)| stage.into()).as_str_name(),
        "held": numbers(&report.held),
        "lease_sequence": number(report.lease.0),
        "failure": failure,
        "auth_failures": auth_failures,
    })
}

impl Fields for InstanceReport {
    fn fields(&self) -> Value {
        let secrets: Vec<_> = self.secrets.iter().map(|(secret, report)| secret_report(secret, report)).collect();
        json!({ "key": self.key.fields(), "sequence": number(self.sequence.0), "secrets": secrets })
    }
}

impl Fields for SyncWithKeys {
    fn fields(&self) -> Value {
        let ids = |keys: &[KeyId]| keys.iter().map(ToString::to_string).collect::<Vec<_>>();
        json!({
            "nonce": number(self.request.nonce.0),
            "report": self.request.report.fields(),
            "echo": number(self.request.echo.map_or(0, Challenge::get)),
            "trusted_keys": ids(&self.trusted),
            "announced_keys": ids(&self.announced),
        })
    }
}

fn grant(secret: &SecretName, grant: &SecretGrant) -> Value {
    let leases: Vec<_> = grant
        .leases
        .iter()
        .map(|(version, lease)| json!({ "version": number(version.get()), "duration_ms": millis(*lease) }))
        .collect();
    json!({
        "secret": secret.as_str(),
        "sequence": number(grant.sequence.0),
        "leases": leases,
        "state": grant.state.as_ref().map(Fields::fields),
    })
}

impl Fields for ReplyWithKeys {
    fn fields(&self) -> Value {
        let Self { reply, announced } = self;
        let secrets: Vec<_> = reply.secrets.iter().map(|(secret, of)| grant(secret, of)).collect();
        json!({
            "key": reply.key.fields(),
            "nonce": number(reply.nonce.0),
            "epoch": number(reply.epoch.0),
            "covered": number(reply.covered.0),
            "unregistered": reply.unregistered,
            "unproven": reply.unproven,
            "challenge": number(reply.challenge.map_or(0, Challenge::get)),
            "secrets": secrets,
            "announced_keys": announced.iter().map(VerifyingKey::to_text).collect::<Vec<_>>(),
        })
    }
}

impl Fields for FetchRequest {
    fn fields(&self) -> Value {
        json!({
            "key": self.key.fields(),
            "nonce": number(self.nonce.0),
            "secret": self.secret.as_str(),
            "version": or_zero(self.version),
            "issued_ms": number(self.issued.0),
        })
    }
}
