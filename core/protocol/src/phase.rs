//! Where a rotation stands, and how it ended.

use crate::message::Stage;
use crate::word::words;

words! {
    /// The phases of a rotation, in order, with [`Phase::RollingBack`] reachable from every phase
    /// before [`Phase::Retiring`].
    pub enum Phase("phase") {
        Verifying = "verifying": "The new credential is made, if Rotacast makes it, and tested with a login.",
        Preparing = "preparing": "Instances fetch and validate the new version and keep using the old one.",
        Activating = "activating": "The new version is current, and instances move new work to it.",
        Draining = "draining": "Work that began with the old version finishes, and the retire guard is evaluated.",
        Retiring = "retiring": "Past the point of no return: the old credential is disabled, destroyed and erased.",
        RollingBack = "rolling_back" / "rolling back":
            "The old version is current again, and the new one drains under the same guard.",
    }
}

impl Phase {
    /// The stage that instances are to reach in it. `None`: no instance is waited for.
    #[must_use]
    pub const fn stage(self) -> Option<Stage> {
        match self {
            Self::Verifying => None,
            Self::Preparing => Some(Stage::Prepared),
            Self::Activating | Self::RollingBack => Some(Stage::Switched),
            Self::Draining | Self::Retiring => Some(Stage::Released),
        }
    }
}

words! {
    /// How a rotation ended.
    pub enum Outcome("outcome") {
        Retired = "retired": "The new version is current and the old credential is gone.",
        RolledBack = "rolled_back" / "rolled back": "The old version is current, and the new one was rejected and revoked.",
        Superseded = "superseded": "A newer version replaced the new one before it was activated.",
    }
}
