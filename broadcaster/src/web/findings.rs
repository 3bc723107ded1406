//! The standing findings, as the overview lists them.

use rotacast_proto::Level;
use rotacast_protocol::status::FindingStatus;
use serde::Serialize;

use crate::findings::Findings;

/// Most findings that a page lists, errors first: a person works through a few, and `rotacast doctor` has more.
const MAX_LISTED: usize = 50;

#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize)]
pub(super) struct FindingsView {
    /// How many stand, listed or not.
    total: u64,
    findings: Vec<FindingStatus>,
}

impl FindingsView {
    pub(super) fn of(findings: &Findings) -> Self {
        let counts = findings.severities();
        let mut standing = findings.standing();
        standing.sort_by_key(|finding| finding.level != Level::Error);
        standing.truncate(MAX_LISTED);
        Self { total: counts.errors + counts.warnings, findings: standing.into_iter().map(Into::into).collect() }
    }
}
