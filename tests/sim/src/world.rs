//! The world: true time, the network, the faults and the promises.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use rotacast_protocol::coordinator::{Change, Command, CommandKind, Input, MAX_MEMBERS, Order};
use rotacast_protocol::message::{InstanceReport, Registration, SecretState, SyncRequest};
use rotacast_protocol::policy::{Deadline, OnDeadline, OnFailure, WhenUnreachable};
use rotacast_protocol::record::{RecordChange, SecretRecord};
use rotacast_protocol::{Epoch, Incarnation, InstanceKey, Instant, OperatorName, Phase, Policy, SecretName, Version};

use crate::clock::{Clock, MS, SECOND, ms};
use crate::instance::{Running, ToInstance};
use crate::leader::Broadcaster;
use crate::mutant::Mutant;
use crate::outside::{Outside, Stored};
use crate::rng::Rng;

/// The one secret's name.
pub type Secret = SecretName;

/// How long the leader's key lives in the store without a renewal.
pub const LOCK_TIME: u64 = 5 * SECOND;

/// Longest virtual time after the faults stop until everything has ended, with an operator who acts on what he is told.
const PATIENCE: u64 = 400 * SECOND;

/// How long rotations may take by themselves before the operator acts on the named blockers.
const HANDS_OFF: u64 = 150 * SECOND;

/// Something that happens at a moment.
#[derive(Clone, Debug)]
pub enum Event {
    /// Something reaches a broadcaster.
    ToLeader(usize, Box<Mail>),
    /// Something reaches one life of an instance.
    ToInstance(usize, u64, Box<ToInstance>),
    /// A broadcaster asks for the leader's key, or for more time with it.
    Campaign {
        /// Which.
        node: usize,
        /// Which life of it.
        life: u64,
    },
    /// The same, at the store.
    CampaignArrives {
        /// Which.
        node: usize,
        /// Which life of it.
        life: u64,
        /// The term to renew; none: a new one.
        epoch: Option<Epoch>,
        /// By its clock.
        sent: Instant,
    },
    /// A save, at the store.
    SaveArrives {
        /// From whom.
        node: usize,
        /// Its term.
        epoch: Epoch,
        /// Which.
        id: u64,
        /// What.
        bytes: Rc<Vec<u8>>,
        /// The same.
        record: Rc<SecretRecord>,
        /// What it replaces.
        cursor: u64,
    },
    /// A command, at whoever carries it out.
    EffectArrives {
        /// From whom.
        node: usize,
        /// Its term.
        epoch: Epoch,
        /// Which.
        id: u64,
        /// What.
        command: Command,
        /// The desired state then.
        state: Box<SecretState>,
        /// By the sender's clock.
        sent: Instant,
    },
    /// A roster entry, at the bus; who waits for it.
    Append(Registration, Option<(usize, u64)>),
    /// A linearizable read, at the store.
    StoreRead {
        /// From whom.
        index: usize,
        /// Which life of it.
        life: u64,
        /// Which read.
        id: u64,
        /// By its clock.
        sent: Instant,
    },
    /// Somebody or something interferes.
    Chaos,
    /// A service uses what it has.
    Use(usize),
    /// The faults stop.
    Heal,
    /// An operator looks.
    Look,
}

/// What reaches a broadcaster.
#[derive(Clone, Debug)]
pub enum Mail {
    /// The store's answer to a campaign.
    Leads {
        /// For which life.
        life: u64,
        /// The term.
        epoch: Epoch,
        /// Until when.
        valid_until: Instant,
        /// The record, read after winning.
        stored: Option<Stored>,
        /// It led already.
        renewed: bool,
    },
    /// The store's answer to a save; none: no answer in time.
    Saved {
        /// Of which term.
        epoch: Epoch,
        /// Which save.
        id: u64,
        /// Whether it was done.
        outcome: Option<bool>,
    },
    /// How a command ended.
    EffectDone {
        /// Of which term.
        epoch: Epoch,
        /// Which.
        id: u64,
        /// What.
        kind: CommandKind,
        /// The roster up to where it was read, and the inputs it led to.
        result: Result<(Option<usize>, Vec<Input>), ()>,
    },
    /// A Sync.
    Sync {
        /// From which life of whom.
        from: (usize, u64),
        /// What.
        request: SyncRequest,
    },
    /// A report, over the bus.
    Report(InstanceReport),
    /// Anything else.
    Input(Input),
    /// There may be news in the roster.
    Roster,
    /// It is time to look.
    Wake,
}

