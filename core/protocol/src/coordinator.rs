//! The leader's side of one secret: what to do next, given everything that has happened.
//!
//! `decide` says what an input changes, `apply` is the only mutation, and `commands` says which side effects are
//! outstanding. They follow from the state alone, so a new leader has exactly those of the old one.
//! The driver saves a decision's record changes by compare-and-swap before it applies them, and
//! nothing leaves before it is durable.

mod advance;
mod claim;
mod command;
mod condition;
mod decide;
mod guard;
mod input;
mod lease;
mod member;
mod members;
mod order;
mod outlook;
mod remedy;
mod restored;
mod retire;
mod roster;
mod rotation;
mod standing;
mod tally;
#[cfg(test)]
mod tests;
mod version;

use std::collections::BTreeMap;
use std::time::Duration;

pub use claim::Claim;
pub use command::{Command, CommandKind, CommandName, USAGE_INTERVAL};
pub use condition::{Blocker, Condition, ConditionName};
pub use decide::Rejection;
pub use guard::{Guard, MAX_LISTED};
pub use input::{Cure, Evidence, Failed, Input};
pub use member::{Granted, GuardStanding, Member, Reported, Standing};
pub use order::{CutOff, InvalidOrder, Order, OrderName, Reason};
pub use outlook::{Overlay, StageCounts};
pub use standing::{Elsewhere, LastSign, gone_after};

use crate::id::{Epoch, InstanceKey, LeaseSequence, ReportSequence, Revision, Version};
use crate::message::{SecretGrant, SecretReport};
use crate::policy::Policy;
use crate::record::{RecordChange, SecretRecord};
use crate::schedule;
use crate::time::{Instant, Now, WallTime};
use members::Members;
use tally::Tally;

/// Most incarnations of one secret that a leader tracks. Beyond it, newcomers are refused their lease and so run on
/// self-leases, which every retire outlasts.
pub const MAX_MEMBERS: usize = 200_000;

/// A leader's term, by the leader's own clock.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Tenure {
    pub epoch: Epoch,
    /// When the leader learned that it leads.
    pub since: Now,
    /// Until when it is certain to lead, counted from its own send times.
    pub valid_until: Instant,
}

/// What an input changes. Record changes are durable and saved first; the others are observations that a new
/// leader gathers anew.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Change {
    /// Of the record.
    Record(RecordChange),
    /// An incarnation is in the roster.
    MemberRegistered {
        key: InstanceKey,
        /// Its name is exclusive: once it is known to run, earlier incarnations of the name are over.
        exclusive: bool,
        at: Now,
    },
    /// Every incarnation in the roster is known.
    RosterRead,
    /// An instance has left for good.
    MemberLeft { key: InstanceKey, at: Now },
    /// A report was folded.
    ReportFolded { key: InstanceKey, sequence: ReportSequence, report: SecretReport, at: Now },
    /// An instance was heard, with nothing new to say.
    Heard { key: InstanceKey, at: Now },
    /// Leases were granted.
    LeaseGranted {
        key: InstanceKey,
        /// What the reply says.
        sequence: LeaseSequence,
        /// How long each lease is, from the request's send time.
        length: Duration,
        /// For which versions, and when each has expired on every clock.
        over: BTreeMap<Version, Instant>,
    },
    /// The leadership was renewed.
    LeadershipExtended {
        /// Until when it is valid.
        until: Instant,
    },
    /// The provider's usage evidence was read.
    UsageRead {
        version: Version,
        /// When the reading was asked for.
        sent: Instant,
        evidence: Evidence,
    },
    /// The intent to retire is in the audit log.
    Audited { version: Version },
    /// The desired state is on the bus.
    Published {
        /// Up to which revision.
        revision: Revision,
    },
    /// A command fails.
    Troubled { command: CommandKind, failed: Failed, at: Now },
    /// A deadline was extended.
    DeadlineExtended { at: Now },
    /// The policy was changed.
    PolicySet(Box<Policy>),
}

/// A command that keeps failing.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Trouble {
    pub failed: Failed,
    pub since: Now,
    pub times: u32,
}

/// What a leader has seen of one retirement in its own term.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct RetireProgress {
    /// When this leader knew of the seal; its takeover if the seal is older.
    sealed: Option<Instant>,
    /// When it was sealed, for people; none if that was before this leader's term.
    sealed_wall: Option<WallTime>,
    /// The record's revision then.
    sealed_at: Revision,
    audited: bool,
}

impl RetireProgress {
    fn unsealed(sealed_at: Revision) -> Self {
        Self { sealed: None, sealed_wall: None, sealed_at, audited: false }
    }
}

