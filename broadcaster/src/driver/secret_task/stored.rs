//! What is wrong with the versions in the store: a number that was never written, a value that is gone or was written again.
//! Findings that stand until it is repaired or concerns no version in use.

use std::collections::BTreeMap;

use rotacast_proto::Level;
use rotacast_protocol::Version;
use rotacast_protocol::record::SecretRecord;

use super::SecretTask;
use crate::findings::Topic;

/// What has happened to a stored value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ValueFault {
    /// Its key was deleted.
    Gone,
    /// Its key was written again, in place or after it was deleted.
    WrittenAgain,
}

/// What the store's versions are known to lack.
#[derive(Default)]
pub(super) struct Stored {
    /// The first number that was never written, and the first version that waits behind it.
    gap: Option<(Version, Version)>,
    /// As many as the watch of the versions remembers.
    faults: BTreeMap<Version, ValueFault>,
}

/// Whether an instance may begin to use it: not one that has ended, and not one that is still to be made.
pub(in crate::driver) fn needs_value(record: &SecretRecord, version: Version) -> bool {
    let unmade = record.rotation.as_ref().filter(|rotation| !rotation.created).map(|rotation| rotation.new);
    let known = record.versions.get(&version);
    known.is_some_and(|known| !known.sealed && !known.label.is_over()) && Some(version) != unmade
}

impl SecretTask {
    /// Versions wait behind numbers that were never written; none: none does any more.
    pub(super) fn note_gap(&mut self, gap: Option<(Version, Version)>) {
        self.stored.gap = gap;
        if gap.is_none() {
            self.environment.findings.clear(Topic::Gap, self.secret.as_str());
        }
    }

    /// The missing numbers are none that the store has lost: they wait for their client.
    pub(super) fn raise_gap(&self, missing: Version, found: Version) {
        // Closed meanwhile.
        if self.stored.gap != Some((missing, found)) {
            return;
        }
        let text = format!(
            "version {found} is in the store and is not taken in: version {missing} was never written, and versions are taken \
             in by number"
        );
        let key = |version| self.environment.tree.version_key(&self.secret, version);
        let fix = format!(
            "delete {}, and write the value with `rotacast put {}`, which takes the next number; or write {} as well",
            key(found),
            self.secret,
            key(missing),
        );
        self.environment.findings.raise(Topic::Gap, self.secret.as_str(), Level::Error, text, &fix);
    }

    /// It has come, or come back.
    pub(super) fn value_is_stored(&mut self, version: Version) {
        if self.stored.faults.contains_key(&version) {
            self.value_is_faulty(version, ValueFault::WrittenAgain);
        }
    }

    pub(super) fn value_is_faulty(&mut self, version: Version, fault: ValueFault) {
        let record = self.machine.coordinator().record();
        let known = record.versions.get(&version);
        if fault == ValueFault::WrittenAgain && known.is_none_or(|known| known.label.is_over()) {
            let text = "its number is that of a version that has ended; numbers never come again".to_owned();
            let fix = format!("delete the key, and write the value with `rotacast put {}`", self.secret);
            let key = self.environment.tree.version_key(&self.secret, version);
            return self.environment.findings.raise(Topic::StrangeKey, key.as_str(), Level::Warning, text, &fix);
        }
        self.stored.faults.insert(version, fault);
        self.look_at_values();
    }

    /// Follows the record: a version that no instance may begin to use needs no value any more.
    pub(super) fn look_at_values(&mut self) {
        if self.stored.faults.is_empty() {
            return;
        }
        let record = self.machine.coordinator().record();
        self.stored.faults.retain(|version, _| needs_value(record, *version));
        let (findings, secret) = (&self.environment.findings, self.secret.as_str());
        if self.stored.faults.is_empty() {
            return findings.clear(Topic::Value, secret);
        }
        let told = self.stored.faults.iter().map(|(version, fault)| match fault {
            ValueFault::Gone => format!("the value of version {version} is gone: no instance that starts now gets it"),
            ValueFault::WrittenAgain => format!(
                "the value of version {version} was written again: instances that start now get what is there now, and those \
                 that run keep what was there"
            ),
        });
        let text = told.collect::<Vec<_>>().join("; ");
        let keys = self
            .stored
            .faults
            .keys()
            .map(|version| self.environment.tree.version_key(&self.secret, *version).to_string());
        let keys = keys.collect::<Vec<_>>().join(", ");
        let fix = format!(
            "find the client that writes below Rotacast's prefix, and take its rights to do so; write {keys} back from a backup of \
             the store; then {}, which ends the use of what was changed",
            self.way_to_another()
        );
        findings.raise(Topic::Value, secret, Level::Error, text, &fix);
    }
}
