//! What a leader knows of one incarnation that uses the secret.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::id::{Generation, InstanceKey, LeaseSequence, ReportSequence, Revision, Version};
use crate::message::{Failure, MAX_HELD_VERSIONS, SecretReport, Stage};
use crate::record::Retirement;
use crate::time::Instant;
use crate::word::words;

/// Most versions whose grants are remembered of one incarnation. The live versions of a record are far fewer; only versions
/// of a lost history that an instance still uses come on top.
const MAX_GRANTS: usize = 4 * MAX_HELD_VERSIONS;

/// What was granted for one version.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Granted {
    pub version: Version,
    /// The newest grant's number.
    pub sequence: LeaseSequence,
    /// When no use of the version can rest on any grant any more, by the leader's clock.
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

/// Grants by version. Most members have the grant of one version, which takes no further allocation.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Grants {
    One(Granted),
    /// None, or more than one, sorted by version.
    Other(Box<[Granted]>),
}

impl Grants {
    fn all(&self) -> &[Granted] {
        match self {
            Self::One(granted) => std::slice::from_ref(granted),
            Self::Other(all) => all,
        }
    }

    fn all_mut(&mut self) -> &mut [Granted] {
        match self {
            Self::One(granted) => std::slice::from_mut(granted),
            Self::Other(all) => all,
        }
    }

    fn place(&self, version: Version) -> Result<usize, usize> {
        self.all().binary_search_by_key(&version, |granted| granted.version)
    }

    fn get(&self, version: Version) -> Option<&Granted> {
        self.place(version).ok().map(|place| &self.all()[place])
    }

    /// The grant of a version; this one if there is none.
    fn get_or_insert(&mut self, granted: Granted) -> &mut Granted {
        let place = self.place(granted.version).unwrap_or_else(|place| {
            let mut all = self.all().to_vec();
            all.insert(place, granted);
            *self = all.into();
            place
        });
        &mut self.all_mut()[place]
    }

    fn remove(&mut self, version: Version) {
        if let Ok(place) = self.place(version) {
            let mut all = self.all().to_vec();
            all.remove(place);
            *self = all.into();
        }
    }
}

impl From<Vec<Granted>> for Grants {
    fn from(all: Vec<Granted>) -> Self {
        match all[..] {
            [granted] => Self::One(granted),
            _ => Self::Other(all.into()),
        }
    }
}

/// What a report says, but for the grant that it acknowledges: the same for nearly all members of a secret, so it is kept once.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Reported {
    /// The generation of the newest desired state it has acted on.
    pub generation: Generation,
    /// The revision of that state.
    pub revision: Revision,
    /// The version it is moving to or has arrived at, and how far it is.
    pub reached: Option<(Version, Stage)>,
    /// Every version it still holds.
    pub held: BTreeSet<Version>,
    /// What last went wrong, if the last step did.
    pub failure: Option<Failure>,
    /// Failed logins by version, since its incarnation began.
    pub auth_failures: BTreeMap<Version, u64>,
}

impl Reported {
    fn of(report: &SecretReport) -> Self {
        let SecretReport { generation, revision, reached, held, lease: _, failure, auth_failures } = report.clone();
        Self { generation, revision, reached, held, failure, auth_failures }
    }

    /// Compares without a copy.
    fn is_of(&self, report: &SecretReport) -> bool {
        let SecretReport { generation, revision, reached, held, lease: _, failure, auth_failures } = report;
        (self.generation, self.revision, self.reached) == (*generation, *revision, *reached)
            && self.held == *held
            && self.failure == *failure
            && self.auth_failures == *auth_failures
    }
}

/// What members' newest reports say, each once.
#[derive(Clone, Default, Debug)]
pub(super) struct Reports {
    all: BTreeSet<Arc<Reported>>,
    /// What the last report said: the next one often says the same.
    last: Option<Arc<Reported>>,
    /// How many there may be before those that no member has any more are dropped.
    bound: usize,
}

impl Reports {
    fn share(&mut self, report: &SecretReport) -> Arc<Reported> {
        if let Some(last) = self.last.as_ref().filter(|last| last.is_of(report)) {
            return Arc::clone(last);
        }
        let reported = Reported::of(report);
        let shared = self.all.get(&reported).cloned().unwrap_or_else(|| {
            if self.all.len() >= self.bound {
                self.all.retain(|it| Arc::strong_count(it) > 1);
                self.bound = self.all.len() * 2 + 16;
            }
            let new = Arc::new(reported);
            self.all.insert(Arc::clone(&new));
            new
        });
        self.last = Some(Arc::clone(&shared));
        shared
    }
}

