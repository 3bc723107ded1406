//! Everything that one incarnation holds, tied into one registration and one report.

use std::collections::{BTreeMap, BTreeSet};

use rotacast_protocol::message::{
    InstanceReport, MAX_SECRETS_PER_INSTANCE, Registration, SecretReport, SyncReply, SyncRequest,
};
use rotacast_protocol::{Challenge, InstanceKey, Instant, Nonce, ReportSequence, SecretName};

use crate::holder::Holder;
use crate::input::{Command, Input, Rejection};

/// Something that happened to an instance.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum InstanceInput {
    /// A registration naming these secrets is durable.
    Registered(BTreeSet<SecretName>),
    /// A Sync request is about to be sent; `at` was read from the clock before sending.
    SyncSent {
        /// Its nonce.
        nonce: Nonce,
        /// The send time.
        at: Instant,
    },
    /// A Sync got no answer.
    SyncFailed {
        /// Which.
        nonce: Nonce,
    },
    /// The leader's answer to a Sync.
    SyncReply(SyncReply),
    /// A report was handed to the bus.
    Reported(ReportSequence),
    /// Something about one secret.
    Secret(SecretName, Input),
}

/// A side effect of an instance that is outstanding.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum InstanceCommand {
    /// Make this registration durable. Nothing is read or leased for a secret before.
    Register(Registration),
    /// Ask the leader.
    Sync,
    /// Send the report over the bus: something has changed.
    Report,
    /// For one secret.
    Secret(SecretName, Command),
}

/// Whether a Sync that had no effect is made once more at once, with the challenge of its answer. Only once in a row: leaders
/// that each ask for their own challenge are not asked in a loop.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Again {
    No,
    Due,
    /// The Sync under way is the one that was made once more.
    Sent,
}

impl Again {
    fn sent(self) -> Self {
        if self == Self::Due { Self::Sent } else { Self::No }
    }
}

/// One incarnation.
#[derive(Clone, Hash, Debug)]
pub struct Instance {
    key: InstanceKey,
    exclusive: bool,
    holders: BTreeMap<SecretName, Holder>,
    registered: BTreeSet<SecretName>,
    unknown_to_leader: bool,
    /// What the leader's newest answer asks the next Sync to echo.
    challenge: Option<Challenge>,
    again: Again,
    sequence: ReportSequence,
    reports: BTreeMap<SecretName, SecretReport>,
    /// The newest report with news in it.
    news: ReportSequence,
    reported: ReportSequence,
}

impl Instance {
    /// An incarnation that uses nothing yet.
    #[must_use]
    pub fn new(key: InstanceKey, exclusive: bool) -> Self {
        Self {
            key,
            exclusive,
            holders: BTreeMap::new(),
            registered: BTreeSet::new(),
            unknown_to_leader: false,
            challenge: None,
            again: Again::No,
            sequence: ReportSequence(0),
            reports: BTreeMap::new(),
            news: ReportSequence(0),
            reported: ReportSequence(0),
        }
    }

    fn may_ask(&self, secret: &SecretName) -> bool {
        is_registered(&self.registered, secret)
    }

    /// Who it is.
    #[must_use]
    pub fn key(&self) -> &InstanceKey {
        &self.key
    }

    /// Begins to use a secret, unless [`MAX_SECRETS_PER_INSTANCE`] are in use. Says whether it does.
    pub fn add(&mut self, secret: SecretName) -> bool {
        if self.holders.len() >= MAX_SECRETS_PER_INSTANCE && !self.holders.contains_key(&secret) {
            return false;
        }
        self.holders.entry(secret.clone()).or_insert_with(|| Holder::new(secret));
        self.renumber();
        true
    }

    /// The holder of one secret.
    #[must_use]
    pub fn holder(&self, secret: &SecretName) -> Option<&Holder> {
        self.holders.get(secret)
    }

