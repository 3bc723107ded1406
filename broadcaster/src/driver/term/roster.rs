//! The roster: who may have a lease. It is in the store, and only the leader writes it, before the first lease. So a successor
//! that reads it knows everyone who may hold a lease of an earlier leader.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rotacast_bus::BusEvent;
use rotacast_log_limit::LogLimit;
use rotacast_proto::Level;
use rotacast_protocol::challenge::{Answered, Challenged};
use rotacast_protocol::coordinator::Input;
use rotacast_protocol::message::Registration;
use rotacast_protocol::record::Unknown;
use rotacast_protocol::{Challenge, InstanceKey, SecretName};
use rotacast_store::{Roster, RosterEntry};
use tokio::sync::Notify;
use tracing::{debug, warn};

use super::super::mail::Question;
use super::super::{backoff, pause};
use super::Term;
use super::delivery::News;
use super::listener::Listener;
use crate::findings::Topic;
use crate::identities::Attested;

/// How long an incarnation that is fenced stays in the roster after it was last heard, and how often that is looked at. Long
/// enough for people to ask about it; without an end, every crash of every instance would stay in the store for ever.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// See [`REMEMBERED`].
const SWEEP: Duration = Duration::from_secs(600);

/// Most newcomers that are entered together: a few dozen commits, so that the first of a thousand that come at once get their
/// leases within a moment.
const ENTERED_AT_ONCE: usize = 1000;

/// Most newcomers that wait to be entered. Beyond it they are dropped, and register again when they send Sync. As many as one
/// secret may have members.
const MOST_WAITING: usize = 200_000;

/// One incarnation in the roster, as this term knows it.
pub(super) struct Listed {
    entry: RosterEntry,
    /// It uses nothing any more.
    left: bool,
    /// What its next Sync has to echo.
    challenged: Challenged,
}

impl Listed {
    fn new(entry: RosterEntry, left: bool) -> Self {
        Self { entry, left, challenged: Challenged::default() }
    }

    /// Whether it may use a secret: one whose entry cannot be read may use any.
    fn may_use(&self, secret: &SecretName) -> bool {
        self.entry.secrets.as_ref().is_none_or(|secrets| secrets.contains(secret))
    }
}

/// What tasks are told of an incarnation.
#[derive(Clone)]
pub(super) struct Member {
    pub(super) key: InstanceKey,
    exclusive: bool,
    left: bool,
}

impl Member {
    fn of(listed: &Listed) -> Self {
        let RosterEntry { key, exclusive, .. } = &listed.entry;
        Self { key: key.clone(), exclusive: *exclusive, left: listed.left }
    }

    /// `live`: it has registered just now.
    pub(super) fn input(self, live: bool) -> Input {
        let Self { key, exclusive, left } = self;
        if left { Input::Left { key } } else { Input::Registered { key, exclusive, live } }
    }

    #[cfg(test)]
    pub(super) fn new(key: InstanceKey) -> Self {
        Self { key, exclusive: false, left: false }
    }
}

/// Newcomers on their way into the store.
#[derive(Default)]
pub(super) struct Entering {
    /// Each with whether it has registered just now.
    newcomers: Mutex<BTreeMap<InstanceKey, (RosterEntry, bool)>>,
    more: Notify,
    entered: Notify,
}

impl Entering {
    fn newcomers(&self) -> std::sync::MutexGuard<'_, BTreeMap<InstanceKey, (RosterEntry, bool)>> {
        self.newcomers.lock().expect("no code panics while it holds this lock")
    }

    fn contains(&self, key: &InstanceKey) -> bool {
        self.newcomers().contains_key(key)
    }

    /// Adds a newcomer, or what it uses besides.
    fn add(&self, mut entry: RosterEntry, live: bool) {
        let mut newcomers = self.newcomers();
        let full = newcomers.len() >= MOST_WAITING;
        if let Some((before, _)) = newcomers.get(&entry.key) {
            entry.secrets = entry.secrets.into_iter().chain(before.secrets.clone()).reduce(|all, more| &all | &more);
        } else if full {
            static LIMIT: LogLimit = LogLimit::new();
            if let Some(left_out) = LIMIT.admit() {
                warn!(instance = %entry.key, left_out, "{MOST_WAITING} instances wait to be written into the roster");
            }
            return;
        }
        newcomers.insert(entry.key.clone(), (entry, live));
        self.more.notify_one();
    }

    fn next(&self) -> Vec<(RosterEntry, bool)> {
        self.newcomers().values().take(ENTERED_AT_ONCE).cloned().collect()
    }

    /// Waits until an incarnation is no longer on its way.
    async fn wait_for(&self, key: &InstanceKey) {
        loop {
            let mut entered = std::pin::pin!(self.entered.notified());
            entered.as_mut().enable();
            if !self.contains(key) {
                return;
            }
            entered.await;
        }
    }
}