/// One incarnation that uses the secret. There may be a million of them, so what is the same for many is kept elsewhere.
#[derive(Clone, Hash, Debug)]
pub struct Member {
    pub key: InstanceKey,
    /// Its registration says that at most one life holds its name at a time.
    pub(super) exclusive: bool,
    /// It is in the roster.
    pub registered: bool,
    /// It was in the roster before this term, so that a predecessor may have granted it leases.
    pub(super) inherited: bool,
    /// It has left for good, or an operator has said that it is gone.
    pub left: bool,
    /// A later incarnation of the same exclusive name has run, and this one was not heard since.
    pub superseded: bool,
    was_heard: bool,
    /// When this leader first knew of it.
    pub first_seen: Instant,
    /// Meaningful if it was heard.
    heard_at: Instant,
    /// Its newest report's number.
    pub sequence: ReportSequence,
    reported: Option<Arc<Reported>>,
    /// The newest grant that its newest report has heard of.
    acknowledged: LeaseSequence,
    /// The newest grant by version, running or over.
    grants: Grants,
    /// The number of the newest grant.
    pub granted_sequence: LeaseSequence,
    /// When the newest grant was given.
    pub(super) granted_at: Instant,
    /// The length the newest grant was given in nanoseconds, which is what `over` counts with.
    granted_length: u64,
}

words! {
    /// How a member stands, as status shows it.
    pub enum Standing("standing") {
        Live = "live": "It was heard within the last two Sync intervals.",
        Silent = "silent": "It was not heard for more than two Sync intervals.",
        Registered = "registered": "It is in the roster, and this leader has not heard it yet.",
        Fenced = "fenced": "It is silent, and its last lease has expired on every clock or the policy presumes it dead.",
        Left = "left": "It has left for good, an operator has said that it is gone, or a later incarnation of its exclusive name has replaced it.",
    }
}

words! {
    /// Why a member does or does not hold back a version's retire.
    pub enum GuardStanding("guard standing") {
        Left = "left": "It has left for good, or an operator has said that it is gone.",
        Superseded = "superseded": "A later incarnation of the same exclusive name proves that it is over.",
        Released = "released": "It has reported that it will never use the version again.",
        Overridden = "overridden": "An operator's override names it.",
        Fenced = "fenced": "Its lease has expired on every clock.",
        PresumedDead = "presumed_dead" / "presumed dead": "It has been silent for as long as the policy says.",
        Holding = "holding": "It may still use the version.",
    }
}

impl Member {
    pub(super) fn new(key: InstanceKey, at: Instant) -> Self {
        Self {
            key,
            exclusive: false,
            registered: false,
            inherited: false,
            left: false,
            superseded: false,
            was_heard: false,
            first_seen: at,
            heard_at: Instant::ZERO,
            sequence: ReportSequence(0),
            reported: None,
            acknowledged: LeaseSequence(0),
            grants: Vec::new().into(),
            granted_sequence: LeaseSequence(0),
            granted_at: Instant::ZERO,
            granted_length: 0,
        }
    }

    /// When it was last heard in this term.
    #[must_use]
    pub fn heard(&self) -> Option<Instant> {
        self.was_heard.then_some(self.heard_at)
    }

    /// When it was last heard, or first known of.
    #[must_use]
    pub fn last_known(&self) -> Instant {
        self.heard().unwrap_or(self.first_seen)
    }

    #[must_use]
    pub fn report(&self) -> Option<&Reported> {
        self.reported.as_deref()
    }

    /// The newest grant that its newest report has heard of.
    #[must_use]
    pub fn acknowledged(&self) -> Option<LeaseSequence> {
        self.reported.is_some().then_some(self.acknowledged)
    }

    /// What was granted for a version.
    #[must_use]
    pub fn granted(&self, version: Version) -> Option<&Granted> {
        self.grants.get(version)
    }

    /// Of how many versions grants are remembered.
    #[must_use]
    pub fn grants(&self) -> usize {
        self.grants.all().len()
    }

