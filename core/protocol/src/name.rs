//! Validated names: what people call secrets, services, instances, clusters and operators.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A name that does not parse, with what was expected.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{noun} {found:?} is not valid: {problem}")]
pub struct InvalidName {
    noun: &'static str,
    found: String,
    problem: &'static str,
}

/// Longest accepted name, in bytes. Bounds subjects, keys and table widths; NATS subjects and
/// etcd keys both stay far below their own limits with it.
pub const MAX_NAME_BYTES: usize = 128;

fn check_segment(segment: &str) -> Result<(), &'static str> {
    if segment.is_empty() {
        return Err("empty; expected a-z, 0-9, '.', '_' or '-'");
    }
    if !segment.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-')) {
        return Err("expected only a-z, 0-9, '.', '_' and '-'");
    }
    if !segment.as_bytes()[0].is_ascii_alphanumeric() {
        return Err("expected to begin with a letter or a digit");
    }
    Ok(())
}

fn check(name: &str, segments: bool) -> Result<(), &'static str> {
    if name.len() > MAX_NAME_BYTES {
        return Err("longer than 128 bytes");
    }
    if segments { name.split('/').try_for_each(check_segment) } else { check_segment(name) }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $noun:literal, segments: $segments:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and wraps a name.
            ///
            /// # Errors
            /// [`InvalidName`] says which rule the name breaks.
            pub fn new(name: impl Into<String>) -> Result<Self, InvalidName> {
                let name = name.into();
                match check(&name, $segments) {
                    Ok(()) => Ok(Self(name.into())),
                    Err(problem) => {
                        // The offending name is shown, but never more of it than a valid one could have.
                        let found = name.chars().take(MAX_NAME_BYTES).collect();
                        Err(InvalidName { noun: $noun, found, problem })
                    }
                }
            }

            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(name: &str) -> Result<Self, InvalidName> {
                Self::new(name)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(name: String) -> Result<Self, InvalidName> {
                Self::new(name)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }
    };
}

name!(
    /// A secret's name, e.g. `payments/db`: segments of `a-z 0-9 . _ -` joined by `/`.
    SecretName, "secret name", segments: true
);
name!(
    /// A deployable's name, e.g. `payments-api`.
    ServiceName, "service name", segments: false
);
name!(
    /// The stable name of one running copy: a pod, a host.
    InstanceName, "instance name", segments: false
);
name!(
    /// The environment's name in subjects and topics, so that several can share a bus.
    ClusterName, "cluster name", segments: false
);
name!(
    /// The person or program behind an operator's command.
    OperatorName, "operator name", segments: false
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_name_has_segments_and_the_others_do_not() {
        assert_eq!(SecretName::new("payments/db").unwrap().as_str(), "payments/db");
        assert!(ServiceName::new("payments/api").is_err());
    }

    #[test]
    fn a_bad_name_says_what_was_expected() {
        for (name, problem) in [
            ("", "empty"),
            ("a//b", "empty"),
            ("/a", "empty"),
            ("-a", "expected to begin"),
            ("../etc", "expected to begin"),
            ("Payments", "expected only"),
            ("a b", "expected only"),
            ("a*", "expected only"),
        ] {
            let message = SecretName::new(name).unwrap_err().to_string();
            assert!(message.contains(problem), "{name:?}: {message}");
        }
        assert!(SecretName::new("a".repeat(129)).unwrap_err().to_string().contains("128"));
    }
}