/// What happened in a run.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct Counts {
    pub events: u64,
    pub faults: u64,
    pub saves: u64,
    pub unknown: u64,
    pub deposed: u64,
    pub terms: u64,
    pub restarts: u64,
    pub suspensions: u64,
    pub orders: u64,
    pub refused: u64,
    pub uses: u64,
    pub retired: u64,
    pub rotations: u64,
}

impl Counts {
    /// Adds another run's.
    pub fn add(&mut self, other: &Counts) {
        self.events += other.events;
        self.faults += other.faults;
        self.saves += other.saves;
        self.unknown += other.unknown;
        self.deposed += other.deposed;
        self.terms += other.terms;
        self.restarts += other.restarts;
        self.suspensions += other.suspensions;
        self.orders += other.orders;
        self.refused += other.refused;
        self.uses += other.uses;
        self.retired += other.retired;
        self.rotations += other.rotations;
    }
}

/// Everything.
pub struct World {
    /// True time, in nanoseconds.
    pub now: u64,
    pub(crate) rng: Rng,
    pub(crate) secret: Secret,
    pub(crate) policy: Policy,
    pub(crate) mutant: Option<Mutant>,
    pub(crate) outside: Outside,
    pub(crate) leaders: Vec<Broadcaster>,
    pub(crate) instances: Vec<Running>,
    pub(crate) sessions_known: bool,
    pub(crate) next_number: u64,
    /// What happened so far.
    pub counts: Counts,
    queue: BTreeMap<(u64, u64), Event>,
    sequence: u64,
    healed: Option<u64>,
    loss: u64,
    slowness: u64,
    cut_off: BTreeSet<String>,
    violation: Option<String>,
    /// For how many looks in a row a rotation was in flight with nothing named that blocks it.
    unexplained: u32,
    /// Folds everything that happened: equal for equal runs.
    pub trace: u64,
    verbose: bool,
}

