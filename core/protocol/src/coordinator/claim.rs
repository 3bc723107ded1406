//! What a report claims is bounded by what its sender can know.

#[cfg(test)]
mod tests;

use super::{Coordinator, Rejection, lease};
use crate::id::InstanceKey;
use crate::message::SecretReport;
use crate::word::words;

words! {
    /// Something that a report claims to know, and that does not exist.
    pub enum Claim("claim") {
        Lease = "lease" / "a lease": "It has heard of a grant that no leader has made.",
        Revision = "revision" / "a revision": "It has acted on a desired state that is newer than the record.",
        Generation = "generation" / "a generation": "It has acted on a direction that is newer than the record's.",
    }
}

impl Coordinator {
    /// A report that claims to know of a grant, a revision or a generation that does not exist.
    ///
    /// After a part of the store's history was lost, what instances know of it is not known: every claim may be true.
    pub(super) fn check_claims(&self, key: &InstanceKey, report: &SecretReport) -> Result<(), Rejection> {
        if self.record.lost_history.is_some() {
            return Ok(());
        }
        let earlier = lease::last_before(self.tenure.epoch);
        let granted = self.members.find(key).map_or(earlier, |member| member.granted_sequence.max(earlier));
        let claims = [
            (Claim::Lease, granted.0, report.lease.0),
            (Claim::Revision, self.record.revision.0, report.revision.0),
            (Claim::Generation, self.record.generation.0, report.generation.0),
        ];
        match claims.into_iter().find(|(claim, newest, found)| !is_known(*claim, *newest, *found)) {
            None => Ok(()),
            Some((claim, newest, found)) => Err(Rejection::Claim { key: key.clone(), claim, newest, found }),
        }
    }
}

/// What exists is at most the newest.
#[cfg_attr(rotacast_mutants, rotacast_mutate::rule(ClaimsBounded, true))]
fn is_known(_claim: Claim, newest: u64, found: u64) -> bool {
    found <= newest
}
