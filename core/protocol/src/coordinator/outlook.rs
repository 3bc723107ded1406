//! What status and `why` show: who blocks, why, since when, and what happens next.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::condition::{Blocker, Condition, ConditionName};
use super::guard::seconds;
use super::{CommandKind, Coordinator, Cure, Member, Standing};
use crate::id::Version;
use crate::message::{FailureKind, Stage};
use crate::name::ServiceName;
use crate::phase::Phase;
use crate::policy::OnDeadline;
use crate::record::{RetireStep, Retirement};
use crate::time::{Instant, Now, WallTime};
use crate::word::words;

words! {
    /// A special state of a secret, which blocks irreversible steps or needs an operator's attention.
    pub enum Overlay("overlay") {
        Paused = "paused": "An operator paused it: nothing irreversible happens until an operator resumes.",
        AwaitingApproval = "awaiting_approval" / "awaiting approval":
            "The new version is activated only after an operator approves.",
        Stuck = "stuck":
            "The phase lasts longer than its deadline or the policy's bound, or an action keeps failing: the blockers say what happens next.",
        SafeMode = "safe_mode" / "safe mode":
            "The store's history broke, so nothing irreversible happens: check the store, then leave safe mode.",
        Staying = "staying":
            "Safe mode is over, and instances keep what they serve until the version that waits is current, or until the current one is known to work.",
    }
}

/// How many members of one service have reached each stage.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct StageCounts {
    /// Members that are not gone.
    pub members: u32,
    /// Of them, at least at this stage with the version being moved to.
    pub seen: u32,
    /// See [`StageCounts::seen`].
    pub prepared: u32,
    /// See [`StageCounts::seen`].
    pub switched: u32,
    /// See [`StageCounts::seen`].
    pub released: u32,
    /// Out of reach: preparing and switching go on without them.
    pub fenced: u32,
}

impl StageCounts {
    /// How many are at this stage or beyond.
    #[must_use]
    pub const fn reached(&self, stage: Stage) -> u32 {
        match stage {
            Stage::Seen => self.seen,
            Stage::Prepared => self.prepared,
            Stage::Switched => self.switched,
            Stage::Released => self.released,
        }
    }
}

/// How often a command may fail before its rotation is reported as stuck.
const STUCK_AFTER_FAILURES: u32 = 3;

impl Coordinator {
    /// The version that every instance is asked to move to.
    #[must_use]
    pub fn target(&self) -> Option<Version> {
        self.record.pending().or(self.record.current)
    }

    /// Progress by service.
    #[must_use]
    pub fn stage_counts(&self, now: Now) -> BTreeMap<ServiceName, StageCounts> {
        let mut counts: BTreeMap<ServiceName, StageCounts> = BTreeMap::new();
        let Some(target) = self.target() else { return counts };
        for member in self.members.iter().filter(|member| !member.is_gone()) {
            let count = counts.entry(member.key.service.clone()).or_default();
            count.members += 1;
            count.fenced += u32::from(self.is_out_of_reach(member, now));
            count.seen += u32::from(member.has_reached(target, Stage::Seen));
            count.prepared += u32::from(member.has_reached(target, Stage::Prepared));
            count.switched += u32::from(member.has_reached(target, Stage::Switched));
            count.released += u32::from(member.has_reached(target, Stage::Released));
        }
        counts
    }

