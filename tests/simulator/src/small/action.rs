//! What can happen next in a small world.

use std::rc::Rc;

use rotacast_holder::{Input as Takes, Instance, InstanceInput};
use rotacast_protocol::coordinator::{Input, Order};
use rotacast_protocol::machine::Event;
use rotacast_protocol::{Incarnation, InstanceKey, OperatorName, Version};

use super::model::{Bounds, Fixed, Life, Model, Wire};
use crate::clock::MS;
use crate::mutant::{Around, Mutant, Rule};

/// One thing that happens.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// Time passes until something changes by itself.
    Wait,
    /// The message that was just sent arrives; a Sync at this broadcaster.
    Arrives(usize),
    /// The message is lost.
    Lost,
    /// The message is late.
    Late,
    /// The message arrives, and will arrive once more.
    Doubled(usize),
    /// A late message arrives; a Sync at this broadcaster.
    ArrivesLate(usize, usize),
    /// A broadcaster hears of registrations.
    HearsRegistrations(usize),
    /// A broadcaster takes the leader's key.
    TakesOver(usize),
    /// A broadcaster is stopped.
    Stops(usize),
    /// A broadcaster will be stopped in the middle of its next save.
    StopsInSave(usize),
    /// It goes on; a save that was under way arrives.
    GoesOn(usize),
    /// A broadcaster is killed.
    Killed(usize),
    /// An instance starts.
    Joins,
    /// An instance is killed and starts anew.
    Restarts(usize),
    /// An instance is cut off from everything, for good.
    CutOff(usize),
    /// An instance begins a use of the version that it gets.
    Uses(usize),
    /// An operator rolls back.
    RollsBack,
    /// A newer version is written.
    Lands,
    /// The store is restored to this one of its records.
    Restores(usize),
    /// The operator, who has heard of every instance, acts on it.
    Recovers,
}

impl Model {
    pub(super) fn first(fixed: &mut Fixed, bounds: Bounds) -> Self {
        let mut model = Self {
            now: 1000 * MS,
            nodes: [None, None],
            stopped: [false; 2],
            stops_in_save: None,
            stored: None,
            lock: None,
            epoch: 0,
            lives: Vec::new(),
            wire: Vec::new(),
            held: Vec::new(),
            roster: Default::default(),
            registrations: Vec::new(),
            versions: 1,
            audit: Default::default(),
            disabled: Default::default(),
            earlier: Vec::new(),
            restored: false,
            unnoticed: false,
            lost: Default::default(),
            decided: Default::default(),
            nonce: 0,
            granted: Default::default(),
            left: bounds,
            violation: None,
        };
        model.take_over(fixed, 0);
        for index in 0..model.left.running {
            model.start(fixed, 0);
            model.lives[index].storebound = index + model.left.storebound >= model.left.running;
        }
        model
            .wire
            .retain(|wire| (0..model.lives.len()).all(|index| !model.lives[index].storebound || !to(wire, index)));
        // Every instance uses version 1 with a long lease. Then version 2 is written.
        for _ in 0..20 {
            model.hear_registrations(fixed, 0);
            model.settle(fixed, 0);
            while !model.wire.is_empty() {
                let wire = model.wire.remove(0);
                model.arrives(fixed, wire, 0);
            }
            if model.lives.iter().all(|life| {
                let active = life.rules.holder(&fixed.secret).and_then(|it| it.active(fixed.instances.at(model.now)));
                active.is_some()
            }) {
                break;
            }
            model.wait(fixed);
        }
        model.versions = 2;
        model.earlier.clear();
        model.settle(fixed, 0);
        model
    }

    fn start(&mut self, fixed: &Fixed, life: u128) {
        let index = self.lives.len();
        let key = InstanceKey::new(
            "api".parse().expect("a valid name"),
            format!("i{index}").parse().expect("a valid name"),
            Incarnation((life + 1) << 96),
        );
        let life = self.fresh(fixed, key);
        self.lives.push(life);
        self.goes_on(fixed, index);
    }

    fn fresh(&self, fixed: &Fixed, key: InstanceKey) -> Life {
        let mut rules = Instance::new(key, false);
        rules.add(fixed.secret.clone());
        Life {
            rules: Rc::new(rules),
            guards: Vec::new(),
            syncing: None,
            cut: false,
            storebound: false,
            registered: false,
            served: None,
            kept: None,
        }
    }

