//! The three streams of a cluster.

use super::subject::Names;

/// How large the streams created by us may become. A server reserves that much.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StreamLimits {
    /// Desired states on disk, in bytes. Default 64 MiB: 100,000 secrets at 600 bytes.
    pub state_bytes: u64,
    /// Registrations on disk, in bytes. Default 256 MiB: 400,000 incarnations at 600 bytes.
    pub registration_bytes: u64,
    /// Reports in memory, in bytes. Default 128 MiB: 10,000 instances with 100 secrets each, at 60 bytes a secret.
    pub report_bytes: u64,
}

impl Default for StreamLimits {
    fn default() -> Self {
        const MIB: u64 = 1024 * 1024;
        Self { state_bytes: 64 * MIB, registration_bytes: 256 * MIB, report_bytes: 128 * MIB }
    }
}

/// Room for the headers that only NATS sees: message id, expected sequence, revision.
pub(super) const SERVER_HEADERS: usize = 4 * 1024;

/// One of the three.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Kind {
    State,
    Registrations,
    #[cfg(feature = "leader")]
    Reports,
}

impl Kind {
    #[cfg(feature = "leader")]
    pub(super) const ALL: [Kind; 3] = [Kind::State, Kind::Registrations, Kind::Reports];

    pub(super) fn stream(self, names: &Names) -> String {
        names.stream(match self {
            Kind::State => "STATE",
            Kind::Registrations => "REGISTRATIONS",
            #[cfg(feature = "leader")]
            Kind::Reports => "REPORTS",
        })
    }
}
