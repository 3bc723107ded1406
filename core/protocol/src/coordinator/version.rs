//! Versions: in what order they come, which one waits, which one works.

#[cfg(test)]
mod tests;

use super::decide::stale;
use super::restored::failed_login;
use super::{Change, Coordinator, Rejection};
use crate::id::Version;
use crate::phase::Phase;
use crate::record::{Doubt, Label, Origin, RecordChange};
use crate::time::Now;

impl Coordinator {
    pub(super) fn version_seen(&self, now: Now, version: Version) -> Result<Vec<Change>, Rejection> {
        if let Some(last) = self.record.last_version {
            if version <= last {
                return Err(stale("version", last.next(), version));
            }
            if !follows(last, version) {
                return Err(Rejection::Gap { expected: last.next(), found: version });
            }
        }
        let provider = self.policy.provider.clone();
        let added = RecordChange::VersionAdded { version, origin: Origin::Watched, provider, at: now.wall };
        let in_use = self.may_be_in_use(version, now);
        self.fitting([added].into_iter().chain(in_use).map(Change::Record).collect())
    }

    pub(super) fn verifying(&self, version: Version) -> Result<&crate::record::Rotation, Rejection> {
        self.record
            .rotation
            .as_ref()
            .filter(|rotation| rotation.phase == Phase::Verifying && rotation.new == version)
            .ok_or_else(|| stale("verification", "a rotation that verifies it", format!("version {version}")))
    }

    pub(super) fn created(&self, version: Version, origin: Origin) -> Result<Vec<Change>, Rejection> {
        let rotation = self.verifying(version)?;
        if rotation.created {
            return Err(stale("creation", "a credential still to be made", format!("version {version}")));
        }
        Ok(vec![Change::Record(RecordChange::CredentialCreated { origin })])
    }

    pub(super) fn verified(&self, now: Now, version: Version) -> Result<Vec<Change>, Rejection> {
        let at = now.wall;
        // For a first version no instance prepares: there is nothing that it could keep using meanwhile.
        let next = self.verifying(version).map(|rotation| match rotation.old {
            Some(_) => RecordChange::PreparingBegan { at },
            None => RecordChange::Activated { at },
        });
        let mut changes: Vec<RecordChange> = self.proved(version).into_iter().collect();
        match next {
            Ok(next) => changes.push(next),
            Err(stale) if changes.is_empty() => return Err(stale),
            Err(_) => {}
        }
        Ok(changes.into_iter().map(Change::Record).collect())
    }

    /// A version that fails its test login is never activated.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(TestLogin, self.verified(now, version)))]
    pub(super) fn verify_failed(&self, now: Now, version: Version, reason: &str) -> Result<Vec<Change>, Rejection> {
        // Of a version from before the store lost history it is noted; what follows from it may have to wait.
        if self.record.doubt(version).is_some() {
            return Ok(vec![Change::Record(self.proof_failed(version, reason)?)]);
        }
        self.verifying(version)?;
        Ok(vec![self.roll_back(now, failed_login(version, reason))])
    }

    /// The newest version that waits for its rotation.
    pub(super) fn waiting_version(&self) -> Option<Version> {
        let in_flight = self.record.rotation.as_ref().map(|rotation| rotation.new);
        self.record
            .versions
            .iter()
            .rev()
            .find(|(number, version)| version.label == Label::Pending && Some(**number) != in_flight)
            .map(|(number, _)| *number)
    }

    /// Whether one more version may become valid. Versions that only wait are not counted.
    pub(super) fn has_room(&self) -> bool {
        self.has_room_beside(0)
    }

    /// The same, with so many of the waiting ones counted.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(LiveVersions, true))]
    pub(super) fn has_room_beside(&self, counted: usize) -> bool {
        let waiting = self.record.versions.values().filter(|version| version.label == Label::Pending).count();
        let live = self.record.live_versions().count();
        (live + counted).saturating_sub(waiting) < self.policy.max_live_versions || self.waits_for_the_next()
    }

    /// After the store lost a part of its history, instances stay with what they serve, and the current version was refused at
    /// its login: the next version is the only way on.
    fn waits_for_the_next(&self) -> bool {
        self.record.stay && self.record.current.is_some_and(|current| self.record.doubt(current) == Some(Doubt::Failed))
    }

    /// Intermediate versions collapse; each is revoked all the same.
    pub(super) fn skip_older(&self, new: Version, now: Now) -> Vec<Change> {
        let in_flight = self.record.rotation.as_ref().map(|rotation| rotation.new);
        self.record
            .versions
            .iter()
            .filter(|(number, version)| {
                version.label == Label::Pending && **number != new && Some(**number) != in_flight
            })
            .map(|(number, _)| Change::Record(RecordChange::VersionSkipped { version: *number, by: new, at: now.wall }))
            .collect()
    }
}

/// No version is left out.
#[cfg_attr(rotacast_mutants, rotacast_mutate::rule(VersionGap, true))]
fn follows(last: Version, version: Version) -> bool {
    version == last.next()
}
