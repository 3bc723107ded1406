//! The signed envelope every message travels in: CloudEvents attributes, signature, payload.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use rotacast_protocol::{ClusterName, Incarnation, WallTime};
use thiserror::Error;

use crate::key::{KeyId, SigningKey, VerifyingKey};
use crate::v1;

/// Largest payload, in bytes. The largest valid message of every kind fits (a Sync reply about 256
/// secrets, a Put of the largest value), and so does it, with its headers, below the 1 MiB that NATS
/// and Kafka servers take by default.
pub const MAX_PAYLOAD_BYTES: usize = 512 * 1024;

/// Longest envelope field besides payload and signature, in bytes: `service/instance/incarnation` is
/// the longest of ours, with 290.
pub const MAX_FIELD_BYTES: usize = 512;

/// The only place that bounds a payload.
pub(crate) fn check_payload_size(found: usize) -> Result<(), EnvelopeError> {
    if found > MAX_PAYLOAD_BYTES {
        return Err(EnvelopeError::TooLarge { found });
    }
    Ok(())
}

/// What an envelope carries.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// [`v1::Registration`].
    Registration,
    /// [`v1::SecretState`].
    SecretState,
    /// [`v1::InstanceReport`].
    InstanceReport,
    /// [`v1::SyncRequest`].
    SyncRequest,
    /// [`v1::SyncReply`].
    SyncReply,
    /// [`v1::FetchRequest`].
    FetchRequest,
    /// [`v1::OperatorCommand`].
    OperatorCommand,
    /// Whose a bus is: a cluster's id as text. Broadcasters alone read it.
    ClusterClaim,
    /// Where an audit log ends, as text. It is in the log itself.
    AuditCheckpoint,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 9] = [
        Kind::Registration,
        Kind::SecretState,
        Kind::InstanceReport,
        Kind::SyncRequest,
        Kind::SyncReply,
        Kind::FetchRequest,
        Kind::OperatorCommand,
        Kind::ClusterClaim,
        Kind::AuditCheckpoint,
    ];

    /// The `ce-type`: the message's full name, whose package carries the major version.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Registration => "rotacast.v1.Registration",
            Kind::SecretState => "rotacast.v1.SecretState",
            Kind::InstanceReport => "rotacast.v1.InstanceReport",
            Kind::SyncRequest => "rotacast.v1.SyncRequest",
            Kind::SyncReply => "rotacast.v1.SyncReply",
            Kind::FetchRequest => "rotacast.v1.FetchRequest",
            Kind::OperatorCommand => "rotacast.v1.OperatorCommand",
            Kind::ClusterClaim => "rotacast.v1.ClusterClaim",
            Kind::AuditCheckpoint => "rotacast.v1.AuditCheckpoint",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why an envelope is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EnvelopeError {
    /// A newer major version of the contract.
    #[error("message of type {found:?}: this build speaks rotacast.v1 only; upgrade it to read newer messages")]
    NewerMajor {
        /// Its `ce-type`.
        found: String,
    },
    /// A known type in the wrong place, or an unknown one.
    #[error("message of type {found:?}, expected {expected}")]
    WrongKind {
        /// What belongs here.
        expected: Kind,
        /// Its `ce-type`.
        found: String,
    },
    /// From another environment on the same bus.
    #[error("message of cluster {found:?}, expected {expected:?}")]
    WrongCluster {
        /// Ours.
        expected: ClusterName,
        /// Its `ce-source`.
        found: String,
    },
    /// The key is unknown here.
    #[error("signed with key {found:?}, which is not configured for {subject:?}")]
    UnknownKey {
        /// The key's id as the message claims it.
        found: String,
        /// What the message is about.
        subject: String,
    },
    /// A message of an instance about something else.
    #[error("subject {found:?} is not of the form service/instance/incarnation")]
    NoInstance {
        /// What the message is about.
        found: String,
    },
    /// The incarnation in the subject is not that of the key, so that the key may not speak for it.
    #[error("signed with key {key}, whose incarnation is {expected}, for {subject:?}")]
    WrongIncarnation {
        /// The key's id.
        key: KeyId,
        /// The key's incarnation.
        expected: Incarnation,
        /// What the message is about.
        subject: String,
    },
    /// The proof that the instance's key belongs to its service is missing, or of a kind that this build does not know.
    #[error("no attestation that this build can read, for {subject:?}: use matching releases of SDK and broadcaster")]
    NoAttestation {
        /// What the message is about.
        subject: String,
    },
    /// The service's key has not signed that the instance's key is its.
    #[error("the attestation by key {key} does not match the key of {subject:?}")]
    BadAttestation {
        /// The service's key that it names.
        key: KeyId,
        /// What the message is about.
        subject: String,
    },
    /// The service's key that attests it was revoked.
    #[error("attested by key {key}, which is revoked, for {subject:?}: give the service another key")]
    RevokedKey {
        /// The service's key.
        key: KeyId,
        /// What the message is about.
        subject: String,
    },
    /// The service's key that attests it counts only for instances that have registered with it before.
    #[error(
        "attested by key {key}, which attests no new instance any more, for {subject:?}: give the service another key"
    )]
    FormerKey {
        /// The service's key.
        key: KeyId,
        /// What the message is about.
        subject: String,
    },
    /// The signature does not match.
    #[error("signature of key {key} does not match the message about {subject:?}")]
    BadSignature {
        /// The claimed key.
        key: KeyId,
        /// What the message is about.
        subject: String,
    },
    /// Larger than any message of ours.
    #[error("payload of {found} bytes, expected at most {MAX_PAYLOAD_BYTES}")]
    TooLarge {
        /// Its size.
        found: usize,
    },
    /// An attribute larger than any of ours.
    #[error("{field} of {found} bytes, expected at most {MAX_FIELD_BYTES}")]
    LongField {
        /// Its header's name.
        field: &'static str,
        /// Its size.
        found: usize,
    },
    /// The subject names something else than the payload.
    #[error("subject {found:?} does not belong to the payload, which is about {expected:?}")]
    WrongSubject {
        /// What the payload says.
        expected: String,
        /// What the envelope says.
        found: String,
    },
    /// The payload does not parse.
    #[error("payload of {kind}: {problem}")]
    Malformed {
        /// Its type.
        kind: Kind,
        /// What is wrong, without contents.
        problem: String,
    },
    /// A header is missing.
    #[error("header {0} is missing")]
    MissingHeader(&'static str),
}

