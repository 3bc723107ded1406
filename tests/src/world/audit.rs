//! The audit log, read back.

use std::path::Path;

use rotacast_broadcaster::audit::{AuditError, Expectations, Recorded, Verified};

/// A verified audit log.
#[derive(Clone, Debug)]
pub struct AuditTrail {
    /// Every entry, oldest first.
    pub entries: Vec<Recorded>,
    /// What checking it found.
    pub verified: Verified,
}

impl AuditTrail {
    pub(super) fn read(file: &Path) -> Self {
        let mut entries = Vec::new();
        let verified = rotacast_broadcaster::audit::read(file, &Expectations::default(), |entry| {
            entries.push(entry);
            Ok::<_, AuditError>(())
        });
        let verified = verified.unwrap_or_else(|error| panic!("the audit log does not verify: {error}"));
        Self { entries, verified }
    }

    /// The entries of one action about one version, oldest first.
    pub fn about<'a>(&'a self, action: &'a str, version: u64) -> impl Iterator<Item = &'a Recorded> {
        self.entries.iter().filter(move |entry| {
            let names = |field: &str| entry.details.get(field).and_then(serde_json::Value::as_u64) == Some(version);
            entry.action == action && (names("version") || names("new"))
        })
    }

    /// How many entries of one action there are.
    #[must_use]
    pub fn count(&self, action: &str) -> usize {
        self.entries.iter().filter(|entry| entry.action == action).count()
    }

    /// Whether the rotation to this version is on record: by its start, or by what a new leader found.
    #[must_use]
    pub fn tells_of_the_rotation_to(&self, version: u64) -> bool {
        let found = |entry: &Recorded| {
            let ended = entry.details.get("ended").and_then(serde_json::Value::as_array);
            let is_it =
                |ended: &serde_json::Value| ended.get("new").and_then(serde_json::Value::as_u64) == Some(version);
            entry.action == "taken_over" && ended.is_some_and(|ended| ended.iter().any(is_it))
        };
        let told = ["rotation_started", "taken_over"].iter().any(|action| self.about(action, version).next().is_some());
        told || self.entries.iter().any(found)
    }
}
