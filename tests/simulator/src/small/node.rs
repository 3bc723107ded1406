//! What broadcasters and instances do at once when something has reached them.

use std::collections::BTreeSet;
use std::rc::Rc;

use rotacast_holder::{Command as Owed, Input as Takes, InstanceCommand, InstanceInput};
use rotacast_protocol::coordinator::{Change, CommandKind, Coordinator, Evidence, GuardStanding, Input, Tenure};
use rotacast_protocol::message::SyncReply;
use rotacast_protocol::record::{Cause, RecordChange, RetireStep, SecretRecord, Timing};
use rotacast_protocol::{Epoch, Nonce, Version};

use super::model::{Fixed, LOCK, Model, Node, Wire};
use crate::clock::{MS, ms};
use crate::mutant::{Around, Mutant};

/// How long an instance waits for an answer.
pub(super) const TIMEOUT: u64 = 250 * MS;

impl Model {
    fn change(&mut self, fixed: &Fixed, node: usize, changes: &[Change]) {
        let now = fixed.leaders[node].now(self.now);
        if let Some(it) = &mut self.nodes[node] {
            let coordinator = Rc::make_mut(&mut it.coordinator);
            changes.iter().for_each(|change| coordinator.apply(now, change));
        }
    }

    pub(super) fn input(&mut self, fixed: &mut Fixed, node: usize, input: Input) {
        let now = fixed.leaders[node].now(self.now);
        let Some(it) = &self.nodes[node] else { return };
        if let Ok(changes) = it.coordinator.decide(now, input) {
            self.commit(fixed, node, changes);
        }
    }

    /// Saves what is durable, at once or, when it is stopped right there, later.
    fn commit(&mut self, fixed: &mut Fixed, node: usize, changes: Vec<Change>) {
        let Some(it) = &mut self.nodes[node] else { return };
        if it.coordinator.record_after(&changes).is_none() {
            return self.change(fixed, node, &changes);
        }
        it.saving = Some(Rc::new(changes));
        if self.stops_in_save == Some(node) {
            self.stops_in_save = None;
            self.stopped[node] = true;
            return;
        }
        self.land(fixed, node);
    }

    /// A save arrives at the store: the record's cursor and the leader's key decide.
    pub(super) fn land(&mut self, fixed: &mut Fixed, node: usize) {
        let Some(it) = &mut self.nodes[node] else { return };
        let Some(changes) = it.saving.take() else { return };
        let Some(after) = it.coordinator.record_after(&changes) else { return };
        let leads =
            self.lock.is_some_and(|(holder, epoch, until)| holder == node && epoch == it.epoch && until > self.now)
                || fixed.mutant == Some(Mutant::Around(Around::SaveComparesKey));
        let cursor = self.stored.as_ref().map_or(0, |(_, cursor)| *cursor);
        let same = cursor == it.cursor || fixed.mutant == Some(Mutant::Around(Around::SaveComparesRevision));
        if !leads || !same {
            self.nodes[node] = None;
            return;
        }
        if let Some((before, _)) = &self.stored
            && (after.revision <= before.revision || after.epoch < before.epoch)
        {
            let text = format!(
                "F: {} of {:?} replaces {} of {:?}",
                after.revision, after.epoch, before.revision, before.epoch
            );
            self.violation.get_or_insert(text);
        }
        it.cursor = cursor + 1;
        self.reached(fixed, node, &changes);
        self.stored = Some((Rc::new(after), cursor + 1));
        self.change(fixed, node, &changes);
    }

    /// What the search has seen, so that it is known not to be empty.
    fn reached(&self, fixed: &mut Fixed, node: usize, changes: &[Change]) {
        let Some(it) = &self.nodes[node] else { return };
        let now = fixed.leaders[node].now(self.now);
        for change in changes {
            let Change::Record(RecordChange::RetireBegan { version, .. }) = change else { continue };
            let Some(retirement) = it.coordinator.record().retirements.get(version) else { continue };
            let standings: Vec<GuardStanding> = it
                .coordinator
                .members()
                .map(|member| it.coordinator.guard_standing(member, *version, retirement, now).0)
                .collect();
            let seen = &mut fixed.reached;
            seen.retired += 1;
            seen.after_release += u64::from(standings.contains(&GuardStanding::Released));
            seen.after_expiry += u64::from(standings.contains(&GuardStanding::Fenced));
            seen.after_takeover += u64::from(it.epoch > Epoch(1));
            seen.after_rollback += u64::from(retirement.cause == Cause::RolledBack);
            seen.after_supersede += u64::from(retirement.cause == Cause::Superseded);
            seen.with_joiner += u64::from(standings.len() > 1);
        }
    }

