//! How long a member counts: whether it has released a version, and from when its silence is proof enough.

#[cfg(test)]
mod tests;

use std::time::Duration;

use super::guard::seconds;
use super::member::{GuardStanding, Member};
use super::{Coordinator, lease};
use crate::id::{InstanceKey, Version};
use crate::policy::WhenUnreachable;
use crate::record::{Override, Retirement};
use crate::time::{Instant, Now};

/// After how many of the longest Sync intervals without any instance a leader takes itself to be cut off: one Sync of a lone
/// instance may be lost.
const DEAF_AFTER: u32 = 2;

/// For how many of the longest Sync intervals an instance must have been silent to be said to be gone: one more than a leader
/// may be cut off without noticing it, so that it has missed a Sync that would have been heard.
const GONE_AFTER: u32 = DEAF_AFTER + 1;

/// What a leader has heard for whatever secret: one process uses many, and sends one Sync for them.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Elsewhere {
    /// Of the incarnation itself.
    pub this: Option<LastSign>,
    /// When another one was last heard, or the term began if none was; none: no other is registered.
    pub other: Option<Instant>,
}

/// When an incarnation was last heard, for whatever secret.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LastSign {
    /// When.
    pub at: Instant,
    /// Until when its silence proves nothing, by the intervals of the secrets that it was heard for: see [`gone_after`].
    pub may_run_until: Instant,
}

/// How long an instance of a secret with this longest Sync interval must have been silent to be said to be gone.
#[must_use]
pub fn gone_after(longest_sync: Duration) -> Duration {
    lease::outlast(longest_sync * GONE_AFTER)
}

impl Coordinator {
    /// Whether and why a member holds back a version's retire, and when it stops doing so if it stays silent.
    #[must_use]
    pub fn guard_standing(
        &self,
        member: &Member,
        version: Version,
        retirement: &Retirement,
        now: Now,
    ) -> (GuardStanding, Option<Instant>) {
        if let Some(settled) = self.settled_standing(member, version, retirement) {
            return (settled, None);
        }
        match self.holds_until(member, version) {
            Some(until) if now.instant >= until => match self.policy.when_unreachable {
                WhenUnreachable::PresumeDeadAfter(_) => (GuardStanding::PresumedDead, None),
                WhenUnreachable::Fence | WhenUnreachable::Hold => (GuardStanding::Fenced, None),
            },
            until => (GuardStanding::Holding, until),
        }
    }

    /// How it stands whatever the time; none: it may hold the version.
    pub(super) fn settled_standing(
        &self,
        member: &Member,
        version: Version,
        retirement: &Retirement,
    ) -> Option<GuardStanding> {
        if member.left {
            return Some(GuardStanding::Left);
        }
        if member.superseded {
            return Some(GuardStanding::Superseded);
        }
        if member.has_released(version, retirement, self.record.revision) {
            return Some(GuardStanding::Released);
        }
        // It was never announced: only an instance that reports it can hold it.
        let announced = self.record.versions.get(&version).is_some_and(|version| version.announced);
        if !announced && member.report().is_none_or(|report| !report.held.contains(&version)) {
            return Some(GuardStanding::Released);
        }
        if self.is_cut_off(member, retirement) {
            return Some(GuardStanding::Overridden);
        }
        None
    }

    /// An override cuts off those it names, no others. An excuse is for preparing and switching, not for the retire.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(ExcuseStages, retirement.overrides.iter().any(|word| word.instances.contains(&member.name())) || self.record.rotation.as_ref().is_some_and(|rotation| rotation.excused.contains(&member.name()))))]
    fn is_cut_off(&self, member: &Member, retirement: &Retirement) -> bool {
        retirement.overrides.iter().any(|word| is_named(word, member))
    }

    /// When a member that stays silent stops holding a version's retire back, if ever.
    pub(super) fn holds_until(&self, member: &Member, version: Version) -> Option<Instant> {
        let granted_over = member.granted(version).map_or(Instant::ZERO, |granted| granted.over);
        let leases_over = granted_over.max(self.inherited_until(member));
        match self.patience() {
            WhenUnreachable::Fence => Some(fenced_at(leases_over)),
            WhenUnreachable::Hold => None,
            WhenUnreachable::PresumeDeadAfter(silence) => Some(self.presumed_dead_at(member, leases_over, silence)),
        }
    }

    /// Under `hold`, silence never counts.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(HoldWaits, match self.policy.when_unreachable { WhenUnreachable::Hold => WhenUnreachable::Fence, other => other }))]
    fn patience(&self) -> WhenUnreachable {
        self.policy.when_unreachable
    }

    /// Under `presume_dead_after`, the silence is waited for.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(SilenceWaits, leases_over))]
    fn presumed_dead_at(&self, member: &Member, leases_over: Instant, silence: Duration) -> Instant {
        leases_over.max(self.last_sign(member) + lease::outlast(silence))
    }

