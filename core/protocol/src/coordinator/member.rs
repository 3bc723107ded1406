//! What a leader knows of one process life that uses the secret.

use std::collections::BTreeMap;
use std::time::Duration;

use super::tally::MemberId;
use crate::id::{InstanceKey, LeaseSequence, ReportSequence, Revision, Version};
use crate::message::{MAX_HELD_VERSIONS, SecretReport, Stage};
use crate::record::Retirement;
use crate::time::{Instant, Now};
use crate::word::words;

/// Most versions whose grants are remembered of one process life. The live versions of a record are far fewer, and only
/// what somebody uses that a lost history had comes on top.
const MAX_GRANTS: usize = 4 * MAX_HELD_VERSIONS;

/// What was granted for one version.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Granted {
    /// The newest grant's number.
    pub sequence: LeaseSequence,
    /// When nobody can be using the version on the strength of any grant any more, by the leader's clock.
    pub over: Instant,
    /// The same for the newest grant alone: it replaces the earlier ones once it is known to have arrived.
    newest_over: Instant,
}

impl Granted {
    /// Whether a report that has heard of a grant has heard of this one: only the acknowledged grant replaces earlier ones, and only
    /// for what it names.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(AcknowledgedGrant, true))]
    fn is_acknowledged_by(&self, heard: LeaseSequence) -> bool {
        self.sequence == heard
    }
}

/// One process life.
#[derive(Clone, Hash, Debug)]
pub struct Member {
    pub(super) id: MemberId,
    /// Who.
    pub key: InstanceKey,
    /// Its registration says that at most one life holds its name at a time.
    pub(super) exclusive: bool,
    /// Its registration was read from the roster in this term.
    pub registered: bool,
    /// It has left for good.
    pub left: bool,
    /// A later life of the same exclusive name was surely alive, and this one was not heard since.
    pub superseded: bool,
    /// When this leader first knew of it.
    pub first_seen: Now,
    /// When it was last heard in this term.
    pub heard: Option<Now>,
    /// Its newest report's number.
    pub sequence: ReportSequence,
    /// Its newest report.
    pub report: Option<SecretReport>,
    /// The newest grant by version, running or over.
    pub grants: BTreeMap<Version, Granted>,
    /// The number of the newest grant.
    pub granted_sequence: LeaseSequence,
    /// When the newest grant was given.
    pub(super) granted_at: Instant,
    /// The length the newest grant was given, which is what `over` counts with.
    granted_length: Duration,
}

words! {
    /// How a member stands, as status shows it.
    pub enum Standing("standing") {
        Live = "live": "It was heard within the last two Sync intervals.",
        Silent = "silent": "It was not heard for more than two Sync intervals.",
        Registered = "registered": "It is in the roster, and this leader has not heard it yet.",
        Fenced = "fenced": "It is silent, and its last lease has expired on every clock or the policy presumes it dead.",
        Left = "left": "It has left for good, or a later incarnation of its exclusive name has replaced it.",
    }
}

words! {
    /// Why a member does or does not hold back a version's retire.
    pub enum GuardStanding("guard standing") {
        Left = "left": "It has left for good.",
        Superseded = "superseded": "A later incarnation of the same exclusive name proves that it is over.",
        Released = "released": "It has reported that it will never use the version again.",
        Overridden = "overridden": "An operator's override names it.",
        Fenced = "fenced": "Its lease has expired on every clock.",
        PresumedDead = "presumed_dead" / "presumed dead": "It has been silent for as long as the policy says.",
        Holding = "holding": "It may still use the version.",
    }
}

impl Member {
    pub(super) fn new(id: MemberId, key: InstanceKey, at: Now) -> Self {
        Self {
            id,
            key,
            exclusive: false,
            registered: false,
            left: false,
            superseded: false,
            first_seen: at,
            heard: None,
            sequence: ReportSequence(0),
            report: None,
            grants: BTreeMap::new(),
            granted_sequence: LeaseSequence(0),
            granted_at: Instant::ZERO,
            granted_length: Duration::ZERO,
        }
    }

