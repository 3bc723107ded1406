//! Worlds made for one rule: what the rule is for happens often, and waits that would hide its absence are short.

use std::time::Duration;

use rotacast_protocol::coordinator::ConditionName;
use rotacast_protocol::policy::WhenUnreachable;
use rotacast_protocol::{Phase, Policy};

use crate::clock::{MS, SECOND, ms};
use crate::fault::{Act, Fault, When};
use crate::mutant::{Around, HolderRule, Mutant, Rule};

/// How a world differs from an ordinary one.
#[derive(Clone, Default, Debug)]
pub struct Profile {
    /// Faults that make up most of what happens; none: all are equally likely.
    pub favoured: Vec<Fault>,
    /// How often messages are lost, in thousandths.
    pub loss: Option<u64>,
    /// How often messages are slow.
    pub slowness: Option<u64>,
    /// How often the service's steps are slow.
    pub step_slowness: Option<u64>,
    /// How many instances a script has, if more than three.
    pub instances: u64,
    /// The provider sees sessions.
    pub sessions: bool,
    /// A script, where random faults would take too long.
    pub script: Vec<Act>,
    changes: Vec<Change>,
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Fence,
    Hold,
    Presume,
    /// Self-leases and uses that end at once, so that no wait for them hides another one.
    ShortOwn,
    /// The other way round: leases that end at once.
    LongOwn,
    /// Leases that are short, in both tiers.
    ShortLeases,
    LongIdle,
    LongUse,
    ShortUse,
    Overlap,
    Required,
    Approval,
    NoDeadlines,
    TwoVersions,
    ShortRotating,
    VeryLongIdle,
    OwnLease,
    Unapproved,
    /// Nothing is given up, approved or required.
    Patient,
}

