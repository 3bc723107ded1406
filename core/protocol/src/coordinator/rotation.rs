//! The rotation in flight: how it starts, what each phase waits for, and how it goes on, gives up or ends.

#[cfg(test)]
mod tests;

use super::condition::{Condition, ConditionName};
use super::decide::bounded;
use super::guard::MAX_LISTED;
use super::restored::failed_login;
use super::{Change, Coordinator, Member};
use crate::id::Version;
use crate::message::Stage;
use crate::phase::{Outcome, Phase};
use crate::policy::{Deadline, OnDeadline, OnFailure, WhenEmpty};
use crate::record::{RecordChange, Rotation};
use crate::time::{Instant, Now, WallTime};

impl Coordinator {
    /// Whether everything holds that the phase in force waits for: what [`Coordinator::phase_conditions`] says in words, from
    /// counts that are kept.
    pub(super) fn phase_met(&self, now: Now) -> bool {
        let Some(rotation) = &self.record.rotation else { return true };
        match rotation.phase {
            Phase::Verifying => false,
            Phase::Preparing => {
                self.stage_met(now)
                    && !(self.policy.approval && needs_approval(rotation))
                    && self.pause_gate().met
                    && self.safe_mode_gate().met
                    && self.is_proved(rotation.new)
            }
            Phase::Activating => self.stage_met(now),
            Phase::Retiring | Phase::Draining | Phase::RollingBack => true,
        }
    }

    fn stage_met(&self, now: Now) -> bool {
        let Some(phase) = &self.tally.phase else { return false };
        let (reached, missing) = match self.waited_for_unheard(now) {
            None => (phase.reached.any(now), phase.missing.any(now)),
            Some(unheard) => unheard,
        };
        (self.knows_roster() || now.instant >= self.roster_known_by())
            && all_reached(!missing)
            && (reached || missing || !self.empty_set_waits())
            && self.policy.required.iter().all(|(service, minimum)| phase.has(service, *minimum, now))
    }

    /// What the phase in force waits for.
    pub(super) fn phase_conditions(&self, now: Now) -> Vec<Condition> {
        let Some(rotation) = &self.record.rotation else { return Vec::new() };
        match rotation.phase {
            Phase::Verifying => {
                if let Some(condition) = self.proof_condition(rotation) {
                    return vec![condition];
                }
                let (name, why, next) = if rotation.created {
                    let why = "the test login with the new credential has not come back yet";
                    (ConditionName::Verified, why, "the provider answers")
                } else if self.knows_bus() {
                    (ConditionName::Created, "the new credential is being made", "the provider answers")
                } else {
                    let why = "the new credential is made once the bus has taken a state of this leader";
                    (ConditionName::Created, why, "the bus answers")
                };
                vec![Condition::waiting(name, why, rotation.phase_since, next)]
            }
            Phase::Preparing => {
                let mut conditions = self.stage_conditions(ConditionName::Prepared, rotation.new, Stage::Prepared, now);
                if self.policy.approval && needs_approval(rotation) {
                    conditions.push(Condition::waiting(
                        ConditionName::Approval,
                        "the activation needs an operator's approval",
                        rotation.phase_since,
                        "an operator approves",
                    ));
                }
                conditions.push(self.pause_gate());
                conditions.push(self.safe_mode_gate());
                conditions.extend(self.proof_condition(rotation));
                conditions
            }
            Phase::Activating => self.stage_conditions(ConditionName::Switched, rotation.new, Stage::Switched, now),
            Phase::Retiring => Vec::new(),
            Phase::Draining | Phase::RollingBack => Vec::new(),
        }
    }

    /// A pause holds the activation.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(PauseActivation, Condition::met(ConditionName::NotPaused)))]
    fn pause_gate(&self) -> Condition {
        match &self.record.paused {
            None => Condition::met(ConditionName::NotPaused),
            Some(pause) => {
                let mut condition =
                    Condition::waiting(ConditionName::NotPaused, &pause.reasons(), pause.at, "an operator resumes");
                condition.blockers.iter_mut().for_each(|blocker| blocker.who = pause.by.to_string());
                condition
            }
        }
    }

