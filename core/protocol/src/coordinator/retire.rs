//! The end of a version: the seal, what is read after it, the point of no return, and the steps behind it.

#[cfg(test)]
mod tests;

use super::decide::stale;
use super::{Change, Coordinator, Evidence, Rejection};
use crate::id::{Revision, Version};
use crate::record::{RecordChange, RetireStep, Unproven};
use crate::time::{Instant, Now};

impl Coordinator {
    pub(super) fn usage_read(
        &self,
        version: Version,
        sent: Instant,
        evidence: Evidence,
    ) -> Result<Vec<Change>, Rejection> {
        if !self.record.retirements.contains_key(&version) {
            return Err(stale("usage reading", "a version on its way out", format!("version {version}")));
        }
        if let Some((known, _)) = self.usage.get(&version)
            && *known >= sent
        {
            return Err(stale("usage reading", format!("after {known:?}"), format!("{sent:?}")));
        }
        Ok(vec![Change::UsageRead { version, sent, evidence }])
    }

    /// The record's revision at the seal. An entry that took so long that a rollback and a further rotation went by is
    /// about another retirement.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(AuditOfSeal, Revision(0)))]
    pub(super) fn sealed_at(&self, version: Version) -> Revision {
        self.retiring.get(&version).map_or(Revision(0), |progress| progress.sealed_at)
    }

    /// The guard is checked once more, at the moment of no return: what the entry says must hold now.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(GuardTwice, true))]
    fn still_holds(&self, version: Version, now: Now) -> bool {
        self.guard_holds(version, now)
    }

    pub(super) fn audited(&self, now: Now, version: Version, revision: Revision) -> Result<Vec<Change>, Rejection> {
        let sealed_at = self.sealed_at(version);
        if revision < sealed_at {
            return Err(stale("audit entry", format!("revision {sealed_at} or later"), format!("revision {revision}")));
        }
        let waiting = self.record.retirements.get(&version).is_some_and(|retirement| retirement.step.is_none());
        if waiting && self.still_holds(version, now) {
            return Ok(vec![
                Change::Audited { version },
                Change::Record(RecordChange::RetireBegan { version, at: now.wall }),
            ]);
        }
        Err(stale("audit entry", "a guard that holds", format!("version {version}")))
    }

    pub(super) fn step_done(&self, version: Version, step: RetireStep) -> Result<Vec<Change>, Rejection> {
        let owed = self.record.retirements.get(&version).and_then(|retirement| retirement.step);
        if !is_owed(owed, step) {
            return Err(stale("retire step", owed.map_or("none", RetireStep::as_str), step));
        }
        Ok(vec![Change::Record(match step {
            RetireStep::Disable => RecordChange::RetireAdvanced { version, step: RetireStep::Destroy },
            RetireStep::Destroy => RecordChange::RetireAdvanced { version, step: RetireStep::Erase },
            RetireStep::Erase => RecordChange::RetireFinished { version },
        })])
    }

    pub(super) fn left_alone(
        &self,
        version: Version,
        step: RetireStep,
        why: Unproven,
    ) -> Result<Vec<Change>, Rejection> {
        if step == RetireStep::Erase {
            return Err(stale("retire step that was left out", "a step of the provider's", step));
        }
        let mut changes = self.step_done(version, step)?;
        changes.push(Change::Record(RecordChange::LeftAlone { version, why }));
        Ok(changes)
    }

    pub(super) fn seal(&self, now: Now) -> Vec<Change> {
        self.record
            .retirements
            .iter()
            .filter(|(_, retirement)| retirement.step.is_none())
            .filter(|(version, _)| self.record.versions.get(version).is_some_and(|version| !version.sealed))
            .filter(|(version, _)| self.may_seal(**version, now))
            .map(|(version, _)| Change::Record(RecordChange::Sealed { version: *version }))
            .collect()
    }
}

/// Disable, destroy, erase, in this order, each once it is due.
#[cfg_attr(rotacast_mutants, rotacast_mutate::rule(StepOrder, true))]
fn is_owed(owed: Option<RetireStep>, step: RetireStep) -> bool {
    owed == Some(step)
}
