//! One broadcaster: the real coordinator, and a driver around it that does what the real one does.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use rotacast_holder::InstanceInput;
use rotacast_protocol::coordinator::{Change, Command, CommandKind, Coordinator, Evidence, Input, Tenure};
use rotacast_protocol::message::{InstanceReport, SyncReply, SyncRequest};
use rotacast_protocol::record::{Origin, RetireStep, SecretRecord, Timing};
use rotacast_protocol::{Epoch, Instant, Now, Version};

use crate::clock::{Clock, MS, ms};
use crate::instance::ToInstance;
use crate::mutant::Mutant;
use crate::outside::{Lock, Stored};
use crate::world::{Event, LOCK_TIME, Mail, World};

/// A save under way.
#[derive(Clone, Debug)]
struct Saving {
    id: u64,
    changes: Vec<Change>,
    bytes: Rc<Vec<u8>>,
    record: Rc<SecretRecord>,
    answer: Option<Answer>,
}

/// A Sync that waits for its grant.
#[derive(Clone, Debug)]
struct Answer {
    from: (usize, u64),
    request: SyncRequest,
}

/// A term.
#[derive(Clone, Debug)]
pub struct Term {
    /// Its number.
    pub epoch: Epoch,
    /// The rules.
    pub coordinator: Coordinator,
    cursor: u64,
    mailbox: VecDeque<Mail>,
    saving: Option<Saving>,
    in_flight: BTreeMap<CommandKind, u64>,
    retry: BTreeMap<CommandKind, u64>,
    waking: Option<u64>,
    roster_read: usize,
    roster_listed: usize,
}

/// One broadcaster.
#[derive(Clone, Debug)]
pub struct Broadcaster {
    /// Its clock.
    pub clock: Clock,
    /// The process life, counted.
    pub life: u64,
    /// Whether its process runs.
    pub alive: bool,
    /// Stopped until then.
    pub stopped: u64,
    /// No way to the store until then.
    pub no_store: u64,
    /// Its term, while it believes to lead.
    pub term: Option<Term>,
}

impl Broadcaster {
    /// A process that follows.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock, life: 0, alive: true, stopped: 0, no_store: 0, term: None }
    }
}

impl World {
    fn leader_now(&self, node: usize) -> Now {
        self.leaders[node].clock.now(self.now)
    }

    /// It asks for the leader's key now and then, whether or not it holds it.
    pub(crate) fn campaign(&mut self, node: usize, life: u64) {
        let leader = &self.leaders[node];
        if leader.life != life {
            return;
        }
        let again = self.now + self.rng.between(900, 1300) * MS;
        self.at(again, Event::Campaign { node, life });
        let leader = &self.leaders[node];
        if !leader.alive || leader.stopped > self.now {
            return;
        }
        let sent = leader.clock.at(self.now);
        // Whoever knows that its time is over follows again.
        if leader.term.as_ref().is_some_and(|term| term.coordinator.tenure().valid_until <= sent) {
            self.leaders[node].term = None;
        }
        let leader = &self.leaders[node];
        let epoch = leader.term.as_ref().map(|term| term.epoch);
        if leader.no_store <= self.now && !self.faulty() {
            let at = self.now + self.delay();
            self.at(at, Event::CampaignArrives { node, life, epoch, sent });
        }
    }

    pub(crate) fn campaign_arrives(&mut self, node: usize, life: u64, epoch: Option<Epoch>, sent: Instant) {
        let now = self.now;
        let renews = epoch.is_some_and(|epoch| self.outside.leads(node, epoch, now));
        let free = self.outside.lock.as_ref().is_none_or(|lock| lock.expires <= now);
        let epoch = match epoch {
            Some(epoch) if renews => epoch,
            None if free => {
                self.outside.epoch += 1;
                Epoch(self.outside.epoch)
            }
            _ => return,
        };
        self.outside.lock = Some(Lock { node, epoch, expires: now + LOCK_TIME });
        if self.faulty() {
            return;
        }
        // Counted from its own send time, with room for a clock that runs slow.
        let valid_until = if self.mutant == Some(Mutant::DeposedLeaderGrants) {
            sent + ms(10_000_000)
        } else {
            sent + ms(LOCK_TIME / MS * 97 / 100)
        };
        let stored = if renews { None } else { self.outside.stored.clone() };
        let at = now + self.delay();
        self.at(at, Event::ToLeader(node, Box::new(Mail::Leads { life, epoch, valid_until, stored, renewed: renews })));
    }