    /// It wins the leader's key, and reads the record.
    pub(super) fn take_over(&mut self, fixed: &mut Fixed, node: usize) {
        self.epoch += 1;
        let epoch = Epoch(self.epoch);
        self.lock = Some((node, epoch, self.now + LOCK));
        let since = fixed.leaders[node].now(self.now);
        let valid_until = since.instant + ms(LOCK / MS * 97 / 100);
        let (record, cursor) = match &self.stored {
            Some((record, cursor)) => ((**record).clone(), *cursor),
            None => (SecretRecord::new(fixed.secret.clone(), epoch, Timing::of(&fixed.policy)), 0),
        };
        let tenure = Tenure { epoch, since, valid_until };
        let mut coordinator = Coordinator::take_over(record, fixed.policy.clone(), tenure);
        if let Some(Mutant::Leader(rule)) = fixed.mutant {
            coordinator.break_rule(rule);
        }
        let coordinator = Rc::new(coordinator);
        self.nodes[node] = Some(Node { coordinator, epoch, cursor, saving: None, roster_read: 0, published: 0 });
        self.settle(fixed, node);
    }

    /// Whoever leads and runs has renewed in time.
    pub(super) fn renew(&mut self, fixed: &Fixed) {
        let Some((node, epoch, until)) = self.lock else { return };
        let leads = self.nodes[node].as_ref().is_some_and(|it| it.epoch == epoch && it.saving.is_none());
        if leads && !self.stopped[node] && until > self.now {
            self.lock = Some((node, epoch, self.now + LOCK));
            let until = fixed.leaders[node].at(self.now) + ms(LOCK / MS * 97 / 100);
            self.change(fixed, node, &[Change::LeadershipExtended { until }]);
        }
    }

    pub(super) fn read_roster(&mut self, fixed: &mut Fixed, node: usize) {
        let Some(it) = &mut self.nodes[node] else { return };
        let from = std::mem::replace(&mut it.roster_read, self.roster.len());
        let news = self.roster[from.min(self.roster.len())..].to_vec();
        for key in news {
            self.input(fixed, node, Input::Registered { key, exclusive: false, live: false });
        }
        self.input(fixed, node, Input::RosterRead);
    }

    /// Everything a broadcaster can do by itself. Provider, audit log and roster answer at once.
    pub(super) fn settle(&mut self, fixed: &mut Fixed, node: usize) {
        for _ in 0..200 {
            let Some(it) = &self.nodes[node] else { return };
            if self.stopped[node] || it.saving.is_some() {
                return;
            }
            let now = fixed.leaders[node].now(self.now);
            let changes = it.coordinator.decide(now, Input::Tick).unwrap_or_default();
            if !changes.is_empty() {
                self.commit(fixed, node, changes);
                continue;
            }
            let last = it.coordinator.record().last_version.map_or(0, Version::get);
            if last < self.versions
                && let Ok(version) = Version::new(last + 1)
            {
                self.input(fixed, node, Input::VersionSeen { version });
                continue;
            }
            let owed = it.coordinator.commands(now);
            let revision = it.coordinator.record().revision;
            let Some(command) = owed.into_iter().next() else { return };
            match command.kind {
                CommandKind::Publish => {
                    self.publish(node);
                    self.input(fixed, node, Input::Published { revision });
                }
                CommandKind::Create { .. } => return,
                CommandKind::Test { version } => self.input(fixed, node, Input::Verified { version }),
                CommandKind::PassBarrier { version } => {
                    self.read_roster(fixed, node);
                    self.input(fixed, node, Input::BarrierPassed { version, revision });
                }
                CommandKind::ReadUsage { version } => {
                    let evidence = Evidence::None;
                    self.input(fixed, node, Input::UsageRead { version, sent: now.instant, evidence });
                }
                CommandKind::Audit { version } => {
                    self.audit.insert(version);
                    self.input(fixed, node, Input::Audited { version, revision });
                }
                CommandKind::Retire { version, step } => {
                    if step == RetireStep::Disable && self.disabled.insert(version) {
                        self.judge(fixed, version);
                    }
                    self.input(fixed, node, Input::StepDone { version, step });
                }
            }
        }
        self.violated(format!("L: broadcaster {node} never settles"));
    }

    fn publish(&mut self, node: usize) {
        let Some(it) = &self.nodes[node] else { return };
        let state = Rc::new(it.coordinator.record().state());
        for index in 0..self.lives.len() {
            if self.lives[index].cut || self.lives[index].storebound {
                continue;
            }
            self.wire.push(Wire::State(index, state.clone()));
        }
    }

