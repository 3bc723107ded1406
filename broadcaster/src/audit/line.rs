//! One line: how it is written, hashed and checked.
//!
//! The hash covers the line's bytes as they stand, up to `,"hash":`, so that a checker need not
//! agree with us on how JSON is spelled.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use rotacast_protocol::{AuditChain, RotationNumber, SecretName, WallTime};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::entry::{Entry, Recorded};
use super::error::AuditError;
use super::loss::{self, Loss};

/// The line format this build writes, and the only one it reads so far.
const FORMAT: u32 = 2;
/// Keeps these hashes apart from any others over the same bytes.
const DOMAIN: &[u8] = b"rotacast-audit-2\n";
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

    /// The hash in hexadecimal.
    fn text(self) -> [u8; 64] {
        let mut text = [0; 64];
        hex::encode_to_slice(self.0, &mut text).expect("twice as many digits as bytes");
        text
    }

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
    chain: AuditChain,
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
pub(super) fn write(
    entry: &Entry,
    chain: AuditChain,
    head: Head,
    now: WallTime,
) -> Result<(Vec<u8>, Head), AuditError> {
    let sequence = head.sequence + 1;
    let body = Body {
        format: FORMAT,
        chain,
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

/// Of a line, what makes it a link of the chain. The rest is left unread: a million lines are checked in seconds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Link {
    pub(super) chain: AuditChain,
    pub(super) head: Head,
    pub(super) time: WallTime,
    pub(super) special: Special,
    prev: Hash,
}

/// The lines that say something about the log itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Special {
    None,
    /// A signature over all lines before.
    Checkpoint,
    /// What an operator has signed: an order, or an approval of one.
    Ordered,
    /// An operator has accepted that lines before this one are lost.
    LossAccepted,
}

#[derive(Deserialize)]
struct Linked<'a> {
    format: u32,
    chain: AuditChain,
    sequence: u64,
    time_ms: u64,
    #[serde(borrow)]
    action: Cow<'a, str>,
    #[serde(borrow)]
    prev: Cow<'a, str>,
}

/// Reads one line (without its newline) and checks it against its hash. Whether it follows the line before is
/// [`follows`]'s to say.
pub(super) fn link(line: &[u8]) -> Result<Link, String> {
    let text = std::str::from_utf8(line).map_err(|_| "not UTF-8".to_owned())?;
    let tail = HASH_FIELD.len() + 64 + END.len();
    let split = text.len().checked_sub(tail).filter(|at| text.is_char_boundary(*at));
    let (body, rest) = text.split_at(split.ok_or("too short for an entry")?);
    let written =
        rest.strip_prefix(HASH_FIELD).and_then(|rest| rest.strip_suffix(END)).ok_or("does not end with its hash")?;
    let hash = Hash::of(body.as_bytes());
    if written.as_bytes() != hash.text() {
        return Err(format!("the line was changed: its hash says {written}, its contents give {hash}"));
    }
    let linked: Linked<'_> = serde_json::from_str(text).map_err(|error| format!("not an entry: {error}"))?;
    if linked.format != FORMAT {
        return Err(format!("format {}, but this build reads format {FORMAT} only; upgrade it", linked.format));
    }
    Ok(Link {
        chain: linked.chain,
        head: Head { sequence: linked.sequence, hash },
        time: WallTime(linked.time_ms),
        special: match &*linked.action {
            super::checkpoint::ACTION => Special::Checkpoint,
            action if super::order::is_signed(action) => Special::Ordered,
            loss::ACTION => Special::LossAccepted,
            _ => Special::None,
        },
        prev: linked.prev.parse()?,
    })
}

impl Link {
    /// Where the line before must end; `None`: this is entry 0, which no log has.
    pub(super) fn before(&self) -> Option<Head> {
        Some(Head { sequence: self.head.sequence.checked_sub(1)?, hash: self.prev })
    }
}

/// The entry of a line that [`link`] has read.
pub(super) fn recorded(line: &[u8]) -> Result<Recorded, String> {
    serde_json::from_slice(line).map_err(|error| format!("not an entry: {error}"))
}

/// Whether a line is the one after `head`. The loss, if it begins behind one that an operator has accepted.
pub(super) fn follows(link: &Link, line: &[u8], head: Head) -> Result<Option<Loss>, String> {
    if link.special == Special::LossAccepted {
        let loss = Loss::read(&recorded(line)?)?;
        loss.follows(link.head.sequence, link.prev, head)?;
        return Ok(Some(loss));
    }
    let (found, expected) = (link.head.sequence, head.sequence + 1);
    if found != expected {
        return Err(format!("entry {found}, expected {expected}: lines were removed, inserted or swapped"));
    }
    if link.prev != head.hash {
        let (prev, before) = (link.prev, head.hash);
        return Err(format!("follows a line with hash {prev}, expected {before}: the line before was replaced"));
    }
    Ok(None)
}
