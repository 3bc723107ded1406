//! The retire guard: every condition under which an old credential may end, with the evidence.

#[cfg(test)]
mod tests;

use std::time::Duration;

use super::condition::{Blocker, Condition, ConditionName};
use super::member::{GuardStanding, Member};
use super::outlook::NOT_HEARD;
use super::{CommandKind, Coordinator, Evidence, lease};
use crate::id::Version;
use crate::message::{FailureKind, Stage};
use crate::name::ServiceName;
use crate::phase::Phase;
use crate::policy::{WhenEmpty, WhenUnreachable};
use crate::record::{Cause, Doubt, Retirement};
use crate::time::{Instant, Now, WallTime};

/// Most blockers listed by name in one condition; the evidence counts them all.
pub const MAX_LISTED: usize = 100;

/// The guard of one version's retire.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Guard {
    pub version: Version,
    /// All conditions, met or not.
    pub conditions: Vec<Condition>,
}

impl Guard {
    /// Whether the version may be retired now.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.conditions.iter().all(|condition| condition.met)
    }
}

/// The conditions of the guard, in their order.
const CONDITIONS: [ConditionName; 12] = [
    ConditionName::Leads,
    ConditionName::Phase,
    ConditionName::NotPaused,
    ConditionName::NotInSafeMode,
    ConditionName::OverlapOver,
    ConditionName::InheritedLeasesOver,
    ConditionName::MembersReleased,
    ConditionName::LiveInstanceConfirmed,
    ConditionName::RequiredServices,
    ConditionName::Sealed,
    ConditionName::SelfLeasesOver,
    ConditionName::UsageEvidence,
];

impl Coordinator {
    /// Whether a version that is not past the point of no return may be retired now: what [`Coordinator::guard`] says in words,
    /// from counts that are kept.
    pub(super) fn guard_holds(&self, version: Version, now: Now) -> bool {
        self.holds(version, now, CONDITIONS.iter().copied())
    }

    /// Whether everything holds that a seal waits for: all but what can only be judged after it.
    pub(super) fn may_seal(&self, version: Version, now: Now) -> bool {
        self.holds(version, now, CONDITIONS.iter().copied().filter(|name| !name.judged_after_seal()))
    }

    fn holds(&self, version: Version, now: Now, mut conditions: impl Iterator<Item = ConditionName>) -> bool {
        let Some(retirement) = self.record.retirements.get(&version) else { return false };
        conditions.all(|name| self.condition_holds(name, version, retirement, now))
    }

    fn condition_holds(&self, name: ConditionName, version: Version, retirement: &Retirement, now: Now) -> bool {
        let announced = self.record.versions.get(&version).is_some_and(|version| version.announced);
        let sealed = self.retiring.get(&version).and_then(|progress| progress.sealed);
        match name {
            ConditionName::Leads => self.still_leads(now),
            ConditionName::Phase => self.phase_allows(version),
            ConditionName::NotPaused => self.is_not_paused(),
            ConditionName::NotInSafeMode => self.is_not_in_safe_mode(),
            ConditionName::OverlapOver => self.overlap_until(retirement).is_none_or(|over| overlap_is_over(over, now)),
            ConditionName::InheritedLeasesOver => !announced || self.inherited_leases_are_over(now),
            ConditionName::MembersReleased => {
                all_released(!self.tally.holding.get(&version).is_some_and(|holding| holding.any(now)))
            }
            ConditionName::LiveInstanceConfirmed => {
                let any = self.tally.current.as_ref().is_some_and(|current| current.reached.any(now));
                retirement.cause != Cause::Rotated || self.is_confirmed(any)
            }
            ConditionName::RequiredServices => {
                retirement.cause == Cause::Superseded || self.record.current.is_none() || self.required_are_there(now)
            }
            ConditionName::Sealed => self.is_sealed_for_good(version),
            ConditionName::SelfLeasesOver => !announced || self_leases_are_over(sealed, self.self_lease_wait(), now),
            ConditionName::UsageEvidence => self.usage_holds(version, retirement, now),
            _ => true,
        }
    }

