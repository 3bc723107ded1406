//! One line: how it is written, hashed and checked.
//!
//! The hash covers the line's bytes as they stand, up to `,"hash":`, so that a checker need not
//! agree with us on how JSON is spelled.

use std::fmt;
use std::str::FromStr;

use rotacast_protocol::{RotationNumber, SecretName, WallTime};
use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::entry::{Entry, Recorded};
use super::error::AuditError;

/// The line format this build writes, and the only one it reads so far.
const FORMAT: u32 = 1;
/// Keeps these hashes apart from any others over the same bytes.
const DOMAIN: &[u8] = b"rotacast-audit-1\n";
/// Longest line, in bytes: an override naming a thousand instances takes a third of it.
pub(super) const MAX_LINE_BYTES: usize = 1024 * 1024;
const HASH_FIELD: &str = ",\"hash\":\"";
const END: &str = "\"}";

/// A line's SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash([u8; 32]);

impl Hash {
    /// What stands in for the line before the first.
    pub const NONE: Hash = Hash([0; 32]);

    fn of(body: &[u8]) -> Self {
        Self(Sha256::new().chain_update(DOMAIN).chain_update(body).finalize().into())
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Hash {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)
            .map_err(|_| "not a hash: expected 64 hexadecimal digits, as `rotacast audit verify` prints them")?;
        Ok(Self(bytes))
    }
}

/// Where a log ends: the newest line. Keep one elsewhere to notice when the end is cut off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// Its sequence; 0: the log is empty.
    pub sequence: u64,
    /// Its hash.
    pub hash: Hash,
}

impl Head {
    /// Of a log without entries.
    pub const EMPTY: Head = Head { sequence: 0, hash: Hash::NONE };
}

/// Says that an entry is durable, and where it stands.
pub type Receipt = Head;

#[derive(Serialize)]
struct Body<'a> {
    format: u32,
    sequence: u64,
    time: String,
    time_ms: u64,
    actor: &'a str,
    secret: &'a Option<SecretName>,
    rotation: &'a Option<RotationNumber>,
    action: &'a str,
    details: &'a Map<String, Value>,
    prev: String,
}

/// Writes the line that follows `head`, newline included.
pub(super) fn write(entry: &Entry, head: Head, now: WallTime) -> Result<(Vec<u8>, Head), AuditError> {
    let sequence = head.sequence + 1;
    let body = Body {
        format: FORMAT,
        sequence,
        time: now.to_string(),
        time_ms: now.0,
        actor: &entry.actor,
        secret: &entry.secret,
        rotation: &entry.rotation,
        action: &entry.action,
        details: &entry.details,
        prev: head.hash.to_string(),
    };
    let mut line = serde_json::to_vec(&body).expect("strings, numbers and JSON values always serialize");
    line.pop();
    let hash = Hash::of(&line);
    line.extend_from_slice(format!("{HASH_FIELD}{hash}{END}\n").as_bytes());
    if line.len() > MAX_LINE_BYTES {
        return Err(AuditError::TooLarge { found: line.len(), limit: MAX_LINE_BYTES });
    }
    Ok((line, Head { sequence, hash }))
}

/// Reads one line (without its newline) and checks it against its hash. Whether it follows the line
/// before is [`follows`]'s to say.
pub(super) fn read(line: &[u8]) -> Result<(Recorded, Head), String> {
    let text = std::str::from_utf8(line).map_err(|_| "not UTF-8".to_owned())?;
    let tail = HASH_FIELD.len() + 64 + END.len();
    let split = text.len().checked_sub(tail).filter(|at| text.is_char_boundary(*at));
    let (body, rest) = text.split_at(split.ok_or("too short for an entry")?);
    let written =
        rest.strip_prefix(HASH_FIELD).and_then(|rest| rest.strip_suffix(END)).ok_or("does not end with its hash")?;
    let hash = Hash::of(body.as_bytes());
    if written != hash.to_string() {
        return Err(format!("the line was changed: its hash says {written}, its contents give {hash}"));
    }
    let recorded: Recorded = serde_json::from_str(text).map_err(|error| format!("not an entry: {error}"))?;
    if recorded.format != FORMAT {
        return Err(format!("format {}, but this build reads format {FORMAT} only; upgrade it", recorded.format));
    }
    let sequence = recorded.sequence;
    Ok((recorded, Head { sequence, hash }))
}

/// Whether `line` is the one after `head`.
pub(super) fn follows(line: &Recorded, head: Head) -> Result<(), String> {
    let expected = head.sequence + 1;
    if line.sequence != expected {
        return Err(format!("entry {}, expected {expected}: lines were removed, inserted or swapped", line.sequence));
    }
    if line.prev != head.hash.to_string() {
        return Err(format!(
            "follows a line with hash {}, expected {}: the line before was replaced",
            line.prev, head.hash
        ));
    }
    Ok(())
}
