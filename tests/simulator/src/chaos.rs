//! Interference, at random or by a script.

use std::collections::BTreeSet;
use std::rc::Rc;

use rotacast_protocol::coordinator::{Input, Order, OrderName};
use rotacast_protocol::{Incarnation, InstanceKey, Version};

use crate::clock::{MS, SECOND};
use crate::event::{Event, Mail};
use crate::fault::{Act, Fault, When};
use crate::instance::ToInstance;
use crate::mutant::Around;
use crate::setup::policy;
use crate::world::World;

/// The faults that chaos picks from. The others strike messages, requests and steps.
const PICKED: [Fault; 53] = [
    Fault::ManagedVersion,
    Fault::RosterLate,
    Fault::LateAnswers,
    Fault::Deaf,
    Fault::Twin,
    Fault::Excused,
    Fault::Overridden,
    Fault::LeakedSession,
    Fault::LeaderKilled,
    Fault::LeaderStopped,
    Fault::LeaderCutOff,
    Fault::InstanceKilled,
    Fault::InstanceKilled,
    Fault::InstanceStopped,
    Fault::InstanceCutOff,
    Fault::HalfCutOff,
    Fault::StoreCutOff,
    Fault::BusCutOff,
    Fault::Alone,
    Fault::Joiner,
    Fault::Rolled,
    Fault::Leaves,
    Fault::LateRegistration,
    Fault::RosterCutBack,
    Fault::StreamsRecreated,
    Fault::OldLog,
    Fault::NewVersion,
    Fault::NewVersion,
    Fault::NewVersion,
    Fault::NewVersion,
    Fault::BadVersion,
    Fault::WatchGap,
    Fault::Order,
    Fault::Order,
    Fault::Order,
    Fault::Order,
    Fault::Order,
    Fault::Order,
    Fault::Rollback,
    Fault::PolicyChanged,
    Fault::StoreRestored,
    Fault::AuditFull,
    Fault::AuditSlow,
    Fault::StoreReadOnly,
    Fault::ProviderHalf,
    Fault::CredentialDeleted,
    Fault::WallClockStep,
    Fault::KeyLost,
    Fault::SaidGone,
    Fault::SaidGone,
    Fault::GivenUp,
    Fault::GivenUp,
    Fault::ProviderAway,
];

/// How often a forger strikes beside another fault, in thousandths.
const FORGED: u64 = 150;

/// The last faults of the list lead operators to say that an instance is gone or to give a version up. In a world with
/// a restored store, operators follow its runbook only.
const WORDS: usize = 5;

impl World {
    pub(crate) fn chaos(&mut self) {
        if self.healed.is_some() {
            return;
        }
        let again = self.now + self.rng.between(100, 2500) * MS;
        self.at(again, Event::Chaos);
        self.tell_versions();
        self.tell_registrations();
        if self.strikes(Fault::Forged, FORGED) {
            let victim = self.streams[Fault::Forged as usize].between(0, self.instances.len() as u64 - 1);
            self.forges(usize::try_from(victim).unwrap_or(0));
        }
        let length = self.rng.between(500, 15_000) * MS;
        let drawn = self.rng.draw();
        let target = usize::try_from(self.rng.draw() % 1000).unwrap_or(0);
        let favoured = !self.favoured.is_empty() && self.rng.permille(700);
        let picked = if self.restores.is_some() { &PICKED[..PICKED.len() - WORDS] } else { &PICKED[..] };
        let from: &[Fault] = if favoured { &self.favoured } else { picked };
        let fault = from[usize::try_from(drawn % from.len() as u64).unwrap_or(0)];
        // After a restored store little can be said of progress, so it is rare outside the worlds that are made for it.
        if fault == Fault::StoreRestored && !favoured && !self.rng.permille(100) {
            return;
        }
        if self.strike(fault) {
            self.inflict(fault, target, length);
        }
    }

    /// Starts a fault of the script whose time has come.
    pub(crate) fn acts(&mut self, act: Act) {
        if self.strike(act.fault) {
            self.inflict(act.fault, act.target, act.length);
        }
    }

    /// Starts, once, the faults that the script gives for a moment.
    pub(crate) fn cue(&mut self, moment: When) {
        let (now, mut due): (u64, Vec<Act>) = (self.now, Vec::new());
        self.script.retain(|act| {
            let waits = act.when != moment;
            if !waits {
                due.push(*act);
            }
            waits
        });
        for act in due {
            self.at(now + act.after, Event::Scripted(act));
        }
    }