    fn take_over(&mut self, node: usize, epoch: Epoch, valid_until: Instant, stored: Option<Stored>) {
        let since = self.leader_now(node);
        if since.instant >= valid_until {
            return;
        }
        let (mut record, cursor) = match stored {
            Some(stored) => {
                let record = SecretRecord::decode(&stored.bytes);
                if self.mutant.is_none() && record.as_ref() != Ok(&*stored.record) {
                    self.violated("I", format!("a record does not read back: {record:?}"));
                }
                ((*stored.record).clone(), stored.cursor)
            }
            None => (SecretRecord::new(self.secret.clone(), epoch, Timing::of(&self.policy)), 0),
        };
        match self.mutant {
            Some(Mutant::NoInheritedWait) => {
                record.bounds.lease = ms(0);
            }
            Some(Mutant::NoSealWait) => record.bounds.self_lease = ms(0),
            _ => {}
        }
        self.counts.terms += 1;
        let coordinator = Coordinator::take_over(record, self.policy.clone(), Tenure { epoch, since, valid_until });
        let roster_listed = self.outside.roster.len();
        self.leaders[node].term = Some(Term {
            epoch,
            coordinator,
            cursor,
            mailbox: VecDeque::new(),
            saving: None,
            in_flight: BTreeMap::new(),
            retry: BTreeMap::new(),
            waking: None,
            roster_read: 0,
            roster_listed,
        });
    }

    pub(crate) fn leader_takes(&mut self, node: usize, mail: Mail) {
        match mail {
            Mail::Leads { life, epoch, valid_until, stored, renewed } => {
                if self.leaders[node].life != life {
                    return;
                }
                if renewed {
                    let now = self.leader_now(node);
                    if let Some(term) = self.leaders[node].term.as_mut().filter(|term| term.epoch == epoch)
                        && let Ok(changes) =
                            term.coordinator.decide(now, Input::LeadershipExtended { until: valid_until })
                    {
                        changes.iter().for_each(|change| term.coordinator.apply(now, change));
                    }
                } else if self.leaders[node].term.is_none() {
                    self.take_over(node, epoch, valid_until, stored);
                }
            }
            Mail::Saved { epoch, id, outcome } => self.saved(node, epoch, id, outcome),
            mail => {
                if let Some(term) = &mut self.leaders[node].term
                    && term.mailbox.len() < 4096
                {
                    term.mailbox.push_back(mail);
                }
            }
        }
        self.leader_goes_on(node);
    }

    /// What the store said of a save, or that it said nothing: then it is asked, until it is known.
    fn saved(&mut self, node: usize, epoch: Epoch, id: u64, outcome: Option<bool>) {
        let Some(term) = self.leaders[node].term.as_mut().filter(|term| term.epoch == epoch) else { return };
        if term.saving.as_ref().is_none_or(|saving| saving.id != id) {
            return;
        }
        let stored = self.outside.stored.as_ref();
        let cursor = stored.map_or(0, |stored| stored.cursor);
        let landed =
            stored.is_some_and(|stored| Some(&stored.bytes) == term.saving.as_ref().map(|saving| &saving.bytes));
        match outcome {
            Some(true) => {}
            _ if landed => {}
            None if cursor == term.cursor => {
                self.counts.unknown += 1;
                self.send_save(node);
                return;
            }
            _ => {
                // Somebody else leads.
                self.counts.deposed += 1;
                self.leaders[node].term = None;
                return;
            }
        }
        let now = self.leader_now(node);
        let Some(term) = self.leaders[node].term.as_mut() else { return };
        let Some(saving) = term.saving.take() else { return };
        term.cursor = cursor;
        let revision = term.coordinator.record().revision;
        for change in &saving.changes {
            term.coordinator.apply(now, change);
        }
        if *term.coordinator.record() != *saving.record {
            let (found, expected) = (term.coordinator.record().revision, saving.record.revision);
            self.violated("I", format!("what was saved ({expected}) is not what was applied ({found})"));
        } else if term.coordinator.record().revision <= revision {
            self.violated("I", "a saved change did not raise the revision".into());
        }
        if let Some(answer) = saving.answer {
            self.answer(node, &answer);
        }
    }

