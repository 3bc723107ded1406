//! Heartbeat, lease renewal and gap check at once.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;
use rotacast_protocol::message::{MAX_HELD_VERSIONS, MAX_SECRETS_PER_INSTANCE, SecretGrant, SyncReply, SyncRequest};
use rotacast_protocol::{Challenge, Epoch, LeaseSequence, Nonce, ReportSequence, SecretName};

use super::WireMessage;
use super::field::{
    FieldError, at_most, duration, insert_new, instance_key, instance_subject, millis, parse, required, secret_name,
    version,
};
use super::{report, state};
use crate::envelope::{EnvelopeError, Kind};
use crate::key::{KeyId, VerifyingKey};
use crate::v1;

/// Most keys of broadcasters that a message names: those of many replicas, and as many that take their place.
pub const MAX_CLUSTER_KEYS: usize = 16;

/// Most versions of one secret one reply leases: what the instance may hold, what it has reached,
/// and the state's current, pending and previous.
pub const MAX_LEASED_VERSIONS: usize = MAX_HELD_VERSIONS + 4;

impl WireMessage for SyncRequest {
    const KIND: Kind = Kind::SyncRequest;

    fn subject(&self) -> String {
        instance_subject(&self.report.key)
    }

    fn encode(&self) -> Bytes {
        request_to_wire(self).encode_to_vec().into()
    }

    fn decode(payload: &Bytes) -> Result<Self, EnvelopeError> {
        parse(Self::KIND, payload, request_from_wire)
    }
}

fn request_to_wire(request: &SyncRequest) -> v1::SyncRequest {
    v1::SyncRequest {
        nonce: request.nonce.0,
        report: Some(report::to_wire(&request.report)),
        echo: request.echo.map_or(0, Challenge::get),
        ..v1::SyncRequest::default()
    }
}

fn request_from_wire(wire: v1::SyncRequest) -> Result<SyncRequest, FieldError> {
    let report = report::from_wire(required("report", wire.report)?).map_err(|error| error.within("report"))?;
    Ok(SyncRequest { nonce: Nonce(wire.nonce), echo: Challenge::new(wire.echo), report })
}

/// A Sync with what its sender says of the broadcasters' keys. The protocol's core knows nothing of keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SyncWithKeys {
    /// The Sync itself.
    pub request: SyncRequest,
    /// Trusted by the instance's settings. At most [`MAX_CLUSTER_KEYS`].
    pub trusted: Vec<KeyId>,
    /// Trusted only because a broadcaster announced them. At most [`MAX_CLUSTER_KEYS`].
    pub announced: Vec<KeyId>,
}

impl WireMessage for SyncWithKeys {
    const KIND: Kind = Kind::SyncRequest;

    fn subject(&self) -> String {
        self.request.subject()
    }

    fn encode(&self) -> Bytes {
        let texts = |keys: &[KeyId]| keys.iter().map(ToString::to_string).collect();
        let wire = v1::SyncRequest {
            trusted_keys: texts(&self.trusted),
            announced_keys: texts(&self.announced),
            ..request_to_wire(&self.request)
        };
        wire.encode_to_vec().into()
    }

    fn decode(payload: &Bytes) -> Result<Self, EnvelopeError> {
        parse(Self::KIND, payload, |mut wire: v1::SyncRequest| {
            let trusted = key_ids("trusted_keys", std::mem::take(&mut wire.trusted_keys))?;
            let announced = key_ids("announced_keys", std::mem::take(&mut wire.announced_keys))?;
            Ok(Self { request: request_from_wire(wire)?, trusted, announced })
        })
    }
}

fn key_ids(field: &str, texts: Vec<String>) -> Result<Vec<KeyId>, FieldError> {
    at_most(field, texts.len(), MAX_CLUSTER_KEYS)?;
    let mut ids = Vec::new();
    for (index, text) in texts.into_iter().enumerate() {
        let at = || format!("{field}[{index}]");
        let id = KeyId::parse(&text).ok_or_else(|| FieldError::new(at(), "is no key id of 16 hexadecimal digits"))?;
        if ids.contains(&id) {
            return Err(FieldError::new(at(), "the same entry twice"));
        }
        ids.push(id);
    }
    Ok(ids)
}

/// A Sync's reply with the keys that may sign for the leader besides the one that signs the reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplyWithKeys {
    /// The reply itself.
    pub reply: SyncReply,
    /// At most [`MAX_CLUSTER_KEYS`].
    pub announced: Vec<VerifyingKey>,
}