    /// When time alone may change a retirement's guard.
    pub(super) fn guard_wakeups(&self, version: Version, retirement: &Retirement, now: Now) -> [Option<Instant>; 5] {
        let announced = self.record.versions.get(&version).is_some_and(|version| version.announced);
        let sealed = self.retiring.get(&version).and_then(|progress| progress.sealed);
        [
            self.overlap_until(retirement),
            announced.then_some(self.inherited_over),
            self.tally.holding.get(&version).and_then(|holding| holding.next(now)),
            sealed.filter(|_| announced).map(|sealed| sealed + self.self_lease_wait()),
            self.next_usage(version),
        ]
    }

    /// When old and new have been valid together for the policy's minimum; none if there is none.
    pub(super) fn overlap_until(&self, retirement: &Retirement) -> Option<Instant> {
        let minimum = self.policy.min_overlap;
        (retirement.cause == Cause::Rotated && !minimum.is_zero()).then(|| self.activated_at + lease::outlast(minimum))
    }

    /// From the seal until every use has ended that a store read before it allowed.
    fn self_lease_wait(&self) -> Duration {
        lease::outlast(self.record.bounds.self_lease) + lease::use_time(&self.record)
    }

    /// Evaluates the guard of a version that is on its way out.
    #[must_use]
    pub fn guard(&self, version: Version, now: Now) -> Guard {
        let Some(retirement) = self.record.retirements.get(&version) else {
            return Guard {
                version,
                conditions: vec![Condition::judged(ConditionName::Retiring, false, "nothing retires this version")],
            };
        };
        let announced = self.record.versions.get(&version).is_some_and(|version| version.announced);
        let mut conditions = vec![
            self.leads_condition(now),
            self.phase_condition(version, retirement),
            self.pause_condition(),
            self.safe_mode_condition(),
            self.overlap_condition(retirement, now),
            self.inherited_condition(announced, now),
            self.members_condition(version, retirement, now),
        ];
        if retirement.cause == Cause::Rotated {
            conditions.push(self.confirmed_condition(now));
        }
        conditions.extend(self.required_conditions(retirement, now));
        conditions.extend([
            self.sealed_condition(version),
            self.self_lease_condition(version, announced, now),
            self.usage_condition(version, retirement, now),
        ]);
        Guard { version, conditions }
    }

    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(GuardLeads, true))]
    fn still_leads(&self, now: Now) -> bool {
        self.leads(now.instant)
    }

    fn leads_condition(&self, now: Now) -> Condition {
        Condition::judged(ConditionName::Leads, self.still_leads(now), format!("epoch {}", self.tenure.epoch)).or(
            "",
            "this broadcaster's leadership has not been renewed",
            None,
            "this broadcaster renews it, or another one takes over",
        )
    }

    /// Whether the rotation is at the point where this version may go.
    pub(super) fn may_drain(&self, version: Version) -> bool {
        let Some(retirement) = self.record.retirements.get(&version) else { return false };
        let phase = self.record.rotation.as_ref().map(|rotation| rotation.phase);
        match retirement.cause {
            Cause::Rotated => matches!(phase, Some(Phase::Draining) | None),
            Cause::RolledBack => match phase {
                Some(Phase::RollingBack) => !self.goes_back_to_what_fails(),
                phase => phase.is_none(),
            },
            Cause::Superseded => true,
        }
    }

    /// After the store lost a part of its history: the version that a rollback leads to was refused at its login, so that
    /// instances stay with the one that works.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(WayBackWorks, false))]
    fn goes_back_to_what_fails(&self) -> bool {
        self.record.current.is_some_and(|current| self.record.doubt(current) == Some(Doubt::Failed))
    }

    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(GuardPhase, true))]
    fn phase_allows(&self, version: Version) -> bool {
        self.may_drain(version)
    }

    fn phase_condition(&self, version: Version, retirement: &Retirement) -> Condition {
        let phase = self.record.rotation.as_ref().map_or_else(|| "none", |rotation| rotation.phase.words());
        let rolls_back = self.record.rotation.as_ref().is_some_and(|it| it.phase == Phase::RollingBack);
        if retirement.cause == Cause::RolledBack && rolls_back && self.goes_back_to_what_fails() {
            let secret = &self.record.secret;
            return Condition::judged(ConditionName::Phase, self.phase_allows(version), format!("phase {phase}")).or(
                "",
                "the login with the version that the rollback leads to was refused",
                Some(retirement.since),
                &format!(
                    "an operator orders `rotacast rotate {secret}`, or has the login tried again with \
                          `{}`",
                    self.leave_safe_mode()
                ),
            );
        }
        Condition::judged(ConditionName::Phase, self.phase_allows(version), format!("phase {phase}")).or(
            "",
            format!("the rotation is still {phase}"),
            Some(retirement.since),
            "every instance switches to the new version first",
        )
    }

    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(GuardNotPaused, true))]
    fn is_not_paused(&self) -> bool {
        self.record.paused.is_none()
    }

    fn pause_condition(&self) -> Condition {
        let Some(pause) = &self.record.paused else {
            return Condition::judged(ConditionName::NotPaused, true, "not paused");
        };
        Condition::judged(ConditionName::NotPaused, self.is_not_paused(), format!("paused by {}", pause.by)).or(
            pause.by.as_str(),
            format!("paused: {}", pause.reasons()),
            Some(pause.at),
            "an operator resumes",
        )
    }

    fn overlap_condition(&self, retirement: &Retirement, now: Now) -> Condition {
        let minimum = self.policy.min_overlap;
        let Some(over) = self.overlap_until(retirement) else {
            return Condition::judged(ConditionName::OverlapOver, true, "no minimum overlap");
        };
        Condition::judged(
            ConditionName::OverlapOver,
            overlap_is_over(over, now),
            format!("minimum overlap {minimum:?}"),
        )
        .or(
            "",
            format!("old and new stay valid together for {minimum:?}"),
            Some(retirement.since),
            "the overlap ends by itself",
        )
        .until(over)
    }

    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(GuardInheritedLeasesOver, true))]
    fn inherited_leases_are_over(&self, now: Now) -> bool {
        self.roster_is_whole() || self.knows_roster() && now.instant >= self.inherited_over
    }

    /// Leases that an earlier leader granted to instances that the roster may not name. For those that it names, see
    /// [`Coordinator::members_condition`].
    fn inherited_condition(&self, announced: bool, now: Now) -> Condition {
        if !announced {
            return Condition::judged(ConditionName::InheritedLeasesOver, true, "never announced, so never leased");
        }
        let met = self.inherited_leases_are_over(now);
        Condition::judged(
            ConditionName::InheritedLeasesOver,
            met,
            if self.roster_is_whole() {
                "the roster names every instance that may have one".to_owned()
            } else {
                format!("longest possible lease {:?}", self.record.bounds.lease)
            },
        )
        .or(
            "",
            "an earlier leader may have granted leases to instances that the roster does not name",
            Some(self.tenure.since.wall),
            "these leases end by themselves",
        )
        .until(self.inherited_over)
    }

    fn members_condition(&self, version: Version, retirement: &Retirement, now: Now) -> Condition {
        let mut holding = 0_usize;
        let mut total = 0_usize;
        let mut blockers = Vec::new();
        let mut next: Option<Instant> = None;
        for member in self.members.iter() {
            let (standing, until) = self.guard_standing(member, version, retirement, now);
            total += usize::from(!member.is_gone());
            if standing == GuardStanding::Holding {
                holding += 1;
                next = [next, until].into_iter().flatten().min();
                if blockers.len() < MAX_LISTED {
                    blockers.push(self.holding_blocker(member, (version, retirement), until, now));
                }
            }
        }
        Condition {
            name: ConditionName::MembersReleased,
            met: all_released(holding == 0),
            evidence: format!("{holding} of {total} members may still use version {version}"),
            blockers,
            until: next,
        }
    }

    fn holding_blocker(
        &self,
        member: &Member,
        (version, retirement): (Version, &Retirement),
        until: Option<Instant>,
        now: Now,
    ) -> Blocker {
        // A rotated version is waited for once every instance has switched.
        let drains = self.record.rotation.as_ref().map(|rotation| rotation.phase_since);
        let drains = drains.filter(|_| retirement.cause == Cause::Rotated);
        let since = self.blocks_since(member, retirement.since.max(drains.unwrap_or(retirement.since)), now);
        let silent = member.heard().map(|heard| now.instant.since(heard));
        let holds = member.report().is_some_and(|report| report.held.contains(&version));
        let speaks = self.speaks(member, now);
        let failure = member.report().and_then(|report| report.failure.as_ref());
        let failure = failure.filter(|it| it.kind == FailureKind::ReleaseFailed && it.version == version);
        let why = match (holds, silent) {
            (true, Some(_)) if speaks => match failure {
                Some(failure) => format!("{} version {version}: {}", failure.kind.words(), failure.text),
                None => format!("still holds version {version}"),
            },
            (true, Some(silent)) => format!("silent for {}; held version {version} when last heard", seconds(silent)),
            (false, Some(_)) if speaks => {
                format!("has not acted on the newest state yet, so may use version {version}")
            }
            (_, Some(silent)) => format!("silent for {}; may still use version {version}", seconds(silent)),
            (_, None) => NOT_HEARD.to_owned(),
        };
        let next = match (until, self.policy.when_unreachable) {
            _ if speaks && holds && failure.is_some() => {
                "the release hook ends, or the instance calls it again; or the service is restarted".to_owned()
            }
            _ if speaks && holds => "the instance releases the version when its last use ends".to_owned(),
            _ if speaks => "the instance acts on the newest state and reports it".to_owned(),
            (Some(until), WhenUnreachable::PresumeDeadAfter(_)) => {
                format!("the instance is presumed dead in {} if it stays silent", seconds(until.since(now.instant)))
            }
            (Some(until), _) => {
                format!(
                    "the instance is fenced in {} if it stays silent, since its lease is then over",
                    seconds(until.since(now.instant))
                )
            }
            (None, _) => {
                "the policy says `hold`: the retire waits until the instance releases the version or leaves, or an \
                          operator says that it is gone"
                    .to_owned()
            }
        };
        Blocker {
            condition: ConditionName::MembersReleased,
            who: member.key.to_string(),
            why,
            since: Some(since),
            next,
            command: self.remedy_of_silent(member, now),
        }
    }

    /// An empty set is never unanimous.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(GuardLiveInstanceConfirmed, true))]
    fn is_confirmed(&self, any: bool) -> bool {
        any || self.policy.when_empty == WhenEmpty::Proceed
    }

    fn confirmed_condition(&self, now: Now) -> Condition {
        let current = self.record.current;
        let confirmed = self
            .reachable(now)
            .filter(|member| current.is_some_and(|current| self.has_confirmed(member, current, Stage::Switched)))
            .count();
        let met = self.is_confirmed(confirmed > 0);
        Condition::judged(
            ConditionName::LiveInstanceConfirmed,
            met,
            format!("{confirmed} live members on the new version"),
        )
        .or(
            "",
            "no live instance has confirmed the new version",
            None,
            "an instance that uses the secret confirms it, or the policy says when_empty = \"proceed\"",
        )
    }

    fn required_conditions(&self, retirement: &Retirement, now: Now) -> Vec<Condition> {
        if retirement.cause == Cause::Superseded || self.policy.required.is_empty() {
            return Vec::new();
        }
        let Some(current) = self.record.current else { return Vec::new() };
        vec![self.required_confirmed(current, now)]
    }

    fn required_confirmed(&self, current: Version, now: Now) -> Condition {
        let mut condition = self.required_reached(ConditionName::RequiredServices, current, Stage::Switched, now);
        condition.met = required_suffice(condition.met);
        condition
    }

    fn required_are_there(&self, now: Now) -> bool {
        let there = |(service, minimum): (&ServiceName, &u32)| {
            self.tally.current.as_ref().is_some_and(|current| current.has(service, *minimum, now))
        };
        required_suffice(self.policy.required.iter().all(there))
    }

    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(GuardSealed, true))]
    fn is_sealed_for_good(&self, version: Version) -> bool {
        self.retiring.get(&version).is_some_and(|progress| progress.sealed.is_some())
    }

    fn sealed_condition(&self, version: Version) -> Condition {
        let sealed = self.is_sealed_for_good(version);
        Condition::judged(ConditionName::Sealed, sealed, if sealed { "sealed in the store" } else { "not sealed" }).or(
            "",
            format!("version {version} is not sealed yet"),
            None,
            "the leader seals it once no instance may still use it",
        )
    }

    /// Uses that a store read before the seal allows, by instances known or not.
    fn self_lease_condition(&self, version: Version, announced: bool, now: Now) -> Condition {
        if !announced {
            return Condition::judged(ConditionName::SelfLeasesOver, true, "never announced, so never read");
        }
        let wait = self.self_lease_wait();
        let sealed = self.retiring.get(&version).and_then(|progress| progress.sealed);
        let met = self_leases_are_over(sealed, wait, now);
        let condition = Condition::judged(ConditionName::SelfLeasesOver, met, format!("{wait:?} from the seal"));
        match sealed {
            Some(sealed) => condition
                .or(
                    "",
                    format!("an instance may have read version {version} from the store just before the seal"),
                    self.sealed_since(version),
                    "such uses end by themselves",
                )
                .until(sealed + wait),
            None => condition,
        }
    }

    /// When the version was sealed, which is when what is judged after the seal begins to wait.
    fn sealed_since(&self, version: Version) -> Option<WallTime> {
        self.retiring.get(&version).and_then(|progress| progress.sealed_wall)
    }

    /// The latest usage reading, if it was taken after the seal and not long ago.
    fn fresh_usage(&self, version: Version, now: Now) -> bool {
        let sealed = self.retiring.get(&version).and_then(|progress| progress.sealed);
        self.usage.get(&version).is_some_and(|(sent, _)| {
            is_read_after_seal(sealed, *sent) && now.instant.since(*sent) <= super::command::USAGE_INTERVAL * 5
        })
    }

    fn usage_holds(&self, version: Version, retirement: &Retirement, now: Now) -> bool {
        let reading = self.usage.get(&version);
        let free = reading.is_some_and(|(_, evidence)| match evidence {
            Evidence::None => true,
            Evidence::Sessions(sessions) => sessions.is_empty(),
            Evidence::Unavailable(_) => unknown_is_free(),
        });
        // Its credential is not ended, so no session of it is.
        if retirement.given_up.is_some() || !self.has_provider(version) {
            return true;
        }
        let overridden = retirement.overrides.iter().any(|word| word.sessions);
        // What cannot be asked cuts no session off either.
        let known = reading.is_some_and(|(_, evidence)| !matches!(evidence, Evidence::Unavailable(_)));
        usage_allows(free && self.fresh_usage(version, now), overridden && (known || unknown_is_free()))
    }

    fn usage_condition(&self, version: Version, retirement: &Retirement, now: Now) -> Condition {
        // A credential that was to be made and never was has no sessions, but asking costs little.
        let reading = self.usage.get(&version);
        let (evidence, sessions): (String, &[String]) = match reading {
            _ if !self.has_provider(version) => (
                "no provider looks after this version: Rotacast cannot tell who uses it, and does not end it".into(),
                &[],
            ),
            Some((_, Evidence::Unavailable(_))) => ("unavailable".into(), &[]),
            None => ("not read yet".into(), &[]),
            Some((_, Evidence::None)) => ("the provider cannot tell".into(), &[]),
            Some((_, Evidence::Sessions(sessions))) if sessions.is_empty() => ("no session".into(), &[]),
            Some((_, Evidence::Sessions(sessions))) => {
                let plural = if sessions.len() == 1 { "" } else { "s" };
                (format!("{} live session{plural}", sessions.len()), sessions)
            }
        };
        let unread = self.troubles.get(&CommandKind::ReadUsage { version });
        let asked = reading.filter(|(_, evidence)| !matches!(evidence, Evidence::Unavailable(_)));
        let stale = unread.zip(asked).map(|(trouble, (sent, _))| {
            let before = trouble.since.instant.since(*sent);
            let read = WallTime(trouble.since.wall.0.saturating_sub(u64::try_from(before.as_millis()).unwrap_or(0)));
            (trouble.since.wall, format!("{evidence} when it was last read, at {read}"))
        });
        let evidence = stale.as_ref().map_or(evidence, |(_, last)| format!("unknown; {last}"));
        let evidence = match &retirement.given_up {
            Some(word) => format!("{} has given the version up: its credential is left alone", word.by),
            None => evidence,
        };
        let met = self.usage_holds(version, retirement, now);
        let mut condition = Condition::judged(ConditionName::UsageEvidence, met, evidence);
        if let Some((_, Evidence::Unavailable(why))) = reading {
            condition = condition.or(
                "",
                format!("whether version {version} is still used is unknown: {why}"),
                self.sealed_since(version),
                "the provider answers again, or an operator gives the version up without proof that it ended",
            );
        }
        if let Some((since, last)) = stale {
            // What was read before shows nothing about now: the sessions may have ended.
            condition = condition.or(
                "",
                format!("whether version {version} is still used is unknown: {last}"),
                Some(since),
                "its usage can be read again, or an operator cuts the sessions off",
            );
        } else if !met {
            for session in sessions.iter().take(MAX_LISTED) {
                condition = condition.or(
                    session.as_str(),
                    format!("a session of version {version} is live at the provider"),
                    self.sealed_since(version),
                    "the session ends, or an operator cuts the sessions off",
                );
            }
        }
        if !met {
            condition.until = self.next_usage(version);
        }
        condition
    }
}

