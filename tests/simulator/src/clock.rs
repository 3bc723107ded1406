//! Clocks that drift. Only the simulator knows the true time.

use std::time::Duration;

use rotacast_protocol::{Instant, Now, WallTime};

/// Nanoseconds in a millisecond.
pub const MS: u64 = 1_000_000;
/// Nanoseconds in a second.
pub const SECOND: u64 = 1000 * MS;

/// One machine's clock: an origin of its own, and a rate that is off by up to the assumed bound.
#[derive(Clone, Debug)]
pub struct Clock {
    origin: u64,
    /// Parts per million fast or slow.
    drift: i64,
    /// Time during which it stood still (only under a mutant).
    stood: u64,
    /// How far the wall clock is off, in milliseconds.
    wall_off: i64,
}

impl Clock {
    /// A clock.
    #[must_use]
    pub fn new(origin: u64, drift: i64) -> Self {
        Self { origin, drift, stood: 0, wall_off: 0 }
    }

    fn rate(&self) -> u128 {
        u128::try_from(1_000_000 + self.drift).expect("a clock runs forward")
    }

    /// Its reading at a true time.
    #[must_use]
    pub fn at(&self, true_time: u64) -> Instant {
        let passed = u128::from(true_time.saturating_sub(self.stood)) * self.rate() / 1_000_000;
        Instant::from_nanos(self.origin + u64::try_from(passed).expect("a run is short"))
    }

    /// Both readings.
    #[must_use]
    pub fn now(&self, true_time: u64) -> Now {
        Now {
            instant: self.at(true_time),
            wall: WallTime((1_700_000_000_000 + true_time / MS).saturating_add_signed(self.wall_off)),
        }
    }

    /// The first true time at which it reads at least this.
    #[must_use]
    pub fn when(&self, reading: Instant) -> u64 {
        let passed = u128::from(reading.as_nanos().saturating_sub(self.origin));
        let true_time = (passed * 1_000_000).div_ceil(self.rate()) + 1;
        u64::try_from(true_time).unwrap_or(u64::MAX / 4).saturating_add(self.stood)
    }

    /// Stands still for a while.
    pub fn stand(&mut self, time: u64) {
        self.stood += time;
    }

    /// The wall clock is set.
    pub fn step_wall(&mut self, milliseconds: i64) {
        self.wall_off += milliseconds;
    }
}

/// So many milliseconds.
#[must_use]
pub fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}
