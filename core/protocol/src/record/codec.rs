//! How a record is stored: JSON with a format number. Readable with the store's own tools, and
//! fields of later builds survive a round trip through this one.

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::SecretRecord;
use crate::SecretName;
use crate::phase::Phase;

/// The format this build writes. A reader refuses a higher one by name.
pub const FORMAT: u32 = 1;

/// Largest record, in bytes: far above what the bounds on its parts allow, far below any store's limit.
pub(crate) const MAX_RECORD_BYTES: usize = 256 * 1024;

/// Stored bytes that are no record of this build's.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RecordError {
    /// Written by a later build.
    #[error("record format {found}, but this build reads up to {FORMAT}: upgrade this broadcaster")]
    NewerFormat {
        /// Its format number.
        found: u32,
    },
    /// Not a record at all.
    #[error("not a rotation record: {problem}")]
    Corrupt {
        /// What does not parse, and where.
        problem: String,
    },
    /// Another secret's, written under this one's key.
    #[error("it is the record of {found}, expected that of {expected}")]
    OtherSecret {
        /// Whose key holds it.
        expected: SecretName,
        /// Whose record it is.
        found: SecretName,
    },
}

#[derive(Serialize)]
struct Stored<'r> {
    format: u32,
    #[serde(flatten)]
    record: &'r SecretRecord,
}

#[derive(Deserialize)]
struct Header {
    format: u32,
}

/// How far the last number that is taken may be above the newest version that is listed: what a hundred restored stores in a
/// row leave. A record that says more was edited, and to go through all numbers in between takes for ever.
const MAX_UNLISTED: u64 = 1_000_000;

impl SecretRecord {
    /// As stored.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(&Stored { format: FORMAT, record: self }).expect("a record holds only what JSON can say")
    }

    /// From what is stored.
    ///
    /// # Errors
    /// [`RecordError`] for a later format, and for bytes that are no record or contradict themselves.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let corrupt = |problem: String| RecordError::Corrupt { problem };
        if bytes.len() > MAX_RECORD_BYTES {
            return Err(corrupt(format!("{} bytes, expected at most {MAX_RECORD_BYTES}", bytes.len())));
        }
        let header: Header = serde_json::from_slice(bytes).map_err(|error| corrupt(error.to_string()))?;
        if header.format > FORMAT {
            return Err(RecordError::NewerFormat { found: header.format });
        }
        let mut record: SecretRecord = serde_json::from_slice(bytes).map_err(|error| corrupt(error.to_string()))?;
        record.unknown.remove("format");
        record.check().map_err(corrupt)?;
        Ok(record)
    }

    /// From what is stored under a secret's key.
    ///
    /// # Errors
    /// As [`SecretRecord::decode`], and [`RecordError::OtherSecret`].
    pub fn decode_of(secret: &SecretName, bytes: &[u8]) -> Result<Self, RecordError> {
        let record = Self::decode(bytes)?;
        if record.secret == *secret {
            return Ok(record);
        }
        Err(RecordError::OtherSecret { expected: secret.clone(), found: record.secret })
    }

    /// Whether the parts agree with each other.
    fn check(&self) -> Result<(), String> {
        let known = |what: &str, version: crate::Version| {
            if self.versions.contains_key(&version) {
                Ok(())
            } else {
                Err(format!("{what} is version {version}, which the record does not list"))
            }
        };
        if let Some(current) = self.current {
            known("current", current)?;
        }
        let number = |version: Option<crate::Version>| version.map_or(0, crate::Version::get);
        let (last, newest) = (number(self.last_version), number(self.versions.keys().next_back().copied()));
        if last.saturating_sub(newest) > MAX_UNLISTED {
            return Err(format!(
                "the last version is {last}, and the newest that it lists {newest}: expected at most {MAX_UNLISTED} more"
            ));
        }
        if let Some(rotation) = &self.rotation {
            known("the rotation's new version", rotation.new)?;
            if let Some(old) = rotation.old {
                known("the rotation's old version", old)?;
            }
            let (phase, current) = (rotation.phase, self.current);
            let expected = match phase {
                Phase::Verifying | Phase::Preparing | Phase::RollingBack => rotation.old,
                Phase::Activating | Phase::Draining | Phase::Retiring => Some(rotation.new),
            };
            if current != expected {
                return Err(format!("current is {current:?} while {phase}, expected {expected:?}"));
            }
        }
        if let Some(current) = self.current
            && self.versions.get(&current).is_some_and(|version| version.sealed)
        {
            return Err(format!("version {current} is current and sealed"));
        }
        // Lower bounds would make the next leader wait less than a lease that still runs.
        let (bounds, timing) = (&self.bounds, &self.timing);
        if bounds.lease < timing.lease_rotating
            || bounds.self_lease < timing.self_lease
            || bounds.max_use < timing.max_use
        {
            return Err("bounds are lower than the lease times in force".into());
        }
        for version in self.retirements.keys() {
            known("a retirement", *version)?;
            if self.current == Some(*version) {
                return Err(format!("version {version} is current and being retired"));
            }
        }
        if let Some(lost) = &self.lost_history
            && (lost.noticed > self.revision || lost.kept_to > self.last_version)
        {
            return Err(format!("{lost:?} is above revision {} or version {:?}", self.revision, self.last_version));
        }
        if self.versions.keys().next_back() > self.last_version.as_ref() {
            return Err("last_version is lower than a listed version".into());
        }
        Ok(())
    }
}

/// Durations as whole milliseconds.
pub(super) mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(in crate::record) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    pub(in crate::record) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}
