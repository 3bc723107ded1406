//! One field of a message: what it must be, and what is said when it is not.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use rotacast_protocol::{Incarnation, InstanceKey, InstanceName, SecretName, ServiceName, Version};
use thiserror::Error;

use crate::envelope::{EnvelopeError, Kind};
use crate::v1;

/// Longest duration on the wire: no policy may ask for more than seven days of lease.
pub const MAX_DURATION: Duration = Duration::from_secs(7 * 86_400);

/// A field that breaks a rule of the contract. Names the field, and never what was in it, unless that should have been a word of
/// the vocabulary.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("field {field}: {problem}")]
pub struct FieldError {
    field: String,
    problem: String,
}

impl FieldError {
    pub(super) fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }

    /// The same, seen from the message that contains it: `secrets[3].held`.
    pub(super) fn within(mut self, outer: impl fmt::Display) -> Self {
        self.field = format!("{outer}.{}", self.field);
        self
    }
}

/// Reads a payload as protobuf of type `M`, then as the validated `T`.
pub(super) fn parse<M, T>(
    kind: Kind,
    payload: &Bytes,
    check: impl FnOnce(M) -> Result<T, FieldError>,
) -> Result<T, EnvelopeError>
where
    M: Message + Default,
{
    crate::envelope::check_payload_size(payload.len())?;
    let malformed = |problem: String| EnvelopeError::Malformed { kind, problem };
    // prost's error names message and field, and quotes nothing.
    let wire = M::decode(payload.clone()).map_err(|error| malformed(error.to_string()))?;
    check(wire).map_err(|error| malformed(error.to_string()))
}

/// A message field that must be there.
pub(super) fn required<T>(field: &str, message: Option<T>) -> Result<T, FieldError> {
    message.ok_or_else(|| FieldError::new(field, "is missing"))
}

/// A repeated field with a bound.
pub(super) fn at_most(field: &str, found: usize, most: usize) -> Result<(), FieldError> {
    if found > most {
        return Err(FieldError::new(field, format!("{found} entries, expected at most {most}")));
    }
    Ok(())
}

pub(super) fn secret_name(field: &str, name: String) -> Result<SecretName, FieldError> {
    let length = name.len();
    SecretName::new(name).map_err(|_| {
        let rule = "expected segments of a-z, 0-9, '.', '_', '-' joined by '/', each beginning with a letter or digit, \
                    at most 128 bytes in all";
        FieldError::new(field, format!("{length} bytes that are no secret name; {rule}"))
    })
}

pub(super) fn plain_name<T>(field: &str, name: String, new: impl FnOnce(String) -> Option<T>) -> Result<T, FieldError> {
    let length = name.len();
    new(name).ok_or_else(|| {
        let rule = "expected a-z, 0-9, '.', '_', '-', beginning with a letter or digit, at most 128 bytes";
        FieldError::new(field, format!("{length} bytes that are no name; {rule}"))
    })
}

/// A version that must be one.
pub(super) fn version(field: &str, number: u64) -> Result<Version, FieldError> {
    Version::new(number).map_err(|_| FieldError::new(field, "0 is no version, expected a number from 1"))
}

/// A version where 0 stands for none.
pub(super) fn version_or_none(number: u64) -> Option<Version> {
    Version::new(number).ok()
}

/// 0 for none.
pub(super) fn or_zero(version: Option<Version>) -> u64 {
    version.map_or(0, Version::get)
}

/// A set of versions, each named once.
pub(super) fn versions(field: &str, numbers: Vec<u64>, most: usize) -> Result<BTreeSet<Version>, FieldError> {
    at_most(field, numbers.len(), most)?;
    let mut set = BTreeSet::new();
    for number in numbers {
        if !set.insert(version(field, number)?) {
            return Err(FieldError::new(field, format!("version {number} twice")));
        }
    }
    Ok(set)
}

/// Adds an entry of a map that the wire carries as a list.
pub(super) fn insert_new<K: Ord, V>(
    map: &mut BTreeMap<K, V>,
    field: impl FnOnce() -> String,
    key: K,
    value: V,
) -> Result<(), FieldError> {
    match map.insert(key, value) {
        None => Ok(()),
        Some(_) => Err(FieldError::new(field(), "the same entry twice")),
    }
}

/// Milliseconds, from 0 to [`MAX_DURATION`].
pub(super) fn duration(field: &str, millis: u64) -> Result<Duration, FieldError> {
    let duration = Duration::from_millis(millis);
    if duration > MAX_DURATION {
        let most = MAX_DURATION.as_millis();
        return Err(FieldError::new(field, format!("{millis} ms, expected at most {most} ms (7 days)")));
    }
    Ok(duration)
}

/// Whole milliseconds, rounded down and at most [`MAX_DURATION`].
///
/// Every duration here bounds what an instance may do (how long it may use a version, how long a
/// use may outlast its checkout), and the leader waits for the unrounded one: the instance's side
/// must never be the longer one.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.min(MAX_DURATION).as_millis()).expect("seven days of milliseconds fit 64 bits")
}

/// What a message about an instance has as its subject: `service/instance/incarnation`.
#[must_use]
pub fn instance_subject(key: &InstanceKey) -> String {
    format!("{}/{}/{}", key.service, key.instance, key.incarnation)
}

pub(super) fn instance_key(field: &str, key: Option<v1::InstanceKey>) -> Result<InstanceKey, FieldError> {
    InstanceKey::try_from(required(field, key)?).map_err(|error| error.within(field))
}

impl From<&InstanceKey> for v1::InstanceKey {
    fn from(key: &InstanceKey) -> Self {
        Self {
            service: key.service.to_string(),
            instance: key.instance.to_string(),
            incarnation: Bytes::copy_from_slice(&key.incarnation.0.to_be_bytes()),
        }
    }
}

impl TryFrom<v1::InstanceKey> for InstanceKey {
    type Error = FieldError;
    fn try_from(wire: v1::InstanceKey) -> Result<Self, FieldError> {
        let incarnation = <[u8; 16]>::try_from(&wire.incarnation[..])
            .map_err(|_| FieldError::new("incarnation", format!("{} bytes, expected 16", wire.incarnation.len())))?;
        Ok(Self::new(
            plain_name("service", wire.service, |name| ServiceName::new(name).ok())?,
            plain_name("instance", wire.instance, |name| InstanceName::new(name).ok())?,
            Incarnation(u128::from_be_bytes(incarnation)),
        ))
    }
}