    fn send_save(&mut self, node: usize) {
        let leader = &self.leaders[node];
        let Some(term) = &leader.term else { return };
        let Some(saving) = &term.saving else { return };
        let (epoch, id, cursor) = (term.epoch, saving.id, term.cursor);
        let (bytes, record) = (saving.bytes.clone(), saving.record.clone());
        let reachable = leader.no_store <= self.now;
        let timeout = self.now + self.rng.between(800, 1500) * MS;
        if reachable && !self.faulty() {
            let at = self.now + self.delay();
            self.at(at, Event::SaveArrives { node, epoch, id, bytes, record, cursor });
        }
        self.at(timeout, Event::ToLeader(node, Box::new(Mail::Saved { epoch, id, outcome: None })));
    }

    /// The store's compare-and-swap: the record's cursor and the leader's key.
    pub(crate) fn save_arrives(
        &mut self,
        node: usize,
        epoch: Epoch,
        id: u64,
        bytes: Rc<Vec<u8>>,
        record: Rc<SecretRecord>,
        cursor: u64,
    ) {
        let leads = self.outside.leads(node, epoch, self.now);
        let unchanged = self.outside.stored.as_ref().map_or(0, |stored| stored.cursor) == cursor;
        let done = leads && unchanged;
        if done {
            self.check_record(&record);
            self.outside.stored = Some(Stored { bytes, record, cursor: cursor + 1 });
            self.counts.saves += 1;
        }
        if !self.faulty() {
            let at = self.now + self.delay();
            self.at(at, Event::ToLeader(node, Box::new(Mail::Saved { epoch, id, outcome: Some(done) })));
        }
    }

    fn commit(&mut self, node: usize, changes: Vec<Change>, answer: Option<Answer>) {
        let now = self.leader_now(node);
        let Some(term) = self.leaders[node].term.as_mut() else { return };
        if let Some(after) = term.coordinator.record_after(&changes) {
            let bytes = Rc::new(after.encode());
            let id = self.number();
            let saving = Saving { id, changes, bytes, record: Rc::new(after), answer };
            if let Some(term) = self.leaders[node].term.as_mut() {
                term.saving = Some(saving);
            }
            self.send_save(node);
            return;
        }
        for change in &changes {
            term.coordinator.apply(now, change);
        }
        if let Some(answer) = answer {
            self.answer(node, &answer);
        }
    }

    fn answer(&mut self, node: usize, answer: &Answer) {
        let Some(term) = &self.leaders[node].term else { return };
        let key = &answer.request.report.key;
        let grant = term.coordinator.grant(key);
        let unregistered = !term.coordinator.members().any(|member| member.key == *key && member.registered);
        let reply = SyncReply {
            key: key.clone(),
            nonce: answer.request.nonce,
            epoch: term.epoch,
            covered: answer.request.report.sequence,
            unregistered,
            secrets: grant.into_iter().map(|grant| (self.secret.clone(), grant)).collect(),
        };
        let (index, life) = answer.from;
        self.send(|world, at| {
            let message = ToInstance::Rules(InstanceInput::SyncReply(reply.clone()));
            world.at(at, Event::ToInstance(index, life, Box::new(message)));
        });
    }

    pub(crate) fn leader_goes_on(&mut self, node: usize) {
        for _ in 0..10_000 {
            let now = self.leader_now(node);
            let Some(term) = self.leaders[node].term.as_mut() else { return };
            if term.saving.is_some() {
                return;
            }
            if let Ok(changes) = term.coordinator.decide(now, Input::Tick)
                && !changes.is_empty()
            {
                self.check_decided(node, &changes);
                self.commit(node, changes, None);
                continue;
            }
            if let Some(mail) = term.mailbox.pop_front() {
                self.read(node, mail);
                continue;
            }
            self.start_commands(node);
            self.schedule_leader(node);
            return;
        }
        self.violated("L", format!("broadcaster {node} never settles"));
    }