    /// Everything that can happen next.
    pub(super) fn actions(&self, fixed: &Fixed) -> Vec<Action> {
        let mut actions = Vec::new();
        let left = &self.left;
        if let Some(wire) = self.wire.first() {
            let lead = self.lock.map_or(0, |(node, ..)| node);
            actions.push(Action::Arrives(lead));
            if left.faults > 0 {
                if matches!(wire, Wire::Sync(..)) && self.nodes[1 - lead].is_some() {
                    actions.push(Action::Arrives(1 - lead));
                }
                actions.extend([Action::Lost, Action::Late, Action::Doubled(lead)]);
            }
            return actions;
        }
        // The operator acts at once.
        if self.is_looked_at() {
            return vec![Action::Recovers];
        }
        for (at, wire) in self.held.iter().enumerate() {
            for node in 0..2 {
                let sync = matches!(wire, Wire::Sync(..));
                if if sync { self.nodes[node].is_some() && !self.stopped[node] } else { node == 0 } {
                    actions.push(Action::ArrivesLate(at, node));
                }
            }
        }
        for node in 0..2 {
            let Some(it) = &self.nodes[node] else {
                let free = self.lock.is_none_or(|(_, _, until)| until <= self.now);
                if free && !self.stopped[node] {
                    actions.push(Action::TakesOver(node));
                }
                continue;
            };
            if self.stopped[node] {
                actions.push(Action::GoesOn(node));
                continue;
            }
            if it.registrations_heard < self.registrations.len() {
                actions.push(Action::HearsRegistrations(node));
            }
            if left.stops > 0 {
                actions.push(Action::Stops(node));
                if self.stops_in_save.is_none() {
                    actions.push(Action::StopsInSave(node));
                }
            }
            if left.kills > 0 {
                actions.push(Action::Killed(node));
            }
            let rotates = it.machine.coordinator().record().rotation.is_some();
            if left.rollbacks > 0 && rotates && self.lock.is_some_and(|(holder, ..)| holder == node) {
                actions.push(Action::RollsBack);
            }
        }
        if left.joiners > 0 {
            actions.push(Action::Joins);
        }
        for (index, life) in self.lives.iter().enumerate() {
            if left.restarts > 0 && !life.cut {
                actions.push(Action::Restarts(index));
            }
            if left.cuts > 0 && !life.cut {
                actions.push(Action::CutOff(index));
            }
            let holder = life.rules.holder(&fixed.secret);
            let active = holder.and_then(|holder| holder.active(fixed.instances.at(self.now)));
            // A version on its way out: every other version is safe to use.
            let leaving = active.is_some_and(|(version, _)| {
                let record = self.stored.as_ref().map(|(record, _)| record);
                record.is_some_and(|record| record.current != Some(version))
            });
            if left.uses > 0 && leaving {
                actions.push(Action::Uses(index));
            }
        }
        if left.restores > 0 {
            actions.extend((0..self.earlier.len()).map(Action::Restores));
        }
        if left.versions > 0 {
            actions.push(Action::Lands);
        }
        if self.now < left.horizon {
            actions.push(Action::Wait);
        }
        actions
    }

    /// Carries the action out.
    pub(super) fn act(&mut self, fixed: &mut Fixed, action: Action) {
        match action {
            Action::Wait => self.wait(fixed),
            Action::Arrives(node) => {
                let lead = self.lock.map_or(0, |(node, ..)| node);
                self.left.faults -= u8::from(node != lead);
                let wire = self.wire.remove(0);
                self.arrives(fixed, wire, node);
            }
            Action::Lost => {
                self.left.faults -= 1;
                self.wire.remove(0);
            }
            Action::Late => {
                self.left.faults -= 1;
                let wire = self.wire.remove(0);
                self.held.push(wire);
            }
            Action::Doubled(node) => {
                self.left.faults -= 1;
                let wire = self.wire.remove(0);
                self.held.push(wire.clone());
                self.arrives(fixed, wire, node);
            }
            Action::ArrivesLate(at, node) => {
                let wire = self.held.remove(at);
                self.arrives(fixed, wire, node);
            }
            Action::HearsRegistrations(node) => {
                self.hear_registrations(fixed, node);
                self.settle(fixed, node);
            }
            Action::TakesOver(node) => self.take_over(fixed, node),
            Action::Stops(node) => {
                self.left.stops -= 1;
                self.stopped[node] = true;
            }
            Action::StopsInSave(node) => {
                self.left.stops -= 1;
                self.stops_in_save = Some(node);
            }
            Action::GoesOn(node) => {
                self.stopped[node] = false;
                self.land(fixed, node);
                // A broadcaster that knows that its term is over follows again.
                let now = fixed.leaders[node].at(self.now);
                let knows = fixed.mutant != Some(Mutant::Leader(Rule::Leads));
                if knows && self.nodes[node].as_ref().is_some_and(|it| it.leads_until <= now) {
                    self.nodes[node] = None;
                }
                self.settle(fixed, node);
            }
            Action::Killed(node) => {
                self.left.kills -= 1;
                self.nodes[node] = None;
                self.stopped[node] = false;
            }
            Action::Joins => {
                self.left.joiners -= 1;
                self.start(fixed, 0);
            }
            Action::Restarts(index) => {
                self.left.restarts -= 1;
                let key = self.lives[index].rules.key();
                let incarnation = Incarnation(key.incarnation.0 + (1 << 96));
                let key = InstanceKey::new(key.service.clone(), key.instance.clone(), incarnation);
                self.lives[index] = self.fresh(fixed, key);
                self.wire.retain(|wire| !to(wire, index));
                self.held.retain(|wire| !to(wire, index) || matches!(wire, Wire::Sync(..)));
                self.goes_on(fixed, index);
            }
            Action::CutOff(index) => {
                self.left.cuts -= 1;
                self.lives[index].cut = true;
                self.wire.retain(|wire| !to(wire, index));
                self.held.retain(|wire| !to(wire, index) || matches!(wire, Wire::Sync(..)));
            }
            Action::Uses(index) => {
                self.left.uses -= 1;
                let now = fixed.instances.at(self.now);
                let holder = self.lives[index].rules.holder(&fixed.secret);
                if let Some((version, _)) = holder.and_then(|holder| holder.active(now)) {
                    let long = if fixed.mutant == Some(Mutant::Around(Around::UseEnds)) { 8 } else { 1 };
                    self.lives[index].guards.push((version, now + fixed.policy.max_use * long));
                }
                self.goes_on(fixed, index);
            }
            Action::RollsBack => {
                self.left.rollbacks -= 1;
                let by = OperatorName::new("ada").expect("a valid name");
                let order = Order::rollback("no").expect("a reason");
                if let Some((node, ..)) = self.lock {
                    self.handle(node, Event::Input(Input::Operator { by, order }));
                    self.settle(fixed, node);
                }
            }
            Action::Restores(back) => {
                self.restore(fixed, back);
                self.take_over(fixed, 0);
            }
            Action::Recovers => self.recover(fixed),
            Action::Lands => {
                self.left.versions -= 1;
                self.versions += 1;
                (0..2).for_each(|node| self.settle(fixed, node));
            }
        }
    }