impl WireMessage for ReplyWithKeys {
    const KIND: Kind = Kind::SyncReply;

    fn subject(&self) -> String {
        self.reply.subject()
    }

    fn encode(&self) -> Bytes {
        let announced_keys = self.announced.iter().map(VerifyingKey::to_text).collect();
        let wire = v1::SyncReply { announced_keys, ..reply_to_wire(&self.reply) };
        wire.encode_to_vec().into()
    }

    fn decode(payload: &Bytes) -> Result<Self, EnvelopeError> {
        parse(Self::KIND, payload, |mut wire: v1::SyncReply| {
            let texts = std::mem::take(&mut wire.announced_keys);
            at_most("announced_keys", texts.len(), MAX_CLUSTER_KEYS)?;
            let mut announced = Vec::new();
            for (index, text) in texts.iter().enumerate() {
                let at = || format!("announced_keys[{index}]");
                let key = VerifyingKey::parse(text).map_err(|_| FieldError::new(at(), "is no public key"))?;
                if announced.contains(&key) {
                    return Err(FieldError::new(at(), "the same entry twice"));
                }
                announced.push(key);
            }
            Ok(Self { reply: reply_from_wire(wire)?, announced })
        })
    }
}

impl WireMessage for SyncReply {
    const KIND: Kind = Kind::SyncReply;

    fn subject(&self) -> String {
        instance_subject(&self.key)
    }

    fn encode(&self) -> Bytes {
        reply_to_wire(self).encode_to_vec().into()
    }

    fn decode(payload: &Bytes) -> Result<Self, EnvelopeError> {
        parse(Self::KIND, payload, reply_from_wire)
    }
}

fn reply_to_wire(reply: &SyncReply) -> v1::SyncReply {
    v1::SyncReply {
        key: Some((&reply.key).into()),
        nonce: reply.nonce.0,
        epoch: reply.epoch.0,
        covered: reply.covered.0,
        unregistered: reply.unregistered,
        unproven: reply.unproven,
        challenge: reply.challenge.map_or(0, Challenge::get),
        secrets: reply.secrets.iter().map(|(secret, grant)| grant_to_wire(secret, grant)).collect(),
        ..v1::SyncReply::default()
    }
}

fn reply_from_wire(wire: v1::SyncReply) -> Result<SyncReply, FieldError> {
    at_most("secrets", wire.secrets.len(), MAX_SECRETS_PER_INSTANCE)?;
    let mut secrets = BTreeMap::new();
    for (index, wire) in wire.secrets.into_iter().enumerate() {
        let at = || format!("secrets[{index}]");
        let (secret, grant) = grant_from_wire(wire).map_err(|error| error.within(at()))?;
        insert_new(&mut secrets, at, secret, grant)?;
    }
    Ok(SyncReply {
        key: instance_key("key", wire.key)?,
        nonce: Nonce(wire.nonce),
        epoch: Epoch(wire.epoch),
        covered: ReportSequence(wire.covered),
        unregistered: wire.unregistered,
        unproven: wire.unproven,
        challenge: Challenge::new(wire.challenge),
        secrets,
    })
}

fn grant_to_wire(secret: &SecretName, grant: &SecretGrant) -> v1::SecretGrant {
    v1::SecretGrant {
        secret: secret.to_string(),
        sequence: grant.sequence.0,
        leases: grant
            .leases
            .iter()
            .map(|(version, lease)| v1::Lease { version: version.get(), duration_ms: millis(*lease) })
            .collect(),
        state: grant.state.as_ref().map(state::to_wire),
    }
}

fn grant_from_wire(wire: v1::SecretGrant) -> Result<(SecretName, SecretGrant), FieldError> {
    let secret = secret_name("secret", wire.secret)?;
    at_most("leases", wire.leases.len(), MAX_LEASED_VERSIONS)?;
    let mut leases = BTreeMap::new();
    for (index, wire) in wire.leases.into_iter().enumerate() {
        let at = || format!("leases[{index}]");
        let version = version("version", wire.version).map_err(|error| error.within(at()))?;
        let lease = duration("duration_ms", wire.duration_ms).map_err(|error| error.within(at()))?;
        insert_new(&mut leases, at, version, lease)?;
    }
    let state = wire.state.map(state::from_wire).transpose().map_err(|error| error.within("state"))?;
    if state.as_ref().is_some_and(|state| state.secret != secret) {
        return Err(FieldError::new("state.secret", "names another secret than the grant it is part of"));
    }
    Ok((secret, SecretGrant { sequence: LeaseSequence(wire.sequence), leases, state }))
}
