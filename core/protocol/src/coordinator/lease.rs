//! Leases: how long they are, for which versions, and when none granted can be running any more.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Change, Coordinator, Rejection};
use crate::id::{Epoch, InstanceKey, LeaseSequence, ReportSequence, Version};
use crate::message::SecretReport;
use crate::record::{Label, RecordChange, SecretRecord};
use crate::time::{self, Instant, Now};

/// How long to wait until a span of another's clock has passed on every clock (lease rule 6).
#[cfg_attr(rotacast_mutants, rotacast_mutate::rule(Drift, span))]
pub(super) fn outlast(span: Duration) -> Duration {
    time::outlast(span)
}

/// How long to wait until a use has ended that began when its lease ended (lease rule 2).
#[cfg_attr(rotacast_mutants, rotacast_mutate::rule(UseTime, Duration::ZERO))]
pub(super) fn use_time(record: &SecretRecord) -> Duration {
    outlast(record.bounds.max_use)
}

/// How long anything may be used that was granted or read until now, by whatever the bounds of a record allow.
pub(super) fn longest(record: &SecretRecord) -> Duration {
    outlast(record.bounds.lease.max(record.bounds.self_lease)) + use_time(record)
}

/// The number below every grant of a term, above everything an earlier term has issued: terms only grow.
#[cfg_attr(rotacast_mutants, rotacast_mutate::rule(GrantNumbers, LeaseSequence(0)))]
pub(super) fn first_of_term(epoch: Epoch) -> LeaseSequence {
    last_before(epoch)
}

/// At least the number of every grant of an earlier term: no term makes 16 million grants to one incarnation, a Sync every five
/// seconds for two years.
pub(super) fn last_before(epoch: Epoch) -> LeaseSequence {
    LeaseSequence(epoch.0 << 24)
}

impl Coordinator {
    /// Whether the leadership is valid: without it the leader decides nothing (lease rule 3).
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(Leads, true))]
    #[must_use]
    pub fn leads(&self, now: Instant) -> bool {
        now < self.tenure.valid_until
    }

    /// Whether the record carries this term: before that the leader grants and moves nothing.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(TermFirst, true))]
    pub(super) fn is_signed(&self) -> bool {
        self.record.epoch == self.tenure.epoch
    }

    pub(super) fn sync(
        &self,
        now: Now,
        key: InstanceKey,
        sequence: ReportSequence,
        report: SecretReport,
    ) -> Result<Vec<Change>, Rejection> {
        // Leases are granted for what the newest report holds; an overtaken Sync gets nothing it no longer asks for.
        let wanted: BTreeSet<Version> =
            report.held.iter().copied().chain(report.reached.map(|(version, _)| version)).collect();
        let lease = report.lease;
        let mut changes = match self.report(now, key.clone(), sequence, report) {
            Ok(changes) => changes,
            // The same report again: it repeats its request for leases. An older one asks for nothing.
            Err(Rejection::Stale { .. }) if self.members.find(&key).is_some_and(|m| m.sequence == sequence) => {
                vec![Change::Heard { key: key.clone(), at: now }]
            }
            Err(rejection) => return Err(rejection),
        };
        if self.is_registered(&key) && self.is_signed() {
            let member = self.members.find(&key);
            let over: BTreeMap<Version, Instant> = wanted
                .into_iter()
                .filter(|version| self.may_lease(*version))
                .filter(|v| self.record.versions.contains_key(v) || member.is_some_and(|it| it.has_room_for(*v)))
                .map(|v| (v, self.lease_over(now)))
                .collect();
            let first = LeaseSequence(self.first_lease.0.max(lease.0));
            let sequence = self.members.find(&key).map_or(first.next(), |member| member.next_lease(first));
            changes.push(Change::LeaseGranted { key, sequence, length: self.lease(), over });
        }
        Ok(changes)
    }

    /// The length of a lease granted now.
    pub(super) fn lease(&self) -> Duration {
        let timing = &self.record.timing;
        if self.record.is_rotating() || !self.long_leases_are_known() {
            timing.lease_rotating
        } else {
            timing.lease_idle
        }
    }

    /// Whether the record says, durably, that leases of the long tier may be running.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(TierBound, true))]
    fn long_leases_are_known(&self) -> bool {
        self.record.bounds.lease >= self.record.timing.lease_idle
    }

    /// When a use on the strength of a lease granted now has ended on every clock.
    fn lease_over(&self, now: Now) -> Instant {
        now.instant + outlast(self.lease()) + use_time(&self.record)
    }

    /// Whether a version's use may be allowed: it is wanted, now or next, or on its way out, and not sealed.
    fn may_lease(&self, version: Version) -> bool {
        if self.is_of_lost_history(version) {
            return self.may_be_running(version);
        }
        let leaving = self.record.retirements.get(&version).is_some_and(|retirement| retirement.step.is_none());
        let wanted = self.record.current == Some(version) || self.record.pending() == Some(version);
        let known = self.record.versions.get(&version).map(|version| version.label);
        let stays = self.record.stay && known.is_some_and(|label| matches!(label, Label::Pending));
        !self.is_sealed(version) && (wanted || leaving || stays)
    }

    /// A sealed version gets no lease, nor does one that the record does not list.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(SealedUnleased, false))]
    fn is_sealed(&self, version: Version) -> bool {
        self.record.versions.get(&version).is_none_or(|version| version.sealed)
    }

    /// Once every long lease from before the rotation has expired, the record says so: a successor then waits for the
    /// short ones only.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(AuditFirst, self.record.retirements.iter().find(|(version, retirement)| retirement.step.is_none() && self.guard(**version, now).holds()).map(|(version, _)| RecordChange::RetireBegan { version: *version, at: now.wall })))]
    pub(super) fn lower_lease_bound(&self, now: Now) -> Option<RecordChange> {
        let short = self.record.timing.lease_rotating;
        (self.record.is_rotating() && self.record.bounds.lease > short && self.long_leases_expired(now))
            .then_some(RecordChange::LeaseBoundLowered { to: short })
    }

    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(BoundLowered, true))]
    fn long_leases_expired(&self, now: Now) -> bool {
        now.instant >= self.long_leases_expire()
    }

    /// When every lease longer than the short tier's has expired on every clock.
    pub(super) fn long_leases_expire(&self) -> Instant {
        self.short_since + outlast(self.record.bounds.lease)
    }

    /// When nothing rotates any more and nothing waits to, long leases may run again.
    pub(super) fn lengthen_leases(&self) -> Vec<Change> {
        let timing = &self.record.timing;
        if self.record.is_rotating() || self.record.bounds.lease >= timing.lease_idle {
            return Vec::new();
        }
        vec![Change::Record(RecordChange::TimingSet { timing: timing.clone() })]
    }
}
