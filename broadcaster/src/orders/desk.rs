//! Decides about each order, and has it carried out.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rotacast_log_limit::LogLimit;
use rotacast_proto::Level;
use rotacast_protocol::coordinator::Reason;
use rotacast_protocol::{OperatorName, SecretName};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use super::approvals::Book;
use super::{Given, Instruction, Outcome};
use crate::api::{AcceptedLoss, CommandReply, Control, OperatorCommand, Refusal};
use crate::audit::{Entry, OrderProof};
use crate::findings::{Findings, Topic};
use crate::metrics::{Ended, Orders};
use crate::operators::{Decision, Operators, OrderKind, SignedIn, Warrant};

/// Most findings of emergencies that are kept: a few a day is many.
const MAX_EMERGENCIES: usize = 64;
/// How long an order that was given alone stands as a finding: everyone has looked by then. The audit log keeps it.
const EMERGENCY_SHOWN: Duration = Duration::from_secs(24 * 3600);

/// What every door gives orders to.
pub struct Desk {
    pub(super) control: Arc<dyn Control>,
    operators: watch::Receiver<Arc<Operators>>,
    pub(super) book: Option<Book>,
    findings: Findings,
    metrics: Orders,
    /// What was given alone, and until when it is shown.
    emergencies: Mutex<VecDeque<(Instant, String)>>,
}

impl Desk {
    /// A desk before `control`. Who may do what is read anew for every order, so that a reload of the configuration takes effect
    /// at once.
    #[must_use]
    pub fn new(control: Arc<dyn Control>, operators: watch::Receiver<Arc<Operators>>) -> Self {
        Self {
            control,
            operators,
            book: None,
            findings: Findings::default(),
            metrics: Orders::default(),
            emergencies: Mutex::default(),
        }
    }

    /// The same desk, which keeps orders that wait for approvals.
    #[must_use]
    pub fn with_book(mut self, book: Book) -> Self {
        self.book = Some(book);
        self
    }

    /// The same desk, which shows what is given alone.
    #[must_use]
    pub fn telling(mut self, findings: Findings, metrics: Orders) -> Self {
        self.findings = findings;
        self.metrics = metrics;
        self
    }

    /// The operators and roles of this moment.
    #[must_use]
    pub fn operators(&self) -> Arc<Operators> {
        Arc::clone(&self.operators.borrow())
    }

    /// Has an order carried out, if its operator may give it, or keeps it until others have approved it.
    ///
    /// # Errors
    /// [`Refusal`]: nothing was changed (except that after [`Refusal::Unavailable`] it may have been).
    pub async fn give(&self, by: SignedIn, given: Given) -> Result<Outcome, Refusal> {
        let (order, secret) = (given.instruction.kind(), given.instruction.secret().cloned());
        let (operator, emergency) = (by.name.clone(), given.emergency);
        if emergency && given.reason.is_none() {
            return Err(Refusal::Invalid(format!("{order} in an emergency: the reason is empty: say why")));
        }
        let outcome = match self.operators().decide(&by.name, order, secret.as_ref(), emergency) {
            Decision::Granted { role } => {
                let Given { instruction, reason, proof, .. } = given;
                let warrant = Warrant { role, reason: reason.clone(), emergency, approvals: Vec::new() };
                let done = self.carry_out(&by, instruction, proof, warrant).await;
                if emergency && done.is_ok() {
                    self.tell_emergency(&operator, order, secret.as_ref(), reason.as_ref());
                }
                done.map(Outcome::Done)
            }
            Decision::NeedsApprovals(rule) => {
                self.ask(by, given, rule).await.map(|waiting| Outcome::Waits(Box::new(waiting)))
            }
            Decision::Denied { problem, fix } => {
                let entry = Entry::denied(&by.name, order, given.proof);
                let entry = secret.clone().into_iter().fold(entry, Entry::secret);
                // Nothing is done, whether this is on record or not.
                let _ = self.control.put_on_record(entry).await;
                Err(Refusal::Denied { problem, fix })
            }
        };
        let about = secret.as_ref().map_or("", |secret| secret.as_str());
        match &outcome {
            Ok(Outcome::Done(_)) => {
                self.metrics.count(if emergency { Ended::Emergency } else { Ended::Done });
                info!(%operator, secret = about, %order, emergency, "an operator's order is taken");
            }
            Ok(Outcome::Waits(waiting)) => {
                self.metrics.count(Ended::Waits);
                info!(%operator, secret = about, %order, request = %waiting.request.id, "an operator's order waits for approvals");
            }
            Err(refusal) => {
                self.metrics.count(if matches!(refusal, Refusal::Denied { .. }) {
                    Ended::Denied
                } else {
                    Ended::Refused
                });
                static LIMIT: LogLimit = LogLimit::new();
                if let Some(left_out) = LIMIT.admit() {
                    let kind = refusal.kind().as_str();
                    warn!(%operator, secret = about, %order, kind, %refusal, left_out, "an operator's order is refused");
                }
            }
        }
        outcome
    }

    pub(super) async fn carry_out(
        &self,
        by: &SignedIn,
        instruction: Instruction,
        proof: OrderProof,
        warrant: Warrant,
    ) -> Result<CommandReply, Refusal> {
        match instruction {
            Instruction::Secret(secret, action) => {
                self.control.command(by.name.clone(), OperatorCommand { secret, action, proof, warrant }).await
            }
            Instruction::AcceptAuditLoss { doubt, reason } => {
                let loss = AcceptedLoss { doubt, reason, proof, warrant };
                self.control.accept_audit_loss(by.name.clone(), loss).await?;
                Ok(CommandReply::default())
            }
        }
    }

    fn tell_emergency(
        &self,
        operator: &OperatorName,
        order: OrderKind,
        secret: Option<&SecretName>,
        reason: Option<&Reason>,
    ) {
        let about = secret.map_or_else(String::new, |secret| format!(" {secret}"));
        let subject = format!("{operator} {order}{about} {}", rotacast_clock::wall());
        let reason = reason.map_or("", Reason::as_str);
        let text = format!("{operator} acted alone by a role for emergencies: {order}{about}: {reason}");
        let fix = "look whether it was needed: the audit log has it (`rotacast audit show`). This finding is over after a day";
        self.findings.raise(Topic::Emergency, subject.clone(), Level::Warning, text, fix);
        let mut shown = self.emergencies.lock().unwrap_or_else(PoisonError::into_inner);
        shown.push_back((Instant::now() + EMERGENCY_SHOWN, subject));
        while shown.len() > MAX_EMERGENCIES {
            shown.pop_front().iter().for_each(|(_, subject)| self.findings.clear(Topic::Emergency, subject));
        }
    }

    /// Ends the findings of those that everyone has seen.
    pub(super) fn forget_emergencies(&self) {
        let now = Instant::now();
        let mut shown = self.emergencies.lock().unwrap_or_else(PoisonError::into_inner);
        while shown.front().is_some_and(|(until, _)| *until <= now) {
            shown.pop_front().iter().for_each(|(_, subject)| self.findings.clear(Topic::Emergency, subject));
        }
    }
}