/// The leader's side of one secret.
#[derive(Clone, Hash, Debug)]
pub struct Coordinator {
    policy: Policy,
    tenure: Tenure,
    record: SecretRecord,
    /// When every lease that a predecessor may have granted has expired on every clock. The roster says to whom it may have.
    inherited_over: Instant,
    /// Once history was lost: when nothing that it granted or let an instance read can be in use any more, on every clock.
    lost_over: Instant,
    /// The roster was read in this term.
    roster_read: bool,
    /// Everything in it found a place among the members.
    roster_fits: bool,
    members: Members,
    retiring: BTreeMap<Version, RetireProgress>,
    usage: BTreeMap<Version, (Instant, Evidence)>,
    published: Option<Revision>,
    troubles: BTreeMap<CommandKind, Trouble>,
    /// When this leader saw the phase begin; its takeover if it began before.
    phase_began: Instant,
    /// How old the phase was then, by the record.
    phase_age: Duration,
    /// Since when this leader has certainly granted no lease longer than the short tier's: the rotation's begin, the last
    /// change of the lease times or its takeover.
    short_since: Instant,
    /// The record's revision when the lease times were last changed in this term: who has acted on an earlier state may Sync
    /// at another interval.
    timed_at: Revision,
    /// When this leader last heard any instance; its takeover before that.
    heard_at: Instant,
    /// Since when this leader has heard instances without a long gap. What was silent before may have spoken.
    listening_since: Instant,
    /// When this leader noted the wall clock in the record, by both clocks.
    clock_noted_at: Option<Now>,
    /// When this leader saw the new version become current.
    activated_at: Instant,
    deadline_extended: u32,
    /// Below every grant of this term.
    first_lease: LeaseSequence,
    tally: Tally,
}

impl Coordinator {
    /// Takes a record over at the beginning of a term. A record that no leader has written yet has revision 0.
    #[must_use]
    pub fn take_over(record: SecretRecord, policy: Policy, tenure: Tenure) -> Self {
        let since = tenure.since.instant;
        let inherited_over = if record.revision == Revision(0) {
            since
        } else {
            since + lease::outlast(record.bounds.lease) + lease::use_time(&record)
        };
        let lost_over = since + lease::longest(&record);
        let unsealed = RetireProgress::unsealed(record.revision);
        let sealed = RetireProgress { sealed: Some(since), ..unsealed };
        let retiring = record
            .retirements
            .keys()
            .map(|version| {
                let is_sealed = record.versions.get(version).is_some_and(|version| version.sealed);
                (*version, if is_sealed { sealed } else { unsealed })
            })
            .collect();
        let began = record.rotation.as_ref().map_or(tenure.since.wall, |rotation| rotation.phase_since);
        // A clock that was set back makes it no older.
        let record_age = Duration::from_millis(tenure.since.wall.0.saturating_sub(began.0));
        let mut coordinator = Self {
            policy,
            tenure,
            record,
            inherited_over,
            lost_over,
            roster_read: false,
            roster_fits: false,
            members: Members::new(since),
            retiring,
            usage: BTreeMap::new(),
            published: None,
            troubles: BTreeMap::new(),
            phase_began: since,
            phase_age: record_age,
            short_since: since,
            timed_at: Revision(0),
            heard_at: since,
            listening_since: since,
            clock_noted_at: None,
            activated_at: since,
            deadline_extended: 0,
            first_lease: lease::first_of_term(tenure.epoch),
            tally: Tally::default(),
        };
        coordinator.recount();
        coordinator
    }

    /// The record as of the last applied change.
    #[must_use]
    pub fn record(&self) -> &SecretRecord {
        &self.record
    }

    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    #[must_use]
    pub fn tenure(&self) -> &Tenure {
        &self.tenure
    }

