//! The operator: the orders at random, and after the faults have stopped the orders that the reported blockers call
//! for.

use std::collections::BTreeSet;

use rotacast_protocol::coordinator::{ConditionName, Member, Order, OrderName};
use rotacast_protocol::record::{Doubt, Label};
use rotacast_protocol::{InstanceKey, OperatorName, Phase, Version};

use crate::clock::SECOND;
use crate::event::{Event, Mail};
use crate::instance::Running;
use crate::judge::name;
use crate::world::World;

/// The longest virtual time from the end of the faults until everything has ended, with an operator who acts on the
/// reported blockers.
const PATIENCE: u64 = 400 * SECOND;

/// How long rotations may take by themselves before the operator acts on the reported blockers.
const HANDS_OFF: u64 = 150 * SECOND;

impl World {
    pub(crate) fn order(&mut self, order: Order) {
        let by = OperatorName::new("ada").expect("a valid name");
        if let Some(node) = (0..self.leaders.len()).find(|node| self.leaders[*node].term.is_some()) {
            self.counts.orders += 1;
            let mail = Mail::Order { by, order };
            let at = self.now + self.delay();
            self.at(at, Event::ToLeader(node, Box::new(mail)));
        }
    }

    /// The operator pastes one of the commands that the blockers offer, if there is one of this name.
    pub(crate) fn paste(&mut self, which: usize, name: OrderName) {
        let Some(node) = self.leading_node() else { return };
        let Some(term) = &self.leaders[node].term else { return };
        let coordinator = term.coordinator();
        let blockers = coordinator.blockers(self.leaders[node].clock.now(self.now));
        let orders = blockers.iter().filter_map(|blocker| {
            let words: Vec<&str> = blocker.command.as_deref()?.split_whitespace().collect();
            match (words.as_slice(), name) {
                (["rotacast", "gone", who, ..], OrderName::Gone) => {
                    let who = who.trim_matches('\'');
                    let key = coordinator.members().map(|member| &member.key).find(|key| key.to_string() == who)?;
                    Order::gone(key.clone(), "its node is lost").ok()
                }
                (["rotacast", "abandon", _, version, ..], OrderName::Abandon) => {
                    Order::abandon(Version::new(version.parse().ok()?).ok()?, "revoked by hand").ok()
                }
                _ => None,
            }
        });
        let orders: Vec<Order> = orders.collect();
        if !orders.is_empty() {
            self.order(orders[which % orders.len()].clone());
        }
    }

    /// An instance that runs although an operator said that it is gone is restarted.
    fn restarts_those_said_gone(&mut self) {
        for index in 0..self.instances.len() {
            let running = &self.instances[index];
            if running.alive && self.truth.gone.contains(&name(running)) {
                let (clock, exclusive) = (running.clock.clone(), running.exclusive);
                self.start_instance(index, clock, exclusive);
            }
        }
    }

    /// The faults stop, and the operator undoes what he did.
    pub(crate) fn heal(&mut self) {
        self.healed = Some(self.now);
        for node in 0..self.leaders.len() {
            self.leaders[node].no_store = 0;
        }
        for index in 0..self.instances.len() {
            let running = &mut self.instances[index];
            running.no_leader = [0; 2];
            running.no_store = 0;
            running.no_bus = 0;
            running.deaf = 0;
        }
        self.outside.roster_late = 0;
        self.outside.audit_full = 0;
        self.outside.audit_slow = 0;
        self.outside.read_only = 0;
        self.truth.provider_half = 0;
        self.truth.provider_away = 0;
        if !self.instances.iter().any(|running| running.alive) {
            let clock = self.instances[0].clock.clone();
            let exclusive = self.instances[0].exclusive;
            self.start_instance(0, clock, exclusive);
        }
        self.at(self.now + SECOND, Event::Look);
    }

    pub(crate) fn ended(&self) -> bool {
        let Some(stored) = &self.outside.stored else { return false };
        let record = &stored.record;
        if record.safe_mode.is_some() || record.stay {
            return false;
        }
        let waiting = record.last_version.map_or(0, Version::get) < self.outside.last_version
            || record.versions.values().any(|version| version.label == rotacast_protocol::record::Label::Pending);
        if record.is_rotating() || waiting || record.current.is_none() {
            return false;
        }
        // Every instance has the current version.
        let arrived = |running: &Running| {
            let now = running.clock.at(self.now);
            let active = running.rules.holder(&self.secret).and_then(|holder| holder.active(now));
            active.map(|(version, _)| version) == record.current
        };
        self.instances.iter().filter(|running| running.alive).all(arrived)
    }

