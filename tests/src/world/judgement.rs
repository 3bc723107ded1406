//! What must be true after any number of rotations, by PostgreSQL's own view and by what is on record.

use std::collections::BTreeSet;

use super::{AuditTrail, SessionLog, World};

/// A number from an environment variable.
///
/// # Panics
/// If the variable is no number.
#[must_use]
pub fn number(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}: expected a number, found {text}")))
}

/// `ordinary`, or `long` in the long hunts of `tools/test --long`.
#[must_use]
pub fn usual<T>(ordinary: T, long: T) -> T {
    if std::env::var_os("ROTACAST_LONG").is_some() { long } else { ordinary }
}

impl World {
    /// No session outlived its role, one role is left, and the broadcaster that led at the time has recorded the retire
    /// of every version before `current`, except for those of a history that a restored store has `lost`. Call it when
    /// the broadcasters have stopped.
    ///
    /// If any of this does not hold.
    /// If any of it is not so.
    pub async fn judge_the_end(&self, current: u64, lost: &BTreeSet<u64>) {
        let lives = self.observer.roles();
        assert_eq!(self.database.logins().await.len(), 1, "the login roles left in PostgreSQL: {lives:?}");
        for life in &lives {
            assert_eq!(life.sessions_after_disable, Vec::<String>::new(), "a session outlived its role: {life:?}");
        }
        assert_eq!(lives.iter().filter(|life| life.dropped.is_none()).count(), 1, "{lives:?}");
        let log = SessionLog::read(&self.database);
        assert_eq!(log.early_ends(), Vec::<String>::new(), "PostgreSQL logged sessions of disabled roles");
        // Every step that cannot be undone is recorded before it is done.
        let trails = self.audits();
        for version in (1..current).filter(|version| !lost.contains(version)) {
            let intended = |trail: &AuditTrail| trail.about("retire_intent", version).next().is_some();
            assert!(trails.iter().any(intended), "version {version} was retired off the record");
        }
    }

    /// Every rotation up to `current` is in some broadcaster's log, or in what a later leader found.
    ///
    /// # Panics
    /// If a rotation is missing.
    pub fn judge_the_record(&self, current: u64) {
        let trails = self.audits();
        for version in 2..=current {
            let told = trails.iter().any(|trail| trail.tells_of_the_rotation_to(version));
            assert!(told, "the rotation to {version} is in no audit log");
        }
    }
}
