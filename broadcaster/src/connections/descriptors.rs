//! File descriptors: how many this process may have, and how many connections that allows.

use std::num::NonZeroUsize;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Kept for the broadcaster's own work: store, bus, providers, audit log, databases, timers. Its servers take about 40.
const RESERVE: usize = 64;

/// Connections that are always allowed, however small the limit is: an operator can look.
const LEAST: usize = 8;

/// Most connections unless configured: each costs up to some 50 KiB, and 10,000 instances have one each.
const MOST: usize = 16_384;

/// How many files this process may have open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Descriptors(pub(crate) usize);

impl Descriptors {
    /// Raises the soft limit to the hard one, as a process that does not use `select` may; where that is refused, the
    /// soft one stays.
    pub(crate) fn raise() -> Self {
        let limit = getrlimit(Resource::Nofile);
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        let current = match setrlimit(Resource::Nofile, raised) {
            Ok(()) => limit.maximum,
            Err(_) => limit.current,
        };
        // Without a limit: more than any cap of ours.
        Self(current.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX))
    }

    /// How many connections leave enough of them for the broadcaster's own work.
    pub(crate) fn for_connections(self) -> usize {
        self.0.saturating_sub(RESERVE).max(LEAST)
    }

    /// The cap of all connections: as configured, if the descriptors allow it.
    pub(crate) fn cap(self, configured: Option<NonZeroUsize>) -> usize {
        configured.map_or(MOST, NonZeroUsize::get).min(self.for_connections())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cap_leaves_descriptors_for_the_broadcasters_own_work() {
        for (limit, configured, cap) in [
            (96, None, 32),
            (16, None, LEAST),
            (1024, None, 960),
            (1024, Some(5_000), 960),
            (1024, Some(100), 100),
            (1_048_576, None, MOST),
            (1_048_576, Some(100_000), 100_000),
        ] {
            let configured = configured.and_then(NonZeroUsize::new);
            assert_eq!(Descriptors(limit).cap(configured), cap, "{limit} {configured:?}");
        }
    }
}