    /// Every incarnation that was heard of in this term.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.iter()
    }

    /// A member, if it was heard of in this term.
    #[must_use]
    pub fn member_of(&self, key: &InstanceKey) -> Option<&Member> {
        self.members.find(key)
    }

    /// Commands that keep failing.
    pub fn troubles(&self) -> impl Iterator<Item = (&CommandKind, &Trouble)> {
        self.troubles.iter()
    }

    /// The record as the changes would leave it: what the driver saves before it applies them. `None` when no change
    /// is durable.
    #[must_use]
    pub fn record_after(&self, changes: &[Change]) -> Option<SecretRecord> {
        let mut record: Option<SecretRecord> = None;
        for change in changes {
            if let Change::Record(change) = change {
                record.get_or_insert_with(|| self.record.clone()).apply(change);
            }
        }
        record
    }

    /// What the record should note of the wall clock: see [`clock_noted`](schedule::clock_noted).
    #[must_use]
    pub fn clock_noted(&self, now: Now) -> Option<Option<WallTime>> {
        let set = self.clock_noted_at.map_or(0, |noted| {
            let passed = u64::try_from(now.instant.since(noted.instant).as_millis()).unwrap_or(u64::MAX);
            now.wall.0.saturating_sub(noted.wall.0).saturating_sub(passed)
        });
        schedule::clock_noted(&self.record, set, now.wall)
    }

    /// What the Sync reply to an instance says of this secret, after its `Input::Sync` was applied. When that was
    /// rejected, nothing may be replied: an earlier grant's leases do not count from a later request.
    #[must_use]
    pub fn grant(&self, key: &InstanceKey) -> Option<SecretGrant> {
        let member = self.members.find(key)?;
        let known = member.report().map_or(Revision(0), |report| report.revision);
        Some(SecretGrant {
            sequence: member.granted_sequence,
            leases: member.leases(),
            state: (known < self.record.revision).then(|| self.record.state()),
        })
    }

    /// Carries out one change, at the moment `now` at which it became durable. The only mutation.
    pub fn apply(&mut self, now: Now, change: &Change) {
        match change {
            Change::Record(change) => self.apply_to_record(now, change),
            Change::MemberRegistered { key, exclusive, at } => self.register(key, *exclusive, *at),
            Change::RosterRead => {
                self.roster_read = true;
                self.roster_fits = self.members.len() < MAX_MEMBERS;
            }
            Change::MemberLeft { key, at } => {
                self.know(key, *at);
                self.change_member(key, |member, _| {
                    member.left = true;
                    member.speaks(at.instant);
                });
                self.listen(at.instant);
            }
            Change::ReportFolded { key, sequence, report, at } => {
                self.know(key, *at);
                self.change_member(key, |member, reports| member.fold(reports, *sequence, report, at.instant));
                self.listen(at.instant);
                self.prove_earlier_incarnations_over(key);
            }
            Change::Heard { key, at } => {
                self.change_member(key, |member, _| member.hear(at.instant));
                self.listen(at.instant);
            }
            Change::LeaseGranted { key, sequence, length, over } => {
                self.change_member(key, |member, _| member.grant(*sequence, *length, over, now.instant));
            }
            Change::LeadershipExtended { until } => self.tenure.valid_until = self.tenure.valid_until.max(*until),
            Change::UsageRead { version, sent, evidence } => {
                self.usage.insert(*version, (*sent, evidence.clone()));
                self.troubles.remove(&CommandKind::ReadUsage { version: *version });
            }
            Change::Audited { version } => {
                if let Some(progress) = self.retiring.get_mut(version) {
                    progress.audited = true;
                }
                self.troubles.remove(&CommandKind::Audit { version: *version });
            }
            Change::Published { revision } => {
                self.published = self.published.max(Some(*revision));
                self.troubles.remove(&CommandKind::Publish);
            }
            Change::Troubled { command, failed, at } => {
                let trouble = self.troubles.entry(command.clone()).or_insert_with(|| Trouble {
                    failed: failed.clone(),
                    since: *at,
                    times: 0,
                });
                trouble.failed.clone_from(failed);
                trouble.times = trouble.times.saturating_add(1);
            }
            Change::DeadlineExtended { at } => {
                self.phase_began = at.instant;
                self.phase_age = Duration::ZERO;
                self.deadline_extended = self.deadline_extended.saturating_add(1);
            }
            Change::PolicySet(policy) => {
                self.policy = (**policy).clone();
                self.recount();
            }
        }
    }

    fn apply_to_record(&mut self, now: Now, change: &RecordChange) {
        let before = self.record.rotation.as_ref().map(|rotation| (rotation.generation, rotation.phase));
        let was_rotating = self.record.is_rotating();
        self.record.apply(change);
        let after = self.record.rotation.as_ref().map(|rotation| (rotation.generation, rotation.phase));
        if before != after {
            self.phase_began = now.instant;
            self.phase_age = Duration::ZERO;
            self.deadline_extended = 0;
        }
        // Until now a longer lease may have been granted.
        if !was_rotating && self.record.is_rotating() || matches!(change, RecordChange::TimingSet { .. }) {
            self.short_since = now.instant;
        }
        if matches!(change, RecordChange::TimingSet { .. }) {
            self.timed_at = self.record.revision;
        }
        if matches!(change, RecordChange::SafeModeEntered(_)) {
            self.wait_anew(now);
        }
        if let RecordChange::ClockNoted { since } = change {
            self.clock_noted_at = since.map(|_| now);
        }
        if let RecordChange::RetireFinished { version } = change {
            self.members.for_each_mut(|member| member.forget_grant(*version));
        }
        if matches!(change, RecordChange::Activated { .. } | RecordChange::RollbackStarted { .. }) {
            self.activated_at = now.instant;
        }
        // What was seen of a retirement ends with it; a new one starts from nothing.
        let record = &self.record;
        self.retiring.retain(|version, _| record.retirements.contains_key(version));
        for version in record.retirements.keys() {
            self.retiring.entry(*version).or_insert(RetireProgress::unsealed(record.revision));
        }
        self.usage.retain(|version, _| record.retirements.contains_key(version));
        if let RecordChange::Sealed { version } = change
            && let Some(progress) = self.retiring.get_mut(version)
        {
            let unsealed = RetireProgress::unsealed(record.revision);
            *progress = RetireProgress { sealed: Some(now.instant), sealed_wall: Some(now.wall), ..unsealed };
        }
        if let RecordChange::SaidGone { instance, .. } = change {
            self.change_member(instance, |member, _| member.left = true);
        }
        self.recount();
        // Trouble with what is no longer to be done is over.
        let mut troubles = std::mem::take(&mut self.troubles);
        troubles.retain(|command, _| self.may_be_owed(command));
        self.troubles = troubles;
    }
}
