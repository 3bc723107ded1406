//! Which secrets: one by name, or all whose name begins alike.

use std::fmt;
use std::str::FromStr;

use rotacast_protocol::SecretName;
use thiserror::Error;

/// `payments/db`, `payments/*` or `*`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretPattern(String);

/// Text that is no [`SecretPattern`].
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error(
    "{found:?} names no secrets: expected a name such as payments/db, or the beginning of names and one '*' at the end such as payments/*"
)]
pub struct InvalidPattern {
    found: String,
}

impl SecretPattern {
    /// Whether a secret is meant.
    #[must_use]
    pub fn matches(&self, secret: &SecretName) -> bool {
        match self.0.strip_suffix('*') {
            Some(beginning) => secret.as_str().starts_with(beginning),
            None => self.0 == secret.as_str(),
        }
    }

    /// Whether it means every secret that another one means.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        match self.0.strip_suffix('*') {
            Some(beginning) => other.0.starts_with(beginning),
            None => self == other,
        }
    }

    /// Whether there may be a secret that both mean.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// The one secret, if it is only one.
    #[must_use]
    pub fn name(&self) -> Option<SecretName> {
        SecretName::new(self.0.as_str()).ok()
    }

    /// How the names begin that are meant, if they are many.
    #[must_use]
    pub fn beginning(&self) -> &str {
        self.0.strip_suffix('*').unwrap_or(&self.0)
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Of two patterns that fit, the more precise one counts: a name before a beginning, a longer one before a shorter.
    pub(super) fn precision(&self) -> (bool, usize) {
        (!self.0.ends_with('*'), self.0.len())
    }
}

impl FromStr for SecretPattern {
    type Err = InvalidPattern;
    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        let completed = match text.strip_suffix('*') {
            Some(beginning) => format!("{beginning}x"),
            None => text.to_owned(),
        };
        match SecretName::new(completed) {
            Ok(_) => Ok(Self(text.into())),
            Err(_) => Err(InvalidPattern { found: text.chars().take(128).collect() }),
        }
    }
}

impl fmt::Display for SecretPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for SecretPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_may_be_left_open() {
        for good in ["payments/db", "payments/*", "payments/d*", "*"] {
            good.parse::<SecretPattern>().unwrap();
        }
        for bad in ["", "*/db", "pay*ments", "**", "payments//*", "Payments/*"] {
            assert!(bad.parse::<SecretPattern>().is_err(), "{bad:?}");
        }
        let pattern: SecretPattern = "payments/*".parse().unwrap();
        assert!(pattern.matches(&SecretName::new("payments/db").unwrap()));
        assert!(!pattern.matches(&SecretName::new("payments").unwrap()));
        assert!(!pattern.matches(&SecretName::new("payments2/db").unwrap()));
    }

    #[test]
    fn patterns_cover_and_overlap() {
        let pattern = |text: &str| text.parse::<SecretPattern>().unwrap();
        for (wide, narrow) in [("*", "a/b"), ("a/*", "a/b"), ("a/*", "a/b*"), ("a/b", "a/b"), ("a/*", "a/*")] {
            assert!(
                pattern(wide).covers(&pattern(narrow)) && pattern(narrow).overlaps(&pattern(wide)),
                "{wide} {narrow}"
            );
        }
        for (one, other) in [("a/b", "a/c"), ("a/*", "b/*"), ("a/b", "a/bc")] {
            assert!(!pattern(one).overlaps(&pattern(other)), "{one} {other}");
        }
        assert!(!pattern("a/b*").covers(&pattern("a/*")));
    }
}
