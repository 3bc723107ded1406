//! Who uses the secret: registrations, leaves, and which incarnations are proved over.

#[cfg(test)]
mod tests;

use std::time::Duration;

use super::condition::{Condition, ConditionName};
use super::decide::stale;
use super::{Change, Coordinator, MAX_MEMBERS, Member, Rejection, lease};
use crate::id::InstanceKey;
use crate::record::RecordChange;
use crate::time::{Instant, Now};

impl Coordinator {
    pub(super) fn registered(
        &self,
        now: Now,
        key: InstanceKey,
        exclusive: bool,
        live: bool,
    ) -> Result<Vec<Change>, Rejection> {
        let exclusive = proves_earlier_lives_over(exclusive, live);
        match self.members.find(&key) {
            Some(member) if member.registered || member.left => Err(stale("registration", "a new incarnation", &key)),
            None if self.is_full() => Err(Rejection::Sender {
                key,
                problem: format!("{MAX_MEMBERS} incarnations are tracked already; it runs on self-leases"),
            }),
            // A life that was heard before its registration did not begin with it: it was forgotten and registers
            // again. It proves nothing about a life of its name that began later.
            Some(_) => Ok(vec![Change::MemberRegistered { key, exclusive: false, at: now }]),
            None => Ok(vec![Change::MemberRegistered { key, exclusive, at: now }]),
        }
    }

    pub(super) fn left(&self, now: Now, key: InstanceKey) -> Result<Vec<Change>, Rejection> {
        match self.members.find(&key) {
            Some(member) if member.left => Err(stale("leave", "an instance that has not left yet", &key)),
            None if self.is_full() => {
                Err(Rejection::Sender { key, problem: format!("{MAX_MEMBERS} incarnations are tracked already") })
            }
            _ => Ok(vec![Change::MemberLeft { key, at: now }]),
        }
    }

    /// Whether there is no room for a further incarnation, not even in place of one that is over.
    pub(super) fn is_full(&self) -> bool {
        self.members.len() >= MAX_MEMBERS && !self.members.iter().any(Member::is_gone)
    }

    /// A registration alone proves no earlier life over: it may have been under way for longer than the life that is heard.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(ProvenOnly, { self.enroll(key, exclusive, at); if exclusive { self.end_earlier_lives(key, at.instant); } }))]
    pub(super) fn register(&mut self, key: &InstanceKey, exclusive: bool, at: Now) {
        self.enroll(key, exclusive, at);
    }

    fn enroll(&mut self, key: &InstanceKey, exclusive: bool, at: Now) {
        self.know(key, at);
        let inherited = self.is_listing();
        self.change_member(key, |member, _| {
            member.registered = true;
            member.inherited = inherited;
            member.exclusive = exclusive;
        });
    }

    /// A life that holds its name alone and has heard of a grant was alive after that grant was given. So every life of
    /// that name that was known before it, and was not heard since, is over. A registration alone proves nothing: it may
    /// have been under way for longer than the life that is heard now.
    pub(super) fn prove_earlier_incarnations_over(&mut self, key: &InstanceKey) {
        let Some(member) = self.members.find(key) else { return };
        if member.exclusive && !member.superseded && member.acknowledged() == Some(member.granted_sequence) {
            let alive = member.granted_at;
            self.end_earlier_lives(key, alive);
        }
    }

    /// Lives of the same name that were known before a moment and were not heard since are over.
    fn end_earlier_lives(&mut self, key: &InstanceKey, alive: Instant) {
        let over = self.members.incarnations(key).filter(|(_, member)| {
            let before = member.last_known() < alive;
            before && !member.superseded && member.key.incarnation != key.incarnation
        });
        for over in over.map(|(_, member)| member.key.clone()).collect::<Vec<_>>() {
            self.change_member(&over, |member, _| member.superseded = true);
        }
    }

