//! The steps that broadcasters and instances take at once when a message has reached them.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use rotacast_holder::{Command as Owed, Input as Takes, InstanceCommand, InstanceInput};
use rotacast_protocol::coordinator::{
    Change, Command, CommandKind, Coordinator, Evidence, GuardStanding, Input, Tenure,
};
use rotacast_protocol::machine::{Action, Answer, Event, Jitter, Machine};
use rotacast_protocol::message::{SyncReply, SyncRequest};
use rotacast_protocol::record::{Cause, RecordChange, RetireStep, SecretRecord, Timing};
use rotacast_protocol::{Challenge, Epoch, Nonce, Version};

use super::model::{Asker, Fixed, LOCK, Model, Node, Wire};
use crate::clock::{MS, ms};
use crate::leader::Said;
use crate::mutant::{Around, Mutant};

/// How long an instance waits for an answer.
pub(super) const TIMEOUT: u64 = 250 * MS;

impl Model {
    pub(super) fn handle(&mut self, node: usize, event: Event<Asker>) {
        if let Some(it) = &mut self.nodes[node] {
            Rc::make_mut(&mut it.machine).handle(event);
        }
    }

    /// A save arrives at the store: the record's cursor and the leader's key decide.
    pub(super) fn land(&mut self, fixed: &mut Fixed, node: usize) {
        let Some(it) = &mut self.nodes[node] else { return };
        let Some((id, after)) = it.saving.take() else { return };
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
        if let Some((before, _)) = &self.stored {
            if self.left.restores > 0 {
                self.earlier.push((before.clone(), self.roster.clone()));
            }
            let began = after.retirements.iter().filter(|(version, it)| {
                it.step.is_some() && before.retirements.get(version).is_some_and(|it| it.step.is_none())
            });
            if self.restored && after.lost_history.is_some() {
                self.decided.extend(began.map(|(version, _)| *version));
            }
        }
        self.unnoticed &= after.safe_mode.is_none();
        self.stored = Some((after, cursor + 1));
        let now = fixed.leaders[node].now(self.now);
        Rc::make_mut(&mut it.machine).saved(now, id, &mut ());
    }

