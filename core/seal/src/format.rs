//! What the store holds of a sealed value.
//!
//! A line that names the format, one line of JSON, and the ciphertext as it is: in Base64 the largest value would not fit into a
//! commit.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use rotacast_proto::{KeyId, SecretValue};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::SealError;
use crate::key::ReaderName;

/// The newest format this code writes and reads.
const FORMAT: u32 = 1;
/// Begins every sealed value of every format; the number of the format and a line break follow.
const MAGIC: &[u8] = b"rotacast-sealed-";
/// Longest number of a format, in digits.
const MAX_FORMAT_DIGITS: usize = 6;
/// Stands for all services that are not named, as in the configuration.
const OTHER_SERVICES: &str = "*";
/// The cipher of format 1.
const CIPHER: &str = "chacha20poly1305";

/// Most readers of one version: with names and key ids of the greatest length they take 40 KiB.
pub const MAX_READERS: usize = 128;
/// Most readers that are added to one version later: as many again, and once more as many keys that were replaced, or that the
/// broadcasters have in their file.
pub const MAX_ADDED_READERS: usize = 2 * MAX_READERS;
/// By how much a sealed value is longer than the value.
pub const MAX_OVERHEAD: usize = 44 * 1024;

/// Bytes that are Base64 in JSON.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Base64<const N: usize>(pub(crate) [u8; N]);

impl<const N: usize> Serialize for Base64<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(self.0))
    }
}

impl<'de, const N: usize> Deserialize<'de> for Base64<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = BASE64.decode(text).map_err(|_| D::Error::custom("it is not Base64"))?;
        bytes.try_into().map(Self).map_err(|_| D::Error::custom(format!("it is not {N} bytes long")))
    }
}

/// The data key, wrapped for one reader.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrappedKey {
    /// The id of the reader's public key.
    key: String,
    /// Whose key it was when it was wrapped; none: the broadcasters'.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    service: Option<String>,
    /// HPKE's encapsulated key.
    pub(crate) encapsulated: Base64<32>,
    /// The data key's ciphertext.
    pub(crate) wrapped: Base64<48>,
    /// What a later minor version wrote.
    #[serde(flatten)]
    unknown: serde_json::Map<String, serde_json::Value>,
}

impl WrappedKey {
    pub(crate) fn new(reader: &ReaderName, key: &KeyId, encapsulated: [u8; 32], wrapped: [u8; 48]) -> Self {
        let service = match reader {
            ReaderName::Broadcasters => None,
            ReaderName::Service(name) => Some(name.to_string()),
            ReaderName::OtherServices => Some(OTHER_SERVICES.into()),
        };
        Self {
            key: key.to_string(),
            service,
            encapsulated: Base64(encapsulated),
            wrapped: Base64(wrapped),
            unknown: serde_json::Map::new(),
        }
    }

    /// Whether it is wrapped for this key.
    #[must_use]
    pub fn is_for(&self, key: &KeyId) -> bool {
        self.key == key.as_str()
    }

    /// The id of the reader's key.
    #[must_use]
    pub fn key(&self) -> Option<KeyId> {
        KeyId::parse(&self.key)
    }

