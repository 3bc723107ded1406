//! One broadcaster: the machine that ships, inside a shell that is stopped, cut off and given wrong answers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use rotacast_protocol::challenge::Challenged;
use rotacast_protocol::coordinator::{Change, Coordinator, Input, Order, Tenure};
use rotacast_protocol::machine::{
    Action, Answer, Event as MachineEvent, Jitter, MAX_EVENTS, Machine, Observer, SaveId,
};
use rotacast_protocol::message::{InstanceReport, Registration, SecretGrant, SecretReport, Stage, SyncRequest};
use rotacast_protocol::record::{SecretRecord, Timing};
use rotacast_protocol::{Challenge, Epoch, InstanceKey, Instant, Now, ReportSequence};

use crate::clock::{Clock, MS, ms};
use crate::event::{Event, Mail};
use crate::mutant::{Around, Mutant, Rule};
use crate::outside::{Lock, Stored};
use crate::setup::LOCK_TIME;
use crate::world::World;

/// A save under way.
#[derive(Clone, Debug)]
pub(crate) struct Saving {
    pub(crate) id: SaveId,
    pub(crate) bytes: Rc<Vec<u8>>,
    pub(crate) record: Rc<SecretRecord>,
}

/// The sender of a Sync.
#[derive(Clone, Debug)]
pub(crate) struct Asker {
    pub(crate) from: (usize, u64),
    pub(crate) request: Rc<SyncRequest>,
    /// What its next Sync has to echo.
    pub(crate) next: Challenge,
}

/// The party that waits for an answer of the machine.
#[derive(Clone, Debug)]
pub(crate) enum Waiting {
    Instance(Asker),
    Operator,
}

/// What a broadcaster says to a Sync.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Said {
    Granted(Box<SecretGrant>),
    /// It had no effect.
    Unproven,
    /// It had no effect: its sender is not in the roster.
    Unregistered,
}

/// A request to the store that failed is repeated after so long.
const RETRY: u64 = 300 * MS;

/// A term.
#[derive(Clone, Debug)]
pub struct Term {
    /// Its number.
    pub epoch: Epoch,
    /// The engine.
    pub(crate) machine: Machine<Waiting>,
    /// Until when it is certain to lead.
    pub(crate) leads_until: Instant,
    pub(crate) cursor: u64,
    pub(crate) mailbox: VecDeque<Mail>,
    pub(crate) saving: Option<Saving>,
    pub(crate) waking: Option<u64>,
    /// The roster was listed.
    pub(crate) listed: bool,
    /// Who is in it, as far as this term knows, or is being written.
    pub(crate) entered: BTreeSet<InstanceKey>,
    /// What each incarnation in it has to echo.
    pub(crate) challenged: BTreeMap<InstanceKey, Challenged>,
    /// How far it has heard the registrations, and how many there were when it began.
    pub(crate) registrations_heard: usize,
    pub(crate) registrations_before: usize,
    /// Events whose sender waits for an answer, and answers so far.
    pub(crate) asked: u64,
    pub(crate) answered: u64,
}

impl Term {
    /// The machine, and its coordinator.
    #[must_use]
    pub fn coordinator(&self) -> &Coordinator {
        self.machine.coordinator()
    }
}

/// One broadcaster.
#[derive(Clone, Debug)]
pub struct Broadcaster {
    /// Its clock.
    pub clock: Clock,
    /// The incarnation, counted.
    pub life: u64,
    /// Stopped until then.
    pub stopped: u64,
    /// Cut off from the store until then.
    pub no_store: u64,
    /// Its term, while it takes itself to lead.
    pub term: Option<Term>,
}

impl Broadcaster {
    /// A process that follows.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock, life: 0, stopped: 0, no_store: 0, term: None }
    }
}

impl Term {
    /// The bus lost the last registrations, and this follower of them noticed.
    pub(crate) fn registrations_went_back(&mut self, to: usize) {
        self.registrations_heard = self.registrations_heard.min(to);
        self.registrations_before = self.registrations_before.min(to);
    }
}

