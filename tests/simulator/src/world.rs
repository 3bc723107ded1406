//! The world: true time, the events in it, and how a run ends.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rotacast_protocol::message::SyncRequest;
use rotacast_protocol::{Policy, SecretName, Version};

use crate::clock::MS;
use crate::counts::Counts;
use crate::event::{Event, Mail};
use crate::fault::{Act, Plan, Strike, Struck};
use crate::instance::{Running, ToInstance};
use crate::judge::Truth;
use crate::leader::Broadcaster;
use crate::mutant::Mutant;
use crate::outside::Outside;
use crate::rng::Rng;

/// The one secret's name.
pub type Secret = SecretName;

/// Everything.
pub struct World {
    /// True time, in nanoseconds.
    pub now: u64,
    pub(crate) rng: Rng,
    pub(crate) network: Rng,
    pub(crate) streams: Vec<Rng>,
    pub(crate) secret: Secret,
    pub(crate) policy: Policy,
    pub(crate) mutant: Option<Mutant>,
    pub(crate) outside: Outside,
    pub(crate) leaders: Vec<Broadcaster>,
    pub(crate) instances: Vec<Running>,
    pub(crate) sessions_known: bool,
    pub(crate) next_number: u64,
    /// Syncs as a forger has seen them.
    pub(crate) recorded: VecDeque<((usize, u64), SyncRequest)>,
    /// What happened so far.
    pub counts: Counts,
    pub(crate) queue: BTreeMap<(u64, u64), Event>,
    pub(crate) sequence: u64,
    pub(crate) healed: Option<u64>,
    pub(crate) chaotic: bool,
    pub(crate) loss: u64,
    pub(crate) slowness: u64,
    pub(crate) step_slowness: u64,
    pub(crate) favoured: Vec<crate::fault::Fault>,
    pub(crate) restores: Option<u64>,
    pub(crate) script: Vec<Act>,
    pub(crate) plan: Plan,
    pub(crate) struck: Struck,
    /// The faults that struck, in order.
    pub strikes: Vec<Strike>,
    /// What the judge knows to be true.
    pub truth: Truth,
    pub(crate) violation: Option<String>,
    /// For how many looks in a row a rotation was in flight and no blocker was named.
    pub(crate) unexplained: u32,
    /// A hash of everything that happened: equal for equal runs.
    pub trace: u64,
    /// What happened, in words, for a story.
    pub story: Option<Vec<String>>,
    /// Every event, in words, for a trace.
    pub log: Option<String>,
}

impl World {
    /// Runs to the end.
    ///
    /// # Errors
    /// The promise that was broken, and how.
    pub fn run(&mut self) -> Result<(), String> {
        let _broken = self.mutant.map(Mutant::breaks);
        let result = self.run_on();
        self.counts.time = self.now;
        result
    }

    fn run_on(&mut self) -> Result<(), String> {
        while let Some((at, event)) = self.queue.pop_first() {
            self.now = at.0;
            self.counts.events += 1;
            if let Some(log) = &mut self.log {
                log.push_str(&format!("{:>12.6} {event:?}\n", at.0 as f64 / 1e9));
            }
            if self.story.is_some()
                && let Some(brief) = event.brief()
            {
                self.tell(|| brief);
            }
            self.happens(event);
            if let Some(violation) = self.violation.take() {
                return Err(violation);
            }
            if self.healed.is_some() && self.ended() {
                self.judge_the_end();
                let version = self.outside.stored.as_ref().map_or(0, |stored| stored.record.revision.0);
                self.trace = self.trace.wrapping_mul(31).wrapping_add(version).wrapping_add(self.counts.events);
                return self.violation.take().map_or(Ok(()), Err);
            }
            if self.queue.len() > 20_000 {
                return Err("B: the world is flooded with messages".into());
            }
        }
        Err("L: nothing happens any more".into())
    }

    pub(crate) fn violated(&mut self, promise: &str, how: String) {
        if self.violation.is_none() {
            self.violation = Some(format!("{promise} at {:.6} s: {how}", self.now as f64 / 1e9));
        }
    }

    /// Adds to the story, if there is one.
    pub(crate) fn tell(&mut self, what: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(story) = &mut self.story {
            story.push(format!("{:>10.3} s  {}", now as f64 / 1e9, what()));
        }
    }

    pub(crate) fn is_broken(&self, rule: crate::mutant::Around) -> bool {
        self.mutant == Some(Mutant::Around(rule))
    }

    fn happens(&mut self, event: Event) {
        self.trace = self.trace.rotate_left(7) ^ self.now;
        match event {
            Event::ToLeader(node, mail) => {
                let leader = &self.leaders[node];
                if leader.stopped > self.now {
                    let at = leader.stopped;
                    self.at(at, Event::ToLeader(node, mail));
                } else {
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
            Event::EffectArrives { node, epoch, id, command, state, unwanted_since, given_up, sent } => {
                self.effect_arrives(node, epoch, id, command, &state, unwanted_since, given_up, sent);
            }
            Event::RosterListed { node, epoch } => self.roster_listed(node, epoch),
            Event::RosterWritten { node, epoch, entries } => self.roster_written(node, epoch, entries),
            Event::Append(registration, waits) => self.append(registration, waits),
            Event::StoreRead { index, life, id, sent } => self.store_read(index, life, id, sent),
            Event::Chaos => self.chaos(),
            Event::Scripted(act) => self.acts(act),
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

    fn append(&mut self, registration: rotacast_protocol::message::Registration, waits: Option<(usize, u64)>) {
        self.outside.ever_registered.insert(registration.key.clone());
        self.outside.registrations.push(registration);
        if let Some((index, life)) = waits {
            let at = self.now + self.delay();
            self.at(at, Event::ToInstance(index, life, Box::new(ToInstance::Registered)));
        }
        self.tell_registrations();
    }

    /// Broadcasters hear of registrations, sooner or later.
    pub(crate) fn tell_registrations(&mut self) {
        for node in 0..self.leaders.len() {
            let at = self.now.max(self.outside.roster_late) + self.delay();
            self.at(at, Event::ToLeader(node, Box::new(Mail::Registrations)));
        }
    }

    fn store_read(&mut self, index: usize, life: u64, id: u64, sent: rotacast_protocol::Instant) {
        let Some(stored) = &self.outside.stored else { return };
        let mut state = stored.record.state();
        if self.is_broken(crate::mutant::Around::ReadsAreCurrent)
            && let Some(earlier) = self.outside.earlier.iter().rev().nth(6)
        {
            state = earlier.record.state();
        }
        if !self.lost() {
            let late = if self.instances[index].late > self.now { 550 * MS } else { 0 };
            let at = self.now + self.delay() + late;
            let read = ToInstance::Read { id, answer: Some((sent, state)) };
            self.at(at, Event::ToInstance(index, life, Box::new(read)));
        }
    }

    pub(crate) fn tell_versions(&mut self) {
        for node in 0..self.leaders.len() {
            if self.leaders[node].term.is_none() || self.leaders[node].no_store > self.now {
                continue;
            }
            // The stream of versions keeps its order, however late other messages are.
            let at = self.now + self.delay();
            for input in self.versions_since(node) {
                self.at(at, Event::ToLeader(node, Box::new(Mail::Input(input))));
            }
        }
    }

    /// Whether an operator cut it off for one version, or said that it is gone.
    pub(crate) fn is_cut_off(&self, version: Version, name: &str) -> bool {
        let names: Option<&BTreeSet<String>> = self.truth.cut_off.get(&version);
        names.is_some_and(|names| names.contains(name)) || self.truth.gone.contains(name)
    }
}