    /// Whether it is known to be over for good.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.left || self.superseded
    }

    /// How records and operators name it: `service/instance/incarnation`.
    #[must_use]
    pub fn name(&self) -> String {
        full_name(&self.key)
    }

    /// It speaks, so it lives: an incarnation that claimed the name exclusively was wrong about it.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(HeardLives, self.heard = Some(at)))]
    pub(super) fn heard(&mut self, at: Now) {
        self.heard = Some(at);
        self.superseded = false;
    }

    /// The newest report counts, whatever the order of arrival.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(ReportOrder, true))]
    pub(super) fn is_news(&self, sequence: ReportSequence) -> bool {
        sequence > self.sequence || self.report.is_none()
    }

    /// Folds a report: the newest sequence wins, whatever the order of arrival.
    pub(super) fn fold(&mut self, sequence: ReportSequence, report: SecretReport, at: Now) {
        self.heard(at);
        if self.is_news(sequence) {
            // It goes by the newest grant that names a version, so earlier and longer ones are over with its arrival.
            // Only that very grant says so: a later one may name other versions only.
            for granted in self.grants.values_mut().filter(|granted| granted.is_acknowledged_by(report.lease)) {
                granted.over = granted.newest_over;
            }
            self.sequence = sequence;
            self.report = Some(report);
        }
    }

    /// Whether a further grant for a version that the record does not know can be remembered, among all that one Sync asks for.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(GrantsBounded, true))]
    pub(super) fn has_room_for(&self, version: Version) -> bool {
        self.grants.contains_key(&version) || self.grants.len() + MAX_HELD_VERSIONS < MAX_GRANTS
    }

    /// Grants of live versions and of a few that the record does not know: see [`Member::has_room_for`].
    pub(super) fn grant(
        &mut self,
        sequence: LeaseSequence,
        length: Duration,
        over: &BTreeMap<Version, Instant>,
        at: Instant,
    ) {
        self.granted_sequence = self.granted_sequence.max(sequence);
        self.granted_at = at;
        self.granted_length = length;
        for (version, over) in over {
            let granted = self.grants.entry(*version).or_insert(Granted { sequence, over: *over, newest_over: *over });
            granted.sequence = granted.sequence.max(sequence);
            granted.over = later(granted.over, *over);
            granted.newest_over = *over;
        }
    }

    /// The leases of the newest grant, as long as they were when it was given: what counts since then goes by that.
    pub(super) fn leases(&self) -> BTreeMap<Version, Duration> {
        self.grants
            .iter()
            .filter(|(_, granted)| granted.sequence == self.granted_sequence)
            .map(|(version, _)| (*version, self.granted_length))
            .collect()
    }

    /// The number of its next grant: above every one it has had, from whatever leader.
    pub(super) fn next_lease(&self, first: LeaseSequence) -> LeaseSequence {
        let heard = self.report.as_ref().map_or(LeaseSequence(0), |report| report.lease);
        first.max(self.granted_sequence).max(heard).next()
    }

    /// Whether it has said that it will never use the version again: it has acted on a desired state that no longer
    /// asks for it, holds it no more, and had heard of the last grant for it when it said so. A state that is newer than
    /// the record (`newest`) is of a history that the store has lost: what it asked for is not known.
    #[must_use]
    pub fn has_released(&self, version: Version, retirement: &Retirement, newest: Revision) -> bool {
        self.report.as_ref().is_some_and(|report| {
            has_acted_since(report, retirement.unwanted_since)
                && has_acted_on_this_history(report, newest)
                && holds_no_more(report, version)
                && self.has_heard_of_last_grant(report, version)
        })
    }

    /// Lease rule 5: a release has heard of the last grant.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(ReleaseLease, true))]
    fn has_heard_of_last_grant(&self, report: &SecretReport, version: Version) -> bool {
        self.grants.get(&version).is_none_or(|granted| report.lease >= granted.sequence)
    }

    /// Whether it has reached a stage with a version.
    #[must_use]
    pub fn has_reached(&self, version: Version, stage: Stage) -> bool {
        self.report
            .as_ref()
            .and_then(|report| report.reached)
            .is_some_and(|(reached, at)| reached == version && at >= stage)
    }

    /// When the last lease this leader granted it is surely over.
    #[must_use]
    pub fn leases_over(&self) -> Instant {
        self.grants.values().map(|granted| granted.over).max().unwrap_or(Instant::ZERO)
    }
}

/// A grant does not end the wait for a longer one before it.
#[cfg_attr(rotacast_mutants, rotacast_mutate::rule(LongerGrant, new))]
fn later(before: Instant, new: Instant) -> Instant {
    before.max(new)
}

/// A release was said of a desired state that no longer asks for the version.
#[cfg_attr(rotacast_mutants, rotacast_mutate::rule(ReleaseRevision, true))]
fn has_acted_since(report: &SecretReport, unwanted_since: Revision) -> bool {
    report.revision >= unwanted_since
}

/// A release was said of a state that this record has had.
#[cfg_attr(rotacast_mutants, rotacast_mutate::rule(ReleaseKnown, true))]
fn has_acted_on_this_history(report: &SecretReport, newest: Revision) -> bool {
    report.revision <= newest
}

/// A release holds the version no more.
#[cfg_attr(rotacast_mutants, rotacast_mutate::rule(ReleaseHeld, true))]
fn holds_no_more(report: &SecretReport, version: Version) -> bool {
    !report.held.contains(&version)
}

/// `service/instance/incarnation`.
#[must_use]
pub(super) fn full_name(key: &InstanceKey) -> String {
    format!("{}/{}/{}", key.service, key.instance, key.incarnation)
}