/// A signed message with its CloudEvents attributes.
#[derive(Clone, PartialEq, Eq)]
pub struct Envelope {
    /// `ce-id`. A retry reuses it.
    pub id: String,
    /// `ce-type`.
    pub kind: String,
    /// `ce-source`: the cluster.
    pub source: String,
    /// `ce-subject`: the secret or the instance.
    pub subject: String,
    /// `ce-time`.
    pub time: String,
    /// W3C trace context, passed along; may be empty.
    pub traceparent: String,
    /// Who signed: the id of a broadcaster's or an operator's key, or the public key of an instance.
    pub key_id: String,
    /// Of an instance: proof that its key belongs to its service. Else empty.
    pub attestation: String,
    /// Ed25519 signature.
    pub signature: Bytes,
    /// Protobuf.
    pub payload: Bytes,
}

const HEADERS: [&str; 9] = [
    "ce-id",
    "ce-type",
    "ce-source",
    "ce-subject",
    "ce-time",
    "traceparent",
    "rotacast-key",
    "rotacast-attestation",
    "rotacast-signature",
];
/// The CloudEvents version this contract follows.
pub const SPEC_VERSION: &str = "1.0";

impl Envelope {
    /// Signs a payload.
    #[must_use]
    pub fn sign(
        key: &SigningKey,
        kind: Kind,
        cluster: &ClusterName,
        subject: impl Into<String>,
        id: impl Into<String>,
        time: WallTime,
        payload: Bytes,
    ) -> Self {
        let subject = subject.into();
        let input = signing_input(kind.as_str(), cluster.as_str(), &subject, &payload);
        Self {
            id: id.into(),
            kind: kind.as_str().into(),
            source: cluster.to_string(),
            time: time.to_string(),
            traceparent: String::new(),
            key_id: key.public().id().to_string(),
            attestation: String::new(),
            signature: Bytes::copy_from_slice(&key.sign(&input)),
            subject,
            payload,
        }
    }

