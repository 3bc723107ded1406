//! A restored store in a small world.

use std::collections::BTreeSet;

use rotacast_protocol::coordinator::{Input, Order};
use rotacast_protocol::machine::Event;
use rotacast_protocol::record::{Label, SecretRecord};
use rotacast_protocol::{OperatorName, Version};

use super::model::{Fixed, Model};

impl Model {
    pub(super) fn restore(&mut self, fixed: &Fixed, back: usize) {
        self.left.restores -= 1;
        let cursor = self.stored.as_ref().map_or(0, |(_, cursor)| *cursor) + 1000;
        let (record, roster) = self.earlier[back].clone();
        self.roster = roster;
        let last = record.last_version;
        let mut held = BTreeSet::new();
        for life in &mut self.lives {
            life.kept = life.rules.holder(&fixed.secret).and_then(|holder| holder.serving());
            held.extend(life.rules.holder(&fixed.secret).map(|holder| holder.report().held).unwrap_or_default());
        }
        // The values of the other versions are there, as if written once more.
        self.lost = held.into_iter().filter(|version| Some(*version) > last).collect();
        self.stored = Some((record, cursor));
        self.nodes = [None, None];
        self.stopped = [false; 2];
        self.stops_in_save = None;
        self.lock = None;
        self.earlier.clear();
        (self.restored, self.unnoticed) = (true, true);
    }

    /// Whether the leader has noticed and has heard every instance since.
    pub(super) fn is_looked_at(&self) -> bool {
        let Some((node, ..)) = self.lock else { return false };
        let Some(it) = self.nodes[node].as_ref().filter(|_| !self.stopped[node]) else { return false };
        let coordinator = it.machine.coordinator();
        let Some(lost) = coordinator.record().lost_history else { return false };
        coordinator.record().safe_mode.is_some()
            && self.lives.iter().all(|life| {
                let report = coordinator.member_of(life.rules.key()).and_then(|member| member.report());
                report.is_some_and(|report| report.revision >= lost.noticed)
            })
    }

    fn served(&self, fixed: &Fixed) -> BTreeSet<Version> {
        self.lives.iter().filter_map(|life| life.rules.holder(&fixed.secret)?.serving()).collect()
    }

    fn is_good(&self, version: Version) -> bool {
        !self.lost.contains(&version) && !self.disabled.contains(&version)
    }

    /// A version that works and waits. Writes one if there is none.
    fn rescue(&mut self, record: &SecretRecord, served: &BTreeSet<Version>) -> Option<Version> {
        let waits = record.versions.iter().rev().find(|(version, it)| {
            it.label == Label::Pending && Some(*version) > served.last() && self.is_good(**version)
        });
        if waits.is_none() && self.versions <= record.last_version.map_or(0, Version::get) {
            self.versions += 1;
        }
        waits.map(|(version, _)| *version)
    }

    fn order(&mut self, node: usize, order: Order) {
        let by = OperatorName::new("ada").expect("a valid name");
        self.handle(node, Event::Input(Input::Operator { by, order }));
    }

    /// What the operator does, as docs/operate/OPERATIONS.md says.
    pub(super) fn recover(&mut self, fixed: &mut Fixed) {
        let Some((node, ..)) = self.lock else { return };
        let Some(record) = self.nodes[node].as_ref().map(|it| it.machine.coordinator().record().clone()) else {
            return;
        };
        fixed.reached.recovered += 1;
        let served = self.served(fixed);
        let follows = record.current.is_some_and(|it| self.is_good(it) && served.iter().all(|version| *version == it));
        if follows || self.rescue(&record, &served).is_some() {
            self.order(node, Order::LeaveSafeMode);
        }
        self.settle(fixed, node);
    }
}