    /// From now on the member is known. A new one takes the place of one that is over when there is no other.
    pub(super) fn know(&mut self, key: &InstanceKey, at: Now) {
        if self.members.id(key).is_some() {
            return;
        }
        if self.members.len() >= MAX_MEMBERS {
            let over = self.members.iter().find(|member| member.is_gone()).map(|member| member.key.clone());
            over.into_iter().for_each(|over| self.remove_member(&over));
        }
        let mut member = Member::new(key.clone(), at.instant);
        member.left = self.is_said_gone(key);
        let id = self.members.insert(member);
        self.count_member(id, key, true);
    }

    /// What an operator has said outlives the leader that it was said to.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(GoneStays, false))]
    pub(super) fn is_said_gone(&self, key: &InstanceKey) -> bool {
        !self.record.gone.is_empty() && self.record.gone.contains_key(&key.full_name())
    }

    /// An incarnation that was said to be gone, and that the roster no longer has: there is nothing left to remember.
    pub(super) fn forget_gone(&self) -> Option<RecordChange> {
        let known = |name: &&String| InstanceKey::of_full_name(name).is_some_and(|key| self.members.id(&key).is_some());
        let instance = self.record.gone.keys().filter(|_| self.roster_read).find(|name| !known(name))?;
        Some(RecordChange::GoneForgotten { instance: instance.clone() })
    }

    /// Whether this leader still reads the roster as its predecessors left it.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(ListedInherit, false))]
    fn is_listing(&self) -> bool {
        !self.roster_read
    }

    /// Whether the roster names every incarnation that may have a predecessor's lease: it was read, a place was found for each,
    /// and no part of the store's history was lost.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(RosterWhole, true))]
    pub(super) fn roster_is_whole(&self) -> bool {
        self.roster_read && self.roster_fits && self.record.lost_history.is_none()
    }

    /// When every lease that a predecessor may have granted to a member has expired on every clock.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(InheritedByName, Instant::ZERO))]
    pub(super) fn inherited_until(&self, member: &Member) -> Instant {
        if member.inherited || !self.roster_is_whole() { self.inherited_over } else { Instant::ZERO }
    }

    /// The joiner's barrier: no lease before the incarnation is in the roster.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(RegisteredOnly, true))]
    pub(super) fn is_registered(&self, key: &InstanceKey) -> bool {
        self.members.find(key).is_some_and(|member| member.registered)
    }

    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(RosterFirst, true))]
    pub(super) fn knows_roster(&self) -> bool {
        self.roster_read
    }

    /// When every live instance has been heard, although the roster cannot be read.
    pub(super) fn roster_known_by(&self) -> Instant {
        self.tenure.since.instant + lease::outlast(self.longest_told() * 2)
    }

    /// The longest interval at which a live instance may Sync: one that has not heard of the rotation goes on as before.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(RosterIdle, self.record.timing.sync_rotating))]
    fn longest_told(&self) -> Duration {
        self.record.longest_sync()
    }

    /// A new leader does not take the instances it has heard for all there are. Every live one has sent two Syncs by the end
    /// of the wait, so that a roster that cannot be read costs time only.
    pub(super) fn roster_condition(&self, now: Now) -> Condition {
        let over = self.roster_known_by();
        if self.knows_roster() || now.instant >= over {
            return Condition::met(ConditionName::RosterRead);
        }
        let why = "this leader has just taken over and does not know all members yet";
        let next = "the leader reads the roster, or has heard every live instance";
        Condition {
            until: Some(over),
            ..Condition::waiting(ConditionName::RosterRead, why, self.tenure.since.wall, next)
        }
    }
}

/// Whether a registration may later prove that earlier incarnations of its name are over: the name is exclusive, and it was
/// published just now, since the order of a listing proves nothing.
#[cfg_attr(rotacast_mutants, rotacast_mutate::rule(ExclusiveOnly, live))]
#[cfg_attr(rotacast_mutants, rotacast_mutate::rule(LiveOnly, exclusive))]
fn proves_earlier_lives_over(exclusive: bool, live: bool) -> bool {
    exclusive && live
}