    /// Checks type, cluster, size and signature, and returns the payload's bytes. `find` names the
    /// key that may sign for this message, if any: by key id.
    ///
    /// # Errors
    /// [`EnvelopeError`], with expected and found.
    pub fn verify<'k>(
        &self,
        kind: Kind,
        cluster: &ClusterName,
        find: impl FnOnce(&str) -> Option<&'k VerifyingKey>,
    ) -> Result<&Bytes, EnvelopeError> {
        self.check_place(kind, cluster)?;
        let subject = || self.subject.chars().take(300).collect::<String>();
        let Some(key) = find(&self.key_id) else {
            return Err(EnvelopeError::UnknownKey {
                found: self.key_id.chars().take(32).collect(),
                subject: subject(),
            });
        };
        if !key.verifies(&self.signing_input(), &self.signature) {
            return Err(EnvelopeError::BadSignature { key: key.id().clone(), subject: subject() });
        }
        Ok(&self.payload)
    }

    /// Checks what can be checked without a key: size, type and cluster.
    pub(crate) fn check_place(&self, kind: Kind, cluster: &ClusterName) -> Result<(), EnvelopeError> {
        self.check_size()?;
        if self.kind != kind.as_str() {
            let known = Kind::ALL.iter().any(|kind| kind.as_str() == self.kind) || !is_newer_major(&self.kind);
            let found = self.kind.chars().take(64).collect();
            return Err(match known {
                true => EnvelopeError::WrongKind { expected: kind, found },
                false => EnvelopeError::NewerMajor { found },
            });
        }
        if self.source != cluster.as_str() {
            return Err(EnvelopeError::WrongCluster {
                expected: cluster.clone(),
                found: self.source.chars().take(64).collect(),
            });
        }
        Ok(())
    }

    /// Checks that no part is larger than any of ours. [`Envelope::verify`] does it first; code
    /// that keeps or relays an envelope without verifying it calls it too.
    ///
    /// # Errors
    /// [`EnvelopeError::TooLarge`] or [`EnvelopeError::LongField`].
    pub fn check_size(&self) -> Result<(), EnvelopeError> {
        check_payload_size(self.payload.len())?;
        let fields = [
            &self.id,
            &self.kind,
            &self.source,
            &self.subject,
            &self.time,
            &self.traceparent,
            &self.key_id,
            &self.attestation,
        ];
        for (field, value) in HEADERS.into_iter().zip(fields) {
            if value.len() > MAX_FIELD_BYTES {
                return Err(EnvelopeError::LongField { field, found: value.len() });
            }
        }
        if self.signature.len() > MAX_FIELD_BYTES {
            return Err(EnvelopeError::LongField { field: "rotacast-signature", found: self.signature.len() });
        }
        Ok(())
    }

    /// The bytes that are signed: see `docs/understand/wire.md`.
    #[must_use]
    pub fn signing_input(&self) -> Vec<u8> {
        signing_input(&self.kind, &self.source, &self.subject, &self.payload)
    }

    /// As headers, for a bus that has them: `(name, value)`, the signature in base64.
    #[must_use]
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        use base64::Engine as _;
        let signature = base64::engine::general_purpose::STANDARD.encode(&self.signature);
        let values = [
            &self.id,
            &self.kind,
            &self.source,
            &self.subject,
            &self.time,
            &self.traceparent,
            &self.key_id,
            &self.attestation,
            &signature,
        ];
        let mut headers =
            vec![("ce-specversion", SPEC_VERSION.to_owned()), ("content-type", "application/protobuf".to_owned())];
        headers.extend(HEADERS.into_iter().zip(values.into_iter().cloned()).filter(|(_, value)| !value.is_empty()));
        headers
    }

    /// From headers and payload. Names are matched without regard to case.
    ///
    /// # Errors
    /// [`EnvelopeError::MissingHeader`] for all but `traceparent`, `ce-time` and
    /// `rotacast-attestation`.
    pub fn from_headers<'h>(
        headers: impl IntoIterator<Item = (&'h str, &'h str)>,
        payload: Bytes,
    ) -> Result<Self, EnvelopeError> {
        use base64::Engine as _;
        let mut found: BTreeMap<&'static str, String> = BTreeMap::new();
        for (name, value) in headers {
            if let Some(known) = HEADERS.iter().find(|known| known.eq_ignore_ascii_case(name)) {
                found.insert(known, value.to_owned());
            }
        }
        let mut take = |name: &'static str| found.remove(name).ok_or(EnvelopeError::MissingHeader(name));
        // One that is not base64 becomes an empty one, which no key verifies.
        let signature =
            base64::engine::general_purpose::STANDARD.decode(take("rotacast-signature")?).unwrap_or_default();
        Ok(Self {
            id: take("ce-id")?,
            kind: take("ce-type")?,
            source: take("ce-source")?,
            subject: take("ce-subject")?,
            key_id: take("rotacast-key")?,
            time: take("ce-time").unwrap_or_default(),
            traceparent: take("traceparent").unwrap_or_default(),
            attestation: take("rotacast-attestation").unwrap_or_default(),
            signature: Bytes::from(signature),
            payload,
        })
    }
}