    /// Whether all members that count have reached a stage: at least one, every reachable one, and every required service's
    /// minimum.
    fn stage_conditions(&self, name: ConditionName, version: Version, stage: Stage, now: Now) -> Vec<Condition> {
        let mut reached = 0_usize;
        let mut missing = 0_usize;
        let mut blockers = Vec::new();
        let mut until: Option<Instant> = None;
        for member in self.members.iter().filter(|member| self.is_waited_for(member, now)) {
            if self.has_confirmed(member, version, stage) {
                reached += 1;
            } else if !self.is_excused(member) {
                missing += 1;
                until = [until, self.waited_for_until(member, now)].into_iter().flatten().min();
                if blockers.len() < MAX_LISTED {
                    blockers.push(self.stage_blocker(name, member, version, now));
                }
            }
        }
        let everyone = Condition {
            name,
            met: all_reached(missing == 0),
            evidence: format!("{reached} of {} reachable members", reached + missing),
            blockers,
            until,
        };
        let empty = reached == 0 && missing == 0 && self.empty_set_waits();
        let live = if empty {
            let (why, next) = match self.members.iter().filter(|member| !member.is_gone()).count() {
                0 => ("no instance uses this secret".to_owned(), "an instance registers"),
                silent => (format!("no instance of {silent} that use this secret is heard"), "an instance is heard"),
            };
            Condition::waiting(
                ConditionName::LiveInstance,
                &format!("{why}, and an empty set confirms nothing"),
                self.record.rotation.as_ref().map_or(WallTime(0), |rotation| rotation.phase_since),
                &format!("{next}, or the policy says when_empty = \"proceed\""),
            )
        } else {
            Condition::met(ConditionName::LiveInstance)
        };
        let required = self.required_reached(ConditionName::RequiredServices, version, stage, now);
        vec![self.roster_condition(now), everyone, live, required]
    }

    /// While this leader hears no instance: whether any member that is waited for has got where the phase in force waits for it,
    /// and whether any has not. Looks at every member, which time alone asks for: no message comes in meanwhile.
    fn waited_for_unheard(&self, now: Now) -> Option<(bool, bool)> {
        if self.hears(now.instant) {
            return None;
        }
        let (version, stage) = self.stage_in_force()?;
        let waited_for = || self.members.iter().filter(|member| self.is_waited_for(member, now));
        let confirmed = |member: &&Member| self.has_confirmed(member, version, stage);
        let reached = waited_for().any(|member| confirmed(&member));
        let missing = waited_for().any(|member| !confirmed(&member) && !self.is_excused(member));
        Some((reached, missing))
    }

    /// While this leader hears no instance: when the first member that is missing is no longer waited for.
    pub(super) fn unheard_until(&self, now: Now) -> Option<Instant> {
        if self.hears(now.instant) {
            return None;
        }
        let (version, stage) = self.stage_in_force()?;
        let missing = |member: &&Member| {
            self.is_waited_for(member, now) && !self.has_confirmed(member, version, stage) && !self.is_excused(member)
        };
        let until = self.members.iter().filter(missing).filter_map(|member| self.waited_for_until(member, now));
        until.min()
    }

    /// The version and the stage that the phase in force waits for.
    fn stage_in_force(&self) -> Option<(Version, Stage)> {
        let rotation = self.record.rotation.as_ref()?;
        match rotation.phase {
            Phase::Preparing => Some((rotation.new, Stage::Prepared)),
            Phase::Activating => Some((rotation.new, Stage::Switched)),
            Phase::Verifying | Phase::Draining | Phase::Retiring | Phase::RollingBack => None,
        }
    }

    /// An empty set is never unanimous.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(EmptySet, false))]
    fn empty_set_waits(&self) -> bool {
        self.policy.when_empty == WhenEmpty::Hold
    }

    /// Whether an operator has excused it from preparing and switching.
    pub(super) fn is_excused(&self, member: &Member) -> bool {
        let excused = self.record.rotation.as_ref().map(|rotation| &rotation.excused);
        excused.is_some_and(|excused| !excused.is_empty() && excused.contains(&member.name()))
    }

