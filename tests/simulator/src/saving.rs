//! How a broadcaster saves what it decides, and how the store takes it.

use std::rc::Rc;

use rotacast_holder::InstanceInput;
use rotacast_protocol::Epoch;
use rotacast_protocol::coordinator::Change;
use rotacast_protocol::message::SyncReply;
use rotacast_protocol::record::SecretRecord;

use crate::clock::MS;
use crate::event::{Event, Mail};
use crate::instance::ToInstance;
use crate::leader::{Answer, Saving};
use crate::mutant::Around;
use crate::outside::Stored;
use crate::world::World;

impl World {
    /// What the store said of a save, or that it said nothing: then it is asked, until it is known.
    pub(crate) fn saved(&mut self, node: usize, epoch: Epoch, id: u64, outcome: Option<bool>) {
        let guesses = self.is_broken(Around::UnknownIsAsked);
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
            None if guesses => {
                // It takes no answer for a no, and forgets what it wanted to save.
                if let Some(term) = self.leaders[node].term.as_mut() {
                    term.cursor = cursor;
                    term.saving = None;
                }
                return;
            }
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
        if reachable && !self.lost() {
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
        let leads = leads || self.is_broken(Around::SaveComparesKey);
        let unchanged = unchanged || self.is_broken(Around::SaveComparesRevision);
        if self.outside.read_only > self.now {
            // An error says nothing of whether it was done: the broadcaster asks.
            return;
        }
        let done = leads && unchanged;
        if done {
            self.check_save(node, epoch, &record);
            let next = self.outside.stored.as_ref().map_or(0, |stored| stored.cursor).max(cursor) + 1;
            let opened = |record: &SecretRecord| record.rotation.as_ref().map(|rotation| rotation.generation);
            let before = self.outside.stored.as_ref().and_then(|stored| opened(&stored.record));
            if opened(&record).is_some_and(|generation| Some(generation) != before) {
                self.counts.rotations += 1;
            }
            self.outside.earlier.extend(self.outside.stored.take());
            self.outside.stored = Some(Stored { bytes, record, cursor: next });
            self.counts.saves += 1;
        }
        if !self.lost() {
            let at = self.now + self.delay();
            self.at(at, Event::ToLeader(node, Box::new(Mail::Saved { epoch, id, outcome: Some(done) })));
        }
    }

    pub(crate) fn commit(&mut self, node: usize, changes: Vec<Change>, answer: Option<Answer>) {
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
        if self.instances[index].deaf > self.now {
            return;
        }
        let late = if self.instances[index].late > self.now { 550 * MS } else { 0 };
        self.send(|world, at| {
            let at = at + late;
            let message = ToInstance::Rules(InstanceInput::SyncReply(reply.clone()));
            world.at(at, Event::ToInstance(index, life, Box::new(message)));
        });
    }
}
