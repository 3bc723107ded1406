//! Decides about each order, and has it carried out.

use std::sync::Arc;

use rotacast_log_limit::LogLimit;
use tokio::sync::watch;
use tracing::{info, warn};

use super::{Given, Instruction};
use crate::api::{AcceptedLoss, CommandReply, Control, OperatorCommand, Refusal};
use crate::audit::Entry;
use crate::operators::{Decision, Operators, SignedIn, Warrant};

/// What every door gives orders to.
pub struct Desk {
    control: Arc<dyn Control>,
    operators: watch::Receiver<Arc<Operators>>,
}

impl Desk {
    /// A desk before `control`. Who may do what is read anew for every order, so that a reload of the configuration takes effect
    /// at once.
    #[must_use]
    pub fn new(control: Arc<dyn Control>, operators: watch::Receiver<Arc<Operators>>) -> Self {
        Self { control, operators }
    }

    /// The operators and roles of this moment.
    #[must_use]
    pub fn operators(&self) -> Arc<Operators> {
        Arc::clone(&self.operators.borrow())
    }

    /// Has an order carried out, if its operator may give it.
    ///
    /// # Errors
    /// [`Refusal`]: nothing was changed (except that after [`Refusal::Unavailable`] it may have been).
    pub async fn give(&self, by: SignedIn, given: Given) -> Result<CommandReply, Refusal> {
        let (order, secret) = (given.instruction.kind(), given.instruction.secret().cloned());
        let operator = by.name.clone();
        let decision = self.operators().decide(&by.name, order, secret.as_ref());
        let done = match decision {
            Decision::Granted { role } => {
                let Given { instruction, reason, proof } = given;
                self.carry_out(&by, instruction, proof, Warrant { role, reason }).await
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
        match &done {
            Ok(_) => info!(%operator, secret = about, %order, "an operator's order is taken"),
            Err(refusal) => {
                static LIMIT: LogLimit = LogLimit::new();
                if let Some(left_out) = LIMIT.admit() {
                    let kind = refusal.kind().as_str();
                    warn!(%operator, secret = about, %order, kind, %refusal, left_out, "an operator's order is refused");
                }
            }
        }
        done
    }

    async fn carry_out(
        &self,
        by: &SignedIn,
        instruction: Instruction,
        proof: crate::audit::OrderProof,
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
}
