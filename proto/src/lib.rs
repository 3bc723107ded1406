//! Rotacast's wire contract: protobuf messages, the signed envelope they travel in, and what turns
//! them into the validated types of `rotacast-protocol`.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod envelope;
mod finding;
mod key;
mod key_file;
mod message;
mod value;

/// The generated messages and services of package `rotacast.v1`.
#[allow(missing_docs, clippy::all, unreachable_pub)]
pub mod v1 {
    tonic::include_proto!("rotacast.v1");
    /// The descriptor set, for gRPC reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/rotacast.v1.bin"));
}

pub use envelope::{Envelope, EnvelopeError, Kind, MAX_FIELD_BYTES, MAX_PAYLOAD_BYTES, SPEC_VERSION};
pub use finding::{Finding, Level};
pub use key::{KeyError, KeyId, SigningKey, VerifyingKey};
pub use key_file::KeyFileError;
pub use message::{
    FieldError, MAX_AUTH_FAILURE_VERSIONS, MAX_DURATION, MAX_LEASED_VERSIONS, MAX_SEALED_VERSIONS, WireMessage,
    instance_subject,
};
pub use value::SecretValue;