impl World {
    pub(crate) fn leader_now(&self, node: usize) -> Now {
        self.leaders[node].clock.now(self.now)
    }

    /// Asks for the leader's key now and then, whether or not it holds it.
    pub(crate) fn campaign(&mut self, node: usize, life: u64) {
        let leader = &self.leaders[node];
        if leader.life != life {
            return;
        }
        let again = self.now + self.rng.between(900, 1300) * MS;
        self.at(again, Event::Campaign { node, life });
        let leader = &self.leaders[node];
        if leader.stopped > self.now {
            return;
        }
        let sent = leader.clock.at(self.now);
        // A broadcaster that knows that its term is over follows again.
        let believes = self.mutant == Some(Mutant::Leader(Rule::Leads));
        if !believes && leader.term.as_ref().is_some_and(|term| term.leads_until <= sent) {
            self.leaders[node].term = None;
        }
        let leader = &self.leaders[node];
        let epoch = leader.term.as_ref().map(|term| term.epoch);
        if leader.no_store <= self.now && !self.lost() {
            let at = self.now + self.delay();
            self.at(at, Event::CampaignArrives { node, life, epoch, sent });
        }
    }

    pub(crate) fn campaign_arrives(&mut self, node: usize, life: u64, epoch: Option<Epoch>, sent: Instant) {
        let now = self.now;
        // A campaign is a write.
        if self.outside.read_only > now {
            return;
        }
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
        if self.lost() {
            return;
        }
        // Counted from the send time of the request, with room for a clock that runs slow.
        let valid_until = sent + ms(LOCK_TIME / MS * 97 / 100);
        let went_back = !renews && self.outside.restored && !self.is_broken(Around::RestoreIsTold);
        let stored = if renews { None } else { self.outside.stored.clone() };
        let at = now + self.delay();
        self.at(
            at,
            Event::ToLeader(
                node,
                Box::new(Mail::Leads { life, epoch, valid_until, stored, renewed: renews, went_back }),
            ),
        );
    }

    fn take_over(&mut self, node: usize, epoch: Epoch, valid_until: Instant, stored: Option<Stored>, went_back: bool) {
        let since = self.leader_now(node);
        if since.instant >= valid_until {
            return;
        }
        let (record, cursor) = match stored {
            Some(stored) => {
                let record = SecretRecord::decode(&stored.bytes);
                if self.mutant.is_none() && record.as_ref() != Ok(&*stored.record) {
                    self.violated("I", format!("a record does not read back: {record:?}"));
                }
                ((*stored.record).clone(), stored.cursor)
            }
            None => (SecretRecord::new(self.secret.clone(), epoch, Timing::of(&self.policy)), 0),
        };
        self.counts.terms += 1;
        self.tell(|| format!("broadcaster {node} takes over: {epoch:?}"));
        let coordinator = Coordinator::take_over(record, self.policy.clone(), Tenure { epoch, since, valid_until });
        let registrations_before = self.outside.registrations.len();
        let warning = went_back.then(|| Mail::Input(Input::StoreWentBack { reason: "another store".into() }));
        self.leaders[node].term = Some(Term {
            epoch,
            machine: Machine::new(coordinator),
            leads_until: valid_until,
            cursor,
            mailbox: warning.into_iter().collect(),
            saving: None,
            waking: None,
            listed: false,
            entered: BTreeSet::new(),
            challenged: BTreeMap::new(),
            registrations_heard: 0,
            registrations_before,
            asked: 0,
            answered: 0,
        });
        // It reads what there is: the roster, and the versions.
        self.at(self.now, Event::RosterListed { node, epoch });
        self.tell_versions();
    }