    /// When a member was last heard; a member that was never heard in this term counts from its start.
    fn last_sign(&self, member: &Member) -> Instant {
        member.heard().unwrap_or(member.first_seen.max(self.tenure.since.instant))
    }

    /// Whether preparing and switching go on without a member: it is over, or silent for as long as the policy says.
    #[must_use]
    pub fn is_out_of_reach(&self, member: &Member, now: Now) -> bool {
        member.is_gone() || self.out_of_reach_at(member).is_some_and(|at| now.instant >= at)
    }

    /// When preparing and switching go on without a member that stays silent, if ever. Neither is a matter of safety: the
    /// retire waits for its lease all the same.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(HoldStages, Some(self.passed_over_at(member))))]
    pub(super) fn out_of_reach_at(&self, member: &Member) -> Option<Instant> {
        self.silent_at(member).map(|silent| self.passed_over(member, silent))
    }

    /// Without it, a process that died just before a rotation holds it up for as long as its lease may run.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(MissedSyncs, silent))]
    fn passed_over(&self, member: &Member, silent: Instant) -> Instant {
        if self.record.is_rotating() { silent.min(self.passed_over_at(member)) } else { silent }
    }

    /// When a member has missed the policy's number of Syncs, each when it was to be sent. What it sent while this leader heard
    /// no instance is not missed by it.
    fn passed_over_at(&self, member: &Member) -> Instant {
        let heard = self.last_sign(member).max(self.listening_since);
        let missed = self.policy.missed_syncs;
        let rotating = self.short_since + lease::outlast(self.record.timing.sync_rotating * missed);
        rotating.max(heard + lease::outlast(self.told_interval(member) * missed))
    }

    /// The interval at which a member sends Sync. Until it has acted on a state of this rotation it may go on as it was told
    /// before: the announcement may be lost, and its next Sync is where it hears of it.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(ToldInterval, self.record.timing.sync_rotating))]
    fn told_interval(&self, member: &Member) -> Duration {
        let rotation = self.record.rotation.as_ref();
        let knows = rotation.zip(member.report()).is_some_and(|(rotation, report)| {
            report.generation >= rotation.generation && report.revision >= self.timed_at
        });
        if knows { self.record.timing.sync_rotating } else { self.record.longest_sync() }
    }

    /// Whether this leader hears instances. When it has heard none for as long as would pass one over, its bus may be away, and
    /// their silence proves nothing.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(LeaderHears, true))]
    pub(super) fn hears(&self, now: Instant) -> bool {
        now < self.quiet_since() + lease::outlast(self.record.timing.sync_rotating * self.policy.missed_syncs)
    }

    /// Since when instances that run would have been heard at the interval in force.
    fn quiet_since(&self) -> Instant {
        self.heard_at.max(self.short_since)
    }

    /// An instance was heard. After a long gap, the others have a full interval's time to be heard, too.
    pub(super) fn listen(&mut self, at: Instant) {
        // The Syncs of a lone instance are no gap, even if one is lost.
        let gap = if self.record.is_rotating() {
            self.record.timing.sync_rotating * self.policy.missed_syncs.max(2)
        } else {
            self.record.longest_sync() * 2
        };
        // A rotation that began meanwhile does not hide the gap.
        let was_away = at > self.quiet_since() + lease::outlast(gap) || self.is_deaf(at);
        self.heard_at = self.heard_at.max(at);
        if was_away {
            self.listening_since = at;
            self.recount();
        }
    }

    /// Until when preparing and switching wait for a member that stays silent; none: for as long as it is silent.
    pub(super) fn waited_for_until(&self, member: &Member, now: Now) -> Option<Instant> {
        if self.hears(now.instant) { self.out_of_reach_at(member) } else { self.silent_at(member) }
    }

    /// Whether preparing and switching wait for a member, or would if it had not got there.
    pub(super) fn is_waited_for(&self, member: &Member, now: Now) -> bool {
        !member.is_gone() && self.waited_for_until(member, now).is_none_or(|until| now.instant < until)
    }

    /// When a member that stays silent may be said to be gone, as long as this leader hears others.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(GoneIsSilent, Instant::ZERO))]
    fn may_be_gone_at(&self, member: &Member) -> Instant {
        self.missed_since(member) + gone_after(self.record.longest_sync())
    }

    /// Since when a member is silent although this leader hears instances.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(GoneListens, self.last_sign(member)))]
    fn missed_since(&self, member: &Member) -> Instant {
        self.last_sign(member).max(self.listening_since)
    }

    /// Whether this leader has heard no instance for so long that silence proves nothing. A lone instance is no such sign: its
    /// own silence is what is asked about.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(GoneHears, false))]
    fn hears_none_of_many(&self, now: Now) -> bool {
        self.is_deaf(now.instant) && self.members.iter().filter(|member| !member.is_gone()).nth(1).is_some()
    }

    /// Whether every instance that runs has missed a Sync at whatever interval it was told, and another one.
    fn is_deaf(&self, at: Instant) -> bool {
        at >= self.heard_at + lease::outlast(self.record.longest_sync() * DEAF_AFTER)
    }

