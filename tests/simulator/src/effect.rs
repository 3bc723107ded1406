//! What a broadcaster's commands do outside the broadcaster.

use rotacast_protocol::coordinator::{Command, CommandKind, Evidence, Input};
use rotacast_protocol::machine::CommandId;
use rotacast_protocol::message::SecretState;
use rotacast_protocol::record::{Origin, ProviderId, RetireStep};
use rotacast_protocol::{Epoch, Instant, Revision, Version};

use crate::clock::MS;
use crate::event::{Event, Mail};
use crate::fault::When;
use crate::instance::ToInstance;
use crate::leader::Term;
use crate::mutant::Around;
use crate::outside::Intent;
use crate::world::World;

impl World {
    pub(crate) fn start_command(&mut self, node: usize, term: &Term, id: CommandId, command: Command) {
        let (epoch, record) = (term.epoch, term.coordinator().record());
        if matches!(command.kind, CommandKind::Retire { .. }) && record.paused.is_some() {
            self.violated("pause", format!("{:?} is done in it", command.kind));
        }
        let unwanted_since =
            command.kind.version().and_then(|version| Some(record.retirements.get(&version)?.unwanted_since));
        let word = |version: Version| record.retirements.get(&version)?.given_up.as_ref();
        let given_up = command.kind.version().and_then(word).is_some();
        let (state, sent) = (Box::new(record.state()), self.leader_now(node).instant);
        let audits = matches!(command.kind, CommandKind::Audit { .. });
        let effect = Event::EffectArrives { node, epoch, id, command, state, unwanted_since, given_up, sent };
        // The audit log is on the broadcaster's own disk: no message is lost, and the broadcaster waits for the disk.
        if audits && self.outside.audit_slow > self.now {
            self.at(self.now + MS, effect);
            return;
        }
        if !self.lost() {
            let at = self.now + self.delay();
            self.at(at, effect);
        }
        // A broadcaster stops waiting for a provider after a while. The provider may carry the request out all the
        // same.
        let timeout = self.now + self.rng.between(1500, 3000) * MS;
        let done = Mail::EffectDone { epoch, id, result: Err(()) };
        self.at(timeout, Event::ToLeader(node, Box::new(done)));
    }

    pub(crate) fn schedule_leader(&mut self, node: usize) {
        let now = self.leader_now(node);
        let Some(term) = self.leaders[node].term.as_ref() else { return };
        let clock = &self.leaders[node].clock;
        let Some(at) = term.machine.next_wakeup(now).map(|at| clock.when(at)) else { return };
        let at = at.max(self.now + 1);
        if term.waking.is_none_or(|waking| at < waking || waking <= self.now) {
            if let Some(term) = self.leaders[node].term.as_mut() {
                term.waking = Some(at);
            }
            self.at(at, Event::ToLeader(node, Box::new(Mail::Wake)));
        }
    }