    /// Whose key it was when it was wrapped, as the store says: only shown, since a client that writes the store can change it.
    #[must_use]
    pub fn reader(&self) -> Option<ReaderName> {
        match self.service.as_deref() {
            None => Some(ReaderName::Broadcasters),
            Some(OTHER_SERVICES) => Some(ReaderName::OtherServices),
            Some(name) => name.parse().ok().map(ReaderName::Service),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Header {
    cipher: String,
    nonce: Base64<12>,
    readers: Vec<WrappedKey>,
    /// What a later minor version wrote.
    #[serde(flatten)]
    unknown: serde_json::Map<String, serde_json::Value>,
}

/// What the store holds of a sealed value. It never changes once it is written.
pub struct Sealed {
    header: Header,
    pub(crate) ciphertext: Vec<u8>,
}

impl Sealed {
    pub(crate) fn new(nonce: [u8; 12], readers: Vec<WrappedKey>, ciphertext: Vec<u8>) -> Self {
        let unknown = serde_json::Map::new();
        Self { header: Header { cipher: CIPHER.into(), nonce: Base64(nonce), readers, unknown }, ciphertext }
    }

    /// Whether what is stored says that it is sealed, in whatever format.
    #[must_use]
    pub fn is_sealed(stored: &[u8]) -> bool {
        stored.starts_with(MAGIC)
    }

    /// Reads what [`Sealed::encode`] writes. `None`: it is not sealed, but the value itself.
    ///
    /// # Errors
    /// [`SealError::Malformed`], [`SealError::Format`].
    pub fn decode(stored: &[u8]) -> Result<Option<Self>, SealError> {
        let Some(rest) = stored.strip_prefix(MAGIC) else { return Ok(None) };
        let malformed = |problem: &str| SealError::Malformed { problem: problem.into() };
        let end = rest.iter().take(MAX_FORMAT_DIGITS + 1).position(|byte| *byte == b'\n');
        let (digits, rest) = end
            .map(|end| (&rest[..end], &rest[end + 1..]))
            .ok_or_else(|| malformed("the number of its format is cut off"))?;
        let format: Option<u32> = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
        match format {
            Some(FORMAT) => {}
            Some(found) => return Err(SealError::Format { found, expected: FORMAT }),
            None => return Err(malformed("the number of its format is none")),
        }
        let end = rest.iter().position(|byte| *byte == b'\n').ok_or_else(|| malformed("its header is cut off"))?;
        let header: Header = serde_json::from_slice(&rest[..end]).map_err(|problem| refused(&problem))?;
        if header.cipher != CIPHER {
            return Err(malformed(&format!("it names a cipher other than {CIPHER}")));
        }
        if header.readers.len() > MAX_READERS {
            return Err(SealError::TooManyReaders { found: header.readers.len(), limit: MAX_READERS });
        }
        Ok(Some(Self { header, ciphertext: rest[end + 1..].to_vec() }))
    }

    /// What is to be stored.
    #[must_use]
    pub fn encode(&self) -> SecretValue {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(format!("{FORMAT}\n").as_bytes());
        bytes.extend_from_slice(&serde_json::to_vec(&self.header).expect("text and numbers always serialise"));
        bytes.push(b'\n');
        bytes.extend_from_slice(&self.ciphertext);
        SecretValue::new(bytes)
    }

    /// For whom the data key was wrapped when the value was sealed.
    #[must_use]
    pub fn readers(&self) -> &[WrappedKey] {
        &self.header.readers
    }

    pub(crate) fn nonce(&self) -> &[u8; 12] {
        &self.header.nonce.0
    }
}

/// The data key of one version, wrapped for readers that came after the value was sealed.
#[derive(Clone, Serialize, Deserialize)]
pub struct AddedReaders {
    format: u32,
    readers: Vec<WrappedKey>,
    /// How many entries of former readers made way for others.
    #[serde(default, skip_serializing_if = "is_zero")]
    made_way: u64,
    /// What a later minor version wrote.
    #[serde(flatten)]
    unknown: serde_json::Map<String, serde_json::Value>,
}

impl Default for AddedReaders {
    fn default() -> Self {
        Self { format: FORMAT, readers: Vec::new(), made_way: 0, unknown: serde_json::Map::new() }
    }
}

impl AddedReaders {
    /// Reads what [`AddedReaders::encode`] writes.
    ///
    /// # Errors
    /// [`SealError::Malformed`], [`SealError::Format`], [`SealError::TooManyReaders`].
    pub fn decode(stored: &[u8]) -> Result<Self, SealError> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let Format { format } = serde_json::from_slice(stored).map_err(|problem| refused(&problem))?;
        if format != FORMAT {
            return Err(SealError::Format { found: format, expected: FORMAT });
        }
        let read: Self = serde_json::from_slice(stored).map_err(|problem| refused(&problem))?;
        if read.readers.len() > MAX_ADDED_READERS {
            return Err(SealError::TooManyReaders { found: read.readers.len(), limit: MAX_ADDED_READERS });
        }
        Ok(read)
    }

    /// What is to be stored.
    #[must_use]
    pub fn encode(&self) -> SecretValue {
        SecretValue::new(serde_json::to_vec(self).expect("text and numbers always serialise"))
    }

    /// For whom.
    #[must_use]
    pub fn readers(&self) -> &[WrappedKey] {
        &self.readers
    }

    /// How many former readers could open the version, whose entries made way for others.
    #[must_use]
    pub fn made_way(&self) -> u64 {
        self.made_way
    }

    pub(crate) fn add(&mut self, wrapped: WrappedKey) {
        self.readers.push(wrapped);
    }

    /// Takes out as many entries as are in the way of `new` ones, the oldest first, and never one that is `needed`. Needed are at
    /// most [`MAX_READERS`] and what fits into a key file, so there is room afterwards.
    pub(crate) fn make_room(&mut self, new: usize, needed: impl Fn(&WrappedKey) -> bool) {
        let mut surplus = (self.readers.len() + new).saturating_sub(MAX_ADDED_READERS);
        let before = self.readers.len();
        self.readers.retain(|wrapped| {
            let goes = surplus > 0 && !needed(wrapped);
            surplus -= usize::from(goes);
            !goes
        });
        self.made_way += u64::try_from(before - self.readers.len()).unwrap_or(u64::MAX);
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Where JSON is not as expected. The text of serde's error may quote what it found.
fn refused(problem: &serde_json::Error) -> SealError {
    let what = match problem.classify() {
        serde_json::error::Category::Eof => "it is cut off",
        serde_json::error::Category::Data => "a field is missing or of another kind",
        _ => "it is not JSON",
    };
    SealError::Malformed { problem: format!("{what} (column {})", problem.column()) }
}

impl fmt::Debug for WrappedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WrappedKey({})", self.key)
    }
}
