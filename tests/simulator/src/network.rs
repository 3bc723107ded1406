//! The network, and whether a fault strikes.

use crate::clock::MS;
use crate::event::Event;
use crate::fault::Fault;
use crate::world::World;

impl World {
    pub(crate) fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    pub(crate) fn at(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.queue.insert((at.max(self.now), self.sequence), event);
    }

    /// Whether a fault strikes, with a chance in thousandths. Each kind draws from its own stream, so that leaving one
    /// out changes the others as little as possible.
    pub(crate) fn strikes(&mut self, fault: Fault, permille: u64) -> bool {
        if self.healed.is_some() || permille == 0 {
            return false;
        }
        let drawn = self.streams[fault as usize].permille(permille);
        drawn && self.strike(fault)
    }

    /// A fault strikes, unless the plan leaves it out.
    pub(crate) fn strike(&mut self, fault: Fault) -> bool {
        let number = self.struck.entry(fault).or_insert(0);
        *number += 1;
        let strike = (fault, *number);
        if self.plan.without.contains(&fault) || self.plan.dropped.contains(&strike) {
            return false;
        }
        *self.counts.faults.entry(fault).or_insert(0) += 1;
        self.strikes.push(strike);
        if !matches!(fault, Fault::Lost | Fault::Doubled | Fault::Slow) {
            self.tell(|| format!("{fault:?} (number {})", strike.1));
        }
        true
    }

    /// Whether a message is lost.
    pub(crate) fn lost(&mut self) -> bool {
        let chance = self.loss;
        self.strikes(Fault::Lost, chance)
    }

    /// How long a message takes.
    pub(crate) fn delay(&mut self) -> u64 {
        let slowness = self.slowness;
        if self.strikes(Fault::Slow, slowness) {
            return self.network.between(100, 6000) * MS;
        }
        self.network.between(1, 30) * MS
    }

    /// A message that may be lost, doubled or overtaken.
    pub(crate) fn send(&mut self, mut deliver: impl FnMut(&mut World, u64)) {
        if self.lost() {
            return;
        }
        let at = self.now + self.delay();
        deliver(self, at);
        let chance = self.loss;
        if self.strikes(Fault::Doubled, chance) {
            let again = self.now + self.delay();
            deliver(self, again);
        }
    }
}