    /// Everything that holds up the rotation in flight and the retirements, by name.
    #[must_use]
    pub fn blockers(&self, now: Now) -> Vec<Blocker> {
        let mut blockers = Vec::new();
        let unmet = |conditions: Vec<Condition>| conditions.into_iter().filter(|condition| !condition.met);
        for condition in unmet(self.phase_conditions(now)) {
            blockers.extend(condition.blockers.into_iter().map(|blocker| self.with_remedy(blocker, None)));
        }
        let open =
            |(version, retirement): &(&Version, &Retirement)| retirement.step.is_none() && self.may_drain(**version);
        for (version, _) in self.record.retirements.iter().filter(open) {
            for condition in unmet(self.guard(*version, now).conditions) {
                blockers
                    .extend(condition.blockers.into_iter().map(|blocker| self.with_remedy(blocker, Some(*version))));
            }
        }
        let others = self.audit_blockers(now).into_iter().chain(self.retiring_blockers());
        let others = others.chain(self.start_blocker()).chain(self.stay_blocker());
        blockers.extend(others.map(|blocker| self.with_remedy(blocker, None)));
        let said = blockers.iter().any(|blocker| blocker.condition == ConditionName::NotInSafeMode);
        if !said && self.record.safe_mode.is_some() {
            // Nothing else waits at the moment: why it is in safe mode is said all the same.
            let condition = self.safe_mode_condition();
            blockers.extend(condition.blockers.into_iter().map(|blocker| self.with_remedy(blocker, None)));
        }
        for (command, trouble) in &self.troubles {
            blockers.push(Blocker {
                condition: ConditionName::Command,
                who: String::new(),
                why: format!("{} fails: {} ({} times)", describe(command), trouble.failed.problem, trouble.times),
                since: Some(trouble.since.wall),
                next: match trouble.failed.cure {
                    Cure::Operator => {
                        "the leader tries again, but it is refused for what it is: an operator has to decide".into()
                    }
                    Cure::Time | Cure::SessionsEnd if self.may_be_given_up(command, trouble, now) => {
                        "the leader tries again. The last resort is to give the version up: then nothing proves its end"
                            .into()
                    }
                    Cure::Time if command.is_of_the_provider() => {
                        "the leader tries again; put right what the message says".into()
                    }
                    Cure::Time | Cure::SessionsEnd => "the leader tries again".into(),
                },
                command: self.remedy_of_failing(command, trouble, now),
            });
        }
        if let Some((deadline, over)) = self.deadline()
            && now.instant >= over
        {
            let phase = self.record.rotation.as_ref().map_or("", |rotation| rotation.phase.words());
            let next = match deadline.then {
                OnDeadline::RollBack if self.record.paused.is_some() => {
                    "the rotation rolls back once an operator resumes the secret"
                }
                OnDeadline::RollBack if self.record.safe_mode.is_some() => {
                    "the rotation rolls back once an operator leaves safe mode"
                }
                OnDeadline::RollBack if self.doubts_way_back() => {
                    "the rotation waits until the phase ends: the version that it would go back to is from before the store lost \
                     history, and is not known to work"
                }
                OnDeadline::RollBack | OnDeadline::Extend => "the leader is about to apply the policy",
                OnDeadline::Hold => {
                    "the policy says `hold`: the rotation waits until the phase ends or an operator rolls it back"
                }
            };
            let blocker = Blocker {
                condition: ConditionName::Deadline,
                who: String::new(),
                why: format!("{phase} lasts longer than its deadline of {}", seconds(deadline.after)),
                since: self.record.rotation.as_ref().map(|rotation| rotation.phase_since),
                next: next.into(),
                command: None,
            };
            blockers.push(self.with_remedy(blocker, None));
        }
        blockers
    }

    /// The guard holds, and the audit log has not taken the intent yet: a disk that hangs is to be seen.
    fn audit_blockers(&self, now: Now) -> Vec<Blocker> {
        let waits = |version: &Version| self.guard(*version, now).holds();
        let open = self.record.retirements.iter().filter(|(version, it)| it.step.is_none() && waits(version));
        open.map(|(version, _)| Blocker {
            condition: ConditionName::Audited,
            who: String::new(),
            why: format!("the intent to retire version {version} is being written to the audit log"),
            since: None,
            next: "the leader retires the version once the entry is on disk".into(),
            command: None,
        })
        .collect()
    }

    /// Past the point of no return: what is still to be done.
    fn retiring_blockers(&self) -> Vec<Blocker> {
        let steps = self.record.retirements.iter().filter_map(|(version, it)| Some((version, it, it.step?)));
        steps
            .map(|(version, retirement, step)| {
                let doing = match step {
                    RetireStep::Disable => "disabled at the provider",
                    RetireStep::Destroy => "destroyed at the provider",
                    RetireStep::Erase => "erased from the store",
                };
                let (why, next) = if self.record.safe_mode.is_some() {
                    (
                        format!("safe mode: version {version} is still to be {doing}"),
                        "an operator checks the store and leaves safe mode",
                    )
                } else if let Some(pause) = &self.record.paused {
                    (format!("paused by {}: version {version} is still to be {doing}", pause.by), "an operator resumes")
                } else {
                    (format!("version {version} is being {doing}"), "the leader tries until it is done")
                };
                Blocker {
                    condition: ConditionName::Retired,
                    who: String::new(),
                    why,
                    since: Some(retirement.since),
                    next: next.into(),
                    command: None,
                }
            })
            .collect()
    }

    /// Why a version that waits is not rotated to.
    fn start_blocker(&self) -> Option<Blocker> {
        let version = self.waiting_version()?;
        let since = self.record.versions.get(&version).map(|version| version.seen);
        let (why, next) = if let Some(safe_mode) = &self.record.safe_mode {
            (format!("safe mode: {}", safe_mode.reason), "an operator checks the store and leaves safe mode")
        } else if self.record.rotation.is_none() && !self.has_room() {
            let live = self.record.live_versions().count();
            (format!("{live} versions are valid or wait already"), "the rotation begins once one of them is retired")
        } else {
            return None;
        };
        Some(Blocker {
            condition: ConditionName::Start,
            who: String::new(),
            why: format!("version {version} waits for its rotation: {why}"),
            since,
            next: next.into(),
            command: None,
        })
    }

