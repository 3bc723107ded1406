//! The standing findings, as the overview lists them.

use rotacast_proto::Level;
use rotacast_protocol::WallTime;
use rotacast_protocol::status::moment;
use serde::Serialize;

use crate::findings::{Findings, Standing};

/// Most findings that a page lists, errors first: a person works through a few, and `rotacast doctor` has more.
const MAX_LISTED: usize = 50;

#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize)]
pub(super) struct FindingsView {
    /// How many stand, listed or not.
    total: u64,
    findings: Vec<FindingView>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct FindingView {
    level: &'static str,
    subject: String,
    text: String,
    fix: String,
    #[serde(serialize_with = "moment")]
    since: WallTime,
}

impl From<Standing> for FindingView {
    fn from(standing: Standing) -> Self {
        let Standing { topic, subject, level, text, fix, since } = standing;
        let subject = format!("{} {subject}", topic.as_str().replace('_', " "));
        Self { level: level.as_str(), subject, text, fix, since }
    }
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
