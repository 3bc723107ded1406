//! The right to use versions until a time.

use std::collections::{BTreeMap, VecDeque};

use rotacast_protocol::message::{SecretGrant, SecretState};
use rotacast_protocol::{Instant, LeaseSequence, Nonce, Version};

use crate::input::Rejection;
use crate::rules::{Broken, Rule};

/// Most Sync requests whose answers are still awaited; the oldest is given up beyond it. The driver
/// keeps one in flight, so this many leaves room for answers that come after their timeout.
pub const MAX_OUTSTANDING: usize = 8;

/// A span of time in which a version may be used.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Span {
    from: Instant,
    until: Instant,
}

/// The leases of one secret, by two sources: the leader's grants and reads of the store.
#[derive(Clone, Hash, Debug, Default)]
pub struct Leases {
    outstanding: VecDeque<(Nonce, Instant)>,
    granted: BTreeMap<Version, Span>,
    own: BTreeMap<Version, Span>,
    sequence: LeaseSequence,
    broken: Broken,
}

impl Leases {
    #[cfg(feature = "mutants")]
    pub(crate) fn break_rule(&mut self, broken: Broken) {
        self.broken = broken;
    }

    /// The newest grant received.
    #[must_use]
    pub fn sequence(&self) -> LeaseSequence {
        self.sequence
    }

    /// Until when a version may be used; in the past once that is over, and `ZERO` without any lease.
    #[must_use]
    pub fn until(&self, version: Version) -> Instant {
        let end = |spans: &BTreeMap<Version, Span>| spans.get(&version).map_or(Instant::ZERO, |span| span.until);
        end(&self.granted).max(end(&self.own))
    }

    /// When half of the span that ends last is over.
    pub(crate) fn half_over(&self, version: Version) -> Instant {
        let spans = [self.granted.get(&version), self.own.get(&version)];
        spans
            .into_iter()
            .flatten()
            .max_by_key(|span| span.until)
            .map_or(Instant::ZERO, |span| span.from + span.until.since(span.from) / 2)
    }

    pub(crate) fn sent(&mut self, nonce: Nonce, at: Instant) {
        if self.outstanding.len() >= MAX_OUTSTANDING {
            self.outstanding.pop_front();
        }
        self.outstanding.push_back((nonce, at));
    }

    /// The send time of the request a reply answers; each is answered once.
    pub(crate) fn answered(&mut self, nonce: Nonce) -> Result<Instant, Rejection> {
        let position = self.outstanding.iter().position(|(outstanding, _)| *outstanding == nonce);
        position
            .and_then(|position| match self.broken.is(Rule::OneAnswer) {
                true => self.outstanding.get(position).copied(),
                false => self.outstanding.remove(position),
            })
            .map(|(_, at)| at)
            .ok_or(Rejection::UnknownNonce { found: nonce })
    }

    /// Takes over a grant that answers a request sent at `at`, for the versions `concerns` knows.
    ///
    /// The newest grant is the leader's last word: it replaces the running lease of each version it names, even by a
    /// shorter one, so that a leader that knows a grant to have arrived need not wait for an earlier, longer one. A
    /// version it does not name keeps its running lease.
    pub(crate) fn grant(
        &mut self,
        now: Instant,
        at: Instant,
        grant: &SecretGrant,
        concerns: impl Fn(Version) -> bool,
    ) -> Result<(), Rejection> {
        if grant.sequence <= self.sequence && !self.broken.is(Rule::StaleGrant) {
            return if grant.leases.is_empty() {
                Ok(())
            } else {
                Err(Rejection::StaleGrant { newest: self.sequence, found: grant.sequence })
            };
        }
        // Acknowledging a grant that is over already would tell the leader that nothing runs any more, while a use
        // that began a moment ago under the earlier lease still does.
        let at = if self.broken.is(Rule::FromSend) { now } else { at };
        if grant.leases.values().any(|length| at + *length <= now) && !self.broken.is(Rule::LateGrant) {
            return Err(Rejection::LateGrant { found: grant.sequence });
        }
        self.sequence = grant.sequence;
        for (version, length) in &grant.leases {
            if concerns(*version) {
                let span = Span { from: at, until: at + *length };
                let before = self.granted.insert(*version, span);
                if let Some(before) = before.filter(|before| before.until > span.until)
                    && self.broken.is(Rule::NewestGrant)
                {
                    self.granted.insert(*version, before);
                }
            }
        }
        Ok(())
    }

    /// A linearizable read, sent at `sent`, showed these versions unsealed.
    pub(crate) fn read(&mut self, sent: Instant, state: &SecretState, versions: impl IntoIterator<Item = Version>) {
        let span = Span { from: sent, until: sent + state.self_lease };
        for version in versions {
            let own = self.own.entry(version).or_insert(span);
            if span.until > own.until {
                *own = span;
            }
        }
    }

    /// Forgets the leases of versions that no longer matter.
    pub(crate) fn keep(&mut self, concerns: impl Fn(Version) -> bool) {
        self.granted.retain(|version, _| concerns(*version));
        self.own.retain(|version, _| concerns(*version));
    }
}
