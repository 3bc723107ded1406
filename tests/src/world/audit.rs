//! The audit log, read back.

use std::path::Path;

use rotacast::audit::{AuditError, Expectations, Recorded, Verified};

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
        let verified = rotacast::audit::read(file, Expectations::default(), |entry| {
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
}