    /// The broadcaster that leads, or takes itself to.
    pub(crate) fn leading_node(&self) -> Option<usize> {
        let lock = self.outside.lock.as_ref()?;
        self.leaders.get(lock.node)?.term.as_ref().map(|_| lock.node)
    }

    fn inflict(&mut self, fault: Fault, target: usize, length: u64) {
        let until = self.now + length;
        let node = if target < self.leaders.len() || self.chaotic {
            target % self.leaders.len()
        } else {
            self.leading_node().unwrap_or(0)
        };
        let index = target % self.instances.len();
        match fault {
            Fault::Lost | Fault::Doubled | Fault::Slow | Fault::StepFails => {}
            Fault::Forged => self.forges(index),
            Fault::StepSlow => self.instances[index].slow_steps = until,
            Fault::RosterLate => self.outside.roster_late = until,
            Fault::LeakedSession => {
                let running = &self.instances[index];
                let used =
                    running.rules.holder(&self.secret).and_then(|holder| holder.active(running.clock.at(self.now)));
                if let Some((version, _)) = used.filter(|_| running.alive) {
                    // A version that it uses, or has used.
                    let earlier = Version::new(version.get() - target as u64 % 2).unwrap_or(version);
                    self.truth.leaked.push((earlier, self.now, until));
                }
            }
            Fault::LeaderKilled => self.kill_leader(node),
            Fault::LeaderStopped => self.leaders[node].stopped = until,
            Fault::LeaderCutOff => self.leaders[node].no_store = until,
            Fault::InstanceKilled => self.kill_instance(index),
            Fault::InstanceStopped => {
                self.instances[index].stopped = until;
                if self.is_broken(Around::ClockCountsInSuspend) {
                    self.instances[index].clock.stand(length);
                }
            }
            Fault::InstanceCutOff => self.instances[index].no_leader = [until; 2],
            Fault::HalfCutOff if self.chaotic => self.instances[index].no_leader[target / 7 % 2] = until,
            Fault::HalfCutOff => {
                let other = 1 - self.leading_node().unwrap_or(0);
                self.instances[index].no_leader[other] = until;
            }
            Fault::StoreCutOff => self.instances[index].no_store = until,
            Fault::BusCutOff => self.instances[index].no_bus = until,
            Fault::Alone => {
                let running = &mut self.instances[index];
                (running.no_leader, running.no_store, running.no_bus) = ([until; 2], until, until);
            }
            Fault::Deaf => self.instances[index].deaf = until,
            Fault::LateAnswers => self.instances[index].late = until,
            Fault::Twin => self.twin(index),
            Fault::Excused => {
                let instance = self.instances[index].rules.key().clone();
                self.order(Order::Excuse { instance });
            }
            Fault::Overridden => self.override_for(index),
            Fault::SaidGone => self.paste(target, OrderName::Gone),
            Fault::GivenUp => self.paste(target, OrderName::Abandon),
            Fault::Joiner => self.join(index),
            Fault::Rolled => {
                self.leave(index);
                self.join(index);
            }
            Fault::Leaves => self.leave(index),
            Fault::LateRegistration => self.late_registration(index, length),
            Fault::RosterCutBack => self.cut_registrations_back(1 + target % 3),
            Fault::StreamsRecreated => {
                self.cut_registrations_back(usize::MAX);
                self.outside.states.clear();
            }
            Fault::OldLog => self.show_old_log(target, until),
            Fault::NewVersion => self.new_version(false),
            Fault::ManagedVersion => self.order(Order::Rotate),
            Fault::BadVersion => self.new_version(true),
            Fault::WatchGap => {
                self.outside.put(false);
                let late = self.outside.put(false);
                let node = self.leading_node().unwrap_or(0);
                self.at(self.now, Event::ToLeader(node, Box::new(Mail::Input(Input::VersionSeen { version: late }))));
            }
            Fault::Order => self.random_order(index),
            Fault::Rollback => self.order(Order::rollback("because").expect("a reason")),
            Fault::PolicyChanged => self.change_policy(),
            Fault::StoreRestored => self.restore_store(),
            Fault::AuditFull => self.outside.audit_full = until,
            Fault::AuditSlow => self.outside.audit_slow = until,
            Fault::StoreReadOnly => self.outside.read_only = until,
            Fault::ProviderHalf => self.truth.provider_half = until,
            Fault::CredentialDeleted => {
                let version = Version::new(self.rng.between(1, self.outside.last_version.max(1))).expect("from 1");
                self.outside.deleted.insert(version);
            }
            Fault::ProviderAway => self.truth.provider_away = until,
            Fault::WallClockStep => {
                let days = i64::try_from(self.rng.between(0, 2)).unwrap_or(0) - 1;
                self.leaders[node].clock.step_wall(days * 86_400_000 + 12_345);
                self.instances[index].clock.step_wall(-days * 86_400_000);
            }
            // No broadcaster holds the key, and none gets it before the former holder has stopped taking itself to
            // lead.
            Fault::KeyLost => {
                if let Some(lock) = &mut self.outside.lock {
                    lock.node = usize::MAX;
                }
            }
        }
    }