/// Of the payload only its length: an operator's command may carry a value.
impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope")
            .field("id", &self.id)
            .field("kind", &self.kind)
            .field("source", &self.source)
            .field("subject", &self.subject)
            .field("time", &self.time)
            .field("traceparent", &self.traceparent)
            .field("key_id", &self.key_id)
            .field("attestation", &self.attestation)
            .field("payload_bytes", &self.payload.len())
            .finish_non_exhaustive()
    }
}

/// As [`Envelope`]'s: of the payload only its length.
impl fmt::Debug for v1::Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope")
            .field("id", &self.id)
            .field("type", &self.r#type)
            .field("source", &self.source)
            .field("subject", &self.subject)
            .field("time", &self.time)
            .field("traceparent", &self.traceparent)
            .field("key_id", &self.key_id)
            .field("attestation", &self.attestation)
            .field("payload_bytes", &self.payload.len())
            .finish_non_exhaustive()
    }
}

impl From<v1::Envelope> for Envelope {
    fn from(wire: v1::Envelope) -> Self {
        Self {
            id: wire.id,
            kind: wire.r#type,
            source: wire.source,
            subject: wire.subject,
            time: wire.time,
            traceparent: wire.traceparent,
            key_id: wire.key_id,
            attestation: wire.attestation,
            signature: wire.signature,
            payload: wire.payload,
        }
    }
}

impl From<Envelope> for v1::Envelope {
    fn from(envelope: Envelope) -> Self {
        Self {
            id: envelope.id,
            r#type: envelope.kind,
            source: envelope.source,
            subject: envelope.subject,
            time: envelope.time,
            traceparent: envelope.traceparent,
            key_id: envelope.key_id,
            attestation: envelope.attestation,
            signature: envelope.signature,
            payload: envelope.payload,
        }
    }
}

/// `rotacast.vN.…` with N above ours.
fn is_newer_major(kind: &str) -> bool {
    kind.strip_prefix("rotacast.v")
        .and_then(|rest| rest.split('.').next())
        .and_then(|major| major.parse::<u32>().ok())
        .is_some_and(|major| major > 1)
}

/// What is signed: a domain tag, then type, cluster, subject and payload. The id and the time are not signed: nothing is
/// decided by them.
fn signing_input(kind: &str, cluster: &str, subject: &str, payload: &[u8]) -> Vec<u8> {
    tagged(b"rotacast-signature-1", [kind.as_bytes(), cluster.as_bytes(), subject.as_bytes(), payload])
}

/// A domain tag, then each part behind its length as 4 bytes big-endian, so that no two different messages share an input.
pub(crate) fn tagged<const N: usize>(domain: &[u8], parts: [&[u8]; N]) -> Vec<u8> {
    let mut input = Vec::with_capacity(domain.len() + parts.iter().map(|part| part.len() + 4).sum::<usize>());
    input.extend_from_slice(domain);
    for part in parts {
        let length = u32::try_from(part.len()).expect("a payload is bounded far below 4 GiB");
        input.extend_from_slice(&length.to_be_bytes());
        input.extend_from_slice(part);
    }
    input
}
