//! When a secret is rotated without an order.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use rotacast_protocol::WallTime;
use rotacast_protocol::record::{Label, SecretRecord, VersionRecord};

/// Who has started a scheduled rotation, in the record and the audit log. No operator may be called that: see the
/// configuration's reserved names.
pub(crate) const SCHEDULE: &str = "schedule";

/// Rotations that fall due together are spread over this part of the period, so that secrets set up on the same day are
/// not rotated in the same minute for ever after.
const SPREAD: u64 = 10;

/// Rotate every so often.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Schedule {
    every: Duration,
}

impl Schedule {
    /// At the latest `period` after the current version came up, or after the last rotation has ended if that is later: one that
    /// was rolled back is not tried again at once.
    #[must_use]
    pub fn every(period: Duration) -> Self {
        Self { every: period }
    }

    /// When the next rotation is due, by this machine's wall clock; in the past if it is overdue. None while one is under
    /// way, while a version waits, and before there is one.
    pub(crate) fn next(self, record: &SecretRecord) -> Option<WallTime> {
        let waits = |version: &VersionRecord| version.label == Label::Pending;
        if record.rotation.is_some() || record.versions.values().any(waits) {
            return None;
        }
        let came_up = record.versions.get(&record.current?)?.seen;
        let ended = record.history.iter().map(|finished| finished.ended).max();
        let since = ended.map_or(came_up, |ended| ended.max(came_up));
        let period = u64::try_from(self.every.as_millis()).unwrap_or(u64::MAX);
        // The same for every broadcaster of a release, another one for each rotation.
        let mut hasher = DefaultHasher::new();
        (record.secret.as_str(), record.generation.0).hash(&mut hasher);
        let earlier = hasher.finish() % (period / SPREAD).max(1);
        Some(WallTime(since.0.saturating_add(period - earlier)))
    }
}

#[cfg(test)]
mod tests {
    use rotacast_protocol::record::{Origin, RecordChange, Timing};
    use rotacast_protocol::{Epoch, Outcome, Policy, SecretName, Version};

    use super::*;

    const DAY: u64 = 24 * 3_600_000;

    fn version(number: u64) -> Version {
        Version::new(number).expect("not zero")
    }

    fn at(day: u64) -> WallTime {
        WallTime(day * DAY)
    }

    fn due(record: &SecretRecord) -> Option<WallTime> {
        Schedule::every(Duration::from_millis(30 * DAY)).next(record)
    }

    fn in_use(name: &str) -> SecretRecord {
        let timing = Timing::of(&Policy::default());
        let mut record = SecretRecord::new(SecretName::new(name).expect("a name"), Epoch(1), timing);
        assert_eq!(due(&record), None, "nothing to replace");
        record.apply(&RecordChange::VersionAdded { version: version(1), origin: Origin::Watched, at: at(100) });
        assert_eq!(due(&record), None, "the first version waits");
        record.apply(&RecordChange::RotationStarted { new: version(1), trigger: "store".into(), at: at(100) });
        record.apply(&RecordChange::Activated { at: at(100) });
        record.apply(&RecordChange::RotationEnded { outcome: Outcome::Retired, at: at(100) });
        record
    }

    fn between(due: Option<WallTime>, from: WallTime, to: WallTime) {
        let due = due.expect("something is due");
        assert!(from <= due && due <= to, "expected {from} to {to}, found {due}");
    }

    #[test]
    fn due_within_the_last_tenth_of_a_period_after_the_version_came_up() {
        let mut record = in_use("payments/db");
        between(due(&record), at(127), at(130));
        assert_eq!(due(&record), due(&record));
        record.apply(&RecordChange::VersionAdded { version: version(2), origin: Origin::Watched, at: at(120) });
        assert_eq!(due(&record), None, "somebody was faster");
        record.apply(&RecordChange::RotationStarted { new: version(2), trigger: "store".into(), at: at(120) });
        assert_eq!(due(&record), None);
        record.apply(&RecordChange::RollbackStarted { reason: "no login".into(), at: at(121) });
        record.apply(&RecordChange::RotationEnded { outcome: Outcome::RolledBack, at: at(122) });
        between(due(&record), at(149), at(152));
    }

    #[test]
    fn secrets_of_one_day_are_spread() {
        let days: std::collections::BTreeSet<u64> =
            (0..100).filter_map(|n| due(&in_use(&format!("payments/db{n}")))).map(|due| due.0 / (DAY / 8)).collect();
        assert!(days.len() > 15, "{days:?}");
    }

    #[test]
    fn no_period_overflows() {
        let record = in_use("payments/db");
        for period in [Duration::ZERO, Duration::from_millis(1), Duration::MAX] {
            assert!(Schedule::every(period).next(&record).is_some_and(|due| due >= at(100)));
        }
    }
}
