//! An instance of the same service that lies about another one, and sends again what the other has sent.
//!
//! It has the service's key and a key of its own, so it can say anything about itself. A message names the incarnation that has
//! signed it, as the key of an envelope does; what checks it is `speaks_for`, as `Sender::of` does.

use rotacast_protocol::coordinator::Input;
use rotacast_protocol::message::{InstanceReport, SecretReport, Stage, SyncRequest};
use rotacast_protocol::{Incarnation, InstanceKey, Nonce, ReportSequence};

use crate::clock::MS;
use crate::event::{Event, Mail};
use crate::mutant::Around;
use crate::world::World;

/// Most Syncs that it has recorded, the newest.
const RECORDED: usize = 32;
/// How many of them it sends at a time, in their order.
const SENT_AGAIN: usize = 8;

/// Who signed a message, and whom it is about.
#[derive(Clone, Debug)]
pub struct Forgery {
    signer: Incarnation,
    about: InstanceKey,
    mail: Mail,
}

impl World {
    /// What a broadcaster takes in of a message that another instance may have forged.
    pub(crate) fn checked(&mut self, forgery: Forgery) -> Option<Mail> {
        if self.speaks_for(forgery.signer, &forgery.about) {
            return Some(forgery.mail);
        }
        self.counts.refused += 1;
        None
    }

    /// A message about an incarnation is signed by its own key. The key of its service is not enough.
    fn speaks_for(&self, signer: Incarnation, about: &InstanceKey) -> bool {
        signer == about.incarnation || self.is_broken(Around::OwnKeySigns)
    }

    /// An instance has sent a Sync, and the forger has seen it.
    pub(crate) fn record(&mut self, from: (usize, u64), request: &SyncRequest) {
        if self.recorded.len() >= RECORDED {
            self.recorded.pop_front();
        }
        self.recorded.push_back((from, request.clone()));
    }

    /// It says that an instance has released every version but the current one, asks for leases in its name, says that it has
    /// left, and sends the Syncs again that it has recorded.
    pub(crate) fn forges(&mut self, victim: usize) {
        let about = self.instances[victim].rules.key().clone();
        let Some(record) = self.outside.stored.as_ref().map(|stored| stored.record.clone()) else { return };
        let Some(current) = record.current else { return };
        let member = self.leading_node().and_then(|node| self.leaders[node].term.as_ref());
        let member = member.and_then(|term| term.coordinator().member_of(&about));
        let said = SecretReport {
            generation: record.generation,
            revision: record.revision,
            reached: Some((current, Stage::Released)),
            held: [current].into(),
            lease: member.map(|member| member.granted_sequence).unwrap_or_default(),
            failure: None,
            auth_failures: Default::default(),
        };
        let sequence = ReportSequence(member.map_or(0, |member| member.sequence.0) + 1);
        let report = InstanceReport { key: about.clone(), sequence, secrets: [(self.secret.clone(), said)].into() };
        let request = SyncRequest { nonce: Nonce(self.number()), echo: None, report: report.clone() };
        let from = (victim, self.instances[victim].life);
        let forged =
            [Mail::Sync { from, request }, Mail::Report(report), Mail::Input(Input::Left { key: about.clone() })];
        // No incarnation of the world has this number.
        let signer = Incarnation(u128::MAX);
        let forged = forged.map(|mail| Mail::Forged(Box::new(Forgery { signer, about: about.clone(), mail })));
        let again = self.recorded.iter().rev().take(SENT_AGAIN).rev().cloned().collect::<Vec<_>>();
        let again = again.into_iter().map(|(from, request)| Mail::Sync { from, request });
        for (place, mail) in again.chain(forged).enumerate() {
            let at = self.now + (place as u64 + 1) * MS;
            for node in 0..self.leaders.len() {
                self.at(at, Event::ToLeader(node, Box::new(mail.clone())));
            }
        }
    }
}
