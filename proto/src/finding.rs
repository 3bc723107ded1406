//! What an examination of a store or a bus found: one line of `rotacast doctor`.

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// As it should be.
    Ok,
    /// Works, but weaker than it could be.
    Warning,
    /// Will not work, or is not safe.
    Error,
}

impl Level {
    /// As the admin service names it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Error => "error",
        }
    }
}

/// One finding.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// How bad.
    pub level: Level,
    /// What was looked at, e.g. `etcd version` or `stream ROTACAST_REGISTRATIONS_PROD`.
    pub subject: String,
    /// What was found.
    pub text: String,
    /// What to do; empty when nothing is.
    pub fix: String,
}

impl From<Finding> for crate::v1::Finding {
    fn from(finding: Finding) -> Self {
        let Finding { level, subject, text, fix } = finding;
        Self { level: level.as_str().to_owned(), subject, text, fix }
    }
}