impl Term {
    /// A linearizable read of the roster, before anything else of this term: what it does not name has no lease.
    pub(super) async fn take_roster_over(&self) -> anyhow::Result<()> {
        let Roster { entries, strangers } = self.environment.tree.load_roster().await.context("reading the roster")?;
        for (key, problem) in strangers {
            let text = format!("it is below the prefix of the roster and cannot be read: {problem}");
            let fix = "delete the key, unless a newer release wrote it; an instance that still runs registers again";
            self.environment.findings.raise(Topic::StrangeKey, key.as_str(), Level::Warning, text, fix);
        }
        let mut roster = self.roster();
        for entry in entries {
            self.secrets.heard().registered(entry.key.clone());
            roster.insert(entry.key.clone(), Listed::new(entry, false));
        }
        Ok(())
    }

    /// Whether the roster has an incarnation.
    pub(super) fn is_listed(&self, key: &InstanceKey) -> bool {
        self.roster().contains_key(key)
    }

    /// Waits, until `over`, for an incarnation that is being written into the roster. What is not entered by then registers again.
    pub(super) async fn wait_until_listed(&self, key: &InstanceKey, over: tokio::time::Instant) {
        drop(tokio::time::timeout_at(over, self.entering.wait_for(key)).await);
    }

    /// What a Sync is answered, by what it echoes; nothing for an incarnation that is not in the roster, or has left.
    pub(super) fn challenge(&self, key: &InstanceKey, echo: Option<Challenge>) -> Option<Answered> {
        let drawn: NonZeroU64 = rand::random();
        let mut roster = self.roster();
        let listed = roster.get_mut(key).filter(|listed| !listed.left)?;
        Some(listed.challenged.answer(echo, drawn.into()))
    }

    /// Follows registrations and leaves.
    pub(super) async fn follow_registrations(self: Arc<Self>) -> anyhow::Result<()> {
        let watch = || self.environment.bus.watch_registrations();
        let mut events = Listener::new("registrations", watch, self.over.clone());
        let mut live = false;
        loop {
            match events.next().await {
                BusEvent::CaughtUp => live = true,
                BusEvent::Resync => live = false,
                BusEvent::Message(envelope) => {
                    match self.environment.identities.registration(&envelope) {
                        Ok(registration) if !self.is_refused(&registration) => {
                            self.registers(registration.message, live).await;
                        }
                        // It would take room from registrations that count.
                        Ok(_) | Err(_) => {
                            if let Some(key) = InstanceKey::of_full_name(&envelope.subject) {
                                self.environment.bus.sweep_registration(&key);
                            }
                        }
                    }
                }
            }
        }
    }

    /// Whether a key that attests no new instance any more attests this one, which is new.
    fn is_refused(&self, registration: &Attested<Registration>) -> bool {
        let Attested { message: Registration { key, .. }, by, former } = registration;
        let refused = *former && !self.roster().contains_key(key) && !self.entering.contains(key);
        if refused {
            drop(self.environment.identities.refuse_newcomer(key, by));
        }
        refused
    }

