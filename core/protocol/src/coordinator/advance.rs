//! What can go on by itself: one step at a time, until nothing more can.

use super::{Change, Coordinator};
use crate::record::{RecordChange, Timing};
use crate::time::Now;

impl Coordinator {
    /// The next step that can be taken now; empty when everything waits.
    pub(super) fn advance(&self, now: Now) -> Vec<Change> {
        let changes = self.begin_term();
        if !changes.is_empty() {
            return changes.into_iter().map(Change::Record).collect();
        }
        if let Some(change) = self.lower_lease_bound(now) {
            return vec![Change::Record(change)];
        }
        if let Some(change) = self.forget_gone() {
            return vec![Change::Record(change)];
        }
        if let Some(rotation) = &self.record.rotation {
            let changes = self.advance_rotation(rotation, now);
            if !changes.is_empty() {
                return changes;
            }
        } else if let Some(changes) = self.start_rotation(now) {
            return changes;
        }
        let changes = self.seal(now);
        if changes.is_empty() { self.lengthen_leases() } else { changes }
    }

    /// A leader signs the record before it grants or moves anything, and makes the policy's times durable before it
    /// uses them.
    fn begin_term(&self) -> Vec<RecordChange> {
        let mut changes = Vec::new();
        if !self.is_signed() {
            changes.push(RecordChange::TermBegan { epoch: self.tenure.epoch });
        }
        let timing = Timing::of(&self.policy);
        if !self.record.goes_by(&timing) {
            changes.push(RecordChange::TimingSet { timing });
        }
        changes
    }
}