    fn read(&mut self, node: usize, mail: Mail) {
        let now = self.leader_now(node);
        let secret = self.secret.clone();
        match mail {
            Mail::Sync { from, request } => {
                let Some(report) = request.report.secrets.get(&secret).cloned() else { return };
                let key = request.report.key.clone();
                let input = Input::Sync { key, sequence: request.report.sequence, report };
                let Some(term) = self.leaders[node].term.as_ref() else { return };
                match term.coordinator.decide(now, input) {
                    Ok(changes) => self.commit(node, changes, Some(Answer { from, request })),
                    Err(_) => self.counts.refused += 1,
                }
            }
            Mail::Report(InstanceReport { key, sequence, mut secrets }) => {
                if let Some(report) = secrets.remove(&secret) {
                    self.input(node, Input::Report { key, sequence, report });
                }
            }
            Mail::Input(input) => self.input(node, input),
            Mail::Roster => self.read_roster(node, usize::MAX),
            Mail::EffectDone { epoch, id, kind, result } => {
                let Some(term) = self.leaders[node].term.as_mut().filter(|term| term.epoch == epoch) else { return };
                if term.in_flight.get(&kind) != Some(&id) {
                    return;
                }
                term.in_flight.remove(&kind);
                match result {
                    Ok((roster, inputs)) => {
                        if let Some(end) = roster {
                            self.read_roster(node, end);
                        }
                        inputs.into_iter().for_each(|input| self.queue(node, input));
                    }
                    Err(()) => {
                        let at = self.now + self.rng.between(200, 800) * MS;
                        if let Some(term) = self.leaders[node].term.as_mut() {
                            term.retry.insert(kind.clone(), at);
                        }
                        self.queue(node, Input::Troubled { command: kind, problem: "no answer".into() });
                    }
                }
            }
            Mail::Wake => {
                if let Some(term) = self.leaders[node].term.as_mut()
                    && term.waking.is_some_and(|at| at <= self.now)
                {
                    term.waking = None;
                }
            }
            Mail::Leads { .. } | Mail::Saved { .. } => {}
        }
    }

    fn queue(&mut self, node: usize, input: Input) {
        if let Some(term) = self.leaders[node].term.as_mut() {
            term.mailbox.push_back(Mail::Input(input));
        }
    }

    fn input(&mut self, node: usize, input: Input) {
        let now = self.leader_now(node);
        let Some(term) = self.leaders[node].term.as_ref() else { return };
        match term.coordinator.decide(now, input) {
            Ok(changes) => {
                self.check_decided(node, &changes);
                self.commit(node, changes, None);
            }
            Err(_) => self.counts.refused += 1,
        }
    }

    /// Feeds the roster, in its order, up to an end.
    fn read_roster(&mut self, node: usize, end: usize) {
        let end = end.min(self.outside.roster.len());
        let Some(term) = self.leaders[node].term.as_mut() else { return };
        let from = term.roster_read.min(end);
        term.roster_read = term.roster_read.max(end);
        for position in from..end {
            let entry = self.outside.roster[position].clone();
            let live = position >= term.roster_listed;
            let input = if entry.left {
                Input::Left { key: entry.key }
            } else {
                Input::Registered { key: entry.key, exclusive: entry.exclusive, live }
            };
            // Ahead of what is already waiting, in order: a reading's end is input before what depends on it.
            term.mailbox.push_back(Mail::Input(input));
        }
        if end >= term.roster_listed {
            term.mailbox.push_back(Mail::Input(Input::RosterRead));
        }
    }

    fn start_commands(&mut self, node: usize) {
        let now = self.leader_now(node);
        let Some(term) = self.leaders[node].term.as_ref() else { return };
        let (epoch, state) = (term.epoch, term.coordinator.record().state());
        let owed = term.coordinator.commands(now);
        let kinds: BTreeSet<CommandKind> = owed.iter().map(|command| command.kind.clone()).collect();
        if owed.len() > 200 {
            self.violated("B", format!("{} commands are owed", owed.len()));
        }
        if let Some(term) = self.leaders[node].term.as_mut() {
            term.retry.retain(|kind, _| kinds.contains(kind));
        }
        for command in owed {
            let Some(term) = self.leaders[node].term.as_mut() else { return };
            let busy = version_of(&command.kind)
                .is_some_and(|version| term.in_flight.keys().any(|kind| version_of(kind) == Some(version)));
            let waits = term.retry.get(&command.kind).is_some_and(|at| *at > self.now);
            if busy || waits || term.in_flight.contains_key(&command.kind) {
                continue;
            }
            let id = self.next_number;
            self.next_number += 1;
            term.in_flight.insert(command.kind.clone(), id);
            let kind = command.kind.clone();
            let effect =
                Event::EffectArrives { node, epoch, id, command, state: Box::new(state.clone()), sent: now.instant };
            if !self.faulty() {
                let at = self.now + self.delay();
                self.at(at, effect);
            }
            // A provider is given up on after a while, and may carry the request out all the same.
            let timeout = self.now + self.rng.between(1500, 3000) * MS;
            let done = Mail::EffectDone { epoch, id, kind, result: Err(()) };
            self.at(timeout, Event::ToLeader(node, Box::new(done)));
        }
    }

