//! The right to use versions until a time.

use std::collections::{BTreeMap, VecDeque};

use rotacast_protocol::message::{SecretGrant, SecretState};
use rotacast_protocol::{Instant, LeaseSequence, Nonce, Version};

use crate::input::Rejection;

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
}

impl Leases {
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
            .and_then(|position| self.answer(position))
            .map(|(_, at)| at)
            .ok_or(Rejection::UnknownNonce { found: nonce })
    }

    /// Each request is answered once.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(OneAnswer, self.outstanding.get(position).copied()))]
    fn answer(&mut self, position: usize) -> Option<(Nonce, Instant)> {
        self.outstanding.remove(position)
    }

    /// An overtaken grant is not taken over.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(StaleGrant, false))]
    fn is_overtaken(&self, grant: &SecretGrant) -> bool {
        grant.sequence <= self.sequence
    }

    /// The newest grant replaces the one before, even a longer one.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(NewestGrant, { let longest = self.granted.get(&version).filter(|before| before.until > span.until).copied(); self.granted.insert(version, longest.unwrap_or(span)); }))]
    fn replace(&mut self, version: Version, span: Span) {
        self.granted.insert(version, span);
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
        if self.is_overtaken(grant) {
            return if grant.leases.is_empty() {
                Ok(())
            } else {
                Err(Rejection::StaleGrant { newest: self.sequence, found: grant.sequence })
            };
        }
        let at = lease_begins(at, now);
        if is_late(grant, at, now) {
            return Err(Rejection::LateGrant { found: grant.sequence });
        }
        self.sequence = grant.sequence;
        for (version, length) in &grant.leases {
            if concerns(*version) {
                self.replace(*version, Span { from: at, until: at + *length });
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

/// Lease rule 1: a lease counts from the request's send time.
#[cfg_attr(rotacast_mutants, rotacast_mutate::rule(FromSend, _now))]
fn lease_begins(sent: Instant, _now: Instant) -> Instant {
    sent
}

/// A grant that is over when it arrives is not taken over. Acknowledging it would tell the leader that nothing runs any more,
/// while a use that began a moment ago under the earlier lease still does.
#[cfg_attr(rotacast_mutants, rotacast_mutate::rule(LateGrant, false))]
fn is_late(grant: &SecretGrant, at: Instant, now: Instant) -> bool {
    grant.leases.values().any(|length| at + *length <= now)
}