impl Profile {
    /// The world made for a mutant's rule.
    #[must_use]
    pub fn of(mutant: Option<Mutant>) -> Self {
        use Change::{
            Approval, Fence, Hold, LongIdle, LongOwn, LongUse, NoDeadlines, Overlap, OwnLease, Patient, Presume,
            Required, ShortLeases, ShortOwn, ShortRotating, ShortUse, TwoVersions, Unapproved, VeryLongIdle,
        };
        use Fault::*;
        let Some(mutant) = mutant else { return Self::default() };
        let (favoured, changes): (Vec<Fault>, Vec<Change>) = match mutant {
            Mutant::Leader(rule) => match rule {
                Rule::Guard(ConditionName::OverlapOver) => {
                    (vec![NewVersion], vec![Overlap, ShortOwn, ShortLeases, NoDeadlines])
                }
                Rule::Guard(ConditionName::RequiredServices) => {
                    (vec![], vec![Fence, Required, ShortLeases, LongOwn, NoDeadlines, Unapproved])
                }
                Rule::Guard(ConditionName::LiveInstanceConfirmed) => {
                    (vec![], vec![Fence, ShortLeases, LongOwn, NoDeadlines, Patient])
                }
                Rule::EmptySet => (vec![NewVersion, Leaves, Alone, Leaves], vec![ShortOwn, ShortLeases, NoDeadlines]),
                Rule::Guard(ConditionName::NotPaused) | Rule::PauseActivation | Rule::PauseSteps => {
                    (vec![NewVersion, Order, Order], vec![NoDeadlines])
                }
                Rule::Guard(ConditionName::NotInSafeMode) | Rule::SafeModeActivation | Rule::SafeModeStart => {
                    (vec![NewVersion, StoreRestored], vec![NoDeadlines])
                }
                Rule::InheritedByName | Rule::ListedInherit => {
                    (vec![], vec![Fence, LongIdle, ShortOwn, ShortUse, ShortRotating, NoDeadlines, Patient])
                }
                Rule::Guard(ConditionName::SelfLeasesOver) | Rule::Guard(ConditionName::Sealed) => (
                    vec![InstanceCutOff, NewVersion, BusCutOff, Joiner],
                    vec![Fence, LongOwn, ShortLeases, NoDeadlines],
                ),
                Rule::Guard(ConditionName::UsageEvidence) | Rule::UsageAfterSeal => {
                    (vec![NewVersion, LeakedSession, LeakedSession], vec![ShortOwn, ShortUse, ShortLeases, Patient])
                }
                Rule::ReleaseHeld => (vec![NewVersion, Excused, Excused], vec![Fence, ShortOwn, ShortUse]),
                Rule::Guard(ConditionName::MembersReleased) | Rule::FenceWaits => {
                    (vec![], vec![Fence, ShortOwn, ShortUse, ShortRotating, LongIdle, NoDeadlines, Patient])
                }
                Rule::Drift => {
                    (vec![], vec![Fence, ShortOwn, ShortUse, ShortRotating, VeryLongIdle, NoDeadlines, Patient])
                }
                Rule::UseTime => (vec![NewVersion, InstanceCutOff, InstanceCutOff], vec![Fence, ShortOwn, LongIdle]),
                Rule::Leads => {
                    (vec![LeaderCutOff, HalfCutOff, NewVersion, BusCutOff], vec![Fence, ShortOwn, ShortLeases])
                }
                Rule::HoldWaits => (vec![NewVersion, InstanceCutOff, Alone], vec![Hold, ShortLeases]),
                Rule::SilenceWaits => (vec![NewVersion, InstanceCutOff, Alone], vec![Presume, ShortLeases]),
                Rule::ReleaseRevision => (vec![], vec![Fence, ShortOwn, ShortUse, ShortRotating, LongIdle]),
                Rule::ReportOrder => (vec![NewVersion, Rollback, BusCutOff, Rollback], vec![Fence, ShortOwn, LongIdle]),
                Rule::LongerGrant | Rule::AcknowledgedGrant => {
                    (vec![], vec![Fence, ShortOwn, ShortUse, ShortRotating, LongIdle, NoDeadlines, Patient])
                }
                Rule::ReleaseLease | Rule::GrantNumbers => {
                    (vec![NewVersion, Rollback, InstanceCutOff, BusCutOff], vec![Fence, ShortOwn, LongIdle])
                }
                Rule::ExclusiveOnly | Rule::LiveOnly | Rule::HeardLives | Rule::ProvenOnly => {
                    (vec![], vec![Fence, ShortOwn, ShortUse, ShortRotating, LongIdle, NoDeadlines, Patient])
                }
                Rule::SealedUnleased => (vec![NewVersion, OldLog, Joiner, BusCutOff], vec![ShortUse]),
                Rule::RegisteredOnly => (vec![NewVersion, Joiner, RosterCutBack, LeaderKilled], vec![]),
                Rule::TermFirst => (vec![NewVersion, LeaderKilled, LeaderCutOff], vec![]),
                Rule::TierBound | Rule::BoundRaised | Rule::BoundLowered => {
                    (vec![PolicyChanged, NewVersion, LeaderKilled, InstanceCutOff], vec![Fence, ShortOwn])
                }
                Rule::GuardTwice => (vec![NewVersion, Order, AuditSlow, Rollback], vec![Fence]),
                Rule::AuditFirst => (vec![NewVersion, AuditFull], vec![]),
                Rule::AuditOfSeal => (vec![NewVersion, AuditSlow, Rollback], vec![Fence, ShortOwn, ShortLeases]),
                Rule::VersionGap => (vec![WatchGap, NewVersion], vec![]),
                Rule::TestLogin => (vec![BadVersion], vec![]),
                Rule::NoReturn => (vec![NewVersion, Rollback, Rollback, ProviderHalf], vec![]),
                Rule::Approval => (vec![NewVersion], vec![Approval]),
                Rule::RosterFirst => (vec![], vec![Fence, ShortRotating, NoDeadlines, Patient]),
                Rule::Stages => (vec![NewVersion, LeaderKilled], vec![Fence, NoDeadlines]),
                Rule::ConfirmedDirection => {
                    (vec![NewVersion, Rollback, InstanceCutOff], vec![Required, ShortOwn, ShortLeases])
                }
                Rule::RollbackSpares | Rule::RollbackGeneration => (vec![NewVersion, Rollback], vec![]),
                Rule::ReplacedRetires | Rule::LiveVersions => {
                    (vec![NewVersion, NewVersion, BusCutOff], vec![TwoVersions])
                }
                Rule::ExcuseStages | Rule::OverrideNames => {
                    (vec![NewVersion, Excused, Alone, Overridden], vec![Fence, LongIdle, ShortOwn, ShortUse])
                }
                Rule::StepOrder => (vec![NewVersion, ProviderHalf, ProviderHalf], vec![]),
                _ => (vec![], vec![]),
            },
            Mutant::Holder(rule) => match rule {
                HolderRule::FromSend | HolderRule::LateGrant => {
                    (vec![], vec![Fence, ShortOwn, ShortUse, ShortLeases, NoDeadlines, Patient])
                }
                HolderRule::SwitchDoubt => (vec![NewVersion, Rollback, Rollback], vec![Fence]),
                HolderRule::ClockOnUse => (vec![NewVersion, Alone, Alone], vec![Fence]),
                HolderRule::NewestGrant => {
                    (vec![], vec![Fence, ShortOwn, ShortUse, ShortRotating, LongIdle, NoDeadlines, Patient])
                }
                HolderRule::StaleGrant | HolderRule::Acknowledge => {
                    (vec![NewVersion, InstanceCutOff], vec![Fence, ShortOwn, LongIdle])
                }
                HolderRule::ReadFromSend => {
                    (vec![], vec![Fence, OwnLease, ShortUse, ShortLeases, NoDeadlines, Patient])
                }
                HolderRule::ReadUnsealed | HolderRule::ReadNewest => {
                    (vec![NewVersion, InstanceCutOff, BusCutOff, Excused], vec![Fence, OwnLease, ShortUse, ShortLeases])
                }
                HolderRule::NewerState | HolderRule::NewerDirection | HolderRule::NoComeback => {
                    (vec![NewVersion, OldLog, Rollback, OldLog], vec![])
                }
                HolderRule::RegisteredFirst | HolderRule::LeaseFirst => (vec![NewVersion, Joiner], vec![]),
                _ => (vec![NewVersion], vec![LongUse, Fence]),
            },
            Mutant::Around(rule) => match rule {
                Around::ClockCountsInSuspend => {
                    (vec![NewVersion, InstanceStopped, InstanceStopped], vec![Fence, ShortOwn])
                }
                Around::ClocksAreTrue => {
                    (vec![], vec![Fence, ShortOwn, ShortUse, ShortRotating, LongIdle, NoDeadlines, Patient])
                }
                Around::UseEnds => (vec![NewVersion, InstanceCutOff], vec![Fence, ShortOwn]),
                Around::LeadsFromSend => {
                    (vec![LeaderCutOff, HalfCutOff, NewVersion, LeaderStopped], vec![Fence, ShortOwn, ShortLeases])
                }
                Around::SaveComparesKey | Around::SaveComparesRevision => {
                    (vec![NewVersion, LeaderStopped, KeyLost], vec![])
                }
                Around::UnknownIsAsked => (vec![NewVersion], vec![]),
                Around::ReadsAreCurrent => {
                    (vec![NewVersion, InstanceCutOff, BusCutOff], vec![Fence, LongOwn, ShortLeases, ShortUse])
                }
                Around::EntersFirst | Around::EntryComparesKey => {
                    (vec![NewVersion, Joiner, LeaderKilled, LeaderStopped], vec![])
                }
                Around::ListsRoster => {
                    (vec![], vec![Fence, LongIdle, ShortOwn, ShortUse, ShortRotating, NoDeadlines, Patient])
                }
                Around::JournalFirst | Around::DisableIsTried => (vec![Order, ProviderHalf, NewVersion], vec![]),
                Around::RestoreIsTold => (vec![NewVersion, StoreRestored], vec![]),
                Around::OwnKeySigns => (vec![NewVersion, Forged, Forged, Alone], vec![Fence, LongIdle, ShortOwn]),
                Around::DurableFirst | Around::AuditIsWritten => (vec![NewVersion], vec![]),
            },
        };
        let slow = matches!(
            mutant,
            Mutant::Holder(HolderRule::FromSend | HolderRule::LateGrant | HolderRule::StaleGrant)
                | Mutant::Holder(HolderRule::ReadFromSend | HolderRule::ReadNewest | HolderRule::ReadUnsealed)
                | Mutant::Leader(Rule::ReportOrder | Rule::UsageAfterSeal)
                | Mutant::Around(Around::LeadsFromSend | Around::SaveComparesKey)
        );
        let stuck = matches!(
            mutant,
            Mutant::Leader(Rule::ReleaseHeld | Rule::OverrideNames | Rule::ExcuseStages)
                | Mutant::Holder(HolderRule::FromSend | HolderRule::ReadFromSend | HolderRule::SwitchDoubt)
        );
        let calm = matches!(mutant, Mutant::Leader(Rule::Stages | Rule::RosterFirst));
        Self {
            favoured,
            loss: if calm { Some(0) } else { (mutant == Mutant::Holder(HolderRule::SwitchDoubt)).then_some(250) },
            slowness: if slow {
                Some(250)
            } else if calm {
                Some(0)
            } else {
                None
            },
            step_slowness: if calm { Some(400) } else { stuck.then_some(500) },
            instances: if mutant == Mutant::Leader(Rule::Guard(ConditionName::RequiredServices)) { 4 } else { 3 },
            script: script(mutant),
            sessions: matches!(
                mutant,
                Mutant::Leader(Rule::Guard(ConditionName::UsageEvidence) | Rule::UsageAfterSeal)
            ),
            changes,
        }
    }