    /// The deadline of the phase in force, and when it passes. It goes on under a new leader, which first hears the
    /// instances.
    #[must_use]
    pub fn deadline(&self) -> Option<(Deadline, Instant)> {
        let rotation = self.record.rotation.as_ref()?;
        let deadline = self.policy.deadlines.get(&rotation.phase)?;
        let over = self.phase_began + deadline.after.saturating_sub(self.phase_age);
        Some((*deadline, if self.phase_age.is_zero() { over } else { over.max(self.roster_known_by()) }))
    }

    /// Whether nothing but an operator's approval is missing.
    pub(super) fn awaits_approval_only(&self, rotation: &Rotation, now: Now) -> bool {
        let awaits = rotation.phase == Phase::Preparing && self.policy.approval && needs_approval(rotation);
        awaits && self.stage_met(now)
    }

    pub(super) fn start_rotation(&self, now: Now) -> Option<Vec<Change>> {
        let new = self.waiting_version()?;
        if !self.may_start() || !self.has_room() {
            return None;
        }
        let mut changes = self.skip_older(new, now);
        changes.push(self.follow(new, now));
        Some(changes)
    }

    /// A rotation to a version that waits.
    fn follow(&self, new: Version, now: Now) -> Change {
        let (trigger, provider) = ("store".into(), self.policy.provider.clone());
        Change::Record(RecordChange::RotationStarted { new, trigger, provider, at: now.wall })
    }

    pub(super) fn advance_rotation(&self, rotation: &Rotation, now: Now) -> Vec<Change> {
        let at = now.wall;
        let record = |change| vec![Change::Record(change)];
        let ended = |outcome| vec![Change::Record(RecordChange::RotationEnded { outcome, at })];
        if let Some(changes) = self.supersede(rotation, now) {
            return changes;
        }
        if let Some(change) = self.give_up(rotation, now) {
            return vec![change];
        }
        match rotation.phase {
            Phase::Verifying => Vec::new(),
            Phase::Preparing if self.phase_met(now) => record(RecordChange::Activated { at }),
            // A first version replaces nothing: there is no instance to wait for and nothing to retire.
            Phase::Activating if rotation.old.is_none() => ended(Outcome::Retired),
            Phase::Activating if self.phase_met(now) => record(RecordChange::DrainingBegan { at }),
            Phase::Draining | Phase::Retiring
                if rotation.old.is_none_or(|old| !self.record.retirements.contains_key(&old)) =>
            {
                ended(Outcome::Retired)
            }
            Phase::RollingBack
                if !self.record.retirements.contains_key(&rotation.new) || self.no_instance_goes_back() =>
            {
                ended(Outcome::RolledBack)
            }
            _ => self.deadline_passed(rotation, now),
        }
    }

    /// A newer version replaces the new one before it is activated. Not while the credential is being made: the
    /// provider may be in the middle of it.
    fn supersede(&self, rotation: &Rotation, now: Now) -> Option<Vec<Change>> {
        let open = matches!(rotation.phase, Phase::Verifying | Phase::Preparing) && rotation.created;
        let newer = self.waiting_version().filter(|newer| *newer > rotation.new)?;
        // The replaced one goes on being valid until it is retired.
        if !open || self.record.safe_mode.is_some() || !self.has_room_beside(1) {
            return None;
        }
        let at = now.wall;
        let mut changes = self.skip_older(newer, now);
        changes.push(Change::Record(RecordChange::RotationEnded { outcome: Outcome::Superseded, at }));
        changes.push(self.follow(newer, now));
        Some(changes)
    }

