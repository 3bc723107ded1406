//! Follows the roster, and takes out of it what nothing waits for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use futures::StreamExt as _;
use rotacast_bus::BusEvent;
use rotacast_protocol::coordinator::Input;
use rotacast_protocol::message::Registration;
use rotacast_protocol::{InstanceKey, SecretName};
use tracing::{debug, warn};

use super::super::mail::Question;
use super::Term;
use super::delivery::News;

/// How long an incarnation that is fenced stays in the roster after it was last heard, and how often that is looked at. Long
/// enough for people to ask about it; without an end, every crash of every instance would stay on the bus for ever.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// See [`REMEMBERED`].
const SWEEP: Duration = Duration::from_secs(600);

impl Term {
    pub(super) async fn follow_roster(self: Arc<Self>) -> anyhow::Result<()> {
        let mut events = self.environment.bus.watch_roster();
        let mut live = false;
        while let Some(event) = events.next().await {
            match event.context("watching the roster")? {
                BusEvent::CaughtUp => {
                    live = true;
                    // Before it is read, an instance that has not been heard yet would be missing from every count.
                    self.roster_read.store(true, Ordering::Release);
                    for (secret, task) in self.secrets.all() {
                        self.tell(&secret, &task, News::RosterRead).await;
                    }
                }
                BusEvent::Resync => live = false,
                BusEvent::Message(envelope) => {
                    if let Ok(registration) = self.environment.identities.registration(&envelope) {
                        self.registered(registration, live).await;
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) async fn registered(&self, registration: Registration, live: bool) {
        {
            let mut roster = self.roster();
            // A leave is final, whatever arrives after it.
            if roster.get(&registration.key).is_some_and(|known| known.left) {
                return;
            }
            roster.insert(registration.key.clone(), registration.clone());
        }
        match registration.left {
            true => self.secrets.heard().forget(&registration.key),
            false => self.secrets.heard().registered(registration.key.clone()),
        }
        for secret in &registration.secrets {
            if let Some(task) = self.secrets.get(secret) {
                self.tell(secret, &task, News::Registered { registration: registration.clone(), live }).await;
            }
        }
    }

    /// Takes incarnations out of the roster that nothing waits for any more. One that comes back after all has to register
    /// again.
    pub(super) async fn sweep_roster(self: Arc<Self>) -> anyhow::Result<()> {
        loop {
            tokio::time::sleep(SWEEP).await;
            let lives: Vec<Registration> = self.roster().values().cloned().collect();
            let mut answers = BTreeMap::new();
            for (secret, task) in self.secrets.all() {
                let answer = task.ask(|reply| Question::Expendable { silent: REMEMBERED, reply }).await;
                answers.insert(secret, answer);
            }
            answers.extend(self.secrets.unserved_names().into_iter().map(|secret| (secret, None)));
            let all_known = self.secrets.left_out().is_empty();
            for life in lives {
                if may_be_forgotten(&life, &answers, all_known) {
                    match self.environment.bus.prune_roster(&life.key).await {
                        Ok(()) => {
                            self.roster().remove(&life.key);
                            self.secrets.heard().forget(&life.key);
                            debug!(instance = %life.key, "taken out of the roster");
                        }
                        Err(problem) => warn!(instance = %life.key, %problem, "cannot be taken out of the roster"),
                    }
                }
            }
        }
    }
}

/// Whether no secret waits for an incarnation. `answers`: the incarnations that a secret does not wait for, or none if it is
/// not known, as of one that is out of service: its retirements may wait for any. `all_known`: they are of all secrets in the
/// store, so that any other has no record and waits for none.
fn may_be_forgotten(
    life: &Registration,
    answers: &BTreeMap<SecretName, Option<BTreeSet<InstanceKey>>>,
    all_known: bool,
) -> bool {
    let over = |secret: &SecretName| match answers.get(secret) {
        None => all_known,
        Some(None) => false,
        Some(Some(expendable)) => expendable.contains(&life.key),
    };
    life.secrets.iter().all(over)
}

pub(super) fn registered(registration: &Registration, live: bool) -> Input {
    let key = registration.key.clone();
    if registration.left {
        Input::Left { key }
    } else {
        Input::Registered { key, exclusive: registration.exclusive, live }
    }
}

#[cfg(test)]
mod tests {
    use rotacast_protocol::Incarnation;

    use super::*;

    #[test]
    fn an_incarnation_is_remembered_while_what_a_secret_waits_for_is_not_known() {
        let key = InstanceKey::new("payments".parse().unwrap(), "payments-1".parse().unwrap(), Incarnation(1));
        let [over, unknown, no_record] = ["a/db", "b/db", "c/db"].map(|name| name.parse::<SecretName>().unwrap());
        let answers = BTreeMap::from([(over.clone(), Some(BTreeSet::from([key.clone()]))), (unknown.clone(), None)]);
        let uses = |secrets: &[&SecretName]| Registration {
            key: key.clone(),
            exclusive: false,
            secrets: secrets.iter().map(|secret| (*secret).clone()).collect(),
            left: false,
        };
        assert!(may_be_forgotten(&uses(&[&over, &no_record]), &answers, true));
        assert!(!may_be_forgotten(&uses(&[&over, &unknown]), &answers, true));
        assert!(!may_be_forgotten(&uses(&[&over, &no_record]), &answers, false));
    }
}