#[cfg_attr(rotacast_mutants, rotacast_mutate::rule(GuardOverlapOver, true))]
fn overlap_is_over(over: Instant, now: Now) -> bool {
    now.instant >= over
}

#[cfg_attr(rotacast_mutants, rotacast_mutate::rule(GuardRequiredServices, true))]
fn required_suffice(all_there: bool) -> bool {
    all_there
}

#[cfg_attr(rotacast_mutants, rotacast_mutate::rule(GuardMembersReleased, true))]
fn all_released(none_holds: bool) -> bool {
    none_holds
}

#[cfg_attr(rotacast_mutants, rotacast_mutate::rule(GuardSelfLeasesOver, true))]
fn self_leases_are_over(sealed: Option<Instant>, wait: Duration, now: Now) -> bool {
    sealed.is_some_and(|sealed| now.instant >= sealed + wait)
}

#[cfg_attr(rotacast_mutants, rotacast_mutate::rule(GuardUsageEvidence, true))]
fn usage_allows(shows_none: bool, overridden: bool) -> bool {
    shows_none || overridden
}

/// A provider that cannot be asked proves nothing.
#[cfg_attr(rotacast_mutants, rotacast_mutate::rule(UnknownUsage, true))]
fn unknown_is_free() -> bool {
    false
}

/// The usage is read after the seal.
#[cfg_attr(rotacast_mutants, rotacast_mutate::rule(UsageAfterSeal, sealed.is_some()))]
fn is_read_after_seal(sealed: Option<Instant>, sent: Instant) -> bool {
    sealed.is_some_and(|sealed| sent >= sealed)
}

/// A duration for people: whole seconds, rounded up.
pub(super) fn seconds(duration: Duration) -> String {
    let seconds = duration.as_millis().div_ceil(1000);
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}
