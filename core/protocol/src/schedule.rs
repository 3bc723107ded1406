//! When a secret is rotated without an order, by the wall clock.
//!
//! A wall clock may be wrong for a while. Times in the record that are later than now were written by a clock that was
//! ahead: the record then notes when that was noticed, and the schedule counts from there until a rotation ends. That the
//! wrong time comes after all makes it no right one. What is overdue by much (the broadcaster was down, or the clock was
//! set) is not rotated all at once.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use crate::record::{Label, SecretRecord, VersionRecord};
use crate::time::WallTime;

/// Rotations that fall due together are spread over this part of the period, so that secrets set up on the same day are
/// not rotated in the same minute for ever after.
const SPREAD: u64 = 10;

/// How far ahead a time may be and still be another replica's clock rather than a wrong one, in milliseconds.
const AHEAD: u64 = 5 * 60_000;

/// How late a rotation may be seen to be due and still be on time, in milliseconds: above the pause between two looks at the
/// clock. What is later was due while no broadcaster looked.
const ON_TIME: u64 = 2 * 60_000;

/// Longest time over which rotations that are overdue are spread, in milliseconds. Short against any period that people
/// choose, and long enough that an operator who has set a clock wrong can set it right before all has rotated.
const LONGEST_JITTER: u64 = 3_600_000;

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

    /// When the next rotation is due, by the wall clock that shows `now`; in the past if it is overdue. None while one is
    /// under way, while a version waits, and before there is one.
    #[must_use]
    pub fn next(self, record: &SecretRecord, now: WallTime) -> Option<WallTime> {
        let waits = |version: &VersionRecord| version.label == Label::Pending;
        if record.rotation.is_some() || record.versions.values().any(waits) {
            return None;
        }
        let last = last_change(record)?;
        let period = self.period();
        // One that is older than two periods was noted by a clock that was behind, or the schedule has not run since: to count
        // from it would make every secret overdue.
        let credible =
            |noted: &WallTime| !is_ahead(*noted, now) && now.0.saturating_sub(noted.0) < period.saturating_mul(2);
        let otherwise = if is_ahead(last, now) { now } else { last };
        let since = record.ahead_since.filter(credible).unwrap_or(otherwise);
        // The same for every broadcaster of a release, another one for each rotation.
        let earlier = hash(record) % (period / SPREAD).max(1);
        Some(WallTime(since.0.saturating_add(period - earlier)))
    }

    /// How long a rotation that was due at `due` waits from now on, so that those that are overdue do not all begin at once;
    /// none for one that is on time. It begins at its own moment of every hour (or of a tenth of a short period) of the wall
    /// clock, whenever and by whichever leader that is asked: changes of leader do not put it off.
    #[must_use]
    pub fn jitter(self, record: &SecretRecord, due: WallTime, now: WallTime) -> Duration {
        if now.0.saturating_sub(due.0) <= ON_TIME {
            return Duration::ZERO;
        }
        let longest = (self.period() / SPREAD).clamp(1, LONGEST_JITTER);
        let moment = hash(record).rotate_left(32) % longest;
        Duration::from_millis((moment + longest - now.0 % longest) % longest)
    }

    fn period(self) -> u64 {
        u64::try_from(self.every.as_millis()).unwrap_or(u64::MAX)
    }
}

/// What the record should note of the wall clock: that its last change is later than now, since now; or that it no longer is.
/// `None`: nothing to note. `set`: by how much the wall clock was set forward since this leader noted it, in milliseconds.
#[must_use]
pub fn clock_noted(record: &SecretRecord, set: u64, now: WallTime) -> Option<Option<WallTime>> {
    let last = last_change(record)?;
    let ahead = is_ahead(last, now);
    let Some(noted) = record.ahead_since else { return ahead.then_some(Some(now)) };
    if is_ahead(noted, now) {
        return Some(Some(now));
    }
    // The clock that noted it was behind: what it noted is as much later, and the last change may have been right.
    let noted_right = if set > AHEAD { WallTime(noted.0.saturating_add(set).min(now.0)) } else { noted };
    let was_right = noted_right != noted && !is_ahead(last, noted_right);
    match (was_right, noted_right == noted) {
        (true, _) => Some(None),
        (false, true) => None,
        (false, false) => Some(Some(noted_right)),
    }
}

