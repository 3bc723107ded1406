//! A key of a store, and the prefix all of Rotacast's keys share.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A key: printable ASCII segments joined by `/`. Built by [`SecretTree`](crate::SecretTree) from
/// validated names below a validated [`Prefix`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// Wraps text that is known to be a key.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// This key with `/` and one more segment (or several) behind it.
    #[must_use]
    pub fn child(&self, segment: impl fmt::Display) -> Self {
        Self(format!("{}/{segment}", self.0))
    }

    /// What is left of this key below `parent`, if it is below it.
    #[must_use]
    pub fn below(&self, parent: &Key) -> Option<&str> {
        self.0.strip_prefix(&parent.0)?.strip_prefix('/')
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// Where a tree of keys begins: segments of `a-z A-Z 0-9 . _ -` joined by `/`, such as `rotacast` or
/// `/prod/secrets`. A leading `/` is part of it: existing trees often have one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(Key);

/// Text that is no [`Prefix`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("store prefix {found:?} is not valid: {problem}")]
pub struct InvalidPrefix {
    found: String,
    problem: &'static str,
}

impl Prefix {
    /// Longest prefix, in bytes: together with the longest name far below every store's key limit (512 bytes
    /// is the smallest).
    pub const MAX_BYTES: usize = 128;

    /// Checks and wraps a prefix.
    ///
    /// # Errors
    /// [`InvalidPrefix`] says which rule it breaks.
    pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidPrefix> {
        let text = text.as_ref();
        let fail = |problem| InvalidPrefix { found: text.chars().take(Self::MAX_BYTES).collect(), problem };
        if text.len() > Self::MAX_BYTES {
            return Err(fail("longer than 128 bytes"));
        }
        for segment in text.strip_prefix('/').unwrap_or(text).split('/') {
            if segment.is_empty() {
                return Err(fail("a segment is empty; expected segments joined by single '/', none at the end"));
            }
            if !segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
                return Err(fail("expected only a-z, A-Z, 0-9, '.', '_', '-' and '/'"));
            }
        }
        Ok(Self(Key::new(text)))
    }

    /// As a key.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.0
    }

    /// Whether one of the two lies within the other.
    #[must_use]
    pub fn overlaps(&self, other: &Prefix) -> bool {
        self == other || self.0.below(&other.0).is_some() || other.0.below(&self.0).is_some()
    }
}

impl FromStr for Prefix {
    type Err = InvalidPrefix;
    fn from_str(text: &str) -> Result<Self, InvalidPrefix> {
        Self::new(text)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_has_clean_segments() {
        for good in ["rotacast", "/rotacast", "prod/Secrets_1.x-y"] {
            assert_eq!(Prefix::new(good).unwrap().to_string(), good);
        }
        for bad in ["", "/", "a/", "a//b", "//a", "a b", "a*", "é"] {
            assert!(Prefix::new(bad).is_err(), "{bad:?}");
        }
        assert!(Prefix::new("a".repeat(129)).is_err());
    }

    #[test]
    fn overlap_goes_by_segments() {
        let prefix = |text| Prefix::new(text).unwrap();
        assert!(prefix("a").overlaps(&prefix("a/b")));
        assert!(prefix("a/b").overlaps(&prefix("a")));
        assert!(prefix("a").overlaps(&prefix("a")));
        assert!(!prefix("a").overlaps(&prefix("ab")));
    }
}