    /// Too many instances refuse the new version, or cannot log in with it, or its test login failed.
    fn give_up(&self, rotation: &Rotation, now: Now) -> Option<Change> {
        if self.gives_up(rotation) {
            let reason = self.record.versions.get(&rotation.new).map_or("", |version| &version.note);
            return Some(self.roll_back(now, failed_login(rotation.new, reason)));
        }
        let open = matches!(rotation.phase, Phase::Preparing | Phase::Activating | Phase::Draining);
        if !open || self.policy.on_failure == OnFailure::Hold || self.holds_rollback() {
            return None;
        }
        let refusals = self.tally.refusals;
        if refusals > usize::try_from(self.policy.failure_budget).unwrap_or(usize::MAX) {
            let text = self.first_refusal(rotation.new);
            return Some(
                self.roll_back(now, bounded(format!("{refusals} instances refuse version {}: {text}", rotation.new))),
            );
        }
        let failures = self.tally.auth_failures();
        (failures > self.policy.auth_failure_budget).then(|| {
            self.roll_back(now, format!("{failures} failed logins with version {} were reported", rotation.new))
        })
    }

    /// Nothing goes back by itself in a pause, nor in safe mode, where what the record calls new may be what all instances use,
    /// nor to a version that may have ended.
    pub(super) fn holds_rollback(&self) -> bool {
        self.record.paused.is_some() || self.safe_mode_holds_rollback() || self.doubts_way_back()
    }

    fn first_refusal(&self, version: Version) -> String {
        self.members
            .iter()
            .filter_map(|member| Some((member, member.report()?.failure.as_ref()?)))
            .find(|(_, failure)| failure.version == version && failure.kind.counts())
            .map_or_else(String::new, |(member, failure)| {
                format!("{}: {} ({})", member.key, failure.kind.words(), failure.text)
            })
    }

    fn deadline_passed(&self, rotation: &Rotation, now: Now) -> Vec<Change> {
        let Some((deadline, over)) = self.deadline() else { return Vec::new() };
        if now.instant < over {
            return Vec::new();
        }
        match deadline.then {
            OnDeadline::Extend => vec![Change::DeadlineExtended { at: now }],
            OnDeadline::Hold => Vec::new(),
            // It is reported, and applied once nothing holds it.
            OnDeadline::RollBack
                if self.holds_rollback() || matches!(rotation.phase, Phase::Retiring | Phase::RollingBack) =>
            {
                Vec::new()
            }
            OnDeadline::RollBack => {
                vec![self.roll_back(
                    now,
                    format!("{} lasted longer than its deadline of {:?}", rotation.phase.words(), deadline.after),
                )]
            }
        }
    }

    /// Whether it has reached a stage with a version in this direction: what it said before a change of direction
    /// confirms nothing.
    pub(super) fn has_confirmed(&self, member: &Member, version: Version, stage: Stage) -> bool {
        self.speaks_of_this_direction(member) && member.has_reached(version, stage)
    }

    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(ConfirmedDirection, true))]
    fn speaks_of_this_direction(&self, member: &Member) -> bool {
        member.report().is_some_and(|report| report.generation == self.record.generation)
    }

    /// Whether every required service has its minimum of live instances at a stage.
    pub(super) fn required_reached(&self, name: ConditionName, version: Version, stage: Stage, now: Now) -> Condition {
        let mut short = Condition::judged(name, true, format!("{} required services", self.policy.required.len()));
        for (service, minimum) in &self.policy.required {
            let there = self
                .reachable(now)
                .filter(|member| member.key.service == *service && self.has_confirmed(member, version, stage))
                .count();
            if there < usize::try_from(*minimum).unwrap_or(usize::MAX) {
                short.met = false;
                short = short.or(
                    service.as_str(),
                    format!("required service {service}: {there} of at least {minimum} instances have {stage} version {version}"),
                    None,
                    "start more instances of it, or lower its minimum",
                );
            }
        }
        short
    }
}

/// The activation waits for the approval.
#[cfg_attr(rotacast_mutants, rotacast_mutate::rule(Approval, false))]
fn needs_approval(rotation: &Rotation) -> bool {
    rotation.approved.is_none()
}

/// Every instance prepares before the activation, and switches before draining.
#[cfg_attr(rotacast_mutants, rotacast_mutate::rule(Stages, true))]
fn all_reached(none_missing: bool) -> bool {
    none_missing
}