    fn arrives(&mut self, fixed: &mut Fixed, wire: Wire, node: usize) {
        let secret = fixed.secret.clone();
        match wire {
            Wire::Sync(index, request) => self.sync(fixed, node, index, request),
            Wire::Reply(index, reply) => {
                if self.lives[index].syncing.is_some_and(|(nonce, _)| nonce == reply.nonce) {
                    self.lives[index].syncing = None;
                }
                self.takes(fixed, index, InstanceInput::SyncReply((*reply).clone()));
                self.goes_on(fixed, index);
            }
            Wire::State(index, state) => {
                self.takes(fixed, index, InstanceInput::Secret(secret, Takes::State((*state).clone())));
                self.goes_on(fixed, index);
            }
            Wire::Read(index, sent, state) => {
                let read = Takes::StoreRead { sent, state: (*state).clone() };
                self.takes(fixed, index, InstanceInput::Secret(secret, read));
                self.goes_on(fixed, index);
            }
        }
    }

    /// Time passes to the next moment at which something changes by itself, or to a moment before a lease ends.
    fn wait(&mut self, fixed: &mut Fixed) {
        let mut next = self.left.horizon.max(self.now + MS);
        let mut meet = |at: u64| {
            if at > self.now && at < next {
                next = at;
            }
        };
        for node in 0..2 {
            if let Some(it) = self.nodes[node].as_ref().filter(|it| !self.stopped[node] && it.saving.is_none())
                && let Some(at) = it.machine.next_wakeup(fixed.leaders[node].now(self.now))
            {
                meet(fixed.leaders[node].when(at));
            }
        }
        if let Some((node, _, until)) = self.lock
            && (self.stopped[node] || self.nodes[node].is_none())
        {
            meet(until);
        }
        for life in &self.lives {
            let now = fixed.instances.at(self.now);
            if let Some(at) = life.rules.next_wakeup(now) {
                meet(fixed.instances.when(at));
            }
            if let Some((_, timeout)) = life.syncing {
                meet(timeout);
            }
            life.guards.iter().for_each(|(_, end)| meet(fixed.instances.when(*end)));
            if self.left.uses > 0
                && let Some((_, until)) = life.rules.holder(&fixed.secret).and_then(|holder| holder.active(now))
            {
                meet(fixed.instances.when(until).saturating_sub(MS / 100));
            }
        }
        self.now = next;
        self.renew(fixed);
        for index in 0..self.lives.len() {
            if let Some((nonce, timeout)) = self.lives[index].syncing
                && timeout <= self.now
            {
                self.lives[index].syncing = None;
                self.takes(fixed, index, InstanceInput::SyncFailed { nonce });
                // A later answer answers nothing. The request may still arrive.
                self.held
                    .retain(|wire| !matches!(wire, Wire::Reply(to, reply) if *to == index && reply.nonce == nonce));
            }
            self.goes_on(fixed, index);
        }
        (0..2).for_each(|node| self.settle(fixed, node));
        let kept = |version: Version| !self.restored || self.lives.iter().any(|life| life.kept == Some(version));
        let ended = self.disabled.iter().copied().filter(|version| kept(*version));
        let ended = ended.into_iter().find_map(|version| Some((version, self.user(fixed, version)?)));
        if let Some((version, index)) = ended {
            self.violated(format!("S1: instance {index} may use version {version}, which has ended"));
        }
    }

    /// Versions that exist, for the summary.
    #[must_use]
    pub fn newest(&self) -> Option<Version> {
        Version::new(self.versions).ok()
    }
}

fn to(wire: &Wire, index: usize) -> bool {
    match wire {
        Wire::Sync(it, _) | Wire::Reply(it, _) | Wire::State(it, _) | Wire::Read(it, ..) => *it == index,
    }
}