    async fn registers(&self, registration: Registration, live: bool) {
        let Registration { key, exclusive, mut secrets, left } = registration;
        let unknown = Unknown::new();
        let leaves = {
            let mut roster = self.roster();
            let known = roster.get_mut(&key);
            match (known, left) {
                // A leave is final, whatever arrives after it.
                (Some(Listed { left: true, .. }), _) => return,
                (Some(listed), true) => {
                    listed.left = true;
                    secrets.extend(listed.entry.secrets.clone().into_iter().flatten());
                    Some(Member::of(listed))
                }
                (None, true) => {
                    let entry = RosterEntry { key: key.clone(), exclusive, secrets: Some(secrets.clone()), unknown };
                    let listed = Listed::new(entry, true);
                    let member = Member::of(&listed);
                    roster.insert(key.clone(), listed);
                    Some(member)
                }
                (Some(listed), false) => {
                    let before = listed.entry.secrets.clone().unwrap_or_default();
                    if listed.entry.secrets.is_some() && secrets.is_subset(&before) {
                        return;
                    }
                    let secrets = Some(&secrets | &before);
                    self.entering.add(RosterEntry { exclusive, secrets, ..listed.entry.clone() }, live);
                    None
                }
                (None, false) => {
                    self.entering.add(RosterEntry { key, exclusive, secrets: Some(secrets.clone()), unknown }, live);
                    None
                }
            }
        };
        let Some(member) = leaves else { return };
        self.environment.identities.uses().forget(&member.key);
        self.secrets.heard().forget(&member.key);
        self.tell_members(&member, &secrets, live).await;
    }

    async fn tell_members(&self, member: &Member, secrets: &BTreeSet<SecretName>, live: bool) {
        for secret in secrets {
            if let Some(task) = self.secrets.get(secret) {
                self.tell(secret, &task, News::Registered { member: member.clone(), live }).await;
            }
        }
    }

    /// Writes newcomers into the roster, and only then tells the tasks of them: no lease is granted before.
    pub(super) async fn enter_newcomers(self: Arc<Self>) -> anyhow::Result<()> {
        let mut pauses = backoff();
        loop {
            let newcomers = self.entering.next();
            if newcomers.is_empty() {
                self.entering.more.notified().await;
                continue;
            }
            let entries: Vec<RosterEntry> = newcomers.iter().map(|(entry, _)| entry.clone()).collect();
            match self.environment.tree.enter_roster(&entries, self.tenure.epoch).await {
                Ok(done) if done == entries.len() => {
                    pauses = backoff();
                    for (entry, live) in newcomers {
                        self.entered(entry, live).await;
                    }
                    self.entering.entered.notify_waiters();
                }
                Ok(_) => bail!("the roster: another broadcaster leads"),
                Err(problem) => {
                    static LIMIT: LogLimit = LogLimit::new();
                    if let Some(left_out) = LIMIT.admit() {
                        let newcomers = entries.len();
                        warn!(%problem, newcomers, left_out, "cannot write newcomers into the roster; trying again");
                    }
                    pause(&mut pauses, &self.over).await;
                }
            }
        }
    }

    /// An entry is durable.
    async fn entered(&self, entry: RosterEntry, live: bool) {
        let (member, added) = {
            let mut roster = self.roster();
            let before = roster.get(&entry.key);
            let left = before.is_some_and(|listed| listed.left);
            let known = before.and_then(|listed| listed.entry.secrets.clone()).unwrap_or_default();
            let added = &entry.secrets.clone().unwrap_or_default() - &known;
            let challenged = before.map(|listed| listed.challenged).unwrap_or_default();
            let listed = Listed { entry: entry.clone(), left, challenged };
            let member = Member::of(&listed);
            roster.insert(entry.key.clone(), listed);
            (member, added)
        };
        if !member.left {
            self.secrets.heard().registered(entry.key.clone());
        }
        self.tell_members(&member, &added, live).await;
        let mut newcomers = self.entering.newcomers();
        if newcomers.get(&entry.key).is_some_and(|(waiting, _)| *waiting == entry) {
            newcomers.remove(&entry.key);
        }
    }

    /// Every incarnation in the roster that may use a secret.
    pub(super) fn members_of(&self, secret: &SecretName) -> Vec<Member> {
        self.roster().values().filter(|listed| listed.may_use(secret)).map(Member::of).collect()
    }

    pub(super) fn member(&self, key: &InstanceKey) -> Option<Member> {
        self.roster().get(key).map(Member::of)
    }