    /// Whether it is known to be over for good.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.left || self.superseded
    }

    /// How records and operators name it: `service/instance/incarnation`.
    #[must_use]
    pub fn name(&self) -> String {
        self.key.full_name()
    }

    /// It speaks, so it lives: an incarnation that claimed the name exclusively was wrong about it.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(HeardLives, self.speaks(at)))]
    pub(super) fn hear(&mut self, at: Instant) {
        self.speaks(at);
        self.superseded = false;
    }

    /// It was heard, which is what silence counts from.
    pub(super) fn speaks(&mut self, at: Instant) {
        (self.was_heard, self.heard_at) = (true, at);
    }

    /// The newest report counts, whatever the order of arrival.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(ReportOrder, true))]
    pub(super) fn is_news(&self, sequence: ReportSequence) -> bool {
        sequence > self.sequence || self.reported.is_none()
    }

    /// Folds a report: the newest sequence wins, whatever the order of arrival.
    pub(super) fn fold(&mut self, reports: &mut Reports, sequence: ReportSequence, report: &SecretReport, at: Instant) {
        self.hear(at);
        if self.is_news(sequence) {
            // The newest grant that names a version counts, so earlier and longer ones are over with its arrival.
            // Only that very grant says so: a later one may name other versions only.
            for granted in self.grants.all_mut().iter_mut().filter(|granted| granted.is_acknowledged_by(report.lease)) {
                granted.over = granted.newest_over;
            }
            self.sequence = sequence;
            self.acknowledged = report.lease;
            if !self.report().is_some_and(|reported| reported.is_of(report)) {
                self.reported = Some(reports.share(report));
            }
        }
    }

    /// Whether a further grant for a version that the record does not know can be remembered, among all that one Sync asks for.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(GrantsBounded, true))]
    pub(super) fn has_room_for(&self, version: Version) -> bool {
        self.granted(version).is_some() || self.grants() + MAX_HELD_VERSIONS < MAX_GRANTS
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
        self.granted_length = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
        for (version, over) in over {
            let first = Granted { version: *version, sequence, over: *over, newest_over: *over };
            let granted = self.grants.get_or_insert(first);
            granted.sequence = granted.sequence.max(sequence);
            granted.over = later(granted.over, *over);
            granted.newest_over = *over;
        }
    }

    /// The leases of the newest grant, as long as they were when it was given.
    pub(super) fn leases(&self) -> BTreeMap<Version, Duration> {
        let newest = self.grants.all().iter().filter(|granted| granted.sequence == self.granted_sequence);
        newest.map(|granted| (granted.version, Duration::from_nanos(self.granted_length))).collect()
    }

    /// A version that has ended is granted no more.
    pub(super) fn forget_grant(&mut self, version: Version) {
        self.grants.remove(version);
    }

    /// The number of its next grant: above every one it has had, from whatever leader.
    pub(super) fn next_lease(&self, first: LeaseSequence) -> LeaseSequence {
        first.max(self.granted_sequence).max(self.acknowledged).next()
    }

    /// Whether it has said that it will never use the version again: it has acted on a desired state that no longer
    /// asks for it, holds it no more, and had heard of the last grant for it when it said so. A state that is newer than
    /// the record (`newest`) is of a history that the store has lost: what it asked for is not known.
    #[must_use]
    pub fn has_released(&self, version: Version, retirement: &Retirement, newest: Revision) -> bool {
        self.report().is_some_and(|report| {
            has_acted_since(report, retirement.unwanted_since)
                && has_acted_on_this_history(report, newest)
                && holds_no_more(report, version)
                && self.has_heard_of_last_grant(version)
        })
    }

    /// Lease rule 5: a release has heard of the last grant.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(ReleaseLease, true))]
    fn has_heard_of_last_grant(&self, version: Version) -> bool {
        self.granted(version).is_none_or(|granted| self.acknowledged >= granted.sequence)
    }

    /// Whether it has reached a stage with a version.
    #[must_use]
    pub fn has_reached(&self, version: Version, stage: Stage) -> bool {
        self.report().and_then(|report| report.reached).is_some_and(|(reached, at)| reached == version && at >= stage)
    }

    /// When the last lease that this leader granted it has expired on every clock.
    #[must_use]
    pub fn leases_over(&self) -> Instant {
        self.grants.all().iter().map(|granted| granted.over).max().unwrap_or(Instant::ZERO)
    }
}

/// A grant does not end the wait for a longer one before it.
#[cfg_attr(rotacast_mutants, rotacast_mutate::rule(LongerGrant, new))]
fn later(before: Instant, new: Instant) -> Instant {
    before.max(new)
}

/// A release was said of a desired state that no longer asks for the version.
#[cfg_attr(rotacast_mutants, rotacast_mutate::rule(ReleaseRevision, true))]
fn has_acted_since(report: &Reported, unwanted_since: Revision) -> bool {
    report.revision >= unwanted_since
}

/// A release was said of a state that this record has had.
#[cfg_attr(rotacast_mutants, rotacast_mutate::rule(ReleaseKnown, true))]
fn has_acted_on_this_history(report: &Reported, newest: Revision) -> bool {
    report.revision <= newest
}

/// A release holds the version no more.
#[cfg_attr(rotacast_mutants, rotacast_mutate::rule(ReleaseHeld, true))]
fn holds_no_more(report: &Reported, version: Version) -> bool {
    !report.held.contains(&version)
}
