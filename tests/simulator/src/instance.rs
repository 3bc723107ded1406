//! One running copy of a service: the real holder, and a service around it that uses the versions it gets.

use std::collections::BTreeSet;

use rotacast_holder::{Command, Input, Instance, InstanceCommand, InstanceInput, Setback, Step, StepFailure};
use rotacast_protocol::message::{InstanceReport, SecretState, Stage};
use rotacast_protocol::{Generation, InstanceKey, Instant, Nonce, Revision, Version};

use crate::clock::{Clock, ms};
use crate::event::{Event, Mail};
use crate::fault::Fault;
use crate::mutant::Around;
use crate::world::World;

/// A use of a version that has begun.
#[derive(Clone, Debug)]
pub struct Guard {
    /// Its number.
    pub id: u64,
    /// Of what.
    pub version: Version,
    /// When it ends at the latest, by the instance's clock.
    pub end: Instant,
}

/// One running copy.
#[derive(Clone, Debug)]
pub struct Running {
    /// Its number.
    pub index: usize,
    /// Its clock.
    pub clock: Clock,
    /// The incarnation, counted.
    pub life: u64,
    /// Whether its process runs.
    pub alive: bool,
    /// Stopped until then.
    pub stopped: u64,
    /// Cut off from each broadcaster until then.
    pub no_leader: [u64; 2],
    /// Answers from broadcasters are lost until then.
    pub deaf: u64,
    /// Answers of broadcasters are late until then.
    pub late: u64,
    /// Each step of the service takes seconds until then.
    pub slow_steps: u64,
    /// Cut off from the store until then.
    pub no_store: u64,
    /// Cut off from the bus until then.
    pub no_bus: u64,
    /// The rules.
    pub rules: Instance,
    /// Open uses.
    pub guards: Vec<Guard>,
    /// Whether restarts keep the name exclusively.
    pub exclusive: bool,
    syncing: Option<Nonce>,
    reading: Option<u64>,
    pub(crate) loading: BTreeSet<Version>,
    registering: bool,
    waking: Option<u64>,
    last_use: Option<Instant>,
    seen: (Generation, Revision, Option<Version>),
    /// The version that the service really uses for new work.
    pub really: Option<Version>,
    /// Versions that the service was given and has not released.
    pub shown: BTreeSet<Version>,
    /// Since when it has been using the secret without a fault.
    pub settled_since: Option<u64>,
    /// The version that it may return, and since when without a break.
    pub turned: Option<(Version, u64)>,
    /// The version that it served last.
    pub served: Option<Version>,
}

/// A message to an instance.
#[derive(Clone, Debug)]
pub enum ToInstance {
    /// The registration is durable.
    Registered,
    /// The registration failed.
    NotRegistered,
    /// A desired state, over the bus.
    State(SecretState),
    /// An input of the holder's rules.
    Rules(InstanceInput),
    /// The store's answer.
    Read {
        /// Of which read.
        id: u64,
        /// What it says; none: no answer.
        answer: Option<(Instant, SecretState)>,
    },
    /// A value was read, or could not be.
    Loaded {
        version: Version,
        /// Whether it was read.
        came: bool,
    },
    /// A step has ended.
    Stepped {
        step: Step,
        /// The version of the step.
        version: Version,
        worked: bool,
    },
    /// A use ends.
    Ended { id: u64 },
    /// A wake-up.
    Wake,
    /// The service begins a use.
    Use,
}

impl Running {
    /// A new incarnation.
    #[must_use]
    pub fn new(
        index: usize,
        key: InstanceKey,
        clock: Clock,
        life: u64,
        exclusive: bool,
        world_secret: crate::world::Secret,
    ) -> Self {
        let mut rules = Instance::new(key, exclusive);
        rules.add(world_secret);
        Self {
            index,
            clock,
            life,
            alive: true,
            stopped: 0,
            no_leader: [0; 2],
            deaf: 0,
            late: 0,
            slow_steps: 0,
            no_store: 0,
            no_bus: 0,
            rules,
            guards: Vec::new(),
            exclusive,
            syncing: None,
            reading: None,
            loading: BTreeSet::new(),
            registering: false,
            waking: None,
            last_use: None,
            seen: (Generation(0), Revision(0), None),
            really: None,
            shown: BTreeSet::new(),
            settled_since: None,
            turned: None,
            served: None,
        }
    }

    fn active(&self, world: &World) -> Option<(Version, Instant)> {
        self.rules.holder(&world.secret)?.active(self.clock.at(world.now))
    }

