//! Ed25519 keys: who signed a message, and how keys are written in files.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use ed25519_dalek::Signer as _;
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

/// Begins a private key's text.
pub(crate) const PRIVATE_PREFIX: &str = "rotacast-private-1:";
const PUBLIC_PREFIX: &str = "rotacast-public-1:";

/// Text that is no key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("not a {noun} key: {problem}; expected `{prefix}` and 43 base64 characters, as `rotacast keygen` writes them")]
pub struct KeyError {
    noun: &'static str,
    prefix: &'static str,
    problem: &'static str,
}

impl KeyError {
    /// For a kind of key that is read elsewhere. `problem` must not repeat the text.
    #[must_use]
    pub const fn new(noun: &'static str, prefix: &'static str, problem: &'static str) -> Self {
        Self { noun, prefix, problem }
    }
}

/// Names a public key: the first 8 bytes of its SHA-256, in hexadecimal.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(String);

impl KeyId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl KeyId {
    /// The id of a public key's 32 bytes.
    #[must_use]
    pub fn of(public: &[u8; 32]) -> Self {
        Self(hex::encode(&Sha256::digest(public)[..8]))
    }

    /// Reads 16 lower-case hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        (text.len() == 16 && text.bytes().all(is_digit)).then(|| Self(text.to_owned()))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A private key. Wiped when dropped; no `Debug`.
#[derive(Clone)]
pub struct SigningKey {
    inner: ed25519_dalek::SigningKey,
    public: VerifyingKey,
}

impl SigningKey {
    /// Draws a new key from the operating system's randomness.
    #[must_use]
    pub fn generate() -> Self {
        let mut seed = Zeroizing::new([0_u8; 32]);
        rand::Rng::fill(&mut rand::rng(), &mut seed[..]);
        Self::from_seed(&seed)
    }

    /// The key of a 32-byte seed: for test vectors, and for reading key files.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let inner = ed25519_dalek::SigningKey::from_bytes(seed);
        let public = VerifyingKey::of(inner.verifying_key());
        Self { inner, public }
    }

    /// Reads what [`SigningKey::to_text`] writes; surrounding white space is allowed.
    ///
    /// # Errors
    /// [`KeyError`] says what is wrong, without the text.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        Ok(Self::from_seed(&*decode_key(text, "private", PRIVATE_PREFIX, PUBLIC_PREFIX)?))
    }

    /// The key as text, for a file that only its owner may read.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let seed = Zeroizing::new(self.inner.to_bytes());
        Zeroizing::new(format!("{PRIVATE_PREFIX}{}", BASE64.encode(&seed[..])))
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> &VerifyingKey {
        &self.public
    }

    pub(crate) fn sign(&self, input: &[u8]) -> [u8; 64] {
        self.inner.sign(input).to_bytes()
    }
}

/// A public key.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifyingKey {
    inner: ed25519_dalek::VerifyingKey,
    id: KeyId,
}

impl VerifyingKey {
    fn of(inner: ed25519_dalek::VerifyingKey) -> Self {
        let id = KeyId::of(inner.as_bytes());
        Self { inner, id }
    }

    /// Reads what [`VerifyingKey::to_text`] writes; surrounding white space is allowed.
    ///
    /// # Errors
    /// [`KeyError`] says what is wrong.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let bytes = decode_key(text, "public", PUBLIC_PREFIX, PRIVATE_PREFIX)?;
        let inner = ed25519_dalek::VerifyingKey::from_bytes(&bytes).map_err(|_| KeyError {
            noun: "public",
            prefix: PUBLIC_PREFIX,
            problem: "not a point of the curve",
        })?;
        Ok(Self::of(inner))
    }

    /// The key as text.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!("{PUBLIC_PREFIX}{}", BASE64.encode(self.inner.as_bytes()))
    }

    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        self.inner.as_bytes()
    }

    /// What names this key in messages.
    #[must_use]
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    /// Whether `signature` is this key's over `input`. Strict: of equivalent encodings only one holds.
    #[must_use]
    pub fn verifies(&self, input: &[u8], signature: &[u8]) -> bool {
        ed25519_dalek::Signature::from_slice(signature)
            .is_ok_and(|signature| self.inner.verify_strict(input, &signature).is_ok())
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyingKey({})", self.id)
    }
}

/// The 32 bytes of a key as text. `other` begins the text of the other half of such a pair.
///
/// # Errors
/// [`KeyError`] says what is wrong, without the text.
pub fn decode_key(
    text: &str,
    noun: &'static str,
    prefix: &'static str,
    other: &'static str,
) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    let fail = |problem| KeyError { noun, prefix, problem };
    let text = text.trim();
    let encoded = text.strip_prefix(prefix).ok_or_else(|| {
        fail(if text.starts_with(other) { "it is the other half of a key pair" } else { "the prefix is missing" })
    })?;
    let bytes = Zeroizing::new(BASE64.decode(encoded).map_err(|_| fail("it is not base64"))?);
    let mut key = Zeroizing::new([0; 32]);
    if bytes.len() != key.len() {
        return Err(fail("it is not 32 bytes long"));
    }
    key.copy_from_slice(&bytes);
    Ok(key)
}