    pub(crate) fn leader_takes(&mut self, node: usize, mail: Mail) {
        match mail {
            Mail::Leads { life, epoch, valid_until, stored, renewed, went_back } => {
                if self.leaders[node].life != life {
                    return;
                }
                let valid_until = match self.is_broken(Around::LeadsFromSend) {
                    true => self.leader_now(node).instant + ms(LOCK_TIME / MS * 97 / 100),
                    false => valid_until,
                };
                if renewed {
                    if let Some(term) = self.leaders[node].term.as_mut().filter(|term| term.epoch == epoch) {
                        term.leads_until = term.leads_until.max(valid_until);
                    }
                } else if self.leaders[node].term.is_none() {
                    self.take_over(node, epoch, valid_until, stored, went_back);
                }
            }
            Mail::Saved { epoch, id, outcome } => self.saved(node, epoch, id, outcome),
            mail => {
                if let Mail::Report(report) = &mail {
                    self.heard(node, &report.key, report.sequence, 1);
                }
                if let Some(term) = &mut self.leaders[node].term
                    && term.mailbox.len() < 4096
                {
                    term.mailbox.push_back(mail);
                }
            }
        }
        self.leader_goes_on(node);
    }

    /// A leader hears an incarnation. A report is news if it is newer by `above`: a Sync may send the same one again.
    fn heard(&mut self, node: usize, key: &InstanceKey, sequence: ReportSequence, above: u64) {
        if self.leading_node() != Some(node) {
            return;
        }
        let before = self.truth.heard.get(&key.full_name()).map_or(0, |(_, newest)| newest.0 + above);
        if sequence.0 >= before {
            self.truth.heard.insert(key.full_name(), (self.now, sequence));
        }
    }

