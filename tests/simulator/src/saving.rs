//! How a broadcaster saves what it decides, and how the store takes it.

use std::collections::BTreeMap;
use std::rc::Rc;

use rotacast_holder::InstanceInput;
use rotacast_protocol::machine::SaveId;
use rotacast_protocol::message::SyncReply;
use rotacast_protocol::record::SecretRecord;
use rotacast_protocol::{Challenge, Epoch};

use crate::clock::MS;
use crate::event::{Event, Mail};
use crate::instance::ToInstance;
use crate::leader::{Asker, Said};
use crate::mutant::Around;
use crate::outside::Stored;
use crate::world::World;

impl World {
    /// The store's answer to a save, or that there was none: then the broadcaster reads the record until it knows.
    pub(crate) fn saved(&mut self, node: usize, epoch: Epoch, id: SaveId, outcome: Option<bool>) {
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
            // It takes a missing answer for a success.
            None if guesses => {}
            None if cursor == term.cursor => {
                self.counts.unknown += 1;
                self.send_save(node);
                return;
            }
            _ => {
                // Another broadcaster leads.
                self.counts.deposed += 1;
                self.leaders[node].term = None;
                return;
            }
        }
        let Some(mut term) = self.leaders[node].term.take() else { return };
        let Some(saving) = term.saving.take() else { return };
        term.cursor = cursor;
        let revision = term.machine.coordinator().record().revision;
        let now = self.leader_now(node);
        self.within(node, &mut term, |machine, watcher| machine.saved(now, id, watcher));
        let record = term.machine.coordinator().record();
        if *record != *saving.record {
            let (found, expected) = (record.revision, saving.record.revision);
            self.violated("I", format!("what was saved ({expected}) is not what was applied ({found})"));
        } else if record.revision <= revision {
            self.violated("I", "a saved change did not raise the revision".into());
        }
        self.leaders[node].term = Some(term);
    }

    pub(crate) fn send_save(&mut self, node: usize) {
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
        id: SaveId,
        bytes: Rc<Vec<u8>>,
        record: Rc<SecretRecord>,
        cursor: u64,
    ) {
        let leads = self.outside.leads(node, epoch, self.now);
        let unchanged = self.outside.stored.as_ref().map_or(0, |stored| stored.cursor) == cursor;
        let leads = leads || self.is_broken(Around::SaveComparesKey);
        let unchanged = unchanged || self.is_broken(Around::SaveComparesRevision);
        if self.outside.read_only > self.now {
            // An error does not say whether it was done: the broadcaster asks.
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
            let noticed = |record: &SecretRecord| record.lost_history.map(|lost| lost.noticed);
            if noticed(&record) != self.outside.stored.as_ref().and_then(|stored| noticed(&stored.record)) {
                self.outside.restored = false;
            }
            self.outside.earlier.extend(self.outside.stored.take());
            self.outside.stored = Some(Stored { bytes, record, cursor: next, roster: Rc::clone(&self.outside.roster) });
            self.counts.saves += 1;
        }
        if !self.lost() {
            let at = self.now + self.delay();
            self.at(at, Event::ToLeader(node, Box::new(Mail::Saved { epoch, id, outcome: Some(done) })));
        }
    }

    /// A broadcaster's answer to a Sync, on its way.
    pub(crate) fn answer(&mut self, asker: &Asker, epoch: Epoch, challenge: Option<Challenge>, said: Said) {
        if let Said::Granted(_) = said
            && !self.truth.granted.insert(asker.request.nonce)
        {
            let name = asker.request.report.key.full_name();
            self.violated("I", format!("a Sync of {name} has an effect twice"));
        }
        let reply = SyncReply {
            key: asker.request.report.key.clone(),
            nonce: asker.request.nonce,
            epoch,
            covered: asker.request.report.sequence,
            unregistered: said == Said::Unregistered,
            unproven: said == Said::Unproven,
            challenge,
            secrets: match said {
                Said::Granted(grant) => [(self.secret.clone(), *grant)].into(),
                Said::Unproven | Said::Unregistered => BTreeMap::new(),
            },
        };
        let (index, life) = asker.from;
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