    /// Why instances do not follow although safe mode was left.
    fn stay_blocker(&self) -> Option<Blocker> {
        if !self.record.stay {
            return None;
        }
        let waiting = self.waiting_version();
        if let Some((why, next)) = self.stays_in_doubt() {
            return Some(staying(why, next));
        }
        if self.record.safe_mode.is_some() {
            return None;
        }
        let (why, next) = match (&self.record.rotation, waiting) {
            (Some(rotation), Some(waiting)) if self.record.current == Some(rotation.new) => (
                format!(
                    "instances stay with what they serve until version {waiting} is current, which waits for this rotation"
                ),
                "the rotation ends, or an operator rolls it back",
            ),
            (Some(rotation), _) if rotation.phase != Phase::RollingBack => (
                format!("instances stay with what they serve until version {} is current", rotation.new),
                "the instances prepare it",
            ),
            (_, Some(waiting)) => (
                format!("instances stay with what they serve until version {waiting} is current"),
                "its rotation begins",
            ),
            (_, None) => (
                "instances stay with what they serve, and nothing waits that they could go to".to_owned(),
                "an operator writes a version, or leaves safe mode once more, which sends the instances to the current version",
            ),
        };
        Some(staying(why, next))
    }

    /// The special states of this secret.
    #[must_use]
    pub fn overlays(&self, now: Now) -> Vec<Overlay> {
        let mut overlays = Vec::new();
        if self.record.paused.is_some() {
            overlays.push(Overlay::Paused);
        }
        if self.record.rotation.as_ref().is_some_and(|r| r.phase == Phase::Preparing && r.approved.is_none())
            && self.policy.approval
        {
            overlays.push(Overlay::AwaitingApproval);
        }
        let late = self.deadline_extended > 0 || self.deadline().is_some_and(|(_, over)| now.instant >= over);
        let late = late || self.stuck_at(now).is_some_and(|at| now.instant >= at);
        let failing = self.troubles.values().any(|trouble| trouble.times >= STUCK_AFTER_FAILURES);
        if self.record.is_rotating() && (late || failing) {
            overlays.push(Overlay::Stuck);
        }
        if self.record.safe_mode.is_some() {
            overlays.push(Overlay::SafeMode);
        } else if self.record.stay {
            overlays.push(Overlay::Staying);
        }
        overlays
    }

    /// When what is in flight is stuck by its age, if it goes on like this. An operator's own pause, safe mode and an approval
    /// that alone is missing have special states of their own; an overlap that the policy asks for is no delay.
    fn stuck_at(&self, now: Now) -> Option<Instant> {
        if self.record.paused.is_some() || self.record.safe_mode.is_some() {
            return None;
        }
        let after = self.policy.stuck_after;
        let Some(rotation) = &self.record.rotation else {
            let since = self.record.retirements.values().map(|retirement| retirement.since).min()?;
            let age = Duration::from_millis(now.wall.0.saturating_sub(since.0));
            return Some(now.instant + after.saturating_sub(age));
        };
        if self.awaits_approval_only(rotation, now) {
            return None;
        }
        let overlaps = self.record.retirements.values().filter_map(|retirement| self.overlap_until(retirement));
        let overlap = overlaps.max().unwrap_or(Instant::ZERO).max(self.phase_began);
        Some((self.phase_began + after.saturating_sub(self.phase_age)).max(overlap))
    }

    /// How a member stands, as status shows it.
    #[must_use]
    pub fn standing(&self, member: &Member, now: Now) -> Standing {
        let silent = member.heard().map(|heard| now.instant.since(heard));
        match silent {
            _ if member.is_gone() => Standing::Left,
            _ if self.is_fenced(member, now) => Standing::Fenced,
            None => Standing::Registered,
            Some(silent) if silent > self.record.sync_interval() * 2 => Standing::Silent,
            Some(_) => Standing::Live,
        }
    }

