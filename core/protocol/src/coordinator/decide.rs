//! What an input changes.

use thiserror::Error;

use super::{Change, Claim, CommandKind, Coordinator, Failed, Input, MAX_MEMBERS};
use crate::id::{Epoch, InstanceKey, ReportSequence, Version};
use crate::message::{MAX_FAILURE_TEXT_BYTES, MAX_HELD_VERSIONS, SecretReport};
use crate::record::{MAX_RECORD_BYTES, RecordChange};
use crate::time::Now;

/// Longest text of a command that keeps failing: room for the statements that clear what is in the way, one line each.
const MAX_TROUBLE_BYTES: usize = 8 * 1024;

/// Why an input changes nothing, by whose fault it is.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Error)]
pub enum Rejection {
    /// It is older than what is known, or known already.
    #[error("stale {what}: expected {expected}, found {found}")]
    Stale { what: &'static str, expected: String, found: String },
    /// A version number that leaves a gap.
    #[error("version {found} leaves a gap: expected version {expected}")]
    Gap {
        /// The next number.
        expected: Version,
        found: Version,
    },
    /// This leader's term is over.
    #[error("epoch {epoch} no longer leads")]
    Deposed { epoch: Epoch },
    /// The sender breaks a bound or speaks after it left.
    #[error("message of {key}: {problem}")]
    Sender { key: InstanceKey, problem: String },
    /// It claims to know what does not exist.
    #[error("message of {key}: it claims {} {found}, and the newest is {newest}: {}", claim.words(), claim.meaning())]
    Claim {
        key: InstanceKey,
        claim: Claim,
        /// What exists.
        newest: u64,
        found: u64,
    },
    /// The operator's order cannot be carried out.
    #[error("{problem}")]
    Operator {
        /// Why, and what can be done.
        problem: String,
    },
}

pub(super) fn stale(what: &'static str, expected: impl ToString, found: impl ToString) -> Rejection {
    Rejection::Stale { what, expected: expected.to_string(), found: found.to_string() }
}

pub(super) fn operator(problem: impl Into<String>) -> Rejection {
    Rejection::Operator { problem: problem.into() }
}

impl Coordinator {
    /// What an input changes, in the order to apply it.
    ///
    /// # Errors
    /// [`Rejection`] when it changes nothing, and whose fault that is.
    pub fn decide(&self, now: Now, input: Input) -> Result<Vec<Change>, Rejection> {
        if let Input::LeadershipExtended { until } = input {
            return Ok(vec![Change::LeadershipExtended { until }]);
        }
        if !self.leads(now.instant) {
            return Err(Rejection::Deposed { epoch: self.tenure.epoch });
        }
        match input {
            Input::Tick => Ok(self.advance(now)),
            Input::LeadershipExtended { until } => Ok(vec![Change::LeadershipExtended { until }]),
            Input::VersionSeen { version } => self.version_seen(now, version),
            Input::Created { version, origin } => self.created(version, origin),
            Input::Verified { version } => self.verified(now, version),
            Input::VerifyFailed { version, reason } => self.verify_failed(now, version, &reason),
            Input::Registered { key, exclusive, live } => self.registered(now, key, exclusive, live),
            Input::RosterRead if self.roster_read => {
                Err(stale("roster", "a first reading in this term", "a further one"))
            }
            Input::RosterRead => Ok(vec![Change::RosterRead]),
            Input::Left { key } => self.left(now, key),
            Input::Report { key, sequence, report } => self.report(now, key, sequence, report),
            Input::Sync { key, sequence, report } => self.sync(now, key, sequence, report),
            Input::UsageRead { version, sent, evidence } => self.usage_read(version, sent, evidence),
            Input::Audited { version, revision } => self.audited(now, version, revision),
            Input::StepDone { version, step } => self.step_done(version, step),
            Input::LeftAlone { version, step, why } => self.left_alone(version, step, why),
            Input::Published { revision } => Ok(vec![Change::Published { revision }]),
            Input::Troubled { command, failed } => self.troubled(now, command, failed),
            Input::ClockRead => {
                let noted = self.clock_noted(now);
                Ok(noted.map(|since| Change::Record(RecordChange::ClockNoted { since })).into_iter().collect())
            }
            Input::StoreWentBack { reason } => self.store_went_back(now, reason),
            Input::Operator { by, order } => self.operator(now, by, order),
            Input::PolicyChanged(policy) => Ok(vec![Change::PolicySet(policy)]),
        }
    }

    /// What comes from outside may fill a third of the record: what follows from it, such as the retirement of each
    /// skipped version, still fits.
    pub(super) fn fitting(&self, changes: Vec<Change>) -> Result<Vec<Change>, Rejection> {
        let size = self.record_after(&changes).map_or(0, |record| record.encode().len());
        if size > MAX_RECORD_BYTES / 3 {
            return Err(operator(format!(
                "the record would have {size} bytes, expected at most {}: wait until versions that are on their way \
                 out are retired, or name fewer instances",
                MAX_RECORD_BYTES / 3
            )));
        }
        Ok(changes)
    }

    pub(super) fn roll_back(&self, now: Now, reason: String) -> Change {
        Change::Record(RecordChange::RollbackStarted { reason, at: now.wall })
    }

    pub(super) fn report(
        &self,
        now: Now,
        key: InstanceKey,
        sequence: ReportSequence,
        report: SecretReport,
    ) -> Result<Vec<Change>, Rejection> {
        if report.held.len() > MAX_HELD_VERSIONS {
            let problem = format!("holds {} versions, expected at most {MAX_HELD_VERSIONS}", report.held.len());
            return Err(Rejection::Sender { key, problem });
        }
        self.check_claims(&key, &report)?;
        match self.members.find(&key) {
            Some(member) if member.left => {
                let said = if self.is_said_gone(&key) { "an operator has said that it is gone" } else { "it has left" };
                Err(Rejection::Sender { key, problem: said.into() })
            }
            Some(member) if !member.is_news(sequence) => {
                Err(stale("report", format!("above {}", member.sequence), sequence))
            }
            None if self.is_full() => {
                Err(Rejection::Sender { key, problem: format!("{MAX_MEMBERS} incarnations are tracked already") })
            }
            _ => {
                let lost = self.numbers_lost(&report).map(Change::Record);
                Ok([Change::ReportFolded { key, sequence, report, at: now }].into_iter().chain(lost).collect())
            }
        }
    }

    fn troubled(&self, now: Now, command: CommandKind, failed: Failed) -> Result<Vec<Change>, Rejection> {
        if !self.commands(now).iter().any(|owed| owed.kind == command) {
            return Err(stale("trouble", "a command that is outstanding", format!("{command:?}")));
        }
        // In full: it may hold the statements that an operator is to paste. It is not part of the record.
        let failed = Failed { problem: cut(failed.problem, MAX_TROUBLE_BYTES), ..failed };
        Ok(vec![Change::Troubled { command, failed, at: now }])
    }
}

/// Words from outside are kept short: records have a bound.
pub(super) fn bounded(text: String) -> String {
    cut(text, MAX_FAILURE_TEXT_BYTES)
}

fn cut(mut text: String, most: usize) -> String {
    if text.len() > most {
        let end = (0..=most).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
    }
    text
}