    fn new_version(&mut self, bad: bool) {
        self.outside.put(bad);
        self.tell_versions();
    }

    fn join(&mut self, like: usize) {
        if self.instances.len() < 7 {
            let clock = self.instances[like].clock.clone();
            let exclusive = self.rng.permille(300);
            self.start_instance(self.instances.len(), clock, exclusive);
        }
    }

    /// A second process under the same name, which is allowed only where the name is not exclusive.
    fn twin(&mut self, index: usize) {
        if self.instances.len() >= 7 || self.instances[index].exclusive {
            return;
        }
        let (clock, exclusive) = (self.instances[index].clock.clone(), self.instances[index].exclusive);
        // No two incarnations have the same number, also when one of them gets a second twin.
        let twin = self.instances.len();
        let key = self.instances[index].rules.key();
        let incarnation = Incarnation(key.incarnation.0 + (u128::try_from(16 * twin).unwrap_or(0) << 96));
        let key = InstanceKey::new(key.service.clone(), key.instance.clone(), incarnation);
        self.start_life(twin, key, 1, clock, exclusive);
    }

    fn override_for(&mut self, index: usize) {
        let instance = self.instances[index].rules.key().clone();
        let Some(stored) = &self.outside.stored else { return };
        for version in stored.record.retirements.keys().copied().collect::<Vec<_>>() {
            let instances = BTreeSet::from([instance.clone()]);
            self.order(Order::cut_off(version, instances, false, "because").expect("a reason"));
        }
    }

    fn kill_leader(&mut self, node: usize) {
        self.leaders[node].life += 1;
        self.leaders[node].term = None;
        self.leaders[node].stopped = 0;
        let life = self.leaders[node].life;
        let at = self.now + self.rng.between(10, 4000) * MS;
        self.at(at, Event::Campaign { node, life });
    }

    fn kill_instance(&mut self, index: usize) {
        self.instances[index].alive = false;
        self.instances[index].guards.clear();
        if self.rng.permille(800) || !self.chaotic {
            let clock = self.instances[index].clock.clone();
            let exclusive = self.instances[index].exclusive;
            self.start_instance(index, clock, exclusive);
        }
    }

    /// The instance publishes its registration once more, is killed, and starts again under the same name. The
    /// registration arrives much later.
    fn late_registration(&mut self, index: usize, length: u64) {
        if !self.instances[index].alive {
            return;
        }
        let (clock, exclusive) = (self.instances[index].clock.clone(), self.instances[index].exclusive);
        // An incarnation that was never heard: its registration is all that there is of it.
        self.kill_instance(index);
        if !self.instances[index].alive {
            return;
        }
        let registration = self.instances[index].rules.registration(false);
        self.at(self.now + length.min(9 * SECOND), Event::Append(registration, None));
        self.instances[index].alive = false;
        self.start_instance(index, clock, exclusive);
    }

    /// A clean shutdown: every version is released first.
    fn leave(&mut self, index: usize) {
        if !self.instances[index].alive || self.instances[index].stopped > self.now {
            return;
        }
        let registration = self.instances[index].rules.registration(true);
        self.instances[index].alive = false;
        self.instances[index].guards.clear();
        let at = self.now + self.delay();
        self.at(at, Event::Append(registration, None));
    }