    /// Bends a policy to this world.
    pub fn shape(&self, policy: &mut Policy) {
        for change in &self.changes {
            match change {
                Change::Fence => policy.when_unreachable = WhenUnreachable::Fence,
                Change::Hold => policy.when_unreachable = WhenUnreachable::Hold,
                Change::Presume => policy.when_unreachable = WhenUnreachable::PresumeDeadAfter(ms(12_000)),
                Change::ShortOwn => policy.self_lease = ms(200),
                Change::LongOwn => policy.self_lease = ms(6000),
                Change::ShortLeases => {
                    policy.sync_rotating = ms(500);
                    policy.lease_rotating = ms(1000);
                    policy.lease_idle = ms(1000);
                    policy.sync_idle = ms(500);
                }
                Change::LongIdle => policy.lease_idle = ms(15_000),
                Change::LongUse => policy.max_use = ms(4000),
                Change::ShortUse => policy.max_use = ms(50),
                Change::Overlap => policy.min_overlap = ms(8000),
                Change::Required => {
                    policy.required = [("api", 1)]
                        .into_iter()
                        .filter_map(|(service, minimum)| Some((service.parse().ok()?, minimum)))
                        .collect();
                }
                Change::Approval => policy.approval = true,
                Change::NoDeadlines => policy.deadlines.clear(),
                Change::ShortRotating => {
                    policy.sync_rotating = ms(500);
                    policy.lease_rotating = ms(1000);
                    policy.sync_idle = ms(500);
                }
                Change::VeryLongIdle => policy.lease_idle = ms(60_000),
                Change::Unapproved => policy.approval = false,
                Change::OwnLease => policy.self_lease = ms(1500),
                Change::Patient => {
                    policy.approval = false;
                    policy.required.clear();
                    policy.failure_budget = 10;
                }
                Change::TwoVersions => policy.max_live_versions = 2,
            }
        }
        if !self.changes.is_empty() && !self.changes.iter().any(|change| matches!(change, Change::Overlap)) {
            policy.min_overlap = Duration::ZERO;
        }
    }
}

