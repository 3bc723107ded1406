//! Makes changes durable: the record in the store, the audit entries around it.

use rotacast_proto::Level;
use rotacast_protocol::coordinator::Change;
use rotacast_protocol::machine::Recorded;
use rotacast_protocol::record::RecordChange;
use rotacast_protocol::{OperatorName, SecretName};
use rotacast_store::{Committed, StoreError};
use tracing::{error, warn};

use super::super::{backoff, pause};
use super::{Ended, SecretTask};
use crate::audit::Entry;
use crate::findings::{Findings, Topic};

impl SecretTask {
    /// Saves the record by compare-and-swap. When the outcome is unknown, the store is asked until it is known: the
    /// next decision must not be made on a guess.
    pub(super) async fn save(&mut self, bytes: Vec<u8>) -> Result<(), Ended> {
        let mut pauses = backoff();
        let epoch = self.machine.coordinator().tenure().epoch;
        let mut saving = Saving { findings: &self.environment.findings, secret: &self.secret, attempts: 0 };
        loop {
            let place = self.turns.save().await;
            let outcome = self.environment.tree.save_record(&self.secret, bytes.clone(), self.cursor, epoch).await;
            drop(place);
            let refused = matches!(outcome, Ok(Committed::Conflict));
            let problem = match outcome {
                Ok(Committed::Done(cursor)) => {
                    self.cursor = Some(cursor);
                    return Ok(());
                }
                Ok(Committed::Conflict) => "the record was changed, or the leadership is over".to_owned(),
                Err(StoreError::NotLeader { problem }) => return Err(Ended::Deposed(problem)),
                Err(problem) => problem.to_string(),
            };
            // A first attempt may have landed although its answer was lost.
            match self.environment.tree.read_record(&self.secret).await {
                Ok(Some(stored)) if stored.bytes == bytes => {
                    self.cursor = Some(stored.cursor);
                    return Ok(());
                }
                Ok(stored) if stored.as_ref().map(|stored| stored.cursor) != self.cursor => {
                    let done = if stored.is_some() { "overwritten" } else { "deleted" };
                    match self.environment.tree.is_led_by(epoch).await {
                        Ok(true) => return Err(Ended::Overwritten(format!("another client has {done} its record"))),
                        Ok(false) => return Err(Ended::Deposed(format!("another leader has {done} it: {problem}"))),
                        Err(problem) => warn!(secret = %self.secret, %problem, "cannot ask whether this term lasts"),
                    }
                }
                Ok(_) if refused => return Err(Ended::Deposed(problem)),
                Ok(_) => {}
                Err(unreadable) => warn!(secret = %self.secret, problem = %unreadable, "cannot read the record back"),
            }
            saving.failed(&problem);
            pause(&mut pauses, &self.stop).await;
            if self.stop.is_cancelled() {
                return Err(Ended::Stopped);
            }
        }
    }

    /// An operator's word may cut instances or sessions off: its entry is durable before it takes effect. So is the intent
    /// to retire, which has a command of its own.
    pub(super) async fn audit_overrides(&self, changes: &[Change], by: Option<&OperatorName>) -> Result<(), Ended> {
        let record = self.machine.coordinator().record();
        let rotation = record.rotation.as_ref().map(|rotation| rotation.number);
        for change in changes {
            let Change::Record(change) = change else { continue };
            if !is_audited_first(change) {
                continue;
            }
            let Some(entry) = Entry::of_change(record, rotation, change, by) else { continue };
            let mut pauses = backoff();
            while let Err(problem) = self.environment.audit.append_known(entry.clone()).await {
                error!(secret = %self.secret, %problem, "the audit log takes no entry; the order waits");
                pause(&mut pauses, &self.stop).await;
                if self.stop.is_cancelled() {
                    return Err(Ended::Stopped);
                }
            }
        }
        Ok(())
    }

    /// Nothing irreversible rests on these entries; those on which it does are written before their action.
    pub(super) async fn audit(&self, changes: &[Recorded], by: Option<&OperatorName>) {
        let record = self.machine.coordinator().record();
        for Recorded { change, rotation } in changes {
            if is_audited_first(change) {
                continue;
            }
            let Some(entry) = Entry::of_change(record, *rotation, change, by) else { continue };
            if let Err(problem) = self.environment.audit.append(entry).await {
                error!(secret = %self.secret, %problem, "the audit log takes no entry");
            }
        }
    }
}

/// Attempts to save a record. The secret stands still meanwhile: from the second one that fails, that is a finding.
struct Saving<'a> {
    findings: &'a Findings,
    secret: &'a SecretName,
    attempts: u32,
}

impl Saving<'_> {
    fn failed(&mut self, problem: &str) {
        self.attempts += 1;
        warn!(secret = %self.secret, %problem, attempts = self.attempts, "cannot save the record; trying again");
        if self.attempts > 1 {
            let text = format!(
                "its record cannot be saved, so nothing goes on and its instances get no leases: {problem} ({} attempts)",
                self.attempts
            );
            let fix =
                "look at the store, and at the rights of this broadcaster's login there; it is tried again by itself";
            self.findings.raise(Topic::Unresponsive, self.secret.as_str(), Level::Error, text, fix);
        }
    }
}

impl Drop for Saving<'_> {
    fn drop(&mut self) {
        if self.attempts > 1 {
            self.findings.clear(Topic::Unresponsive, self.secret.as_str());
        }
    }
}

/// Whether something may end on the strength of it.
fn is_audited_first(change: &RecordChange) -> bool {
    use RecordChange::{GivenUp, Overridden, SaidGone};
    matches!(change, Overridden { .. } | GivenUp { .. } | SaidGone { .. })
}
