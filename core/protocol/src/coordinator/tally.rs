//! What the rules count among all members, kept up to date as each member changes, so that a report costs the same however many
//! members there are.
//!
//! A member counts until a moment that its own state and the record say (see [`Coordinator::out_of_reach_at`] and
//! [`Coordinator::holds_until`]). The sets here are ordered by that moment: whether any member still counts is whether the last
//! one does, and when that may change is the first moment that is not past. Everything is derived: before a member changes it is
//! taken out, afterwards it is put in again, and a change of the record or the policy counts anew.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::time::Duration;

use super::member::Reports;
use super::members::{MemberId, Members};
use super::{Coordinator, Member};
use crate::id::{InstanceKey, Version};
use crate::message::Stage;
use crate::name::ServiceName;
use crate::phase::Phase;
use crate::time::{Instant, Now};

/// Stands for a member that counts for as long as it is silent.
const NEVER: Instant = Instant::from_nanos(u64::MAX);

/// Members by the moment until which they count.
#[derive(Clone, Default, Debug)]
pub(super) struct Until(BTreeSet<(Instant, MemberId)>);

impl Until {
    fn add(&mut self, until: Option<Instant>, id: MemberId) {
        self.0.insert((until.unwrap_or(NEVER), id));
    }

    fn take(&mut self, until: Option<Instant>, id: MemberId) {
        self.0.remove(&(until.unwrap_or(NEVER), id));
    }

    /// Whether any member counts.
    pub(super) fn any(&self, now: Now) -> bool {
        self.0.last().is_some_and(|(until, _)| *until > now.instant)
    }

    /// Whether at least so many count. Looks at so many.
    fn at_least(&self, minimum: usize, now: Now) -> bool {
        minimum == 0
            || self.0.len() >= minimum
                && self.0.iter().rev().nth(minimum - 1).is_some_and(|(until, _)| *until > now.instant)
    }

    /// When the first of those that count stops counting, if one ever does.
    pub(super) fn next(&self, now: Now) -> Option<Instant> {
        let after = (now.instant + Duration::from_nanos(1), MemberId(0));
        self.0.range(after..).next().map(|(until, _)| *until).filter(|until| *until != NEVER)
    }
}

/// Who has reached a stage with a version, and who has not.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    version: Version,
    stage: Stage,
    pub(super) reached: Until,
    pub(super) missing: Until,
    /// Of the required services alone.
    by_service: BTreeMap<ServiceName, Until>,
}

impl Progress {
    fn new(version: Version, stage: Stage) -> Self {
        let (reached, missing) = (Until::default(), Until::default());
        Self { version, stage, reached, missing, by_service: BTreeMap::new() }
    }

    /// Whether a required service has at least so many instances there.
    pub(super) fn has(&self, service: &ServiceName, minimum: u32, now: Now) -> bool {
        let minimum = usize::try_from(minimum).unwrap_or(usize::MAX);
        self.by_service.get(service).is_some_and(|there| there.at_least(minimum, now))
    }
}

/// All counts.
#[derive(Clone, Default, Debug)]
pub(super) struct Tally {
    /// Of the phase in force, if it waits for a stage.
    pub(super) phase: Option<Progress>,
    /// Of the current version, while something retires.
    pub(super) current: Option<Progress>,
    /// Who may still use a version that retires.
    pub(super) holding: BTreeMap<Version, Until>,
    /// How many refuse the version being moved to, in this direction.
    pub(super) refusals: usize,
    /// Failed logins with the version being moved to.
    auth_failures: u128,
}

impl Hash for Tally {
    /// Derived from what is hashed already.
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl Tally {
    pub(super) fn auth_failures(&self) -> u64 {
        u64::try_from(self.auth_failures).unwrap_or(u64::MAX)
    }

    /// Puts a member in, or takes it out.
    fn count(&mut self, counted: &Counted, id: MemberId, service: &ServiceName, put: bool) {
        let change = |until: &mut Until, at: Option<Instant>| if put { until.add(at, id) } else { until.take(at, id) };
        for (progress, there) in [(&mut self.phase, counted.phase), (&mut self.current, counted.current)] {
            let (Some(progress), Some(there)) = (progress, there) else { continue };
            match there {
                Reached::There => {
                    change(&mut progress.reached, counted.until);
                    if counted.required {
                        let services = &mut progress.by_service;
                        if put {
                            change(services.entry(service.clone()).or_default(), counted.until);
                        } else if let Some(until) = services.get_mut(service) {
                            change(until, counted.until);
                            if until.0.is_empty() {
                                services.remove(service);
                            }
                        }
                    }
                }
                Reached::Missing => change(&mut progress.missing, counted.until),
                Reached::Excused => {}
            }
        }
        for (version, until) in &counted.holding {
            if let Some(holding) = self.holding.get_mut(version) {
                change(holding, *until);
            }
        }
        let (refusal, failures) = (usize::from(counted.refuses), u128::from(counted.auth_failures));
        if put {
            self.refusals += refusal;
            self.auth_failures += failures;
        } else {
            self.refusals -= refusal;
            self.auth_failures -= failures;
        }
    }
}

/// Whether a member is where it is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reached {
    There,
    Missing,
    /// Not there, and not waited for.
    Excused,
}