/// When the last rotation has ended, or the current version came up if none has. The last one by the record's order: an
/// earlier one may have been written by a clock that was ahead.
#[must_use]
pub fn last_change(record: &SecretRecord) -> Option<WallTime> {
    let came_up = record.versions.get(&record.current?)?.seen;
    Some(record.history.last().map_or(came_up, |last| last.ended))
}

fn is_ahead(at: WallTime, now: WallTime) -> bool {
    at.0 > now.0.saturating_add(AHEAD)
}

fn hash(record: &SecretRecord) -> u64 {
    let mut hasher = DefaultHasher::new();
    (record.secret.as_str(), record.generation.0).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Origin, RecordChange, Timing};
    use crate::{Epoch, Outcome, Policy, SecretName, Version};

    const DAY: u64 = 24 * 3_600_000;

    fn version(number: u64) -> Version {
        Version::new(number).expect("not zero")
    }

    fn at(day: u64) -> WallTime {
        WallTime(day * DAY)
    }

    fn due(record: &SecretRecord) -> Option<WallTime> {
        due_at(record, at(200))
    }

    fn due_at(record: &SecretRecord, now: WallTime) -> Option<WallTime> {
        Schedule::every(Duration::from_millis(30 * DAY)).next(record, now)
    }

    /// What a leader does whenever it looks.
    fn note_clock(record: &mut SecretRecord, now: WallTime) {
        note_clock_set(record, 0, now);
    }

    /// The same after its clock was set forward by so many days.
    fn note_clock_set(record: &mut SecretRecord, days: u64, now: WallTime) {
        if let Some(since) = clock_noted(record, days * DAY, now) {
            record.apply(&RecordChange::ClockNoted { since });
        }
        assert_eq!(clock_noted(record, 0, now), None, "noted once");
    }

    fn rotate(record: &mut SecretRecord, number: u64, now: WallTime) {
        record.apply(&RecordChange::VersionAdded {
            version: version(number),
            origin: Origin::Managed,
            provider: None,
            at: now,
        });
        record.apply(&RecordChange::RotationStarted {
            new: version(number),
            trigger: "schedule".into(),
            provider: None,
            at: now,
        });
        record.apply(&RecordChange::Activated { at: now });
        record.apply(&RecordChange::RotationEnded { outcome: Outcome::Retired, at: now });
    }

    fn in_use(name: &str) -> SecretRecord {
        let timing = Timing::of(&Policy::default());
        let mut record = SecretRecord::new(SecretName::new(name).expect("a name"), Epoch(1), timing);
        assert_eq!(due(&record), None, "nothing to replace");
        record.apply(&RecordChange::VersionAdded {
            version: version(1),
            origin: Origin::Watched,
            provider: None,
            at: at(100),
        });
        assert_eq!(due(&record), None, "the first version waits");
        record.apply(&RecordChange::RotationStarted {
            new: version(1),
            trigger: "store".into(),
            provider: None,
            at: at(100),
        });
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
        record.apply(&RecordChange::VersionAdded {
            version: version(2),
            origin: Origin::Watched,
            provider: None,
            at: at(120),
        });
        assert_eq!(due(&record), None, "another writer was faster");
        record.apply(&RecordChange::RotationStarted {
            new: version(2),
            trigger: "store".into(),
            provider: None,
            at: at(120),
        });
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
            assert!(Schedule::every(period).next(&record, at(100)).is_some_and(|due| due >= at(100)));
        }
    }

    #[test]
    fn a_time_a_year_ahead_is_now_and_rotations_go_on() {
        let mut record = in_use("payments/db");
        rotate(&mut record, 2, at(130 + 365));
        // The clock is right again, and stays so over changes of leader, each of which has the record alone.
        note_clock(&mut record, at(130));
        between(due_at(&record, at(130)), at(157), at(160));
        note_clock(&mut record, at(150));
        between(due_at(&record, at(150)), at(157), at(160));
        rotate(&mut record, 3, at(158));
        note_clock(&mut record, at(158));
        assert_eq!(record.ahead_since, None);
        between(due_at(&record, at(158)), at(185), at(188));
    }

    #[test]
    fn a_wrong_time_that_comes_after_all_does_not_put_the_rotation_off() {
        let mut record = in_use("payments/db");
        let due = |record: &SecretRecord, now| Schedule::every(Duration::from_millis(90 * DAY)).next(record, now);
        rotate(&mut record, 2, at(130 + 60));
        note_clock(&mut record, at(130));
        between(due(&record, at(130)), at(211), at(220));
        // A leader of that day reads the record for the first time.
        note_clock(&mut record, at(195));
        between(due(&record, at(195)), at(211), at(220));
        rotate(&mut record, 3, at(215));
        assert_eq!(record.ahead_since, None);
        note_clock(&mut record, at(216));
        assert_eq!(record.ahead_since, None);
    }

    #[test]
    fn a_clock_that_was_behind_rewrites_nothing() {
        let mut record = in_use("payments/db");
        note_clock(&mut record, at(0));
        assert_eq!(record.ahead_since, Some(at(0)));
        note_clock_set(&mut record, 110, at(110));
        assert_eq!(record.ahead_since, None, "else a later clock that is ahead would make it overdue");
        between(due_at(&record, at(110)), at(127), at(130));
    }

    #[test]
    fn what_another_leaders_clock_noted_long_ago_makes_nothing_overdue() {
        let mut record = in_use("payments/db");
        note_clock(&mut record, at(0));
        note_clock(&mut record, at(110));
        between(due_at(&record, at(110)), at(127), at(130));
    }

    #[test]
    fn a_clock_that_was_behind_and_noted_a_wrong_time_is_put_right() {
        let mut record = in_use("payments/db");
        rotate(&mut record, 2, at(130 + 365));
        note_clock(&mut record, at(30));
        note_clock_set(&mut record, 100, at(131));
        assert_eq!(record.ahead_since, Some(at(130)));
        between(due_at(&record, at(131)), at(157), at(160));
    }

    #[test]
    fn a_replica_whose_clock_is_minutes_ahead_is_no_wrong_clock() {
        let record = in_use("payments/db");
        assert_eq!(clock_noted(&record, 0, WallTime(at(100).0 - AHEAD)), None);
        assert!(clock_noted(&record, 0, WallTime(at(100).0 - AHEAD - 1)).is_some());
    }

    #[test]
    fn what_is_overdue_begins_at_the_same_moment_whichever_leader_looks() {
        let schedule = Schedule::every(Duration::from_millis(30 * DAY));
        for n in 0..20 {
            let record = in_use(&format!("payments/db{n}"));
            let due = due_at(&record, at(465)).expect("something is due");
            let begins = |now: WallTime| WallTime(now.0 + millis(schedule.jitter(&record, due, now)));
            let first = begins(at(465));
            // Leaders come and go, each sooner than the longest wait.
            let looks = (0..).map(|look| WallTime(at(465).0 + look * 600_000)).take_while(|now| *now <= first);
            for now in looks {
                assert_eq!(begins(now), first, "{n}");
            }
        }
    }

    fn millis(wait: Duration) -> u64 {
        u64::try_from(wait.as_millis()).expect("an hour at most")
    }

    #[test]
    fn what_is_overdue_is_spread_over_an_hour_at_most_and_what_is_on_time_does_not_wait() {
        let schedule = Schedule::every(Duration::from_millis(30 * DAY));
        let overdue = |n: u32| {
            let record = in_use(&format!("payments/db{n}"));
            let due = due_at(&record, at(465)).expect("something is due");
            assert_eq!(schedule.jitter(&record, due, WallTime(due.0 + ON_TIME)), Duration::ZERO);
            schedule.jitter(&record, due, at(465))
        };
        let waits: Vec<u64> = (0..600).map(|n| overdue(n).as_secs() / 60).collect();
        assert!(waits.iter().all(|minute| *minute < 60), "{waits:?}");
        let most = (0..60).map(|minute| waits.iter().filter(|at| **at == minute).count()).max();
        assert!(most < Some(30), "of 600 rotations {most:?} begin in one minute");
        let often = Schedule::every(Duration::from_secs(60));
        let record = in_use("payments/db");
        assert!(often.jitter(&record, at(100), at(465)) < Duration::from_secs(6), "a tenth of the period");
    }
}