/// The script in which a rule is the only protection. Instance 0 is the one that is harmed, of three.
fn script(mutant: Mutant) -> Vec<Act> {
    let at = |time: u64, fault, length: u64| Act {
        when: When::At(time * MS),
        after: 0,
        fault,
        target: 0,
        length: length * SECOND,
    };
    let then = |when, after: u64, fault, length: u64| Act {
        when,
        after: after * MS,
        fault,
        target: 0,
        length: length * SECOND,
    };
    let leader = |act: Act| Act { target: usize::MAX, ..act };
    let preparing = When::Phase(Phase::Preparing);
    match mutant {
        // It is silent; its lease was given by the leader before.
        Mutant::Leader(Rule::InheritedByName | Rule::ListedInherit) | Mutant::Around(Around::ListsRoster) => vec![
            at(4000, Fault::StreamsRecreated, 0),
            at(5000, Fault::Alone, 30),
            leader(at(5200, Fault::LeaderKilled, 0)),
            at(11_000, Fault::NewVersion, 0),
        ],
        // It is not ready, and a leader that has just taken over has not heard it yet.
        Mutant::Leader(Rule::RosterFirst) => vec![
            at(5000, Fault::StepSlow, 30),
            at(5900, Fault::RosterLate, 20),
            at(6000, Fault::NewVersion, 0),
            leader(then(preparing, 300, Fault::LeaderKilled, 0)),
        ],
        // Its clock is slow, the leader's fast, the lease long.
        Mutant::Leader(Rule::Drift) => vec![at(5000, Fault::Alone, 100), at(6000, Fault::NewVersion, 0)],
        Mutant::Around(Around::ClocksAreTrue) => vec![at(5000, Fault::Alone, 40), at(6000, Fault::NewVersion, 0)],
        // It does not get the answer with the first short lease, so it uses its long one. Without that answer it gets no other.
        Mutant::Leader(Rule::AcknowledgedGrant) => vec![
            at(5500, Fault::StoreCutOff, 30),
            at(6000, Fault::NewVersion, 0),
            then(preparing, 0, Fault::Deaf, 30),
            then(preparing, 2000, Fault::Excused, 0),
            then(preparing, 3500, Fault::Alone, 30),
        ],
        Mutant::Leader(Rule::LongerGrant) => vec![
            at(5500, Fault::BusCutOff, 30),
            at(5500, Fault::StoreCutOff, 30),
            at(6000, Fault::NewVersion, 0),
            then(preparing, 0, Fault::Deaf, 30),
            then(preparing, 2000, Fault::Excused, 0),
            then(preparing, 2500, Fault::Alone, 30),
        ],
        // It is silent, its lease is long, and no phase waits for it to switch.
        Mutant::Leader(Rule::Guard(ConditionName::MembersReleased) | Rule::FenceWaits) => {
            vec![at(5500, Fault::Alone, 30), at(6000, Fault::NewVersion, 0), then(preparing, 100, Fault::Excused, 0)]
        }
        // It has got a short lease in place of the long one, and has acknowledged it.
        Mutant::Holder(HolderRule::NewestGrant) => vec![
            at(5500, Fault::StoreCutOff, 30),
            at(6000, Fault::NewVersion, 0),
            then(preparing, 2000, Fault::Excused, 0),
            then(preparing, 2500, Fault::Alone, 30),
        ],
        // A new instance says that it holds nothing, which is true, gets its lease and then reads the value.
        Mutant::Leader(Rule::ReleaseRevision) => vec![
            at(4000, Fault::Joiner, 0),
            Act { target: 3, length: 2720 * MS, ..at(4001, Fault::StoreCutOff, 0) },
            Act { target: 3, ..at(6000, Fault::InstanceCutOff, 30) },
            at(6500, Fault::NewVersion, 0),
            Act { target: 3, ..then(preparing, 100, Fault::BusCutOff, 30) },
            Act { target: 3, ..then(preparing, 150, Fault::Excused, 0) },
        ],
        // The registration of an earlier incarnation arrives when the later one has just fallen silent.
        Mutant::Leader(Rule::ProvenOnly) => vec![
            Act { length: 4 * SECOND, ..at(3000, Fault::LateRegistration, 0) },
            at(6500, Fault::Alone, 30),
            at(6600, Fault::NewVersion, 0),
        ],
        // Two processes of one name. The first one falls silent.
        Mutant::Leader(Rule::ExclusiveOnly) => {
            vec![at(5000, Fault::Alone, 30), at(5500, Fault::Twin, 0), at(6600, Fault::NewVersion, 0)]
        }
        // Its answers take most of a second; then it falls silent.
        Mutant::Holder(HolderRule::FromSend) => vec![
            at(5000, Fault::LateAnswers, 30),
            at(5500, Fault::StoreCutOff, 30),
            at(6000, Fault::NewVersion, 0),
            then(preparing, 2000, Fault::Excused, 0),
            then(preparing, 2500, Fault::Alone, 30),
        ],
        // It uses what it reads in the store, which takes half a second, and its service is slow to switch.
        Mutant::Holder(HolderRule::ReadFromSend) => vec![
            at(5500, Fault::InstanceCutOff, 30),
            at(5500, Fault::BusCutOff, 30),
            at(5500, Fault::LateAnswers, 30),
            at(5500, Fault::StepSlow, 30),
            at(6000, Fault::NewVersion, 0),
        ],
        // Everyone who has switched leaves.
        Mutant::Leader(Rule::Guard(ConditionName::LiveInstanceConfirmed | ConditionName::RequiredServices)) => {
            let leaves = |target| Act { target, ..then(When::Phase(Phase::Draining), 300, Fault::Leaves, 0) };
            vec![at(6000, Fault::NewVersion, 0), leaves(0), leaves(1), leaves(2)]
        }
        _ => Vec::new(),
    }
}
