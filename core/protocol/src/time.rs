//! Time as an argument.
//!
//! The core never reads a clock. Its driver passes the reading of a monotonic clock that
//! keeps counting while the machine is suspended (`CLOCK_BOOTTIME`), and the wall clock's, which
//! is only ever shown to people: no decision depends on it.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A reading of one machine's monotonic clock. Readings of different machines, or of one machine
/// before and after a boot, cannot be compared.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Instant(u64);

impl Instant {
    /// The clock's origin.
    pub const ZERO: Instant = Instant(0);

    /// A reading in nanoseconds since the clock's origin.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the clock's origin.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time since `earlier`; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;
    fn add(self, duration: Duration) -> Instant {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Instant(self.0.saturating_add(nanos))
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;
    fn sub(self, duration: Duration) -> Instant {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Instant(self.0.saturating_sub(nanos))
    }
}

/// Milliseconds since the Unix epoch, for people and schedules. No rule of safety compares it.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WallTime(pub u64);

/// Both clocks, read together.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Now {
    /// The monotonic clock: what decisions are made with.
    pub instant: Instant,
    /// The wall clock, for records and people.
    pub wall: WallTime,
}

impl Now {
    /// What the wall clock shows for an earlier moment, counted back from now.
    #[must_use]
    pub fn wall_at(self, earlier: Instant) -> WallTime {
        let passed = u64::try_from(self.instant.since(earlier).as_millis()).unwrap_or(u64::MAX);
        WallTime(self.wall.0.saturating_sub(passed))
    }
}

/// How far one machine's clock may run fast or slow, in percent: the ρ of the lease rules. Crystal
/// oscillators stay within 0.01 %; a whole percent leaves room for slewing time daemons and virtual machines.
pub const CLOCK_DRIFT_PERCENT: u32 = 1;

/// The coarsest resolution of a monotonic clock that is assumed (a 100 Hz tick).
pub const CLOCK_RESOLUTION: Duration = Duration::from_millis(10);

/// How long to wait, by one clock, until a span of `lease` by another clock has certainly ended:
/// `lease · (1 + ρ) / (1 − ρ)` plus the clocks' resolution.
#[must_use]
pub fn outlast(lease: Duration) -> Duration {
    let nanos = lease.as_nanos();
    let up = u128::from(100 + CLOCK_DRIFT_PERCENT);
    let down = u128::from(100 - CLOCK_DRIFT_PERCENT);
    let stretched = (nanos * up).div_ceil(down);
    Duration::from_nanos(u64::try_from(stretched).unwrap_or(u64::MAX)).saturating_add(CLOCK_RESOLUTION)
}

impl fmt::Display for WallTime {
    /// RFC 3339 in UTC, to the second.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0 / 1000;
        let (days, day) = (seconds / 86_400, seconds % 86_400);
        let (year, month, date) = civil_from_days(days);
        let (hour, minute, second) = (day / 3600, day / 60 % 60, day % 60);
        write!(f, "{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

/// Days since 1970-01-01 to a Gregorian date (the well-known era-based conversion).
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let date = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, date)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thirty_seconds_are_outlasted_in_less_than_thirty_one() {
        let wait = outlast(Duration::from_secs(30));
        assert!(wait > Duration::from_millis(30_600) && wait < Duration::from_secs(31), "{wait:?}");
    }

    #[test]
    fn wall_time_prints_as_a_date() {
        assert_eq!(WallTime(0).to_string(), "1970-01-01T00:00:00Z");
        assert_eq!(WallTime(951_827_696_000).to_string(), "2000-02-29T12:34:56Z");
        assert_eq!(WallTime(1_795_392_000_000).to_string(), "2026-11-23T00:00:00Z");
    }
}
