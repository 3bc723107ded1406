//! Answers from the machine's state, once all that came before has taken effect.

use std::collections::BTreeSet;
use std::time::Duration;

use rotacast_protocol::coordinator::{Coordinator, Member, Rejection};
use rotacast_protocol::status::{InstanceStatus, SecretStatus};
use rotacast_protocol::{InstanceKey, Now};
use tokio::sync::oneshot;

use super::super::mail::{Granted, OrderOutcome, Question};
use crate::settings::SecretSettings;

/// The party that waits for an answer of the machine.
pub(super) enum Waiting {
    Sync(oneshot::Sender<Granted>),
    Order { counted: &'static str, reply: oneshot::Sender<Result<OrderOutcome, Rejection>> },
    Schedule,
    Question(Question),
}

impl Question {
    /// Answers. The receiver may be gone: it no longer wants to know.
    pub(super) fn answer(self, coordinator: &Coordinator, settings: &SecretSettings, now: Now) {
        match self {
            Question::LastVersion(reply) => drop(reply.send(coordinator.record().last_version)),
            Question::Status(reply) => {
                drop(reply.send(SecretStatus::of(coordinator, settings.shown(coordinator.record()), now)));
            }
            Question::Expendable { silent, reply } => drop(reply.send(expendable(coordinator, silent, now))),
            Question::Instances { not_on, reply } => {
                drop(reply.send(InstanceStatus::all(coordinator, not_on, now)));
            }
        }
    }
}

fn expendable(coordinator: &Coordinator, silent: Duration, now: Now) -> BTreeSet<InstanceKey> {
    let over = |member: &&Member| {
        let gone = member.is_gone() || coordinator.is_out_of_reach(member, now);
        gone && now.instant.since(member.last_known()) >= silent
    };
    coordinator.members().filter(over).map(|member| member.key.clone()).collect()
}
