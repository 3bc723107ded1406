//! One broadcaster: the real coordinator, and a driver around it that does what the real one does.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use rotacast_protocol::coordinator::{Change, CommandKind, Coordinator, Input, Tenure};
use rotacast_protocol::message::{InstanceReport, SecretReport, Stage, SyncRequest};
use rotacast_protocol::record::{SecretRecord, Timing};
use rotacast_protocol::{Epoch, InstanceKey, Instant, Now};

use crate::clock::{Clock, MS, ms};
use crate::event::{Event, Mail};
use crate::mutant::{Around, Mutant};
use crate::outside::{Lock, Stored};
use crate::setup::LOCK_TIME;
use crate::world::World;

/// A save under way.
#[derive(Clone, Debug)]
pub(crate) struct Saving {
    pub(crate) id: u64,
    pub(crate) changes: Vec<Change>,
    pub(crate) bytes: Rc<Vec<u8>>,
    pub(crate) record: Rc<SecretRecord>,
    pub(crate) answer: Option<Answer>,
}

/// A Sync that waits for its grant.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) from: (usize, u64),
    pub(crate) request: SyncRequest,
}

/// A term.
#[derive(Clone, Debug)]
pub struct Term {
    /// Its number.
    pub epoch: Epoch,
    /// The rules.
    pub coordinator: Coordinator,
    pub(crate) cursor: u64,
    pub(crate) mailbox: VecDeque<Mail>,
    pub(crate) saving: Option<Saving>,
    pub(crate) in_flight: BTreeMap<CommandKind, u64>,
    pub(crate) retry: BTreeMap<CommandKind, u64>,
    pub(crate) in_batch: bool,
    pub(crate) waking: Option<u64>,
    pub(crate) roster_read: usize,
    pub(crate) roster_listed: usize,
}

/// One broadcaster.
#[derive(Clone, Debug)]
pub struct Broadcaster {
    /// Its clock.
    pub clock: Clock,
    /// The process life, counted.
    pub life: u64,
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
        Self { clock, life: 0, stopped: 0, no_store: 0, term: None }
    }
}

impl Term {
    /// The bus lost the end of the roster, and this follower of it noticed.
    pub(crate) fn roster_went_back(&mut self, to: usize) {
        self.roster_read = self.roster_read.min(to);
        self.roster_listed = self.roster_listed.min(to);
    }
}

impl World {
    pub(crate) fn leader_now(&self, node: usize) -> Now {
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
        if leader.stopped > self.now {
            return;
        }
        let sent = leader.clock.at(self.now);
        // Whoever knows that its time is over follows again.
        let believes = self.mutant == Some(Mutant::Leader(rotacast_protocol::rules::Rule::Leads));
        if !believes && leader.term.as_ref().is_some_and(|term| term.coordinator.tenure().valid_until <= sent) {
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
        // Counted from its own send time, with room for a clock that runs slow.
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
        let mut coordinator = Coordinator::take_over(record, self.policy.clone(), Tenure { epoch, since, valid_until });
        if let Some(Mutant::Leader(rule)) = self.mutant {
            coordinator.break_rule(rule);
        }
        let roster_listed = self.outside.roster.len();
        let warning = went_back.then(|| Mail::Input(Input::StoreWentBack { reason: "another store".into() }));
        self.leaders[node].term = Some(Term {
            epoch,
            coordinator,
            cursor,
            mailbox: warning.into_iter().collect(),
            saving: None,
            in_flight: BTreeMap::new(),
            retry: BTreeMap::new(),
            in_batch: false,
            waking: None,
            roster_read: 0,
            roster_listed,
        });
        // It reads what there is: the roster, and the versions.
        self.tell_roster();
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
                    let now = self.leader_now(node);
                    if let Some(term) = self.leaders[node].term.as_mut().filter(|term| term.epoch == epoch)
                        && let Ok(changes) =
                            term.coordinator.decide(now, Input::LeadershipExtended { until: valid_until })
                    {
                        changes.iter().for_each(|change| term.coordinator.apply(now, change));
                    }
                } else if self.leaders[node].term.is_none() {
                    self.take_over(node, epoch, valid_until, stored, went_back);
                }
            }
            Mail::Saved { epoch, id, outcome } => self.saved(node, epoch, id, outcome),
            mail => {
                let from = match &mail {
                    // A Sync may be given again for the same report.
                    Mail::Sync { request, .. } => Some((&request.report.key, request.report.sequence, 0)),
                    Mail::Report(report) => Some((&report.key, report.sequence, 1)),
                    _ => None,
                };
                if let Some((key, sequence, above)) = from.filter(|_| self.leading_node() == Some(node)) {
                    let name = format!("{}/{}/{}", key.service, key.instance, key.incarnation);
                    let before = self.truth.heard.get(&name).map_or(0, |(_, newest)| newest.0 + above);
                    if sequence.0 >= before {
                        self.truth.heard.insert(name, (self.now, sequence));
                    }
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

    pub(crate) fn leader_goes_on(&mut self, node: usize) {
        for _ in 0..10_000 {
            let now = self.leader_now(node);
            let Some(term) = self.leaders[node].term.as_mut() else { return };
            if term.saving.is_some() {
                return;
            }
            // Mail that has come together is taken in together, as the real one does.
            if (!std::mem::take(&mut term.in_batch) || term.mailbox.is_empty())
                && let Ok(changes) = term.coordinator.decide(now, Input::Tick)
                && !changes.is_empty()
            {
                self.check_decided(node, &changes);
                self.commit(node, changes, None);
                continue;
            }
            if let Some(mail) = term.mailbox.pop_front() {
                term.in_batch = term.mailbox.len() > 1 || self.network.permille(300);
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
                self.confirmed(&key, &report);
                let input = Input::Sync { key, sequence: request.report.sequence, report };
                let Some(term) = self.leaders[node].term.as_ref() else { return };
                match term.coordinator.decide(now, input) {
                    Ok(changes) => {
                        self.check_decided(node, &changes);
                        self.commit(node, changes, Some(Answer { from, request }));
                    }
                    Err(_) => self.counts.refused += 1,
                }
            }
            Mail::Report(InstanceReport { key, sequence, mut secrets }) => {
                if let Some(report) = secrets.remove(&secret) {
                    self.confirmed(&key, &report);
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

    fn confirmed(&mut self, key: &InstanceKey, report: &SecretReport) {
        if let Some((version, _)) = report.reached.filter(|(_, stage)| *stage >= Stage::Switched) {
            self.truth.confirmed.insert((version, key.service.to_string()), self.now);
        }
    }

    pub(crate) fn queue(&mut self, node: usize, input: Input) {
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
}