    /// Takes incarnations out of the roster that nothing waits for any more. One that comes back after all has to register
    /// again.
    pub(super) async fn sweep_roster(self: Arc<Self>) -> anyhow::Result<()> {
        loop {
            tokio::time::sleep(SWEEP).await;
            let mut answers = BTreeMap::new();
            for (secret, task) in self.secrets.all() {
                let answer = task.ask(|reply| Question::Expendable { silent: REMEMBERED, reply }).await;
                answers.insert(secret, answer);
            }
            answers.extend(self.secrets.unserved_names().into_iter().map(|secret| (secret, None)));
            let all_known = self.secrets.left_out().is_empty();
            let over: Vec<InstanceKey> = {
                let roster = self.roster();
                let over = roster.values().filter(|listed| may_be_forgotten(&listed.entry, &answers, all_known));
                over.map(|listed| listed.entry.key.clone()).collect()
            };
            match self.environment.tree.leave_roster(&over, self.tenure.epoch).await {
                Ok(done) if done == over.len() => {}
                Ok(_) => bail!("the roster: another broadcaster leads"),
                Err(problem) => {
                    warn!(%problem, "cannot take incarnations out of the roster; trying again later");
                    continue;
                }
            }
            for key in over {
                self.roster().remove(&key);
                self.secrets.heard().forget(&key);
                debug!(instance = %key, "taken out of the roster");
                // Another leader finds it on the bus, enters it, and takes it out again.
                if let Err(problem) = self.environment.bus.prune_registration(&key).await {
                    warn!(instance = %key, %problem, "its registration cannot be taken off the bus");
                }
            }
        }
    }
}

/// Whether no secret waits for an incarnation. `answers`: the incarnations that a secret does not wait for, or none if it is
/// not known, as of one that is out of service: its retirements may wait for any. `all_known`: they are of all secrets in the
/// store, so that any other has no record and waits for none.
fn may_be_forgotten(
    entry: &RosterEntry,
    answers: &BTreeMap<SecretName, Option<BTreeSet<InstanceKey>>>,
    all_known: bool,
) -> bool {
    let over = |secret: &SecretName| match answers.get(secret) {
        None => all_known,
        Some(None) => false,
        Some(Some(expendable)) => expendable.contains(&entry.key),
    };
    match &entry.secrets {
        Some(secrets) => secrets.iter().all(over),
        None => all_known && answers.keys().all(over),
    }
}

#[cfg(test)]
mod tests {
    use rotacast_protocol::Incarnation;

    use super::*;

    fn entry(secrets: Option<&[&SecretName]>) -> RosterEntry {
        RosterEntry {
            key: InstanceKey::new("payments".parse().unwrap(), "payments-1".parse().unwrap(), Incarnation(1)),
            exclusive: false,
            secrets: secrets.map(|secrets| secrets.iter().map(|secret| (*secret).clone()).collect()),
            unknown: Unknown::new(),
        }
    }

    #[test]
    fn an_incarnation_is_remembered_while_what_a_secret_waits_for_is_not_known() {
        let [over, unknown, no_record] = ["a/db", "b/db", "c/db"].map(|name| name.parse::<SecretName>().unwrap());
        let key = entry(None).key;
        let mut answers =
            BTreeMap::from([(over.clone(), Some(BTreeSet::from([key.clone()]))), (unknown.clone(), None)]);
        assert!(may_be_forgotten(&entry(Some(&[&over, &no_record])), &answers, true));
        assert!(!may_be_forgotten(&entry(Some(&[&over, &unknown])), &answers, true));
        assert!(!may_be_forgotten(&entry(Some(&[&over, &no_record])), &answers, false));
        assert!(!may_be_forgotten(&entry(None), &answers, true), "it may use any secret");
        answers.insert(unknown, Some(BTreeSet::from([key])));
        assert!(may_be_forgotten(&entry(None), &answers, true));
    }

    #[test]
    fn a_newcomer_that_registers_twice_is_entered_with_all_it_uses() {
        let [a, b] = ["a/db", "b/db"].map(|name| name.parse::<SecretName>().unwrap());
        let entering = Entering::default();
        entering.add(entry(Some(&[&a])), true);
        entering.add(entry(Some(&[&b])), true);
        assert!(entering.next() == [(entry(Some(&[&a, &b])), true)]);
    }
}