    pub(super) fn stage_blocker(&self, name: ConditionName, member: &Member, version: Version, now: Now) -> Blocker {
        let silent = member.heard().map(|heard| now.instant.since(heard));
        let failure = member.report().and_then(|report| report.failure.as_ref());
        let failure = failure.filter(|failure| failure.version == version);
        let ahead = member.report().is_some_and(|report| report.revision > self.record.revision);
        let why = match (failure, silent) {
            (Some(failure), _) => format!("{}: version {version}: {}", failure.kind.words(), failure.text),
            _ if ahead => {
                "has seen a newer state than the store holds: was the store restored from a backup?".to_owned()
            }
            (_, None) => NOT_HEARD.to_owned(),
            (_, Some(silent)) if !self.speaks(member, now) => {
                format!("silent for {}; {}", seconds(silent), position(member, ["had", "used", "knew"]))
            }
            _ => position(member, ["has", "uses", "knows"]),
        };
        let next = match (self.waited_for_until(member, now), failure.map(|failure| failure.kind)) {
            (None, _) if !self.speaks(member, now) => {
                "the policy says `hold`: the rotation waits until the instance is heard or leaves, or an operator says that it \
                 is gone"
                    .to_owned()
            }
            (Some(at), _) if !self.speaks(member, now) => format!(
                "if the instance stays silent, the rotation goes on without it in {}; the retire still waits for it",
                seconds(at.since(now.instant))
            ),
            (_, Some(FailureKind::Fetch)) => "the instance fetches the value again".to_owned(),
            (_, Some(FailureKind::NotReady)) => "the instance tries again".to_owned(),
            (_, Some(FailureKind::PrepareRefused | FailureKind::SwitchFailed | FailureKind::ReleaseFailed)) => "the instance tries again; an operator can excuse it, or roll the rotation back".to_owned(),
            (_, None) if name == ConditionName::Prepared => "the instance fetches and prepares the version".to_owned(),
            (_, None) => "the instance switches to the version".to_owned(),
        };
        let phase_since = self.record.rotation.as_ref().map(|rotation| rotation.phase_since);
        let since = phase_since.map(|since| self.blocks_since(member, since, now));
        let command = self.remedy_of_silent(member, now).filter(|_| self.out_of_reach_at(member).is_none());
        Blocker { condition: name, who: member.key.to_string(), why, since, next, command }
    }

    /// Since when a member holds up what began at a moment: since then, or since it came if that was later. One that a new
    /// leader first sees may have been there before.
    pub(super) fn blocks_since(&self, member: &Member, began: WallTime, now: Now) -> WallTime {
        let came_later = member.first_seen > self.roster_known_by();
        if came_later { began.max(now.wall_at(member.first_seen)) } else { began }
    }

    /// Whether a member was heard within the last two Sync intervals of a rotation.
    pub(super) fn speaks(&self, member: &Member, now: Now) -> bool {
        member.heard().is_some_and(|heard| now.instant.since(heard) <= self.record.timing.sync_rotating * 2)
    }

    /// How many failed logins with a version were reported.
    #[must_use]
    pub fn auth_failures(&self, version: Version) -> u64 {
        if self.record.rotation.as_ref().is_some_and(|rotation| rotation.new == version) {
            return self.tally.auth_failures();
        }
        self.members
            .iter()
            .filter_map(|member| member.report())
            .filter_map(|report| report.auth_failures.get(&version))
            .fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// When time alone may change something.
    #[must_use]
    pub fn next_wakeup(&self, now: Now) -> Option<Instant> {
        let mut times: Vec<Instant> = Vec::new();
        if let Some(phase) = &self.tally.phase {
            times.extend((!self.knows_roster()).then(|| self.roster_known_by()));
            times.extend(phase.missing.next(now));
            times.extend(self.unheard_until(now));
        }
        for (version, retirement) in &self.record.retirements {
            if retirement.step.is_none() && self.may_drain(*version) {
                times.extend(self.guard_wakeups(*version, retirement, now).into_iter().flatten());
            }
        }
        times.extend(self.deadline().map(|(_, over)| over));
        times.extend(self.stuck_at(now));
        if self.record.is_rotating() && self.record.bounds.lease > self.record.timing.lease_rotating {
            times.push(self.long_leases_expire());
        }
        times.into_iter().filter(|time| *time > now.instant).min()
    }
}

fn staying(why: String, next: &str) -> Blocker {
    Blocker {
        condition: ConditionName::Staying,
        who: String::new(),
        why,
        since: None,
        next: next.into(),
        command: None,
    }
}

/// Why nothing is known of a member.
pub(super) const NOT_HEARD: &str = "registered, but not heard since this leader took over";

/// How far a member is, in words: `verbs` for what it has done, what it uses and what it knows.
fn position(member: &Member, [has, uses, knows]: [&str; 3]) -> String {
    match member.report().and_then(|report| report.reached) {
        None => format!("{has} reported no version yet"),
        // Of what it has moved to, a released stage says that it uses nothing else.
        Some((version, Stage::Released)) => format!("{uses} version {version} only"),
        Some((version, Stage::Seen)) => format!("{knows} of version {version}"),
        Some((version, stage)) => format!("{has} {stage} version {version}"),
    }
}

fn describe(command: &CommandKind) -> String {
    match command {
        CommandKind::Publish => "publishing the state".into(),
        CommandKind::Create { version } => format!("making version {version}"),
        CommandKind::Test { version } => format!("the test login with version {version}"),
        CommandKind::ReadUsage { version } => format!("reading the usage of version {version}"),
        CommandKind::Audit { version } => format!("writing the audit entry for retiring version {version}"),
        CommandKind::Retire { version, step } => format!("step `{step}` of retiring version {version}"),
    }
}