    /// The bus loses the end of its log, as after a power loss; whoever follows it notices.
    fn cut_registrations_back(&mut self, by: usize) {
        let keep = self.outside.registrations.len().saturating_sub(by);
        self.outside.registrations.truncate(keep);
        for leader in &mut self.leaders {
            if let Some(term) = &mut leader.term {
                term.registrations_went_back(keep);
            }
        }
    }

    /// Half of the instances receive what was published earlier, in its order, as if it were new.
    fn show_old_log(&mut self, target: usize, until: u64) {
        let count = self.outside.states.len();
        let from = count.saturating_sub(target % 8 + 1);
        for index in (target % 2..self.instances.len()).step_by(2) {
            self.instances[index].no_bus = until;
            let life = self.instances[index].life;
            let states = self.outside.states[from..].to_vec();
            for state in states {
                let at = self.now + self.network.between(1, 30) * MS;
                self.at(at, Event::ToInstance(index, life, Box::new(ToInstance::State(state))));
            }
        }
    }

    fn change_policy(&mut self) {
        let mut changed = policy(&mut self.rng);
        changed.max_live_versions = self.policy.max_live_versions;
        changed.min_overlap = self.policy.min_overlap;
        changed.approval = self.policy.approval;
        changed.required = self.policy.required.clone();
        self.policy = changed.clone();
        self.truth.policy_changed = true;
        for node in 0..self.leaders.len() {
            let at = self.now + self.delay();
            let input = Input::PolicyChanged(Box::new(changed.clone()));
            self.at(at, Event::ToLeader(node, Box::new(Mail::Input(input))));
        }
    }

    fn restore_store(&mut self) {
        let count = self.outside.earlier.len();
        if count < 4 || self.restores.is_some_and(|most| self.outside.restores >= most) {
            return;
        }
        self.outside.restores += 1;
        self.counts.restores += 1;
        self.counts.restored = 1;
        let back = usize::try_from(self.rng.between(1, 12)).unwrap_or(1).min(count - 1);
        let mut stored = self.outside.earlier[count - 1 - back].clone();
        // A restored store is another store: the revisions of its keys begin again.
        stored.cursor = self.outside.stored.as_ref().map_or(0, |stored| stored.cursor) + 1000;
        // The backup has neither the value nor the journal entry of a version that was still to be made in it.
        let unmade = stored.record.rotation.as_ref().filter(|rotation| !rotation.created).map(|rotation| rotation.new);
        if let Some(version) = unmade {
            self.outside.journal.remove(&version);
            self.outside.written.remove(&version);
        }
        let backup = stored.record.clone();
        // The broadcasters are stopped as docs/operate/OPERATIONS.md says. Otherwise they go on with what they are
        // about to do.
        if self.restores.is_some() || self.rng.permille(500) {
            self.lose_history(&backup);
            (0..self.leaders.len()).for_each(|node| self.kill_leader(node));
        } else {
            self.outside.restored_running = true;
        }
        self.tell(|| {
            let phase = backup.rotation.as_ref().map(|it| (it.phase, it.new));
            format!("the store is restored: current {:?}, {phase:?}, last {:?}", backup.current, backup.last_version)
        });
        self.outside.roster = Rc::clone(&stored.roster);
        self.outside.stored = Some(stored);
        self.outside.lock = None;
        self.outside.restored = true;
        if !self.outside.ever_restored {
            self.outside.restored_at = self.now;
        }
        self.outside.ever_restored = true;
    }

    fn random_order(&mut self, index: usize) {
        let version = Version::new(self.rng.between(1, self.outside.last_version.max(1))).expect("from 1");
        let instance = self.instances[index].rules.key().clone();
        let order = match self.rng.between(0, 11) {
            0 | 1 => Order::Rotate,
            2 | 3 => Order::pause("because").expect("a reason"),
            4 | 5 => Order::Resume,
            6 => Order::Approve,
            7 => Order::rollback("because").expect("a reason"),
            8 if self.rng.permille(500) => {
                let instances = BTreeSet::from([instance]);
                Order::cut_off(version, instances, self.rng.permille(500), "because").expect("a reason")
            }
            9 | 10 => Order::Excuse { instance },
            _ if self.outside.ever_restored => {
                self.sees_to_restored();
                return;
            }
            _ => Order::LeaveSafeMode,
        };
        self.order(order);
    }
}