    /// Shows the machine's work to the world's judge.
    pub(crate) fn within<T>(
        &mut self,
        node: usize,
        term: &mut Term,
        run: impl FnOnce(&mut Machine<Waiting>, &mut Watcher<'_>) -> T,
    ) -> T {
        let epoch = term.epoch;
        run(&mut term.machine, &mut Watcher { world: self, node, epoch })
    }

    pub(crate) fn leader_goes_on(&mut self, node: usize) {
        let Some(mut term) = self.leaders[node].term.take() else { return };
        for _ in 0..10_000 {
            // Events that arrive together are handled together, as the real task does.
            while term.machine.room() > 0
                && let Some(mail) = term.mailbox.pop_front()
            {
                self.feed(node, &mut term, mail);
            }
            let (now, leads_until) = (self.leader_now(node), term.leads_until);
            let action = self.within(node, &mut term, |machine, watcher| machine.poll(now, leads_until, watcher));
            let Some(action) = action else {
                if term.machine.room() == MAX_EVENTS && term.asked != term.answered {
                    let missing = term.asked - term.answered;
                    self.violated("reply", format!("broadcaster {node} rests and owes {missing} answers"));
                }
                self.leaders[node].term = Some(term);
                self.schedule_leader(node);
                return;
            };
            match action {
                Action::Save { id, record, .. } => {
                    let (bytes, record) = (Rc::new(record.encode()), Rc::new(*record));
                    term.saving = Some(Saving { id, bytes, record });
                    self.leaders[node].term = Some(term);
                    self.send_save(node);
                    return;
                }
                Action::Run { id, command } => self.start_command(node, &term, id, command),
                Action::Reply { to, answer } => {
                    term.answered += 1;
                    match (to, answer) {
                        (Waiting::Instance(asker), Answer::Granted(grant)) => {
                            let challenge = Some(asker.next);
                            self.answer(&asker, term.epoch, challenge, Said::Granted(Box::new(grant)));
                        }
                        (Waiting::Instance(_) | Waiting::Operator, Answer::Refused(_)) => self.counts.refused += 1,
                        (Waiting::Instance(_) | Waiting::Operator, _) => {}
                    }
                }
                Action::Refused(_) => self.counts.refused += 1,
                Action::Changed { .. } | Action::NoteLost { .. } | Action::AwaitVersion { .. } => {}
            }
        }
        self.violated("L", format!("broadcaster {node} never settles"));
    }

    fn feed(&mut self, node: usize, term: &mut Term, mail: Mail) {
        let secret = self.secret.clone();
        match mail {
            Mail::Sync { from, request } => {
                let Some(report) = request.report.secrets.get(&secret).cloned() else { return };
                let (key, sequence) = (request.report.key.clone(), request.report.sequence);
                let drawn = Challenge::new(self.number()).expect("numbers begin at 1");
                let mut asker = Asker { from, request: Rc::new(request), next: drawn };
                let member = term.coordinator().member_of(&key).filter(|member| member.registered && !member.left);
                if member.is_none() {
                    return self.answer(&asker, term.epoch, None, Said::Unregistered);
                }
                let answered = term.challenged.entry(key.clone()).or_default().answer(asker.request.echo, drawn);
                asker.next = answered.next;
                if !answered.is_proven {
                    return self.answer(&asker, term.epoch, Some(answered.next), Said::Unproven);
                }
                self.heard(node, &key, sequence, 0);
                let reply = Waiting::Instance(asker);
                term.asked += 1;
                term.machine.handle(MachineEvent::Sync { key, sequence, report, reply });
            }
            Mail::Report(InstanceReport { key, sequence, mut secrets }) => {
                if let Some(report) = secrets.remove(&secret) {
                    term.machine.handle(MachineEvent::Input(Input::Report { key, sequence, report }));
                }
            }
            Mail::Order { by, order } => {
                if let Order::Gone { instance, .. } = &order {
                    let name = instance.full_name();
                    let heard = self.truth.heard.get(&name).map_or(0, |(at, _)| *at);
                    self.truth.said_gone.insert(name, (self.now, heard));
                }
                term.asked += 1;
                term.machine.handle(MachineEvent::Order { by, order, reply: Waiting::Operator });
            }
            Mail::Forged(forgery) => {
                if let Some(mail) = self.checked(*forgery) {
                    self.feed(node, term, mail);
                }
            }
            Mail::Input(input) => term.machine.handle(MachineEvent::Input(input)),
            Mail::Registrations => self.hear_registrations(node, term),
            Mail::Listed { epoch, roster } if term.epoch == epoch && !term.listed => {
                term.listed = true;
                for (key, exclusive) in &*roster {
                    term.entered.insert(key.clone());
                    let input = Input::Registered { key: key.clone(), exclusive: *exclusive, live: false };
                    term.machine.handle(MachineEvent::Input(input));
                }
                term.machine.handle(MachineEvent::Input(Input::RosterRead));
                self.hear_registrations(node, term);
            }
            Mail::Entered { epoch, entries } if term.epoch == epoch => {
                for (Registration { key, exclusive, .. }, live) in entries {
                    let input = Input::Registered { key, exclusive, live };
                    term.machine.handle(MachineEvent::Input(input));
                }
            }
            Mail::Listed { .. } | Mail::Entered { .. } => {}
            Mail::EffectDone { epoch, id, result } => {
                if term.epoch != epoch {
                    return;
                }
                let jitter = Jitter::from_permille(u16::try_from(self.rng.between(0, 1001)).unwrap_or(1000));
                let outcome = result.map_err(|()| "no answer".into());
                term.machine.handle(MachineEvent::CommandDone { id, outcome, jitter });
            }
            Mail::Wake => {
                if term.waking.is_some_and(|at| at <= self.now) {
                    term.waking = None;
                }
            }
            Mail::Leads { .. } | Mail::Saved { .. } => {}
        }
    }

    fn confirmed(&mut self, key: &InstanceKey, report: &SecretReport) {
        if let Some((version, _)) = report.reached.filter(|(_, stage)| *stage >= Stage::Switched) {
            self.truth.confirmed.insert((version, key.service.to_string()), self.now);
        }
    }

    /// What it has not heard yet of the registrations, in their order. It writes newcomers into the roster, and takes out those
    /// that have left, before it takes any other step for them.
    fn hear_registrations(&mut self, node: usize, term: &mut Term) {
        if !term.listed {
            return;
        }
        let from = std::mem::replace(&mut term.registrations_heard, self.outside.registrations.len());
        let mut entries = Vec::new();
        for position in from.min(self.outside.registrations.len())..self.outside.registrations.len() {
            let registration = self.outside.registrations[position].clone();
            let live = position >= term.registrations_before;
            if registration.left {
                term.machine.handle(MachineEvent::Input(Input::Left { key: registration.key.clone() }));
                if !term.entered.remove(&registration.key) {
                    continue;
                }
            } else if !term.entered.insert(registration.key.clone()) {
                continue;
            }
            entries.push((registration, live));
        }
        if !entries.is_empty() {
            let (epoch, at) = (term.epoch, self.now + self.delay());
            if self.is_broken(Around::EntersFirst) {
                let entries = entries.clone();
                self.at(self.now, Event::ToLeader(node, Box::new(Mail::Entered { epoch, entries })));
            }
            self.at(at, Event::RosterWritten { node, epoch, entries });
        }
    }

    /// Whether a term still asks: it ends with its process.
    fn is_in_term(&self, node: usize, epoch: Epoch) -> bool {
        self.leaders[node].term.as_ref().is_some_and(|term| term.epoch == epoch)
    }

    /// The store lists the roster.
    pub(crate) fn roster_listed(&mut self, node: usize, epoch: Epoch) {
        if !self.is_in_term(node, epoch) {
            return;
        }
        let broken = self.is_broken(Around::ListsRoster);
        let away = self.leaders[node].no_store > self.now || self.outside.roster_late > self.now || self.lost();
        if away && !broken {
            self.at(self.now + RETRY, Event::RosterListed { node, epoch });
            return;
        }
        let roster = if broken { Rc::default() } else { Rc::clone(&self.outside.roster) };
        let at = self.now + self.delay();
        self.at(at, Event::ToLeader(node, Box::new(Mail::Listed { epoch, roster })));
    }

    /// Entries arrive at the store. Only the leader may write them.
    pub(crate) fn roster_written(&mut self, node: usize, epoch: Epoch, entries: Vec<(Registration, bool)>) {
        if !self.is_in_term(node, epoch) {
            return;
        }
        // What the rules have not taken in yet may still get a lease.
        let gone = |key: &InstanceKey| {
            let term = self.leaders[node].term.as_ref();
            term.and_then(|term| term.coordinator().member_of(key)).is_some_and(|member| member.left)
        };
        let early = entries.iter().any(|(entry, _)| entry.left && !gone(&entry.key));
        if early || self.leaders[node].no_store > self.now || self.outside.read_only > self.now || self.lost() {
            self.at(self.now + RETRY, Event::RosterWritten { node, epoch, entries });
            return;
        }
        if !self.outside.leads(node, epoch, self.now) && !self.is_broken(Around::EntryComparesKey) {
            return;
        }
        let roster = Rc::make_mut(&mut self.outside.roster);
        for (registration, _) in &entries {
            match registration.left {
                true => roster.remove(&registration.key),
                false => roster.insert(registration.key.clone(), registration.exclusive),
            };
        }
        let entered = entries.into_iter().filter(|(registration, _)| !registration.left).collect();
        let at = self.now + self.delay();
        self.at(at, Event::ToLeader(node, Box::new(Mail::Entered { epoch, entries: entered })));
    }
}

/// Shows the judge what a machine decides and applies.
pub(crate) struct Watcher<'a> {
    world: &'a mut World,
    node: usize,
    epoch: Epoch,
}

impl Observer for Watcher<'_> {
    fn decided(&mut self, coordinator: &Coordinator, changes: &[Change]) {
        self.world.check_decided(self.epoch, coordinator, changes);
    }

    fn after(&mut self, _coordinator: &Coordinator, change: &Change, _now: Now) {
        if let Change::ReportFolded { key, report, .. } = change {
            self.world.confirmed(key, report);
        }
        let node = self.node;
        if let Change::Record(change) = change {
            self.world.tell(|| format!("broadcaster {node}: {change:?}"));
        }
    }
}