    /// The provider ends a credential.
    fn judge(&mut self, fixed: &Fixed, version: Version) {
        if !self.audit.contains(&version) {
            self.violated(format!("A: version {version} is disabled without an audit entry"));
        }
        if self.stored.as_ref().is_some_and(|(record, _)| record.current == Some(version)) {
            self.violated(format!("S1: version {version} is disabled and current"));
        }
        if let Some(index) = self.user(fixed, version) {
            self.violated(format!("S1: version {version} is disabled while instance {index} may use it"));
        }
    }

    pub(super) fn takes(&mut self, fixed: &Fixed, index: usize, input: InstanceInput) -> bool {
        let now = fixed.instances.at(self.now);
        Rc::make_mut(&mut self.lives[index].rules).handle(now, input).is_ok()
    }

    /// Everything an instance can do by itself. Its service and the values answer at once.
    pub(super) fn goes_on(&mut self, fixed: &Fixed, index: usize) {
        let now = fixed.instances.at(self.now);
        let secret = fixed.secret.clone();
        let one = |input| InstanceInput::Secret(secret.clone(), input);
        self.lives[index].guards.retain(|(_, end)| *end > now);
        let held: BTreeSet<Version> = self.lives[index].guards.iter().map(|(version, _)| *version).collect();
        self.takes(fixed, index, one(Takes::Held(held)));
        for _ in 0..20 {
            let cut = self.lives[index].cut;
            let mut told = false;
            for command in self.lives[index].rules.commands(now) {
                match command {
                    InstanceCommand::Register(registration) if !cut => {
                        if !self.roster.contains(&registration.key) {
                            self.roster.push(registration.key.clone());
                        }
                        self.lives[index].registered = true;
                        told |= self.takes(fixed, index, InstanceInput::Registered([secret.clone()].into()));
                    }
                    InstanceCommand::Report => {
                        let sequence = self.lives[index].rules.report().sequence;
                        told |= self.takes(fixed, index, InstanceInput::Reported(sequence));
                    }
                    InstanceCommand::Sync if self.lives[index].syncing.is_none() => {
                        self.nonce += 1;
                        let nonce = Nonce(self.nonce);
                        self.takes(fixed, index, InstanceInput::SyncSent { nonce, at: now });
                        self.lives[index].syncing = Some((nonce, self.now + TIMEOUT));
                        let request = Rc::new(self.lives[index].rules.sync_request(nonce));
                        if !cut && !self.lives[index].storebound {
                            self.wire.push(Wire::Sync(index, request));
                        }
                        told = true;
                    }
                    InstanceCommand::Secret(_, Owed::ReadStore) if !cut => {
                        let under_way = |wire: &Wire| matches!(wire, Wire::Read(to, ..) if *to == index);
                        if let Some((record, _)) = &self.stored
                            && !self.wire.iter().chain(&self.held).any(under_way)
                        {
                            self.wire.push(Wire::Read(index, now, Rc::new(record.state())));
                        }
                    }
                    InstanceCommand::Secret(_, Owed::Load(version)) if !cut => {
                        told |= self.takes(fixed, index, one(Takes::Loaded { version }));
                    }
                    InstanceCommand::Secret(_, Owed::Run(step, version)) => {
                        let began = self.takes(fixed, index, one(Takes::Begin { step, version }));
                        if began {
                            self.takes(fixed, index, one(Takes::Finished { step, version, result: Ok(()) }));
                        }
                        told |= began;
                    }
                    _ => {}
                }
            }
            if !told {
                return;
            }
        }
    }

    /// A Sync reaches a broadcaster, and is answered.
    pub(super) fn sync(
        &mut self,
        fixed: &mut Fixed,
        node: usize,
        index: usize,
        request: &rotacast_protocol::message::SyncRequest,
    ) {
        let Some(report) = request.report.secrets.get(&fixed.secret).cloned() else { return };
        let key = request.report.key.clone();
        let now = fixed.leaders[node].now(self.now);
        let Some(it) = &self.nodes[node] else { return };
        if self.stopped[node] || it.saving.is_some() {
            return;
        }
        let sequence = request.report.sequence;
        let Ok(changes) = it.coordinator.decide(now, Input::Sync { key: key.clone(), sequence, report }) else {
            return;
        };
        self.change(fixed, node, &changes);
        let Some(it) = &self.nodes[node] else { return };
        let unregistered = !it.coordinator.members().any(|member| member.key == key && member.registered);
        let grant = it.coordinator.grant(&key);
        let reply = SyncReply {
            key,
            nonce: request.nonce,
            epoch: it.epoch,
            covered: sequence,
            unregistered,
            secrets: grant.into_iter().map(|grant| (fixed.secret.clone(), grant)).collect(),
        };
        self.wire.push(Wire::Reply(index, Rc::new(reply)));
        self.settle(fixed, node);
    }
}