    /// Whether it could switch to a version now.
    #[must_use]
    pub fn has_prepared(&self, secret: &crate::world::Secret, version: Version) -> bool {
        let reached = self.rules.holder(secret).and_then(|holder| holder.report().reached);
        reached.is_some_and(|(reached, stage)| reached == version && stage >= Stage::Prepared)
    }

    /// Whether it may be using a version now, or could begin to at this moment.
    #[must_use]
    pub fn may_use(&self, world: &World, version: Version) -> bool {
        let now = self.clock.at(world.now);
        let open = self.guards.iter().any(|guard| guard.version == version && guard.end > now);
        self.alive && (open || self.active(world).is_some_and(|(active, _)| active == version))
    }
}

impl World {
    fn rules(&mut self, index: usize, input: InstanceInput) {
        let now = self.instances[index].clock.at(self.now);
        // A rejection changes nothing. Duplicates and late arrivals are common in this network.
        if self.instances[index].rules.handle(now, input).is_err() {
            self.counts.refused += 1;
        }
    }

    fn secret_input(&mut self, index: usize, input: Input) {
        let secret = self.secret.clone();
        self.rules(index, InstanceInput::Secret(secret, input));
    }

    pub(crate) fn instance_takes(&mut self, index: usize, message: ToInstance) {
        let now = self.now;
        match message {
            ToInstance::Registered => {
                self.instances[index].registering = false;
                let secrets = BTreeSet::from([self.secret.clone()]);
                self.rules(index, InstanceInput::Registered(secrets));
            }
            ToInstance::NotRegistered => self.instances[index].registering = false,
            ToInstance::State(state) => self.secret_input(index, Input::State(state)),
            ToInstance::Rules(input) => {
                match &input {
                    InstanceInput::SyncReply(reply) if self.instances[index].syncing == Some(reply.nonce) => {
                        self.instances[index].syncing = None;
                    }
                    InstanceInput::SyncFailed { nonce } => {
                        if self.instances[index].syncing != Some(*nonce) {
                            return;
                        }
                        self.instances[index].syncing = None;
                    }
                    _ => {}
                }
                self.rules(index, input);
            }
            ToInstance::Read { id, answer } => {
                if self.instances[index].reading == Some(id) {
                    self.instances[index].reading = None;
                }
                if let Some((sent, state)) = answer {
                    self.secret_input(index, Input::StoreRead { sent, state });
                }
            }
            ToInstance::Loaded { version, came } => {
                if self.instances[index].loading.remove(&version) {
                    let setback = Setback { text: "no answer".into(), retry_after: ms(300) };
                    self.secret_input(
                        index,
                        if came { Input::Loaded { version } } else { Input::LoadFailed { version, setback } },
                    );
                }
            }
            ToInstance::Stepped { step, version, worked } => {
                let failure = StepFailure::Refused(Setback { text: "no such table".into(), retry_after: ms(500) });
                // A switch that failed may have moved the service all the same.
                if step == Step::Switch && (worked || self.rng.permille(500)) {
                    self.instances[index].really = Some(version);
                }
                let result = if worked { Ok(()) } else { Err(failure) };
                if worked && step == Step::Release {
                    self.instances[index].shown.remove(&version);
                }
                self.secret_input(index, Input::Finished { step, version, result });
            }
            ToInstance::Ended { id } => self.instances[index].guards.retain(|guard| guard.id != id),
            ToInstance::Wake => {
                if self.instances[index].waking.is_some_and(|at| at > now) {
                    return;
                }
                self.instances[index].waking = None;
            }
            ToInstance::Use => self.uses(index),
        }
        self.instance_goes_on(index);
    }

    /// The service uses the version that it gets, for as long as it may.
    fn uses(&mut self, index: usize) {
        let Some((version, _)) = self.instances[index].active(self) else { return };
        let length = self.policy.max_use;
        let length = if self.rng.permille(500) {
            length
        } else {
            length * u32::try_from(self.rng.between(1, 9)).unwrap_or(1) / 10
        };
        let length = if self.is_broken(Around::UseEnds) { length * 8 } else { length };
        let id = self.number();
        let running = &mut self.instances[index];
        let end = running.clock.at(self.now) + length;
        running.guards.push(Guard { id, version, end });
        let at = running.clock.when(end);
        let life = running.life;
        self.at(at, Event::ToInstance(index, life, Box::new(ToInstance::Ended { id })));
        self.counts.uses += 1;
    }