    /// Carries a command out.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn effect_arrives(
        &mut self,
        node: usize,
        epoch: Epoch,
        id: CommandId,
        command: Command,
        state: &SecretState,
        unwanted_since: Option<Revision>,
        given_up: bool,
        sent: Instant,
    ) {
        let mut later = 0;
        let inputs = match command.kind {
            CommandKind::Publish => {
                self.publish(state);
                Ok(vec![Input::Published { revision: command.revision }])
            }
            CommandKind::Create { version } => self.create(node, epoch, version),
            CommandKind::Test { version } if self.refuses_for_now(version) => {
                Ok(vec![Input::VerifyFailed { version, reason: "the server recovers".into() }])
            }
            CommandKind::Test { version } if self.outside.bad.contains(&version) => {
                Ok(vec![Input::VerifyFailed { version, reason: "refused".into() }])
            }
            CommandKind::Test { version }
                if self.policy.provider.as_ref().is_some_and(ProviderId::has_logins)
                    && (self.outside.deleted.contains(&version) || self.outside.disabled.contains_key(&version)) =>
            {
                Ok(vec![Input::VerifyFailed { version, reason: "no such role".into() }])
            }
            CommandKind::Test { version } => Ok(vec![Input::Verified { version }]),
            CommandKind::ReadUsage { version } => Ok(vec![self.usage(version, sent)]),
            CommandKind::Audit { version } => {
                self.cue(When::Auditing);
                if self.outside.audit_slow > self.now {
                    later = self.outside.audit_slow - self.now;
                }
                if self.outside.audit_full > self.now {
                    Err(())
                } else {
                    if self.is_broken(Around::DurableFirst) {
                        self.disable(version);
                    }
                    if !self.is_broken(Around::AuditIsWritten) {
                        self.outside.audit.push(Intent { version, unwanted_since });
                    }
                    Ok(vec![Input::Audited { version, revision: command.revision }])
                }
            }
            // The credential is left alone.
            CommandKind::Retire { version, step } if given_up && step != RetireStep::Erase => {
                Ok(vec![Input::StepDone { version, step }])
            }
            CommandKind::Retire { step, .. } if self.truth.provider_away > self.now && step != RetireStep::Erase => {
                Err(())
            }
            CommandKind::Retire { version, step } => self.retire(version, step),
        };
        if later > 0 || !self.lost() {
            let at = self.now + self.delay() + later;
            let done = Mail::EffectDone { epoch, id, result: inputs };
            self.at(at, Event::ToLeader(node, Box::new(done)));
        }
    }

    fn publish(&mut self, state: &SecretState) {
        self.outside.states.push(state.clone());
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
    }

    /// Whether the provider carries out half of the request this time.
    fn by_half(&mut self) -> bool {
        self.truth.provider_half > self.now && self.rng.permille(600)
    }

    /// Writes the value into the journal, makes the credential at the provider, and writes the version into the store.
    /// It may stop after each step.
    fn create(&mut self, node: usize, epoch: Epoch, version: Version) -> Result<Vec<Input>, ()> {
        if self.outside.written.contains(&version) && !self.outside.journal.contains_key(&version) {
            return Ok(vec![Input::Created { version, origin: Origin::Watched }]);
        }
        let drawn = self.number();
        let value = match self.is_broken(Around::JournalFirst) {
            true => drawn,
            false => match self.outside.journal.get(&version) {
                Some(journalled) => *journalled,
                // The write compares the leader's key.
                None if !self.outside.leads(node, epoch, self.now) => return Err(()),
                None => *self.outside.journal.entry(version).or_insert(drawn),
            },
        };
        if self.by_half() {
            return Err(());
        }
        let made = self.outside.made.entry(version).or_default();
        made.insert(value);
        if made.len() > 1 {
            self.violated("I", format!("two credentials are made for version {version}"));
        }
        if self.by_half() {
            return Err(());
        }
        self.outside.written.insert(version);
        self.outside.last_version = self.outside.last_version.max(version.get());
        Ok(vec![Input::Created { version, origin: Origin::Managed }])
    }

    fn usage(&mut self, version: Version, sent: Instant) -> Input {
        let evidence = if self.truth.provider_away > self.now {
            Evidence::Unavailable("its provider is not in the configuration".into())
        } else if self.sessions_known {
            let users = self.instances.iter().filter(|running| {
                let now = running.clock.at(self.now);
                running.alive && running.guards.iter().any(|guard| guard.version == version && guard.end > now)
            });
            let open =
                |(it, from, until): &&(Version, u64, u64)| *it == version && *from <= self.now && *until > self.now;
            let leaked = self.truth.leaked.iter().filter(open);
            let users = users.map(|running| running.index.to_string());
            Evidence::Sessions(users.chain(leaked.map(|_| "a session".to_owned())).collect())
        } else {
            Evidence::None
        };
        Input::UsageRead { version, sent, evidence }
    }

    fn retire(&mut self, version: Version, step: RetireStep) -> Result<Vec<Input>, ()> {
        match step {
            RetireStep::Disable => {
                self.cue(When::Disabling);
                if self.by_half() {
                    // The provider refuses new logins of one kind, say, and then stops.
                    self.outside.half_disabled.insert(version);
                    return match self.is_broken(Around::DisableIsTried) {
                        true => Ok(vec![Input::StepDone { version, step }]),
                        false => Err(()),
                    };
                }
                self.disable(version);
            }
            RetireStep::Destroy => {
                if self.by_half() {
                    return Err(());
                }
                if !self.outside.disabled.contains_key(&version) {
                    self.violated("S1", format!("version {version} is destroyed before it was disabled"));
                }
                self.outside.destroyed.insert(version);
            }
            RetireStep::Erase => {
                self.outside.erased.insert(version);
            }
        }
        Ok(vec![Input::StepDone { version, step }])
    }

    /// Versions that the store has and the leader has not seen, in order.
    pub(crate) fn versions_since(&self, node: usize) -> Vec<Input> {
        let last = self.leaders[node].term.as_ref().and_then(|term| term.coordinator().record().last_version);
        self.outside
            .written
            .iter()
            .filter(|version| Some(**version) > last)
            .map(|version| Input::VersionSeen { version: *version })
            .collect()
    }
}