    /// All secrets in use.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretName> {
        self.holders.keys()
    }

    /// The registration of this incarnation as it should be, or its leave.
    #[must_use]
    pub fn registration(&self, left: bool) -> Registration {
        Registration {
            key: self.key.clone(),
            exclusive: self.exclusive,
            secrets: self.holders.keys().cloned().collect(),
            left,
        }
    }

    /// The whole observed state.
    #[must_use]
    pub fn report(&self) -> InstanceReport {
        InstanceReport { key: self.key.clone(), sequence: self.sequence, secrets: self.reports.clone() }
    }

    /// The Sync request to send, after `SyncSent` with this nonce was taken in.
    #[must_use]
    pub fn sync_request(&self, nonce: Nonce) -> SyncRequest {
        SyncRequest { nonce, echo: self.challenge, report: self.report() }
    }

    /// Takes in what happened.
    ///
    /// # Errors
    /// The first [`Rejection`]; what else the input carries is taken in all the same.
    pub fn handle(&mut self, now: Instant, input: InstanceInput) -> Result<(), Rejection> {
        let result = match input {
            InstanceInput::Registered(secrets) => {
                self.registered = secrets;
                self.unknown_to_leader = false;
                Ok(())
            }
            InstanceInput::SyncSent { nonce, at } => {
                self.again = self.again.sent();
                // What is not registered yet asks for no lease.
                let known = &self.registered;
                let registered = self.holders.iter_mut().filter(|(secret, _)| is_registered(known, secret));
                first(registered.map(|(_, holder)| holder.handle(now, Input::SyncSent { nonce, at })))
            }
            InstanceInput::SyncFailed { nonce } => self.each(now, || Input::SyncFailed { nonce }),
            InstanceInput::SyncReply(reply) => self.answered(now, reply),
            InstanceInput::Reported(sequence) => {
                self.reported = self.reported.max(sequence);
                Ok(())
            }
            InstanceInput::Secret(secret, input) => match self.holders.get_mut(&secret) {
                Some(holder) => holder.handle(now, input),
                None => Err(Rejection::UnknownSecret { found: secret }),
            },
        };
        self.renumber();
        result
    }

    fn each(&mut self, now: Instant, input: impl Fn() -> Input) -> Result<(), Rejection> {
        // A secret added after the Sync was sent has no part in its failure.
        let results = self.holders.values_mut().map(|holder| holder.handle(now, input()));
        first(results.filter(|result| !matches!(result, Err(Rejection::UnknownNonce { .. }))))
    }

    /// A reply is for the instance that asked.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(OwnReply, true))]
    fn is_addressee(&self, reply: &SyncReply) -> bool {
        reply.key == self.key
    }

    fn answered(&mut self, now: Instant, mut reply: SyncReply) -> Result<(), Rejection> {
        if !self.is_addressee(&reply) {
            return Err(Rejection::OtherInstance { expected: self.key.clone(), found: reply.key });
        }
        self.unknown_to_leader |= reply.unregistered;
        let nonce = reply.nonce;
        self.challenge = reply.challenge.or(self.challenge);
        if reply.unproven && self.again == Again::No {
            // It had no effect, so it says nothing about any secret.
            self.again = Again::Due;
            return Ok(());
        }
        let results: Vec<_> = self
            .holders
            .iter_mut()
            .map(|(secret, holder)| match reply.secrets.remove(secret) {
                Some(grant) => holder.handle(now, Input::Grant { nonce, grant }),
                None => match holder.handle(now, Input::SyncFailed { nonce }) {
                    Err(Rejection::UnknownNonce { .. }) => Ok(()),
                    other => other,
                },
            })
            .collect();
        first(results)
    }

    /// Every different report has its own number.
    fn renumber(&mut self) {
        let reports: BTreeMap<_, _> =
            self.holders.iter().map(|(secret, holder)| (secret.clone(), holder.report())).collect();
        if reports == self.reports {
            return;
        }
        self.sequence = self.sequence.next();
        let is_news = |(secret, report): (&SecretName, &SecretReport)| {
            let news = |report: &SecretReport| SecretReport { lease: Default::default(), ..report.clone() };
            self.reports.get(secret).map(news) != Some(news(report))
                || self.holders.get(secret).is_some_and(Holder::owes_acknowledgement)
        };
        if reports.iter().any(is_news) {
            self.news = self.sequence;
        }
        self.reports = reports;
    }

    /// What is due now; see [`Holder::commands`].
    #[must_use]
    pub fn commands(&self, now: Instant) -> Vec<InstanceCommand> {
        let mut commands = Vec::new();
        let all_registered = self.holders.keys().all(|secret| self.registered.contains(secret));
        if self.unknown_to_leader || (!all_registered && !self.holders.is_empty()) {
            commands.push(InstanceCommand::Register(self.registration(false)));
        }
        let registered = || self.holders.iter().filter(|(secret, _)| self.may_ask(secret));
        if self.news > self.reported && registered().next().is_some() {
            commands.push(InstanceCommand::Report);
        }
        let mut sync = false;
        for (secret, holder) in registered() {
            for command in holder.commands(now) {
                match command {
                    Command::Sync => sync = true,
                    command => commands.push(InstanceCommand::Secret(secret.clone(), command)),
                }
            }
        }
        if sync || self.again == Again::Due && registered().next().is_some() {
            commands.push(InstanceCommand::Sync);
        }
        commands
    }

    /// The next moment after `now` at which commands or usable versions change by themselves.
    #[must_use]
    pub fn next_wakeup(&self, now: Instant) -> Option<Instant> {
        self.holders.values().filter_map(|holder| holder.next_wakeup(now)).min()
    }
}

/// The joiner's barrier: the registration is durable before a lease is asked for.
#[cfg_attr(rotacast_mutants, rotacast_mutate::rule(RegisteredFirst, true))]
fn is_registered(registered: &BTreeSet<SecretName>, secret: &SecretName) -> bool {
    registered.contains(secret)
}

fn first(results: impl IntoIterator<Item = Result<(), Rejection>>) -> Result<(), Rejection> {
    // Every result is looked at, so that every holder has taken in its part.
    let mut first = Ok(());
    for result in results {
        first = first.and(result);
    }
    first
}
