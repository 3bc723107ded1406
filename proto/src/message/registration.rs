//! An instance says that it exists, or that it is gone for good.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message as _;
use rotacast_protocol::message::{MAX_SECRETS_PER_INSTANCE, Registration};

use super::WireMessage;
use super::field::{FieldError, at_most, instance_key, instance_subject, parse, secret_name};
use crate::envelope::{EnvelopeError, Kind};
use crate::v1;

impl WireMessage for Registration {
    const KIND: Kind = Kind::Registration;

    fn subject(&self) -> String {
        instance_subject(&self.key)
    }

    fn encode(&self) -> Bytes {
        let wire = v1::Registration {
            key: Some((&self.key).into()),
            exclusive: self.exclusive,
            secrets: self.secrets.iter().map(ToString::to_string).collect(),
            left: self.left,
        };
        wire.encode_to_vec().into()
    }

    fn decode(payload: &Bytes) -> Result<Self, EnvelopeError> {
        parse(Self::KIND, payload, |wire: v1::Registration| {
            at_most("secrets", wire.secrets.len(), MAX_SECRETS_PER_INSTANCE)?;
            let mut secrets = BTreeSet::new();
            for (index, name) in wire.secrets.into_iter().enumerate() {
                let field = format!("secrets[{index}]");
                if !secrets.insert(secret_name(&field, name)?) {
                    return Err(FieldError::new(field, "the same entry twice"));
                }
            }
            Ok(Self { key: instance_key("key", wire.key)?, exclusive: wire.exclusive, secrets, left: wire.left })
        })
    }
}