    /// Whether an operator may say that a member is gone.
    pub(super) fn may_be_said_gone(&self, member: &Member, now: Now) -> bool {
        now.instant >= self.may_be_gone_at(member) && !self.hears_none_of_many(now)
    }

    /// Why an incarnation may be running, as far as this secret knows it and what was heard for others says; none: it is not
    /// known, is over, or was silent for long enough.
    #[must_use]
    pub fn may_be_running_still(&self, instance: &InstanceKey, elsewhere: Elsewhere, now: Now) -> Option<String> {
        let member = self.members.find(instance).filter(|member| !member.is_gone())?;
        let secret = &self.record.secret;
        let interval = seconds(self.record.longest_sync());
        let ago = |at: Instant| seconds(now.instant.since(at));
        // What was heard for this secret is judged below; it counts in `this` as well.
        let own = self.last_sign(member) + gone_after(self.record.longest_sync());
        if let Some(LastSign { at, may_run_until }) = elsewhere.this.filter(|sign| sign.may_run_until > own) {
            let wait = may_run_until.since(now.instant);
            if !wait.is_zero() {
                let heard = match at > self.last_sign(member) {
                    true => format!("{instance} was heard {} ago for another secret", ago(at)),
                    false => format!("{instance} was heard for another secret whose instances are heard less often"),
                };
                return Some(format!("{heard}, so it may run: stop it, and ask again in {}", at_least(wait)));
            }
        }
        // Another one that was heard after this one should have been shows that it would have been heard, however rarely the
        // others are.
        let missed = self.last_sign(member) + lease::outlast(self.record.longest_sync());
        if let Some(heard) = elsewhere.other.filter(|heard| *heard < missed && self.is_deaf(now.instant)) {
            return Some(format!(
                "this leader has heard no instance of any secret for {}, so it may be cut off, and silence proves nothing: \
                 `rotacast doctor` says what is wrong; ask again once an instance is heard",
                ago(heard.max(self.heard_at))
            ));
        }
        if self.may_be_said_gone(member, now) {
            return None;
        }
        if self.hears_none_of_many(now) {
            return Some(format!(
                "this leader has heard no instance of {secret} for {}, so it may be cut off, and silence proves nothing: \
                 instances are heard every {interval}; `rotacast doctor` says what is wrong; ask again once an instance is heard",
                ago(self.heard_at)
            ));
        }
        let wait = at_least(self.may_be_gone_at(member).since(now.instant));
        Some(match member.heard() {
            Some(heard) if heard >= self.listening_since => format!(
                "{instance} was heard {} ago for {secret}, so it may run: instances are heard every {interval}; stop it, and ask \
                 again in {wait}",
                ago(heard)
            ),
            _ if self.listening_since > self.tenure.since.instant => format!(
                "this leader heard no instance of {secret} until {} ago, so {instance} may run: instances are heard every \
                 {interval}; ask again in {wait}",
                ago(self.listening_since)
            ),
            _ => format!(
                "this leader has not heard {instance} for {secret} yet, and has not listened for long enough: instances are \
                 heard every {interval}; ask again in {wait}"
            ),
        })
    }

    /// Whether a member is over, or silent until no lease of it can be running and for as long as the policy says.
    #[must_use]
    pub fn is_fenced(&self, member: &Member, now: Now) -> bool {
        member.is_gone() || self.silent_at(member).is_some_and(|at| now.instant >= at)
    }

    /// When a member that stays silent is fenced or presumed dead, if ever.
    fn silent_at(&self, member: &Member) -> Option<Instant> {
        let leases_over = member.leases_over().max(self.inherited_until(member));
        // One that was heard just now is there, whether or not it has asked for a lease yet.
        let quiet =
            member.heard().map_or(Instant::ZERO, |heard| heard + lease::outlast(self.record.timing.lease_rotating));
        match self.policy.when_unreachable {
            WhenUnreachable::Fence => Some(leases_over.max(quiet)),
            WhenUnreachable::Hold => None,
            WhenUnreachable::PresumeDeadAfter(silence) => {
                Some(leases_over.max(self.last_sign(member) + lease::outlast(silence)))
            }
        }
    }

    pub(super) fn reachable(&self, now: Now) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(move |member| !self.is_out_of_reach(member, now))
    }
}

/// A wait in words, rounded up: to ask again earlier would be in vain.
fn at_least(wait: Duration) -> String {
    seconds(if wait <= Duration::from_secs(119) { wait } else { wait + Duration::from_secs(59) })
}

#[cfg_attr(rotacast_mutants, rotacast_mutate::rule(OverrideNames, true))]
fn is_named(word: &Override, member: &Member) -> bool {
    word.instances.contains(&member.name())
}

/// Under `fence`, a silent member holds the retire back until its lease has expired.
#[cfg_attr(rotacast_mutants, rotacast_mutate::rule(FenceWaits, Instant::ZERO))]
fn fenced_at(leases_over: Instant) -> Instant {
    leases_over
}
