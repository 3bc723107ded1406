//! An instance asks for one version's value.

use bytes::Bytes;
use prost::Message as _;
use rotacast_protocol::message::FetchRequest;
use rotacast_protocol::{Nonce, WallTime};

use super::WireMessage;
use super::field::{instance_key, instance_subject, or_zero, parse, secret_name, version_or_none};
use crate::envelope::{EnvelopeError, Kind};
use crate::v1;

impl WireMessage for FetchRequest {
    const KIND: Kind = Kind::FetchRequest;

    fn subject(&self) -> String {
        instance_subject(&self.key)
    }

    fn encode(&self) -> Bytes {
        let wire = v1::FetchRequest {
            key: Some((&self.key).into()),
            nonce: self.nonce.0,
            secret: self.secret.to_string(),
            version: or_zero(self.version),
            issued_ms: self.issued.0,
        };
        wire.encode_to_vec().into()
    }

    fn decode(payload: &Bytes) -> Result<Self, EnvelopeError> {
        parse(Self::KIND, payload, |wire: v1::FetchRequest| {
            Ok(Self {
                key: instance_key("key", wire.key)?,
                nonce: Nonce(wire.nonce),
                issued: WallTime(wire.issued_ms),
                secret: secret_name("secret", wire.secret)?,
                version: version_or_none(wire.version),
            })
        })
    }
}
