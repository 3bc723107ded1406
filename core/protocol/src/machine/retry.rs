//! When a command that failed is tried again.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Jitter;
use crate::coordinator::CommandKind;
use crate::time::Instant;

/// The first pause: long enough for a server that restarts a connection.
const FIRST: Duration = Duration::from_millis(200);
/// The longest: a rotation waits no longer than this for a server that is back.
const LONGEST: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Hash, Debug)]
struct Retry {
    at: Instant,
    pause: Duration,
}

/// Commands that failed, each with its pause: doubled at every failure, gone at the first success. No more than there are
/// commands to do.
#[derive(Clone, Default, Hash, Debug)]
pub(super) struct Retries(BTreeMap<CommandKind, Retry>);

impl Retries {
    pub(super) fn failed(&mut self, kind: CommandKind, now: Instant, jitter: Jitter) {
        let pause = self.0.get(&kind).map_or(FIRST, |retry| (retry.pause * 2).min(LONGEST));
        // Half fixed, half by chance.
        let at = now + pause / 2 + pause / 2 * jitter.permille() / 1000;
        self.0.insert(kind, Retry { at, pause });
    }

    pub(super) fn succeeded(&mut self, kind: &CommandKind) {
        self.0.remove(kind);
    }

    pub(super) fn retain(&mut self, is_owed: impl Fn(&CommandKind) -> bool) {
        self.0.retain(|kind, _| is_owed(kind));
    }

    pub(super) fn waits(&self, kind: &CommandKind, now: Instant) -> bool {
        self.0.get(kind).is_some_and(|retry| retry.at > now)
    }

    pub(super) fn next(&self, now: Instant, counts: impl Fn(&CommandKind) -> bool) -> Option<Instant> {
        self.0.iter().filter(|(kind, retry)| retry.at > now && counts(kind)).map(|(_, retry)| retry.at).min()
    }
}