    fn schedule_leader(&mut self, node: usize) {
        let now = self.leader_now(node);
        let Some(term) = self.leaders[node].term.as_ref() else { return };
        let clock = &self.leaders[node].clock;
        let retry = term.retry.values().copied().filter(|at| *at > self.now).min();
        let wakeup = term.coordinator.next_wakeup(now).map(|at| clock.when(at));
        let Some(at) = [retry, wakeup].into_iter().flatten().min() else { return };
        let at = at.max(self.now + 1);
        if term.waking.is_none_or(|waking| at < waking || waking <= self.now) {
            if let Some(term) = self.leaders[node].term.as_mut() {
                term.waking = Some(at);
            }
            self.at(at, Event::ToLeader(node, Box::new(Mail::Wake)));
        }
    }

    /// The outside carries a command out.
    pub(crate) fn effect_arrives(
        &mut self,
        node: usize,
        epoch: Epoch,
        id: u64,
        command: Command,
        state: &rotacast_protocol::message::SecretState,
        sent: Instant,
    ) {
        let mut roster = None;
        let inputs = match command.kind {
            CommandKind::Publish => {
                for index in 0..self.instances.len() {
                    if self.instances[index].no_bus > self.now {
                        continue;
                    }
                    let life = self.instances[index].life;
                    self.send(|world, at| {
                        let message = ToInstance::State(state.clone());
                        world.at(at, Event::ToInstance(index, life, Box::new(message)));
                    });
                }
                vec![Input::Published { revision: command.revision }]
            }
            CommandKind::Create { version } => {
                let origin = if self.outside.written.contains(&version) { Origin::Watched } else { Origin::Managed };
                self.outside.written.insert(version);
                self.outside.last_version = self.outside.last_version.max(version.get());
                vec![Input::Created { version, origin }]
            }
            CommandKind::Test { version } if self.outside.bad.contains(&version) => {
                vec![Input::VerifyFailed { version, reason: "refused".into() }]
            }
            CommandKind::Test { version } => vec![Input::Verified { version }],
            CommandKind::PassBarrier { version } => {
                roster = Some(self.outside.roster.len());
                let mut inputs = self.versions_since(node);
                inputs.push(Input::BarrierPassed { version, revision: command.revision });
                inputs
            }
            CommandKind::ReadUsage { version } => {
                let evidence = if self.sessions_known {
                    let users = self.instances.iter().filter(|running| {
                        let now = running.clock.at(self.now);
                        running.alive && running.guards.iter().any(|guard| guard.version == version && guard.end > now)
                    });
                    Evidence::Sessions(users.map(|running| running.index.to_string()).collect())
                } else {
                    Evidence::None
                };
                vec![Input::UsageRead { version, sent, evidence }]
            }
            CommandKind::Audit { version } => {
                if self.mutant == Some(Mutant::RetireBeforeSaved) {
                    self.disable(version);
                }
                if self.mutant != Some(Mutant::AuditLies) {
                    self.outside.audit.push(version);
                }
                vec![Input::Audited { version, revision: command.revision }]
            }
            CommandKind::Retire { version, step } => {
                match step {
                    RetireStep::Disable => self.disable(version),
                    RetireStep::Destroy => {
                        if !self.outside.disabled.contains_key(&version) {
                            self.violated("S1", format!("version {version} is destroyed before it was disabled"));
                        }
                    }
                    RetireStep::Erase => {
                        self.outside.erased.insert(version);
                    }
                }
                vec![Input::StepDone { version, step }]
            }
        };
        if !self.faulty() {
            let at = self.now + self.delay();
            let done = Mail::EffectDone { epoch, id, kind: command.kind, result: Ok((roster, inputs)) };
            self.at(at, Event::ToLeader(node, Box::new(done)));
        }
    }

    /// Versions the store has and the leader has not seen, in order.
    pub(crate) fn versions_since(&self, node: usize) -> Vec<Input> {
        let last = self.leaders[node].term.as_ref().and_then(|term| term.coordinator.record().last_version);
        self.outside
            .written
            .iter()
            .filter(|version| Some(**version) > last)
            .map(|version| Input::VersionSeen { version: *version })
            .collect()
    }
}

fn version_of(kind: &CommandKind) -> Option<Version> {
    match kind {
        CommandKind::Create { version } | CommandKind::Test { version } | CommandKind::Retire { version, .. } => {
            Some(*version)
        }
        _ => None,
    }
}