    /// What the search has met, so that it is known not to be empty.
    fn reached(&self, fixed: &mut Fixed, node: usize, changes: &[Change]) {
        let Some(it) = &self.nodes[node] else { return };
        let (now, coordinator) = (fixed.leaders[node].now(self.now), it.machine.coordinator());
        for change in changes {
            let Change::Record(RecordChange::RetireBegan { version, .. }) = change else { continue };
            let Some(retirement) = coordinator.record().retirements.get(version) else { continue };
            let standings: Vec<GuardStanding> = coordinator
                .members()
                .map(|member| coordinator.guard_standing(member, *version, retirement, now).0)
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
        let coordinator = Coordinator::take_over(record, fixed.policy.clone(), tenure);
        let machine = Rc::new(Machine::new(coordinator));
        self.nodes[node] = Some(Node {
            machine,
            leads_until: valid_until,
            epoch,
            cursor,
            saving: None,
            challenged: BTreeMap::new(),
            registrations_heard: 0,
        });
        for input in self.listed(fixed) {
            self.handle(node, Event::Input(input));
        }
        if self.unnoticed {
            self.handle(node, Event::Input(Input::StoreWentBack { reason: "another store".into() }));
        }
        self.settle(fixed, node);
    }

    /// A broadcaster that leads and runs has renewed in time.
    pub(super) fn renew(&mut self, fixed: &Fixed) {
        let Some((node, epoch, until)) = self.lock else { return };
        let leads = self.nodes[node].as_ref().is_some_and(|it| it.epoch == epoch && it.saving.is_none());
        if leads && !self.stopped[node] && until > self.now {
            self.lock = Some((node, epoch, self.now + LOCK));
            let until = fixed.leaders[node].at(self.now) + ms(LOCK / MS * 97 / 100);
            if let Some(it) = &mut self.nodes[node] {
                it.leads_until = it.leads_until.max(until);
            }
        }
    }

    /// The roster as earlier leaders left it, read before anything else of a term.
    fn listed(&self, fixed: &Fixed) -> Vec<Input> {
        let broken = fixed.mutant == Some(Mutant::Around(Around::ListsRoster));
        let keys = self.roster.iter().filter(|_| !broken).cloned();
        let entries = keys.map(|key| Input::Registered { key, exclusive: false, live: false });
        entries.chain([Input::RosterRead]).collect()
    }

    /// A broadcaster hears of registrations, and enters newcomers.
    pub(super) fn hear_registrations(&mut self, fixed: &Fixed, node: usize) {
        let Some(it) = &mut self.nodes[node] else { return };
        let leads =
            self.lock.is_some_and(|(holder, epoch, until)| holder == node && epoch == it.epoch && until > self.now);
        let from = std::mem::replace(&mut it.registrations_heard, self.registrations.len());
        let mut inputs = Vec::new();
        for key in &self.registrations[from.min(self.registrations.len())..] {
            let early = fixed.mutant == Some(Mutant::Around(Around::EntersFirst));
            let entered = leads || fixed.mutant == Some(Mutant::Around(Around::EntryComparesKey));
            if (entered && self.roster.insert(key.clone())) || early {
                inputs.push(Input::Registered { key: key.clone(), exclusive: false, live: true });
            }
        }
        for input in inputs {
            self.handle(node, Event::Input(input));
        }
    }

    /// Everything a broadcaster can do by itself. Provider and audit log answer at once.
    pub(super) fn settle(&mut self, fixed: &mut Fixed, node: usize) {
        for _ in 0..400 {
            let Some(it) = &mut self.nodes[node] else { return };
            if self.stopped[node] || it.saving.is_some() {
                return;
            }
            let (now, leads_until) = (fixed.leaders[node].now(self.now), it.leads_until);
            let machine = Rc::make_mut(&mut it.machine);
            let Some(action) = machine.poll(now, leads_until, &mut ()) else {
                let last = machine.coordinator().record().last_version.map_or(0, Version::get);
                let Ok(version) = Version::new(last + 1) else { return };
                if last >= self.versions || self.lost.contains(&version) || machine.awaits_leadership() {
                    return;
                }
                machine.handle(Event::Input(Input::VersionSeen { version }));
                continue;
            };
            match action {
                Action::Save { id, record, changes, .. } => {
                    it.saving = Some((id, Rc::new(*record)));
                    if self.stops_in_save == Some(node) {
                        self.stops_in_save = None;
                        self.stopped[node] = true;
                        return;
                    }
                    self.reached(fixed, node, &changes);
                    self.land(fixed, node);
                }
                Action::Run { id, command } => {
                    if let Some(inputs) = self.carry_out(fixed, node, &command) {
                        self.handle(node, Event::CommandDone { id, outcome: Ok(inputs), jitter: Jitter::NONE });
                    }
                }
                Action::Reply { to, answer: Answer::Granted(grant) } => {
                    self.reply(node, &to, Said::Granted(Box::new(grant)))
                }
                Action::Reply { .. } => {}
                Action::Changed { .. } | Action::NoteLost { .. } | Action::AwaitVersion { .. } | Action::Refused(_) => {
                }
            }
        }
        self.violated(format!("L: broadcaster {node} never settles"));
    }

    fn carry_out(&mut self, fixed: &Fixed, node: usize, command: &Command) -> Option<Vec<Input>> {
        let now = fixed.leaders[node].now(self.now);
        let revision = command.revision;
        Some(match command.kind {
            CommandKind::Publish => {
                self.publish(node);
                vec![Input::Published { revision }]
            }
            CommandKind::Create { .. } => return None,
            CommandKind::Test { version } if self.disabled.contains(&version) => {
                vec![Input::VerifyFailed { version, reason: "it has ended".into() }]
            }
            CommandKind::Test { version } => vec![Input::Verified { version }],
            CommandKind::ReadUsage { version } => {
                vec![Input::UsageRead { version, sent: now.instant, evidence: Evidence::None }]
            }
            CommandKind::Audit { version } => {
                self.audit.insert(version);
                vec![Input::Audited { version, revision }]
            }
            CommandKind::Retire { version, step } => {
                if step == RetireStep::Disable && self.disabled.insert(version) {
                    self.judge(fixed, version);
                }
                vec![Input::StepDone { version, step }]
            }
        })
    }

    fn publish(&mut self, node: usize) {
        let Some(it) = &self.nodes[node] else { return };
        let state = Rc::new(it.machine.coordinator().record().state());
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
        let current = self.stored.as_ref().is_some_and(|(record, _)| record.current == Some(version));
        if current && (!self.restored || self.decided.contains(&version)) {
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

    /// Every step that an instance takes by itself. Its service and the values answer at once.
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
                        if !self.registrations.contains(&registration.key) {
                            self.registrations.push(registration.key.clone());
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
                    InstanceCommand::Secret(_, Owed::Load(version)) if !cut && !self.lost.contains(&version) => {
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
                break;
            }
        }
        let serving = self.lives[index].rules.holder(&secret).and_then(|holder| holder.serving());
        let life = &mut self.lives[index];
        life.kept = life.kept.filter(|kept| serving == Some(*kept));
        let before = life.served;
        life.served = serving.or(before);
        if let (Some(from), Some(to)) = (before, serving)
            && self.restored
            && from != to
            && self.disabled.contains(&to)
            && !self.disabled.contains(&from)
        {
            self.violated(format!(
                "A: instance {index} goes from version {from}, which works, to {to}, which has ended"
            ));
        }
    }

    /// A Sync reaches a broadcaster.
    pub(super) fn sync(&mut self, fixed: &mut Fixed, node: usize, index: usize, request: Rc<SyncRequest>) {
        let Some(report) = request.report.secrets.get(&fixed.secret).cloned() else { return };
        let Some(it) = &self.nodes[node] else { return };
        if self.stopped[node] || it.saving.is_some() {
            return;
        }
        let (key, sequence) = (request.report.key.clone(), request.report.sequence);
        let Some(it) = &mut self.nodes[node] else { return };
        // No two terms draw the same, and no two Syncs of one. A counter would tell states apart that are the same.
        let drawn = Challenge::new(request.nonce.0 << 16 | it.epoch.0).expect("not zero");
        let member = it.machine.coordinator().member_of(&key).filter(|member| member.registered && !member.left);
        if member.is_none() {
            return self.reply(node, &(index, request, drawn), Said::Unregistered);
        }
        let answered = it.challenged.entry(key.clone()).or_default().answer(request.echo, drawn);
        if !answered.is_proven {
            return self.reply(node, &(index, request, answered.next), Said::Unproven);
        }
        self.handle(node, Event::Sync { key, sequence, report, reply: (index, request, answered.next) });
        self.settle(fixed, node);
    }

    fn reply(&mut self, node: usize, (index, request, next): &Asker, said: Said) {
        let Some(it) = &self.nodes[node] else { return };
        let secret = it.machine.coordinator().record().secret.clone();
        let reply = SyncReply {
            key: request.report.key.clone(),
            nonce: request.nonce,
            epoch: it.epoch,
            covered: request.report.sequence,
            unregistered: said == Said::Unregistered,
            unproven: said == Said::Unproven,
            challenge: Some(*next).filter(|_| said != Said::Unregistered),
            secrets: match said {
                Said::Granted(grant) => [(secret, *grant)].into(),
                Said::Unproven | Said::Unregistered => BTreeMap::new(),
            },
        };
        if !reply.secrets.is_empty() {
            let again = |nonce: &Nonce| {
                let is = |wire: &Wire| matches!(wire, Wire::Sync(_, request) if request.nonce == *nonce);
                self.wire.iter().chain(&self.held).any(is)
            };
            let twice = self.granted.contains(&request.nonce);
            let granted = self.granted.iter().copied().chain([request.nonce]).filter(again).collect();
            self.granted = granted;
            if twice {
                self.violated(format!("I: a Sync of instance {index} has an effect twice"));
            }
        }
        self.wire.push(Wire::Reply(*index, Rc::new(reply)));
    }
}
