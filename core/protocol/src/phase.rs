//! Where a rotation stands.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The phases of a rotation, in order, with [`Phase::RollingBack`] reachable from every phase
/// before [`Phase::Retiring`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The credential is made (managed) and tested with a login.
    Verifying,
    /// Instances fetch and validate the new version and keep using the old one.
    Preparing,
    /// New work moves to the new version.
    Activating,
    /// Old work finishes; the retire guard is evaluated.
    Draining,
    /// Past the point of no return: the old credential is being disabled and destroyed.
    Retiring,
    /// The old version is current again; the new one drains under the same guard.
    RollingBack,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Phase::Verifying => "Verifying",
            Phase::Preparing => "Preparing",
            Phase::Activating => "Activating",
            Phase::Draining => "Draining",
            Phase::Retiring => "Retiring",
            Phase::RollingBack => "RollingBack",
        })
    }
}

/// How a rotation ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The new version is current and the old credential is gone.
    Retired,
    /// The old version is current and the new one was rejected and revoked.
    RolledBack,
    /// A newer version replaced the new one before it was activated.
    Superseded,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Outcome::Retired => "Retired",
            Outcome::RolledBack => "RolledBack",
            Outcome::Superseded => "Superseded",
        })
    }
}