/// What is counted of one member.
struct Counted {
    /// When it is out of reach if it stays silent.
    until: Option<Instant>,
    phase: Option<Reached>,
    current: Option<Reached>,
    /// It is of a required service.
    required: bool,
    /// The retiring versions that it may still use, and until when if it stays silent.
    holding: Vec<(Version, Option<Instant>)>,
    refuses: bool,
    auth_failures: u64,
}

impl Coordinator {
    /// Changes one member and what is counted of it. Nothing, if it is not known.
    pub(super) fn change_member(&mut self, key: &InstanceKey, change: impl FnOnce(&mut Member, &mut Reports)) {
        let Some(id) = self.members.id(key) else { return };
        self.count_member(id, key, false);
        if let Some((member, reports)) = self.members.get_mut(id) {
            change(member, reports);
        }
        self.count_member(id, key, true);
    }

    /// Puts a member into the counts, or takes it out.
    pub(super) fn count_member(&mut self, id: MemberId, key: &InstanceKey, put: bool) {
        let Some(counted) = self.members.get(id).and_then(|member| self.counted(member)) else { return };
        self.tally.count(&counted, id, &key.service, put);
    }

    /// Forgets a member.
    pub(super) fn remove_member(&mut self, key: &InstanceKey) {
        let Some(id) = self.members.id(key) else { return };
        self.count_member(id, key, false);
        self.members.remove(id);
    }

    /// Counts everything anew: the record or the policy has changed, and with it what is counted.
    pub(super) fn recount(&mut self) {
        let record = &self.record;
        let phase = record.rotation.as_ref().and_then(|rotation| match rotation.phase {
            Phase::Preparing => Some(Progress::new(rotation.new, Stage::Prepared)),
            Phase::Activating => Some(Progress::new(rotation.new, Stage::Switched)),
            Phase::Verifying | Phase::Draining | Phase::Retiring | Phase::RollingBack => None,
        });
        let waiting = record.retirements.iter().filter(|(_, retirement)| retirement.step.is_none());
        let holding: BTreeMap<_, _> = waiting.map(|(version, _)| (*version, Until::default())).collect();
        let current = record.current.filter(|_| !holding.is_empty());
        let current = current.map(|current| Progress::new(current, Stage::Switched));
        self.tally = Tally { phase, current, holding, ..Tally::default() };
        if !self.counts() {
            return;
        }
        let members = std::mem::replace(&mut self.members, Members::new(Instant::ZERO));
        for (id, member) in members.unordered() {
            if let Some(counted) = self.counted(member) {
                self.tally.count(&counted, id, &member.key.service, true);
            }
        }
        self.members = members;
    }

    /// Whether anything is counted now.
    fn counts(&self) -> bool {
        self.record.rotation.is_some() || !self.tally.holding.is_empty()
    }

    fn counted(&self, member: &Member) -> Option<Counted> {
        if !self.counts() {
            return None;
        }
        let rotation = self.record.rotation.as_ref();
        let gone = member.is_gone();
        let place = |progress: &Option<Progress>| {
            let progress = progress.as_ref().filter(|_| !gone)?;
            let there = self.has_confirmed(member, progress.version, progress.stage);
            Some(if there { Reached::There } else { Reached::Missing })
        };
        let excused = |reached: Reached| match reached {
            Reached::Missing if self.is_excused(member) => Reached::Excused,
            reached => reached,
        };
        let open = self.tally.holding.keys().filter_map(|version| {
            let retirement = self.record.retirements.get(version)?;
            let settled = self.settled_standing(member, *version, retirement);
            settled.is_none().then(|| (*version, self.holds_until(member, *version)))
        });
        let report = member.report();
        Some(Counted {
            until: if gone { None } else { self.out_of_reach_at(member) },
            phase: place(&self.tally.phase).map(excused),
            // Nothing waits for those that are missing here.
            current: place(&self.tally.current).filter(|reached| *reached == Reached::There),
            required: self.policy.required.contains_key(&member.key.service),
            holding: open.collect(),
            refuses: rotation.is_some_and(|rotation| self.refuses(member, rotation.new)),
            auth_failures: rotation.and_then(|rotation| report?.auth_failures.get(&rotation.new).copied()).unwrap_or(0),
        })
    }

    /// Whether it refuses a version, in this direction.
    pub(super) fn refuses(&self, member: &Member, version: Version) -> bool {
        let report = member.report().filter(|report| report.generation == self.record.generation);
        !member.is_gone()
            && report
                .and_then(|report| report.failure.as_ref())
                .is_some_and(|failure| failure.version == version && failure.kind.counts())
    }
}
