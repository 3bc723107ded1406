//! Tokens with which people sign in to the dashboard. The configuration holds their digests only.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rotacast_proto::{FILE_DEADLINE, read_file};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// Stands before a token, so that people and secret scanners know one when they see one.
const TOKEN: &str = "rotacast-token_";
/// Stands before a digest in the configuration, with the format's version.
const DIGEST: &str = "rotacast-digest-1:";
/// Random bytes of a token: too many to guess, so a plain hash keeps it.
const BYTES: usize = 32;
/// Longest text that is looked at as a token.
const MAX_TEXT: usize = 256;

/// A token that was just made: shown once, kept nowhere.
pub struct Token(Zeroizing<String>);

impl Token {
    /// A new one.
    #[must_use]
    pub fn generate() -> Self {
        let bytes = Zeroizing::new(rand::random::<[u8; BYTES]>());
        Self(Zeroizing::new(format!("{TOKEN}{}", URL_SAFE_NO_PAD.encode(*bytes))))
    }

    /// Its text, for the person who signs in with it.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Writes it into a new file that only its owner may read.
    ///
    /// # Errors
    /// The file is there already, or cannot be written.
    pub fn create_file(&self, path: &Path) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(self.0.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()
    }

    /// The digest of the token in a file.
    ///
    /// # Errors
    /// The file cannot be read, or holds no token.
    pub fn digest_of_file(path: &Path) -> io::Result<TokenDigest> {
        let text = read_file(path, FILE_DEADLINE).map_err(io::Error::other)?;
        TokenDigest::of(text.trim()).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it holds no token"))
    }

    /// What the configuration keeps.
    #[must_use]
    pub fn digest(&self) -> TokenDigest {
        TokenDigest::of(&self.0).expect("a generated token has a token's form")
    }
}

/// What is kept of a token: enough to know it again, and nothing to sign in with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    /// Of a text that a client presents; none: it has not the form of a token.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        let known = text.len() <= MAX_TEXT && text.starts_with(TOKEN);
        known.then(|| Self(Sha256::digest(text.as_bytes()).into()))
    }
}

impl TokenDigest {
    /// What names a token in the audit log: the beginning of its digest.
    #[must_use]
    pub fn short(&self) -> String {
        format!("token:{}", hex::encode(&self.0[..8]))
    }
}

impl fmt::Display for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{DIGEST}{}", hex::encode(self.0))
    }
}

impl FromStr for TokenDigest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = "expected the digest that `rotacast token` printed, such as \"rotacast-digest-1:9f86…\"";
        if text.starts_with(TOKEN) {
            return Err(format!("is a token itself, which any reader of this file could use; {expected}"));
        }
        let digits = text.strip_prefix(DIGEST).ok_or_else(|| format!("is no token's digest; {expected}"))?;
        let mut digest = [0; 32];
        hex::decode_to_slice(digits, &mut digest)
            .map_err(|error| format!("is no token's digest: {error}; {expected}"))?;
        Ok(Self(digest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_by_its_digest_and_no_other_is() {
        let (one, other) = (Token::generate(), Token::generate());
        assert_eq!(TokenDigest::of(one.text()), Some(one.digest()));
        assert_ne!(one.digest(), other.digest());
        assert_eq!(one.digest().to_string().parse(), Ok(one.digest()));
        assert!(!one.digest().to_string().contains(one.text()));
    }

    #[test]
    fn what_is_no_digest_is_refused_and_a_token_is_not_repeated() {
        let token = Token::generate();
        let told = token.text().parse::<TokenDigest>().unwrap_err();
        assert!(told.contains("is a token itself") && !told.contains(token.text()), "{told}");
        for text in ["", "abc", "rotacast-digest-1:12", "rotacast-digest-2:00", "rotacast-digest-1:zz"] {
            assert!(text.parse::<TokenDigest>().unwrap_err().contains("expected the digest"), "{text}");
        }
        assert_eq!(TokenDigest::of("guess"), None);
        assert_eq!(TokenDigest::of(&format!("{TOKEN}{}", "x".repeat(MAX_TEXT))), None);
    }
}