    pub(crate) fn instance_goes_on(&mut self, index: usize) {
        // The runtime reads its guards whenever it acts.
        let versions = self.instances[index].guards.iter().map(|guard| guard.version).collect();
        self.secret_input(index, Input::Held(versions));
        for _ in 0..20 {
            if !self.instance_starts(index) {
                break;
            }
        }
        self.check_instance(index);
        let (active, now) = (self.instances[index].active(self).is_some(), self.now);
        let serving = self.instances[index].rules.holder(&self.secret).and_then(|holder| holder.serving());
        if let Some(version) = serving {
            let service = self.instances[index].rules.key().service.to_string();
            self.truth.last_used.insert((version, service.clone()), self.now);
            self.truth.served.entry(version).or_default().insert(service);
        }
        let reached = self.instances[index].rules.holder(&self.secret).and_then(|holder| holder.report().reached);
        if let Some((version, _)) = reached.filter(|(_, stage)| *stage >= Stage::Prepared) {
            self.truth.prepared.insert(version);
        }
        let running = &mut self.instances[index];
        running.settled_since = running.settled_since.or(Some(now)).filter(|_| active);
        let state = running.rules.holder(&self.secret).and_then(|holder| holder.state());
        // Whether the state that moved the instance allowed it to stay.
        let sent = |from: Version| state.is_some_and(|state| state.stay && !state.sealed.contains(&from));
        running.turned = serving.filter(|_| active).map(|version| match running.turned {
            Some((from, since)) if from == version => (version, since),
            Some((from, _)) if sent(from) => (version, 0),
            _ => (version, now),
        });
        self.check_way(index, serving);
        let running = &self.instances[index];
        let life = running.life;
        let now = running.clock.at(self.now);
        if let Some(wakeup) = running.rules.next_wakeup(now) {
            let at = running.clock.when(wakeup).max(self.now + 1);
            if running.waking.is_none_or(|waking| at < waking) {
                self.instances[index].waking = Some(at);
                self.at(at, Event::ToInstance(index, life, Box::new(ToInstance::Wake)));
            }
        }
        // The last moment at which the version may be used is the one that tests the waits.
        let running = &self.instances[index];
        if let Some((_, until)) = running.active(self)
            && running.last_use != Some(until)
        {
            let at = running.clock.when(until).saturating_sub(1000).max(self.now + 1);
            self.instances[index].last_use = Some(until);
            self.at(at, Event::ToInstance(index, life, Box::new(ToInstance::Use)));
        }
    }

    /// Starts every outstanding command that is not in flight. Says whether the rules got an input.
    fn instance_starts(&mut self, index: usize) -> bool {
        let now = self.instances[index].clock.at(self.now);
        let life = self.instances[index].life;
        let mut told = false;
        for command in self.instances[index].rules.commands(now) {
            let to = |message| Event::ToInstance(index, life, Box::new(message));
            match command {
                InstanceCommand::Register(registration) if !self.instances[index].registering => {
                    self.instances[index].registering = true;
                    let arrives = self.delay();
                    if self.lost() || self.instances[index].no_bus > self.now {
                        // Durable all the same, perhaps.
                        if self.network.permille(500) {
                            self.at(self.now + arrives, Event::Append(registration, None));
                        }
                        self.at(self.now + arrives + 500_000_000, to(ToInstance::NotRegistered));
                    } else {
                        self.at(self.now + arrives, Event::Append(registration, Some((index, life))));
                    }
                }
                InstanceCommand::Sync if self.instances[index].syncing.is_none() => {
                    let nonce = Nonce(self.number());
                    self.instances[index].syncing = Some(nonce);
                    self.rules(index, InstanceInput::SyncSent { nonce, at: now });
                    let request = self.instances[index].rules.sync_request(nonce);
                    self.check_said(index, &request.report);
                    self.record((index, life), &request);
                    let nodes = self.leaders.len();
                    for node in 0..nodes {
                        if self.instances[index].no_leader[node] > self.now {
                            continue;
                        }
                        self.send(|world, at| {
                            let mail = Mail::Sync { from: (index, life), request: request.clone() };
                            world.at(at, Event::ToLeader(node, Box::new(mail)));
                        });
                    }
                    let timeout = self.network.between(400, 900) * 1_000_000;
                    let failed = ToInstance::Rules(InstanceInput::SyncFailed { nonce });
                    self.at(self.now + timeout, to(failed));
                    told = true;
                }
                InstanceCommand::Report => {
                    let report = self.instances[index].rules.report();
                    self.check_said(index, &report);
                    self.rules(index, InstanceInput::Reported(report.sequence));
                    if self.instances[index].no_bus <= self.now {
                        for node in 0..self.leaders.len() {
                            self.send(|world, at| {
                                world.at(at, Event::ToLeader(node, Box::new(Mail::Report(report.clone()))));
                            });
                        }
                    }
                    told = true;
                }
                InstanceCommand::Secret(_, Command::ReadStore) if self.instances[index].reading.is_none() => {
                    let id = self.number();
                    self.instances[index].reading = Some(id);
                    let arrives = self.now + self.delay();
                    if !self.lost() && self.instances[index].no_store <= self.now {
                        self.at(arrives, Event::StoreRead { index, life, id, sent: now });
                    }
                    let timeout = self.network.between(500, 1500) * 1_000_000;
                    self.at(arrives + timeout, to(ToInstance::Read { id, answer: None }));
                }
                InstanceCommand::Secret(_, Command::Load(version))
                    if !self.instances[index].loading.contains(&version) =>
                {
                    self.instances[index].loading.insert(version);
                    self.check_load(index, version);
                    let reachable = !self.lost() && self.instances[index].no_store <= self.now;
                    let came =
                        reachable && self.outside.written.contains(&version) && !self.outside.erased.contains(&version);
                    let at = self.now + self.delay() * 2;
                    self.at(at, to(ToInstance::Loaded { version, came }));
                }
                InstanceCommand::Secret(_, Command::Run(step, version)) => {
                    let begun = Input::Begin { step, version };
                    let secret = self.secret.clone();
                    let began = self.instances[index].rules.handle(now, InstanceInput::Secret(secret, begun)).is_ok();
                    if began {
                        self.check_begun(index, step, version);
                        if step != Step::Release {
                            self.instances[index].shown.insert(version);
                        }
                        let chance = self.loss / 3;
                        let worked = !self.strikes(Fault::StepFails, chance);
                        let slow = self.step_slowness;
                        let slow = self.strikes(Fault::StepSlow, slow);
                        let long = match (slow, self.instances[index].slow_steps > self.now) {
                            (_, true) => self.network.between(8000, 12_000) * 1_000_000,
                            (true, false) => self.network.between(500, 6000) * 1_000_000,
                            (false, false) => 0,
                        };
                        let at = self.now + self.delay() + long;
                        self.at(at, to(ToInstance::Stepped { step, version, worked }));
                        told = true;
                    }
                }
                _ => {}
            }
        }
        told
    }

