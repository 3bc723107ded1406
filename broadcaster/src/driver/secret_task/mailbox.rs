//! Turns mail into the machine's events, and its answers into replies.

use rotacast_clock as clock;
use rotacast_log_limit::LogLimit;
use rotacast_protocol::coordinator::{Input, Rejection};
use rotacast_protocol::machine::{Answer, Event};
use tracing::{debug, info, warn};

use super::super::mail::{Granted, Mail, OrderOutcome};
use super::SecretTask;
use super::question::Waiting;
use crate::metrics::Intake;

impl SecretTask {
    pub(super) fn take_in(&mut self, mail: Mail) {
        self.changed = true;
        let event = match mail {
            Mail::Input(input) => {
                if let Input::VersionSeen { version } = &*input {
                    self.warn_of_taken(*version);
                    self.value_is_stored(*version);
                }
                Event::Input(*input)
            }
            Mail::Sync { key, sequence, report, reply } => {
                Event::Sync { key, sequence, report, reply: Waiting::Sync(reply) }
            }
            Mail::Operator { by, order, reply } => {
                let counted = Intake::label(&order);
                Event::Order { by, order, reply: Waiting::Order { counted, reply } }
            }
            Mail::Gap { missing, found } => {
                self.note_gap(Some((missing, found)));
                Event::Gap { missing, found }
            }
            Mail::GapClosed => return self.note_gap(None),
            Mail::Value { version, fault } => return self.value_is_faulty(version, fault),
            Mail::Reconfigured => {
                self.settings = self.environment.settings.of(&self.secret);
                self.look_for_providers();
                self.plan_check();
                Event::Input(Input::PolicyChanged(Box::new(self.settings.policy.clone())))
            }
            Mail::Question(question) => Event::Question { reply: Waiting::Question(question) },
        };
        self.machine.handle(event);
    }

    /// Answers. A caller that has given up waiting asks again.
    pub(super) fn reply(&mut self, to: Waiting, answer: Answer) {
        match (to, answer) {
            (Waiting::Sync(reply), Answer::Granted(grant)) => {
                let traceparent =
                    grant.state.as_ref().and_then(|_| self.observers.spans.traceparent()).unwrap_or_default();
                drop(reply.send(Granted { grant, traceparent }));
            }
            (Waiting::Order { counted, reply }, answer) => {
                let answer = match answer {
                    Answer::Refused(rejection) => Err(rejection),
                    Answer::Ordered(rotation) => Ok(OrderOutcome { rotation }),
                    Answer::Granted(_) | Answer::Now => return,
                };
                self.environment.metrics.intake().order(counted, answer.is_ok());
                drop(reply.send(answer));
            }
            (Waiting::Schedule, Answer::Ordered(_)) => {
                self.ask_again = None;
                info!(secret = %self.secret, "rotated by its schedule");
            }
            (Waiting::Schedule, Answer::Refused(rejection)) => self.schedule_refused(&rejection),
            (Waiting::Question(question), _) => {
                let findings = &self.environment.findings;
                question.answer(self.machine.coordinator(), &self.settings, findings, clock::now());
            }
            (Waiting::Sync(_), Answer::Refused(rejection @ Rejection::Claim { .. })) => self.log_refused(&rejection),
            (Waiting::Sync(_), Answer::Refused(rejection)) => {
                debug!(secret = %self.secret, %rejection, "refused a Sync")
            }
            (Waiting::Sync(_) | Waiting::Schedule, _) => {}
        }
    }

    pub(super) fn log_refused(&self, rejection: &Rejection) {
        let secret = &self.secret;
        match rejection {
            Rejection::Stale { .. } | Rejection::Deposed { .. } => debug!(%secret, %rejection, "nothing new"),
            // Such as a report that was under way when its instance left.
            Rejection::Sender { .. } => {
                static LIMIT: LogLimit = LogLimit::new();
                if let Some(left_out) = LIMIT.admit() {
                    info!(%secret, %rejection, left_out, "refused");
                }
            }
            Rejection::Claim { claim, .. } => {
                self.environment.metrics.intake().claim_refused(*claim);
                static LIMIT: LogLimit = LogLimit::new();
                if let Some(left_out) = LIMIT.admit() {
                    let meanwhile = "its leases are not renewed; was the store restored from a backup?";
                    warn!(%secret, %rejection, meanwhile, left_out, "refused");
                }
            }
            Rejection::Operator { .. } | Rejection::Gap { .. } => {
                static LIMIT: LogLimit = LogLimit::new();
                if let Some(left_out) = LIMIT.admit() {
                    warn!(%secret, %rejection, left_out, "refused");
                }
            }
        }
    }
}