    /// The operator acts on rotations that are reported stuck, using only the report.
    pub(crate) fn look(&mut self) {
        let healed = self.healed.unwrap_or(self.now);
        self.at(self.now + SECOND, Event::Look);
        self.tell_versions();
        self.tell_registrations();
        self.restarts_the_confused();
        self.restarts_those_said_gone();
        let Some(node) = (0..self.leaders.len()).find(|node| {
            let epoch = self.leaders[*node].term.as_ref().map(|term| term.epoch);
            let runs = self.leaders[*node].stopped <= self.now;
            runs && epoch.is_some_and(|epoch| self.outside.leads(*node, epoch, self.now))
        }) else {
            if self.now > healed + 30 * SECOND {
                self.violated("L", "no broadcaster leads".into());
            }
            return;
        };
        if self.outside.ever_restored && self.sees_to_restored() {
            if self.now > healed + PATIENCE {
                let record = self.outside.stored.as_ref().map(|stored| stored.record.clone());
                self.violated("L", format!("what follows a restored store has not ended: {record:#?}"));
            }
            return;
        }
        let Some(term) = &self.leaders[node].term else { return };
        let now = self.leaders[node].clock.now(self.now);
        let record = term.coordinator().record();
        let current = record.current;
        // Whatever the operator would order next: orders that lead nowhere are no end either.
        if self.now > healed + PATIENCE {
            let blockers = term.coordinator().blockers(now);
            let text = format!(
                "not ended {} s after the faults stopped, last version in the store {}\nblockers {blockers:#?}\nrecord {record:#?}\npolicy {:?}",
                PATIENCE / SECOND,
                self.outside.last_version,
                self.policy
            );
            self.violated("L", text);
            return;
        }
        if record.paused.is_some() {
            return self.order(Order::Resume);
        }
        if record.safe_mode.is_some() {
            return self.order(Order::LeaveSafeMode);
        }
        if term.coordinator().overlays(now).iter().any(|overlay| overlay.as_str() == "awaiting_approval") {
            return self.order(Order::Approve);
        }
        if current.is_none()
            && !record.is_rotating()
            && self.outside.last_version <= record.last_version.map_or(0, Version::get)
        {
            // No version ever worked, or it was rolled back before it was made.
            self.outside.put(false);
            return;
        }
        let back = record.rotation.as_ref().is_some_and(|rotation| rotation.phase == Phase::RollingBack);
        if back && record.current.is_some_and(|current| record.doubt(current) == Some(Doubt::Failed)) {
            return self.order(Order::Rotate);
        }
        // Too many wait: all but the newest are given up.
        if self.outside.ever_restored && self.now > healed + HANDS_OFF {
            let waiting = record.versions.iter().filter(|(_, version)| version.label == Label::Pending);
            let waiting: Vec<Version> = waiting.map(|(version, _)| *version).collect();
            let starts = term.coordinator().blockers(now).iter().any(|it| it.condition == ConditionName::Start);
            if let ([oldest, _, ..], true) = (&*waiting, starts) {
                return self.order(Order::abandon(*oldest, "too many").expect("a reason"));
            }
        }
        let blockers = term.coordinator().blockers(now);
        // The operator can start more instances, which a report asks for.
        if blockers
            .iter()
            .any(|blocker| matches!(blocker.condition, ConditionName::RequiredServices | ConditionName::LiveInstance))
            && let Some(index) = (0..self.instances.len().min(3)).find(|index| !self.instances[*index].alive)
        {
            let (clock, exclusive) = (self.instances[index].clock.clone(), self.instances[index].exclusive);
            self.start_instance(index, clock, exclusive);
            return;
        }
        self.unexplained = if record.is_rotating() && blockers.is_empty() { self.unexplained + 1 } else { 0 };
        if self.unexplained > 10 {
            let phase = record.rotation.as_ref().map(|rotation| rotation.phase);
            let text = format!("{phase:?} goes on and on, and nothing is said to block it: {record:?}");
            self.violated("L", text);
            return;
        }
        if self.now < healed + HANDS_OFF {
            return;
        }
        // What the leader reports of the current version says that no instance that runs may be moved to it.
        let stays = record.stay && current.is_some_and(|current| record.doubt(current) == Some(Doubt::Failed));
        let runs = |member: &&Member| stays && member.heard().is_some();
        let running: BTreeSet<InstanceKey> =
            term.coordinator().members().filter(runs).map(|member| member.key.clone()).collect();
        let members: Vec<InstanceKey> = term.coordinator().members().map(|member| member.key.clone()).collect();
        let retiring: Vec<Version> = record.retirements.keys().copied().collect();
        for blocker in blockers {
            let who = members.iter().find(|key| key.to_string() == blocker.who).cloned();
            match (blocker.condition, who) {
                (ConditionName::MembersReleased, Some(instance)) if !running.contains(&instance) => {
                    for version in &retiring {
                        let instances = BTreeSet::from([instance.clone()]);
                        self.order(Order::cut_off(*version, instances, false, "named").expect("a reason"));
                    }
                }
                (ConditionName::Prepared | ConditionName::Switched, Some(instance)) => {
                    self.order(Order::Excuse { instance })
                }
                _ => {}
            }
        }
    }
}
