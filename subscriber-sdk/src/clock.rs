//! The clock leases are compared with.

use std::sync::Arc;

use rotacast_protocol::Instant;

/// A monotonic clock that goes on while the machine is suspended. For tests: everything else uses
/// `CLOCK_BOOTTIME`.
pub trait Clock: Send + Sync + 'static {
    /// The reading.
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