impl World {
    /// The world of a seed.
    #[must_use]
    pub fn new(seed: u64, mutant: Option<Mutant>) -> Self {
        let mut rng = Rng::new(seed);
        let drift = |rng: &mut Rng| {
            let bound = if mutant == Some(Mutant::WildClocks) { 300_000 } else { 10_000 };
            match rng.between(0, 2) {
                0 => -bound,
                1 => bound,
                _ => i64::try_from(rng.between(0, 2 * bound as u64)).unwrap_or(0) - bound,
            }
        };
        let policy = policy(&mut rng);
        let leaders = (0..2)
            .map(|_| Broadcaster::new(Clock::new(rng.between(SECOND, 1_000_000 * SECOND), drift(&mut rng))))
            .collect();
        let secret = SecretName::new("payments/db").expect("a valid name");
        let mut world = Self {
            now: SECOND,
            secret,
            policy,
            mutant,
            outside: Outside::default(),
            leaders,
            instances: Vec::new(),
            sessions_known: rng.permille(300),
            next_number: 1,
            counts: Counts::default(),
            queue: BTreeMap::new(),
            sequence: 0,
            healed: None,
            loss: rng.between(0, 120),
            slowness: rng.between(0, 60),
            cut_off: BTreeSet::new(),
            violation: None,
            unexplained: 0,
            trace: seed,
            verbose: std::env::var("ROTACAST_TRACE").is_ok(),
            rng,
        };
        // A broken rule shows in the faults it is there for: its world has more of them.
        if mutant == Some(Mutant::LeaseFromReceipt) {
            world.slowness = 300;
        }
        let count = world.rng.between(1, 4);
        for index in 0..count {
            let clock = Clock::new(world.rng.between(SECOND, 1_000_000 * SECOND), drift(&mut world.rng));
            let exclusive = world.rng.permille(300);
            world.start_instance(usize::try_from(index).unwrap_or(0), clock, exclusive);
        }
        for node in 0..2 {
            let at = world.now + world.rng.between(1, 1000) * MS;
            world.at(at, Event::Campaign { node, life: 0 });
        }
        world.outside.put(false);
        let end = world.rng.between(15, 40) * SECOND;
        world.at(end, Event::Heal);
        world.at(2 * SECOND, Event::Chaos);
        world
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// The promise that was broken, and how.
    pub fn run(&mut self) -> Result<(), String> {
        while let Some((at, event)) = self.queue.pop_first() {
            self.now = at.0;
            self.counts.events += 1;
            if self.verbose {
                eprintln!("{:>12.6} {event:?}", self.now as f64 / 1e9);
            }
            self.happens(event);
            if let Some(violation) = self.violation.take() {
                return Err(violation);
            }
            if self.healed.is_some() && self.ended() {
                let version = self.outside.stored.as_ref().map_or(0, |stored| stored.record.revision.0);
                self.trace = self.trace.wrapping_mul(31).wrapping_add(version).wrapping_add(self.counts.events);
                if let Some(stored) = &self.outside.stored {
                    self.counts.rotations = stored.record.generation.0;
                }
                return Ok(());
            }
            if self.queue.len() > 20_000 {
                return Err("B: the world is flooded with messages".into());
            }
        }
        Err("L: nothing happens any more".into())
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    pub(crate) fn at(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.queue.insert((at.max(self.now), self.sequence), event);
    }

    /// Whether something goes wrong this time.
    pub(crate) fn faulty(&mut self) -> bool {
        let chance = self.loss;
        let faulty = self.healed.is_none() && self.rng.permille(chance);
        self.counts.faults += u64::from(faulty);
        faulty
    }

    /// How long a message takes.
    pub(crate) fn delay(&mut self) -> u64 {
        let slowness = self.slowness;
        if self.healed.is_none() && self.rng.permille(slowness) {
            return self.rng.between(100, 6000) * MS;
        }
        self.rng.between(1, 30) * MS
    }

    /// A message that may be lost, doubled or overtaken.
    pub(crate) fn send(&mut self, mut deliver: impl FnMut(&mut World, u64)) {
        if self.faulty() {
            return;
        }
        let at = self.now + self.delay();
        deliver(self, at);
        if self.faulty() {
            let again = self.now + self.delay();
            deliver(self, again);
        }
    }

    pub(crate) fn violated(&mut self, promise: &str, how: String) {
        if self.violation.is_none() {
            self.violation = Some(format!("{promise} at {:.6} s: {how}", self.now as f64 / 1e9));
        }
    }

    fn start_instance(&mut self, index: usize, clock: Clock, exclusive: bool) {
        let life = self.instances.get(index).map_or(1, |before| before.life + 1);
        let key = InstanceKey {
            service: (if index == 3 { "worker" } else { "api" }).parse().expect("a valid name"),
            instance: format!("i{index}").parse().expect("a valid name"),
            incarnation: Incarnation(u128::from(life) << 96 | u128::try_from(index).unwrap_or(0)),
        };
        let running = Running::new(index, key, clock, life, exclusive, self.secret.clone());
        if index < self.instances.len() {
            self.instances[index] = running;
        } else {
            self.instances.push(running);
        }
        let at = self.now + self.rng.between(1, 1000) * MS;
        self.at(at, Event::ToInstance(index, life, Box::new(ToInstance::Wake)));
        self.at(at + SECOND, Event::Use(index));
    }

    fn happens(&mut self, event: Event) {
        self.trace = self.trace.rotate_left(7) ^ self.now;
        match event {
            Event::ToLeader(node, mail) => {
                let leader = &self.leaders[node];
                if leader.stopped > self.now {
                    let at = leader.stopped;
                    self.at(at, Event::ToLeader(node, mail));
                } else if leader.alive {
                    self.leader_takes(node, *mail);
                }
            }
            Event::ToInstance(index, life, message) => {
                let running = &self.instances[index];
                if running.life != life || !running.alive {
                    return;
                }
                if running.stopped > self.now {
                    let at = running.stopped;
                    self.at(at, Event::ToInstance(index, life, message));
                } else {
                    self.instance_takes(index, *message);
                }
            }
            Event::Campaign { node, life } => self.campaign(node, life),
            Event::CampaignArrives { node, life, epoch, sent } => self.campaign_arrives(node, life, epoch, sent),
            Event::SaveArrives { node, epoch, id, bytes, record, cursor } => {
                self.save_arrives(node, epoch, id, bytes, record, cursor);
            }
            Event::EffectArrives { node, epoch, id, command, state, sent } => {
                self.effect_arrives(node, epoch, id, command, &state, sent);
            }
            Event::Append(registration, waits) => {
                self.outside.roster.push(registration);
                if let Some((index, life)) = waits {
                    let at = self.now + self.delay();
                    self.at(at, Event::ToInstance(index, life, Box::new(ToInstance::Registered)));
                }
                self.announce_roster();
            }
            Event::StoreRead { index, life, id, sent } => {
                let Some(stored) = &self.outside.stored else { return };
                let state = stored.record.state();
                if !self.faulty() {
                    let at = self.now + self.delay();
                    let read = ToInstance::Read { id, answer: Some((sent, state)) };
                    self.at(at, Event::ToInstance(index, life, Box::new(read)));
                }
            }
            Event::Chaos => self.chaos(),
            Event::Use(index) => {
                let again = self.now + self.rng.between(300, 2000) * MS;
                self.at(again, Event::Use(index));
                let running = &self.instances[index];
                if running.alive && running.stopped <= self.now {
                    let life = running.life;
                    self.at(self.now, Event::ToInstance(index, life, Box::new(ToInstance::Use)));
                    self.check_ended_credentials(index);
                }
            }
            Event::Heal => self.heal(),
            Event::Look => self.look(),
        }
    }

    /// Broadcasters hear of news in the roster, sooner or later, and of new versions.
    fn announce_roster(&mut self) {
        for node in 0..self.leaders.len() {
            let at = self.now + self.delay();
            self.at(at, Event::ToLeader(node, Box::new(Mail::Roster)));
        }
    }

    fn tell_versions(&mut self) {
        for node in 0..self.leaders.len() {
            if self.leaders[node].term.is_none() || self.leaders[node].no_store > self.now {
                continue;
            }
            // The stream of versions is in order, whatever else is late.
            let at = self.now + self.delay();
            for input in self.versions_since(node) {
                self.at(at, Event::ToLeader(node, Box::new(Mail::Input(input))));
            }
        }
    }

    fn chaos(&mut self) {
        if self.healed.is_some() {
            return;
        }
        let again = self.now + self.rng.between(100, 2500) * MS;
        self.at(again, Event::Chaos);
        self.tell_versions();
        for node in 0..self.leaders.len() {
            self.at(self.now, Event::ToLeader(node, Box::new(Mail::Roster)));
        }
        let until = self.now + self.rng.between(500, 15_000) * MS;
        let node = usize::try_from(self.rng.between(0, 1)).unwrap_or(0);
        let count = u64::try_from(self.instances.len()).unwrap_or(1);
        let index = usize::try_from(self.rng.between(0, count - 1)).unwrap_or(0);
        let mut fault = self.rng.between(0, 20);
        let biased = matches!(self.mutant, Some(Mutant::DeposedLeaderGrants | Mutant::NoInheritedWait));
        let picked = if biased { usize::try_from(self.rng.between(0, 3)).unwrap_or(0) } else { 0 };
        match self.mutant {
            Some(Mutant::DeposedLeaderGrants) if self.rng.permille(600) => fault = [2, 15, 12, 15][picked],
            Some(Mutant::NoInheritedWait) if self.rng.permille(600) => fault = [0, 6, 12, 6][picked],
            _ => {}
        }
        match fault {
            0 => self.crash_leader(node),
            1 => {
                self.leaders[node].stopped = until;
                self.counts.suspensions += 1;
            }
            2 => self.leaders[node].no_store = until,
            3 | 4 => self.crash_instance(index),
            5 => {
                self.instances[index].stopped = until;
                self.counts.suspensions += 1;
                if self.mutant == Some(Mutant::ClockStopsInSuspend) {
                    let stood = until - self.now;
                    self.instances[index].clock.stand(stood);
                    // What it would have done in the meantime, it does by its own clock.
                    self.instances[index].guards.iter_mut().for_each(|guard| guard.end = guard.end + Duration::ZERO);
                }
            }
            6 => self.instances[index].no_leader = [until; 2],
            // One that hears only one of two that both may believe to lead.
            15 => self.instances[index].no_leader[node] = until,
            7 => self.instances[index].no_store = until,
            8 => self.instances[index].no_bus = until,
            9 if self.instances.len() < 6 => {
                let clock = self.instances[index].clock.clone();
                let exclusive = self.rng.permille(300);
                self.start_instance(self.instances.len(), clock, exclusive);
            }
            10 => self.leave(index),
            11 => {
                // The bus loses the end of its log, as after a power loss.
                let keep =
                    self.outside.roster.len().saturating_sub(usize::try_from(self.rng.between(0, 2)).unwrap_or(0));
                self.outside.roster.truncate(keep);
            }
            12..=14 => {
                let bad = self.rng.permille(150);
                self.outside.put(bad);
                self.tell_versions();
            }
            _ => self.random_order(index),
        }
    }

    fn crash_leader(&mut self, node: usize) {
        self.leaders[node].life += 1;
        self.leaders[node].term = None;
        self.leaders[node].stopped = 0;
        self.counts.restarts += 1;
        let life = self.leaders[node].life;
        let at = self.now + self.rng.between(10, 4000) * MS;
        self.at(at, Event::Campaign { node, life });
    }

    fn crash_instance(&mut self, index: usize) {
        self.counts.restarts += 1;
        self.instances[index].alive = false;
        self.instances[index].guards.clear();
        if self.rng.permille(800) {
            let clock = self.instances[index].clock.clone();
            let exclusive = self.instances[index].exclusive;
            self.start_instance(index, clock, exclusive);
        }
    }

    /// A clean shutdown: everything is let go first.
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

    fn order(&mut self, order: Order) {
        let by = OperatorName::new("ada").expect("a valid name");
        if let Some(node) = (0..self.leaders.len()).find(|node| self.leaders[*node].term.is_some()) {
            self.counts.orders += 1;
            let mail = Mail::Input(Input::Operator { by, order });
            let at = self.now + self.delay();
            self.at(at, Event::ToLeader(node, Box::new(mail)));
        }
    }

    fn random_order(&mut self, index: usize) {
        let version = Version::new(self.rng.between(1, self.outside.last_version.max(1))).expect("from 1");
        let instance = self.instances[index].rules.key().clone();
        let reason = || "because".to_owned();
        let order = match self.rng.between(0, 11) {
            0 | 1 => Order::Rotate,
            2 => Order::Pause { reason: reason() },
            3 | 4 => Order::Resume,
            5 => Order::Approve,
            6 => Order::RollBack { reason: reason() },
            7 if self.rng.permille(300) => {
                let instances = BTreeSet::from([instance]);
                Order::Override { version, instances, sessions: self.rng.permille(500), reason: reason() }
            }
            8 => Order::Excuse { instance },
            9 => Order::LeaveSafeMode,
            10 => {
                let mut changed = policy(&mut self.rng);
                changed.max_live_versions = self.policy.max_live_versions;
                self.policy = changed.clone();
                for node in 0..self.leaders.len() {
                    let at = self.now + self.delay();
                    let input = Input::PolicyChanged(Box::new(changed.clone()));
                    self.at(at, Event::ToLeader(node, Box::new(Mail::Input(input))));
                }
                return;
            }
            _ if self.rng.permille(100) => {
                let input = Input::StoreWentBack { reason: reason() };
                for node in 0..self.leaders.len() {
                    self.at(self.now, Event::ToLeader(node, Box::new(Mail::Input(input.clone()))));
                }
                return;
            }
            _ => return,
        };
        self.order(order);
    }

    /// The faults stop, and the operator undoes what he did.
    fn heal(&mut self) {
        self.healed = Some(self.now);
        for node in 0..self.leaders.len() {
            self.leaders[node].stopped = self.leaders[node].stopped.min(self.now);
            self.leaders[node].no_store = 0;
        }
        for index in 0..self.instances.len() {
            let running = &mut self.instances[index];
            running.stopped = running.stopped.min(self.now);
            running.no_leader = [0; 2];
            running.no_store = 0;
            running.no_bus = 0;
        }
        if !self.instances.iter().any(|running| running.alive) {
            let clock = self.instances[0].clock.clone();
            let exclusive = self.instances[0].exclusive;
            self.start_instance(0, clock, exclusive);
        }
        self.at(self.now + SECOND, Event::Look);
    }

    fn ended(&self) -> bool {
        let Some(stored) = &self.outside.stored else { return false };
        let record = &stored.record;
        let waiting = record.last_version.map_or(0, Version::get) < self.outside.last_version
            || record.versions.values().any(|version| version.label == rotacast_protocol::record::Label::Pending);
        if record.is_rotating() || waiting || record.current.is_none() {
            return false;
        }
        // And everyone has what is current.
        let arrived = |running: &Running| {
            let now = running.clock.at(self.now);
            let active = running.rules.holder(&self.secret).and_then(|holder| holder.active(now));
            active.map(|(version, _)| version) == record.current
        };
        self.instances.iter().filter(|running| running.alive).all(arrived)
    }

    /// The operator sees to it that what is reported stuck goes on, by nothing but what is reported.
    fn look(&mut self) {
        let healed = self.healed.unwrap_or(self.now);
        self.at(self.now + SECOND, Event::Look);
        self.tell_versions();
        for node in 0..self.leaders.len() {
            self.at(self.now, Event::ToLeader(node, Box::new(Mail::Roster)));
        }
        let Some(node) = (0..self.leaders.len()).find(|node| {
            let epoch = self.leaders[*node].term.as_ref().map(|term| term.epoch);
            epoch.is_some_and(|epoch| self.outside.leads(*node, epoch, self.now))
        }) else {
            if self.now > healed + 30 * SECOND {
                self.violated("L", "nobody leads".into());
            }
            return;
        };
        let Some(term) = &self.leaders[node].term else { return };
        let now = self.leaders[node].clock.now(self.now);
        let record = term.coordinator.record();
        let current = record.current;
        if record.paused.is_some() {
            return self.order(Order::Resume);
        }
        if record.safe_mode.is_some() {
            return self.order(Order::LeaveSafeMode);
        }
        if term.coordinator.overlays(now).iter().any(|overlay| overlay.as_str() == "awaiting_approval") {
            return self.order(Order::Approve);
        }
        if current.is_none()
            && !record.is_rotating()
            && self.outside.last_version == record.last_version.map_or(0, Version::get)
        {
            self.outside.put(false);
            return;
        }
        let blockers = term.coordinator.blockers(now);
        // What a report asks for can be had: more instances.
        if blockers.iter().any(|blocker| matches!(blocker.condition, "required_services" | "somebody"))
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
        if self.now > healed + PATIENCE {
            let text = format!(
                "not ended {} s after the faults stopped\nblockers {blockers:#?}\nrecord {record:#?}\npolicy {:?}",
                PATIENCE / SECOND,
                self.policy
            );
            self.violated("L", text);
            return;
        }
        if self.now < healed + HANDS_OFF {
            return;
        }
        let members: Vec<InstanceKey> = term.coordinator.members().map(|member| member.key.clone()).collect();
        let retiring: Vec<Version> = record.retirements.keys().copied().collect();
        for blocker in blockers {
            let who = members.iter().find(|key| key.to_string() == blocker.who).cloned();
            match (blocker.condition, who) {
                ("members_released", Some(instance)) => {
                    for version in &retiring {
                        self.order(Order::Override {
                            version: *version,
                            instances: BTreeSet::from([instance.clone()]),
                            sessions: false,
                            reason: "named".into(),
                        });
                    }
                }
                ("prepared" | "switched", Some(instance)) => self.order(Order::Excuse { instance }),
                _ => {}
            }
        }
    }

    /// Every save is checked against the promises that show in a record alone.
    pub(crate) fn check_record(&mut self, record: &SecretRecord) {
        let revision = self.outside.stored.as_ref().map(|stored| stored.record.revision);
        if Some(record.revision) <= revision {
            self.violated("I", format!("the saved revision goes from {revision:?} to {:?}", record.revision));
        }
        if record.current.is_some_and(|current| record.retirements.contains_key(&current)) {
            self.violated("S1", "the current version is being retired".into());
        }
        if record.current.is_some_and(|current| self.outside.disabled.contains_key(&current)) {
            self.violated("S1", "a disabled version becomes current".into());
        }
        if let Some(stored) = &self.outside.stored {
            for (version, retirement) in &stored.record.retirements {
                let gone = !record.retirements.contains_key(version);
                if retirement.step.is_some() && gone && !self.outside.disabled.contains_key(version) {
                    self.violated("S1", format!("the retire of version {version} ended and it still works"));
                    return;
                }
            }
        }
        for retirement in record.retirements.values() {
            for word in &retirement.overrides {
                self.cut_off.extend(word.instances.iter().cloned());
            }
        }
    }

    /// Every decision is checked with the guard at that moment.
    pub(crate) fn check_decided(&mut self, node: usize, changes: &[Change]) {
        let Some(term) = &self.leaders[node].term else { return };
        let now = self.leaders[node].clock.now(self.now);
        let mut problem = None;
        for change in changes {
            if let Change::Record(RecordChange::RetireBegan { version, .. }) = change {
                if !term.coordinator.guard(*version, now).holds() {
                    problem = Some(("S1", format!("the retire of version {version} began against its guard")));
                }
                if !self.outside.audit.contains(version) {
                    problem = Some(("A", format!("the retire of version {version} began without an audit entry")));
                }
            }
        }
        if term.coordinator.members().count() > MAX_MEMBERS {
            problem = Some(("B", "too many members".into()));
        }
        if let Some((promise, how)) = problem {
            self.violated(promise, how);
        }
    }

    /// The provider ends a credential: the moment of S1.
    pub(crate) fn disable(&mut self, version: Version) {
        if self.outside.disabled.contains_key(&version) {
            return;
        }
        self.outside.disabled.insert(version, self.now);
        self.counts.retired += 1;
        if !self.outside.audit.contains(&version) {
            self.violated("A", format!("version {version} is disabled without an audit entry"));
        }
        let Some(stored) = &self.outside.stored else { return };
        if stored.record.current == Some(version) {
            self.violated("S1", format!("version {version} is disabled and current"));
            return;
        }
        let begun = stored.record.retirements.get(&version).is_none_or(|retirement| retirement.step.is_some());
        if !begun {
            self.violated("A", format!("version {version} is disabled and its retire is not durable"));
            return;
        }
        for index in 0..self.instances.len() {
            let running = &self.instances[index];
            if running.may_use(self, version) && !self.cut_off.contains(&name(running)) {
                let text = format!("version {version} is disabled while instance {index} may use it");
                self.violated("S1", text);
                return;
            }
        }
    }

    /// Nobody is handed what has ended.
    fn check_ended_credentials(&mut self, index: usize) {
        let running = &self.instances[index];
        let now = running.clock.at(self.now);
        let active = running.rules.holder(&self.secret).and_then(|holder| holder.active(now));
        if let Some((version, _)) = active
            && self.outside.disabled.contains_key(&version)
            && !self.cut_off.contains(&name(running))
        {
            self.violated("S1", format!("instance {index} is handed version {version}, which has ended"));
        }
    }
}

fn name(running: &Running) -> String {
    let key = running.rules.key();
    format!("{}/{}/{}", key.service, key.instance, key.incarnation)
}

fn policy(rng: &mut Rng) -> Policy {
    let sync_rotating = rng.between(800, 2000);
    let lease_rotating = sync_rotating * rng.between(2, 5);
    let lease_idle = lease_rotating * rng.between(1, 6);
    let sync_idle = (lease_idle / 2).min(rng.between(1000, 5000));
    let then =
        [OnDeadline::Extend, OnDeadline::Hold, OnDeadline::RollBack][usize::try_from(rng.between(0, 2)).unwrap_or(0)];
    let deadline = Deadline { after: ms(rng.between(3000, 20_000)), then };
    let phases = [Phase::Verifying, Phase::Preparing, Phase::Activating, Phase::Draining];
    let deadlines = phases.into_iter().filter(|_| rng.permille(60)).map(|phase| (phase, deadline)).collect();
    let policy = Policy {
        lease_idle: ms(lease_idle),
        lease_rotating: ms(lease_rotating),
        self_lease: ms(rng.between(1000, 4000)),
        max_use: ms(rng.between(100, 1500)),
        sync_idle: ms(sync_idle),
        sync_rotating: ms(sync_rotating),
        min_overlap: if rng.permille(200) { ms(3000) } else { Duration::ZERO },
        when_unreachable: match rng.between(0, 9) {
            0 => WhenUnreachable::Hold,
            1 | 2 => WhenUnreachable::PresumeDeadAfter(ms(rng.between(1000, 15_000))),
            _ => WhenUnreachable::Fence,
        },
        required: if rng.permille(100) {
            BTreeMap::from([("api".parse().expect("valid"), 1)])
        } else {
            BTreeMap::new()
        },
        approval: rng.permille(100),
        deadlines,
        failure_budget: u32::try_from(rng.between(0, 2)).unwrap_or(0),
        on_failure: if rng.permille(200) { OnFailure::Hold } else { OnFailure::RollBack },
        max_live_versions: usize::try_from(rng.between(2, 4)).unwrap_or(2),
        ..Policy::default()
    };
    policy.validate().expect("drawn to be valid");
    policy
}
