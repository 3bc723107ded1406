//! Decides about each order, and has it carried out.

use std::collections::BTreeMap;
use std::future::Future;
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

/// Most findings of emergencies that are kept, each of one operator, order and secret: a few a day is many.
const MAX_EMERGENCIES: usize = 128;
/// How long an order that was given alone stands as a finding: everyone has looked by then. The audit log keeps it.
const EMERGENCY_SHOWN: Duration = Duration::from_secs(24 * 3600);

/// How long refusals for want of a right are folded into one audit entry of their operator.
const DENIED_WITHIN: Duration = Duration::from_secs(10);
/// Refusals of one operator within [`DENIED_WITHIN`] that have an entry of their own, with what was signed: more than a person
/// gives in that time. An operator without any right cannot fill the disk.
const MAX_DENIED_ENTRIES: u32 = 3;

/// What one operator was given alone for one secret.
#[derive(Clone)]
struct Emergency {
    until: Instant,
    times: u64,
    first: String,
    last: String,
}

/// An operator, an order and a secret, as text: the subject of the finding.
struct Alone {
    subject: String,
    operator: OperatorName,
    what: String,
    reason: String,
}

impl Alone {
    fn new(operator: &OperatorName, order: OrderKind, secret: Option<&SecretName>, reason: &Reason) -> Self {
        let about = secret.map_or_else(String::new, |secret| format!(" {secret}"));
        Self {
            subject: format!("{operator} {order}{about}"),
            operator: operator.clone(),
            what: format!("{order}{about}"),
            reason: reason.as_str().to_owned(),
        }
    }
}

/// What one operator was refused for want of a right.
struct Denied {
    since: Instant,
    entries: u32,
    /// Refusals without an entry of their own.
    folded: u64,
}

/// Finishes `work` although the caller is gone: a client that closes its connection must not end an order between what is done
/// and what is on record about it.
pub(super) async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Result<T, Refusal> {
    tokio::spawn(work).await.unwrap_or_else(|_| {
        Err(Refusal::Unavailable {
            problem: "the order broke off".into(),
            fix: "`rotacast status`, `rotacast approvals` and `rotacast audit show` say what came of it".into(),
        })
    })
}

/// What every door gives orders to.
pub struct Desk {
    pub(super) control: Arc<dyn Control>,
    operators: watch::Receiver<Arc<Operators>>,
    pub(super) book: Option<Book>,
    findings: Findings,
    metrics: Orders,
    /// What was given alone, by the subject of its finding.
    emergencies: Mutex<BTreeMap<String, Emergency>>,
    /// What was refused for want of a right. Operators are as many as the configuration has.
    denied: Mutex<BTreeMap<OperatorName, Denied>>,
    /// Held while an order is added to those that wait, so that their bounds hold for orders that come at once.
    pub(super) asking: tokio::sync::Mutex<()>,
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
            denied: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
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

    /// Has an order carried out, if its operator may give it, or keeps it until others have approved it. Goes on if the caller
    /// is gone.
    ///
    /// # Errors
    /// [`Refusal`]: nothing was changed (except that after [`Refusal::Unavailable`] it may have been).
    pub async fn give(self: &Arc<Self>, by: SignedIn, given: Given) -> Result<Outcome, Refusal> {
        let desk = Arc::clone(self);
        detached(async move { desk.give_now(by, given).await }).await
    }