    /// The joiner's barrier: the registration is durable, then comes the lease, then the value.
    fn check_load(&mut self, index: usize, version: Version) {
        let running = &self.instances[index];
        let registered = self.outside.ever_registered.contains(running.rules.key());
        let now = running.clock.at(self.now);
        let leased = running.rules.holder(&self.secret).is_some_and(|holder| holder.lease_until(version) > now);
        if !registered {
            self.violated("joiner", format!("instance {index} reads version {version} and is not registered"));
        } else if !leased {
            self.violated("joiner", format!("instance {index} reads version {version} without a lease"));
        }
    }

    /// The service is not asked to release a version that it uses.
    fn check_begun(&mut self, index: usize, step: Step, version: Version) {
        let running = &self.instances[index];
        let now = running.clock.at(self.now);
        let used = running.guards.iter().any(|guard| guard.version == version && guard.end > now);
        if step == Step::Release && (used || running.really == Some(version)) {
            self.violated("truth", format!("instance {index} is asked to let go of version {version}, which it uses"));
        }
    }

    /// The instance reports every version that it uses as held.
    fn check_said(&mut self, index: usize, report: &InstanceReport) {
        let running = &self.instances[index];
        let Some(said) = report.secrets.get(&self.secret) else { return };
        let now = running.clock.at(self.now);
        let active = running.active(self).map(|(version, _)| version);
        let used = running.guards.iter().filter(|guard| guard.end > now).map(|guard| guard.version).chain(active);
        let shown = running.shown.iter().copied();
        if let Some(version) = used.chain(shown).find(|version| !said.held.contains(version)) {
            self.violated("truth", format!("instance {index} uses version {version} and does not say so"));
        }
    }

    /// Rule V, and the rule that an instance does not go back.
    fn check_instance(&mut self, index: usize) {
        let Some(holder) = self.instances[index].rules.holder(&self.secret) else { return };
        let Some(state) = holder.state() else { return };
        let before = self.instances[index].seen;
        let now = (state.generation, state.revision, state.current);
        let back = now.0 < before.0 || now.1 < before.1 || (now.0 == before.0 && now.2 < before.2);
        let bound = holder.report().held.len() <= rotacast_protocol::message::MAX_HELD_VERSIONS;
        if back {
            self.violated("V", format!("instance {index} went from {before:?} to {now:?}"));
        }
        if !bound {
            self.violated("B", format!("instance {index} reports too many versions"));
        }
        self.instances[index].seen = now;
    }
}
