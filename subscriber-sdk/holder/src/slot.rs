//! One version whose value is in memory.

use rotacast_protocol::Instant;

/// How far the service has come with a version whose value is in memory. While a slot exists, its
/// version is reported as held.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Slot {
    /// The service has been shown the value: it must be asked to release it.
    pub(crate) touched: bool,
    /// The service is ready for it.
    pub(crate) prepared: bool,
    /// The service was asked to move new work to it, whether or not that succeeded.
    pub(crate) activated: bool,
    /// The next step waits until then, after a failure.
    pub(crate) not_before: Instant,
}

impl Slot {
    pub(crate) const LOADED: Slot =
        Slot { touched: false, prepared: false, activated: false, not_before: Instant::ZERO };
}
