//! The clocks Rotacast decides by.
//!
//! Leases count by `CLOCK_BOOTTIME`: unlike `std::time::Instant` it goes on while the machine is
//! suspended, so that an instance that slept through its lease knows on waking that it is over.

use rotacast_protocol::{Instant, Now, WallTime};
use rustix::time::{ClockId, Timespec, clock_gettime};

fn nanos(time: Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

/// `CLOCK_BOOTTIME`, tens of nanoseconds a call.
#[must_use]
#[inline]
pub fn instant() -> Instant {
    Instant::from_nanos(nanos(clock_gettime(ClockId::Boottime)))
}

/// The wall clock, for people.
#[must_use]
pub fn wall() -> WallTime {
    WallTime(nanos(clock_gettime(ClockId::Realtime)) / 1_000_000)
}

/// Both.
#[must_use]
pub fn now() -> Now {
    Now { instant: instant(), wall: wall() }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_clock_does_not_go_back() {
        let first = super::instant();
        assert!(super::instant() >= first);
    }
}
