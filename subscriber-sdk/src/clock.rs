//! The clock leases are compared with.

use std::sync::Arc;

use rotacast_protocol::Instant;

/// A monotonic clock that keeps counting while the machine is suspended. Implement it for tests only: without one, the SDK
/// uses `CLOCK_BOOTTIME`.
pub trait Clock: Send + Sync + 'static {
    /// The time since any fixed moment. It never goes back.
    fn now(&self) -> Instant;
}

/// The clock in use. The real one costs no indirect call on the hot path.
#[derive(Clone)]
pub(crate) enum Watch {
    Boottime,
    Given(Arc<dyn Clock>),
}

impl Watch {
    #[inline]
    pub(crate) fn now(&self) -> Instant {
        match self {
            Watch::Boottime => rotacast_clock::instant(),
            Watch::Given(clock) => clock.now(),
        }
    }
}
