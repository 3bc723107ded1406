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
use crate::v1;

/// Most versions of one secret one reply leases: what the instance may hold, what it has reached,
/// and the state's current, pending and previous.
pub const MAX_LEASED_VERSIONS: usize = MAX_HELD_VERSIONS + 4;

impl WireMessage for SyncRequest {
    const KIND: Kind = Kind::SyncRequest;

    fn subject(&self) -> String {
        instance_subject(&self.report.key)
    }

    fn encode(&self) -> Bytes {
        let wire = v1::SyncRequest {
            nonce: self.nonce.0,
            report: Some(report::to_wire(&self.report)),
            echo: self.echo.map_or(0, Challenge::get),
        };
        wire.encode_to_vec().into()
    }

    fn decode(payload: &Bytes) -> Result<Self, EnvelopeError> {
        parse(Self::KIND, payload, |wire: v1::SyncRequest| {
            let report = report::from_wire(required("report", wire.report)?).map_err(|error| error.within("report"))?;
            Ok(Self { nonce: Nonce(wire.nonce), echo: Challenge::new(wire.echo), report })
        })
    }
}

impl WireMessage for SyncReply {
    const KIND: Kind = Kind::SyncReply;

    fn subject(&self) -> String {
        instance_subject(&self.key)
    }

    fn encode(&self) -> Bytes {
        let wire = v1::SyncReply {
            key: Some((&self.key).into()),
            nonce: self.nonce.0,
            epoch: self.epoch.0,
            covered: self.covered.0,
            unregistered: self.unregistered,
            unproven: self.unproven,
            challenge: self.challenge.map_or(0, Challenge::get),
            secrets: self.secrets.iter().map(|(secret, grant)| grant_to_wire(secret, grant)).collect(),
        };
        wire.encode_to_vec().into()
    }

    fn decode(payload: &Bytes) -> Result<Self, EnvelopeError> {
        parse(Self::KIND, payload, |wire: v1::SyncReply| {
            at_most("secrets", wire.secrets.len(), MAX_SECRETS_PER_INSTANCE)?;
            let mut secrets = BTreeMap::new();
            for (index, wire) in wire.secrets.into_iter().enumerate() {
                let at = || format!("secrets[{index}]");
                let (secret, grant) = grant_from_wire(wire).map_err(|error| error.within(at()))?;
                insert_new(&mut secrets, at, secret, grant)?;
            }
            Ok(Self {
                key: instance_key("key", wire.key)?,
                nonce: Nonce(wire.nonce),
                epoch: Epoch(wire.epoch),
                covered: ReportSequence(wire.covered),
                unregistered: wire.unregistered,
                unproven: wire.unproven,
                challenge: Challenge::new(wire.challenge),
                secrets,
            })
        })
    }
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
