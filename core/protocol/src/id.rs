//! Numbers with a meaning, each its own type.

use std::fmt;
use std::num::NonZeroU64;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::name::{InstanceName, SecretName, ServiceName};

/// Text or a number that is no valid id.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{noun} {found:?} is not valid: expected {expected}")]
pub struct InvalidId {
    noun: &'static str,
    found: String,
    expected: &'static str,
}

/// One immutable value of a secret, numbered 1, 2, 3 …
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(NonZeroU64);

impl Version {
    /// The version every secret begins with.
    pub const FIRST: Version = Version(NonZeroU64::MIN);

    /// Wraps a number from outside.
    ///
    /// # Errors
    /// Zero is no version.
    pub fn new(number: u64) -> Result<Self, InvalidId> {
        NonZeroU64::new(number).map(Self).ok_or(InvalidId {
            noun: "version",
            found: "0".into(),
            expected: "a whole number from 1",
        })
    }

    #[must_use]
    pub fn get(self) -> u64 {
        self.0.get()
    }

    /// The version after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

impl FromStr for Version {
    type Err = InvalidId;
    /// Strict: `7`, never `07`, `+7` or ` 7`, so that a version has one spelling in keys.
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        text.parse::<u64>()
            .ok()
            .and_then(NonZeroU64::new)
            .filter(|number| number.to_string() == text)
            .map(Self)
            .ok_or_else(|| InvalidId {
                noun: "version",
                found: text.chars().take(32).collect(),
                expected: "a whole number from 1, without leading zeros",
            })
    }
}

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The one after this.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

counter!(
    /// Counts changes of direction of one secret: +1 at every rotation start and every rollback.
    Generation
);
counter!(
    /// Counts the rotations of one secret from 1: what people call a rotation. A restored store may count some again.
    RotationNumber
);
counter!(
    /// The leader's term, from the store's election. Larger is later.
    Epoch
);
counter!(
    /// Counts the changes of one secret's rotation record; orders its desired states.
    Revision
);
counter!(
    /// Orders the reports of one incarnation.
    ReportSequence
);
counter!(
    /// Orders the lease grants to one incarnation for one secret, within one epoch's leader and beyond.
    LeaseSequence
);

/// Matches a Sync reply to its request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Nonce(pub u64);

/// What a leader's answer to a Sync asks the next one to echo. Unpredictable, and never zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Challenge(NonZeroU64);

impl Challenge {
    /// From a number that was drawn, or that came over the wire; zero is none.
    #[must_use]
    pub fn new(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }

    #[must_use]
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

impl From<NonZeroU64> for Challenge {
    fn from(number: NonZeroU64) -> Self {
        Self(number)
    }
}

macro_rules! drawn {
    ($(#[$doc:meta])* $name:ident, $noun:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u128);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let lower_hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
                if text.len() != 32 || !text.bytes().all(lower_hex) {
                    return Err(InvalidId {
                        noun: $noun,
                        found: text.chars().take(64).collect(),
                        expected: "32 lower-case hexadecimal digits",
                    });
                }
                Ok(Self(u128::from_str_radix(text, 16).expect("32 hexadecimal digits fit 128 bits")))
            }
        }
    };
}

macro_rules! stored_as_text {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    };
}

drawn!(
    /// One run of one instance: 128 bits of the hash of the key that the SDK draws when it starts. Only that key may speak for
    /// it.
    Incarnation,
    "incarnation"
);

drawn!(
    /// One installation of Rotacast: 128 random bits drawn when its first broadcaster starts. Two clusters of one name differ
    /// in it.
    ClusterId,
    "cluster id"
);
stored_as_text!(ClusterId);

drawn!(
    /// One history of a store: 128 random bits. A position (etcd's revision, Consul's index) means something only within the
    /// history that it was counted in.
    HistoryId,
    "history id"
);
stored_as_text!(HistoryId);

drawn!(
    /// One audit log's chain of hashes: 128 random bits, drawn when the log begins.
    AuditChain,
    "audit chain"
);
stored_as_text!(AuditChain);

/// Who an instance is, down to the incarnation. Clones share one allocation, names included.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceKey(Arc<KeyParts>);

/// What an [`InstanceKey`] consists of, in the order in which keys are sorted.
#[derive(PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct KeyParts {
    pub service: ServiceName,
    pub instance: InstanceName,
    /// One run of that copy.
    pub incarnation: Incarnation,
}

impl InstanceKey {
    /// Puts a key together.
    #[must_use]
    pub fn new(service: ServiceName, instance: InstanceName, incarnation: Incarnation) -> Self {
        Self(Arc::new(KeyParts { service, instance, incarnation }))
    }

    /// `service/instance/incarnation`, as records and operators name it.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{}/{}/{}", self.service, self.instance, self.incarnation)
    }

    /// The key of a [`InstanceKey::full_name`].
    #[must_use]
    pub fn of_full_name(name: &str) -> Option<Self> {
        let mut parts = name.split('/');
        let (service, instance, incarnation) = (parts.next()?, parts.next()?, parts.next()?);
        let incarnation = incarnation.parse().ok()?;
        parts.next().is_none().then_some(())?;
        Some(Self::new(service.parse().ok()?, instance.parse().ok()?, incarnation))
    }
}

impl Deref for InstanceKey {
    type Target = KeyParts;
    fn deref(&self) -> &KeyParts {
        &self.0
    }
}

impl fmt::Debug for InstanceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for InstanceKey {
    /// `service/instance`, and enough of the incarnation to tell lives apart.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}#{:08x}", self.service, self.instance, (self.incarnation.0 >> 96) as u32)
    }
}

/// One rotation: the secret and the generation it started.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct RotationId {
    pub secret: SecretName,
    /// The generation the rotation opened; unique, since generations only grow.
    pub generation: Generation,
}

impl fmt::Display for RotationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.secret, self.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_has_exactly_one_spelling() {
        assert_eq!("7".parse::<Version>().unwrap().get(), 7);
        for text in ["", "0", "07", "+7", " 7", "7 ", "-1", "1e3", "18446744073709551616"] {
            assert!(text.parse::<Version>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_incarnation_reads_back() {
        let incarnation = Incarnation(0x0123_4567_89ab_cdef_0000_0000_0000_0001);
        assert_eq!(incarnation.to_string().parse::<Incarnation>().unwrap(), incarnation);
        assert!("ABCDEF0123456789ABCDEF0123456789".parse::<Incarnation>().is_err());
        assert!("é".repeat(16).parse::<Incarnation>().is_err());
    }
}
