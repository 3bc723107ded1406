//! Checkpoints: entries in which the broadcaster signs where the log ended.
//!
//! A chain of hashes can be written anew by any program that may write the file. With checkpoints, the broadcaster's
//! public key alone finds it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use prost::Message as _;
use rotacast_proto::{Envelope, Kind, SigningKey, VerifyingKey, v1};
use rotacast_protocol::{AuditChain, ClusterName, WallTime};

use super::entry::{Entry, Recorded};
use super::line::Head;

/// The action of the entry.
pub(super) const ACTION: &str = "checkpoint";

/// Most entries between two checkpoints, before those that share one write: a signature costs as much as an entry's sync.
pub(super) const EVERY_ENTRIES: u64 = 256;

/// Longest time, in milliseconds, that an entry of a log that is watched waits for its checkpoint.
pub(super) const EVERY_MS: u64 = 60_000;

/// Who signs a log's checkpoints.
#[derive(Clone)]
pub struct AuditSigner {
    key: SigningKey,
    cluster: ClusterName,
}

impl AuditSigner {
    /// The broadcaster's signing key, and its cluster.
    #[must_use]
    pub fn new(key: SigningKey, cluster: ClusterName) -> Self {
        Self { key, cluster }
    }

    /// The entry that follows `head`.
    pub(super) fn checkpoint(&self, chain: AuditChain, head: Head, now: WallTime) -> Entry {
        let id = format!("{chain}:{}", head.sequence + 1);
        let payload = payload(chain, head).into_bytes().into();
        let signed =
            Envelope::sign(&self.key, Kind::AuditCheckpoint, &self.cluster, chain.to_string(), id, now, payload);
        Entry::new("broadcaster", ACTION).detail("signed", to_text(signed))
    }
}

/// Which end of which log is signed.
fn payload(chain: AuditChain, head: Head) -> String {
    format!("{chain}:{}:{}", head.sequence, head.hash)
}

/// A signed message as text, for an entry's details.
pub(super) fn to_text(signed: Envelope) -> String {
    BASE64.encode(v1::Envelope::from(signed).encode_to_vec())
}

/// The signed message in an entry's details, with its cluster.
pub(super) fn signed(entry: &Recorded) -> Result<(Envelope, ClusterName), String> {
    let text = entry.details.get("signed").and_then(serde_json::Value::as_str).ok_or("details.signed is missing")?;
    let bytes = BASE64.decode(text).map_err(|error| format!("details.signed is not base64: {error}"))?;
    let envelope = v1::Envelope::decode(&bytes[..]).map_err(|error| format!("details.signed: {error}"))?;
    let envelope = Envelope::from(envelope);
    let cluster = ClusterName::new(&envelope.source).map_err(|error| format!("details.signed: {error}"))?;
    Ok((envelope, cluster))
}

/// Whether one of the keys has signed that the log ended at `before`.
pub(super) fn check(entry: &Recorded, before: Head, keys: &[VerifyingKey]) -> Result<(), String> {
    let (envelope, cluster) = signed(entry)?;
    let key = |id: &str| keys.iter().find(|key| key.id().as_str() == id);
    let signed = envelope.verify(Kind::AuditCheckpoint, &cluster, key);
    let signed = signed.map_err(|error| format!("checkpoint: {error}"))?;
    let expected = payload(entry.chain, before);
    if **signed != *expected.as_bytes() {
        let found: String = String::from_utf8_lossy(signed).chars().take(128).collect();
        return Err(format!("checkpoint of {found}, expected {expected}: the lines before it were replaced"));
    }
    Ok(())
}
