//! Answers from the machine's state, once all that came before has taken effect.

use std::collections::BTreeSet;
use std::time::Duration;

use rotacast_protocol::coordinator::{Coordinator, Member, Rejection};
use rotacast_protocol::status::{InstanceStatus, SecretStatus};
use rotacast_protocol::{InstanceKey, Now};
use tokio::sync::oneshot;

use super::super::mail::{Granted, OrderOutcome, Question};
use crate::findings::Findings;
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
    pub(super) fn answer(self, coordinator: &Coordinator, settings: &SecretSettings, findings: &Findings, now: Now) {
        match self {
            Question::LastVersion(reply) => drop(reply.send(coordinator.record().last_version)),
            Question::Status(reply) => {
                drop(reply.send(status(coordinator, settings, findings, now)));
            }
            Question::MayBeRunning { instance, elsewhere, reply } => {
                drop(reply.send(coordinator.may_be_running_still(&instance, elsewhere, now)));
            }
            Question::Expendable { silent, reply } => drop(reply.send(expendable(coordinator, silent, now))),
            Question::Instances { not_on, reply } => {
                drop(reply.send(InstanceStatus::all(coordinator, not_on, now)));
            }
        }
    }
}

/// What the leader knows of the secret, with the findings about it that stand.
pub(in crate::driver) fn status(
    coordinator: &Coordinator,
    settings: &SecretSettings,
    findings: &Findings,
    now: Now,
) -> SecretStatus {
    let record = coordinator.record();
    let findings = findings.about(&record.secret);
    SecretStatus { findings, ..SecretStatus::of(coordinator, settings.shown(record, now.wall), now) }
}

/// The incarnations that the secret does not wait for. One that is over is dropped from the roster at once, so that a later
/// leader, which knows the roster alone, does not take it for one that runs; one that is fenced may come back.
fn expendable(coordinator: &Coordinator, silent: Duration, now: Now) -> BTreeSet<InstanceKey> {
    let over = |member: &&Member| {
        let fenced = || coordinator.is_fenced(member, now) && now.instant.since(member.last_known()) >= silent;
        member.is_gone() || fenced()
    };
    coordinator.members().filter(over).map(|member| member.key.clone()).collect()
}

#[cfg(test)]
mod tests {
    use rotacast_protocol::coordinator::{Input, Tenure};
    use rotacast_protocol::record::{SecretRecord, Timing};
    use rotacast_protocol::{Epoch, Incarnation, Instant, Policy, WallTime};

    use super::*;

    #[test]
    fn what_is_over_is_dropped_at_once_and_what_is_silent_only_after_a_while() {
        let at = |seconds: u64| Now {
            instant: Instant::ZERO + Duration::from_secs(seconds),
            wall: WallTime(1_000_000 + seconds * 1000),
        };
        let policy = Policy::default();
        let record = SecretRecord::new("payments/db".parse().unwrap(), Epoch(1), Timing::of(&policy));
        let valid_until = at(1_000_000).instant;
        let mut coordinator =
            Coordinator::take_over(record, policy, Tenure { epoch: Epoch(1), since: at(1), valid_until });
        let key = |name: &str| InstanceKey::new("api".parse().unwrap(), name.parse().unwrap(), Incarnation(1));
        let registered = |name: &str| Input::Registered { key: key(name), exclusive: false, live: true };
        for input in [registered("left"), registered("silent"), Input::Left { key: key("left") }] {
            let changes = coordinator.decide(at(2), input).unwrap();
            changes.iter().for_each(|change| coordinator.apply(at(2), change));
        }
        let remembered = Duration::from_secs(3600);
        assert_eq!(expendable(&coordinator, remembered, at(3)), BTreeSet::from([key("left")]));
        assert_eq!(expendable(&coordinator, remembered, at(3602)), BTreeSet::from([key("left"), key("silent")]));
    }
}