    async fn give_now(&self, by: SignedIn, given: Given) -> Result<Outcome, Refusal> {
        let (order, secret) = (given.instruction.kind(), given.instruction.secret().cloned());
        let (operator, emergency) = (by.name.clone(), given.emergency);
        let alone = match (emergency, &given.reason) {
            (true, None) => {
                return Err(Refusal::Invalid(format!("{order} in an emergency: the reason is empty: say why")));
            }
            (true, Some(reason)) => Some(Alone::new(&operator, order, secret.as_ref(), reason)),
            (false, _) => None,
        };
        let outcome = match self.operators().decide(&by.name, order, secret.as_ref(), emergency) {
            Decision::Granted { role } => {
                let Given { instruction, reason, proof, .. } = given;
                let warrant = Warrant { role, reason, emergency, approvals: Vec::new() };
                // The finding stands before anything is done, and whenever it may have been done.
                let before = alone.as_ref().map(|alone| (alone, self.raise_emergency(alone)));
                let done = self.carry_out(&by, instruction, proof, warrant).await;
                if let (Some((alone, before)), Err(refusal)) = (before, &done)
                    && !matches!(refusal, Refusal::Unavailable { .. })
                {
                    self.take_emergency_back(alone, before);
                }
                done.map(Outcome::Done)
            }
            Decision::NeedsApprovals(rule) => {
                self.ask(by, given, rule).await.map(|waiting| Outcome::Waits(Box::new(waiting)))
            }
            Decision::Denied { problem, fix } => {
                if self.has_own_entry(&by.name) {
                    let entry = Entry::denied(&by.name, order, given.proof);
                    let entry = secret.clone().into_iter().fold(entry, Entry::secret);
                    // The order is refused, even if the log takes no entry.
                    let _ = self.control.put_on_record(entry).await;
                }
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

    /// What stood about the same operator, order and secret before.
    fn raise_emergency(&self, alone: &Alone) -> Option<Emergency> {
        let mut shown = self.emergencies.lock().unwrap_or_else(PoisonError::into_inner);
        let before = shown.get(&alone.subject).cloned();
        let emergency = Emergency {
            until: Instant::now() + EMERGENCY_SHOWN,
            times: before.as_ref().map_or(0, |it| it.times) + 1,
            first: before.as_ref().map_or(&alone.reason, |it| &it.first).clone(),
            last: alone.reason.clone(),
        };
        self.show_emergency(alone, &emergency);
        shown.insert(alone.subject.clone(), emergency);
        while shown.len() > MAX_EMERGENCIES {
            let oldest = shown.iter().min_by_key(|(_, it)| it.until).map(|(subject, _)| subject.clone());
            let Some(oldest) = oldest else { break };
            shown.remove(&oldest);
            self.findings.clear(Topic::Emergency, &oldest);
        }
        before
    }

    /// For an order that was certainly not carried out.
    fn take_emergency_back(&self, alone: &Alone, before: Option<Emergency>) {
        let mut shown = self.emergencies.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(stands) = shown.get_mut(&alone.subject) else { return };
        stands.times -= 1;
        if stands.times == 0 {
            shown.remove(&alone.subject);
            return self.findings.clear(Topic::Emergency, &alone.subject);
        }
        // Unless another order has given its own reason meanwhile.
        if let Some(before) = before
            && stands.last == alone.reason
        {
            stands.last = before.last;
        }
        self.show_emergency(alone, stands);
    }

    fn show_emergency(&self, alone: &Alone, emergency: &Emergency) {
        let Emergency { times, first, last, .. } = emergency;
        let Alone { subject, operator, what, .. } = alone;
        let text = match times {
            1 => format!("{operator} acted alone by a role for emergencies: {what}: {last}"),
            times => format!(
                "{operator} acted alone by a role for emergencies, {times} times: {what}: {last} (the first time: {first})"
            ),
        };
        let fix = "look whether it was needed: the audit log has it (`rotacast audit show`). This finding is over after a day";
        self.findings.raise(Topic::Emergency, subject.clone(), Level::Warning, text, fix);
    }

    /// Ends the findings of those that everyone has seen.
    pub(super) fn clear_old_emergencies(&self) {
        let now = Instant::now();
        self.emergencies.lock().unwrap_or_else(PoisonError::into_inner).retain(|subject, emergency| {
            let stands = emergency.until > now;
            if !stands {
                self.findings.clear(Topic::Emergency, subject);
            }
            stands
        });
    }

    /// Whether a refusal for want of a right has an audit entry of its own; otherwise it is counted in the next one.
    fn has_own_entry(&self, operator: &OperatorName) -> bool {
        let mut denied = self.denied.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let of_one = denied.entry(operator.clone()).or_insert_with(|| Denied { since: now, entries: 0, folded: 0 });
        let own = of_one.entries < MAX_DENIED_ENTRIES;
        match own {
            true => of_one.entries += 1,
            false => of_one.folded += 1,
        }
        own
    }

    /// Puts on record how many refusals had no entry of their own.
    pub(super) async fn record_denied(&self) {
        let mut over = Vec::new();
        self.denied.lock().unwrap_or_else(PoisonError::into_inner).retain(|operator, denied| {
            let stays = denied.since.elapsed() < DENIED_WITHIN;
            if !stays && denied.folded > 0 {
                over.push((operator.clone(), denied.folded));
            }
            stays
        });
        for (operator, times) in over {
            if let Err(problem) = self.control.put_on_record(Entry::denied_again(&operator, times)).await {
                warn!(%operator, times, %problem, "refused orders are not on record");
            }
        }
    }
}
