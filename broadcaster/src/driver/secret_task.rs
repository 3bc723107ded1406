//! One secret's task: the only one that decides about it and writes its record.

mod commands;
mod lost;
mod scheduled;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rotacast_bus::BusError;
use rotacast_clock as clock;
use rotacast_proto::WireMessage as _;
use rotacast_proto::v1::SecretStatus;
use rotacast_protocol::coordinator::{Change, CommandKind, Coordinator, Input, Member, Rejection};
use rotacast_protocol::record::RecordChange;
use rotacast_protocol::{Generation, InstanceKey, Instant, OperatorName, Revision, SecretName, Version};
use rotacast_store::{Committed, Cursor, StoreError};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, debug, error, info, warn};

use self::commands::Retry;
use super::context::LogContext;
use super::directory::Secrets;
use super::effect::{EffectOutcome, EndedByOthers, newer_on_bus};
use super::mail::{Granted, Mail, OrderOutcome};
use super::turns::{Turn, Turns};
use super::{Environment, status};
use crate::metrics::{Figures, FiguresSlot, Intake};
use crate::settings::SecretSettings;
use crate::traces::{RotationSpans, envelope_of};

/// Inputs that may wait for one task. At one input per instance, a burst of this size is taken in at once; beyond it
/// senders wait, and reports are dropped, which their resending repairs.
pub(super) const MAILBOX: usize = 4096;

/// How long a new leader waits for the bus to say whether it knows more than the store: leases are granted after it.
const LOOK_AT_BUS: Duration = Duration::from_secs(1);

/// Inputs taken in before time-driven rules are looked at again: they look at every member.
const BATCH: usize = 1024;

/// Shortest time between two status updates to listeners.
const STATUS_INTERVAL: Duration = Duration::from_millis(100);

/// Why a task ends.
#[derive(Debug)]
pub(super) enum Ended {
    /// It was told to.
    Stopped,
    /// Somebody else has written the record: another leader is at work.
    Deposed(String),
}

/// One secret's task.
pub(super) struct SecretTask {
    secret: SecretName,
    environment: Environment,
    settings: SecretSettings,
    coordinator: Coordinator,
    /// The record key's cursor as last written or read.
    cursor: Option<Cursor>,
    mail: mpsc::Receiver<Mail>,
    leadership: watch::Receiver<Instant>,
    /// Why the record may be older than what has happened, until it says so itself.
    setback: Option<String>,
    turns: Turns,
    effects: JoinSet<EffectOutcome>,
    in_flight: BTreeSet<CommandKind>,
    retries: BTreeMap<CommandKind, Retry>,
    ended_by_others: EndedByOthers,
    /// How often the bus was believed to have a newer state.
    leaps: u32,
    /// When the schedule's rotation may be asked for again, after it was refused.
    ask_again: Option<Instant>,
    spans: RotationSpans,
    context: LogContext,
    status: watch::Sender<Arc<SecretStatus>>,
    figures: FiguresSlot,
    /// When listeners were last told, and of which revision.
    told: (Instant, Revision),
    secrets: Secrets,
    stop: CancellationToken,
}

impl SecretTask {
    #[allow(clippy::too_many_arguments)]
    pub(super) fn new(
        environment: Environment,
        settings: SecretSettings,
        coordinator: Coordinator,
        cursor: Option<Cursor>,
        mail: mpsc::Receiver<Mail>,
        leadership: watch::Receiver<Instant>,
        setback: Option<String>,
        turns: Turns,
        status: watch::Sender<Arc<SecretStatus>>,
        secrets: Secrets,
        stop: CancellationToken,
    ) -> Self {
        let figures = environment.metrics.figures();
        let spans = RotationSpans::new(environment.traces.clone(), coordinator.record(), clock::wall());
        let mut context = LogContext::new(&coordinator.record().secret);
        context.changed(coordinator.record(), spans.trace());
        Self {
            secret: coordinator.record().secret.clone(),
            environment,
            settings,
            coordinator,
            cursor,
            mail,
            leadership,
            setback,
            turns,
            effects: JoinSet::new(),
            in_flight: BTreeSet::new(),
            ended_by_others: EndedByOthers::default(),
            leaps: 0,
            ask_again: None,
            spans,
            context,
            retries: BTreeMap::new(),
            status,
            figures,
            told: (Instant::ZERO, Revision(0)),
            secrets,
            stop,
        }
    }

    /// Runs until the term ends. Begins when it is its turn.
    pub(super) async fn run(self, turn: Turn) -> Ended {
        let span = self.context.span();
        self.run_within(turn).instrument(span).await
    }

    async fn run_within(mut self, turn: Turn) -> Ended {
        let stop = self.stop.clone();
        let ended = tokio::select! {
            ended = self.drive(turn) => ended,
            () = stop.cancelled() => Ended::Stopped,
        };
        // Effects are cut off where they are: each is idempotent, and whoever leads next owes it again.
        self.effects.shutdown().await;
        ended
    }

    /// Whether the bus has a newer state than the record as it was loaded: then the store has lost what it had. Asked by
    /// publishing that record's state once more, before this term adds to it and hides the difference. A bus that does not
    /// answer is not waited for: every later publish asks again, if less sharply.
    async fn bus_knows_more(&self) -> Option<String> {
        let record = self.coordinator.record();
        if record.revision == Revision(0) {
            return None;
        }
        let Environment { key, cluster, bus, tree, traces, .. } = &self.environment;
        let id = format!("{}:{}:{}", self.secret, record.epoch, record.revision);
        let state = envelope_of(traces, record, record.state().seal(key, cluster, id, clock::wall()));
        let asked = bus.publish_state(&self.secret, record.revision, &state);
        match tokio::time::timeout(LOOK_AT_BUS, asked).await {
            Ok(Err(BusError::Fenced { .. })) => Some(newer_on_bus(record.revision, &tree.store().describe())),
            _ => None,
        }
    }

    async fn drive(&mut self, turn: Turn) -> Ended {
        let mut place = Some(turn.await);
        let setback = match self.setback.take() {
            Some(reason) => Some(reason),
            None => self.bus_knows_more().await,
        };
        if let Some(reason) = setback
            && let Err(ended) = self.input(Input::StoreWentBack { reason }).await
        {
            return ended;
        }
        loop {
            if let Err(ended) = self.settle().await {
                return ended;
            }
            // Its record is this term's by now.
            drop(place.take());
            if let Err(ended) = self.keep_schedule().await {
                return ended;
            }
            self.start_commands();
            self.publish_status();
            if let Err(ended) = self.wait().await {
                return ended;
            }
        }
    }

    /// Tells the core until when it leads, as far as that is known by now.
    fn renew(&mut self) {
        let until = *self.leadership.borrow_and_update();
        self.coordinator.apply(clock::now(), &Change::LeadershipExtended { until });
    }

    /// Until the leadership is known to last. Most inputs come once: refused because a renewal is late, a version would
    /// never be rotated to, and a reloaded policy never be gone by.
    async fn leading(&mut self) -> Result<(), Ended> {
        loop {
            self.renew();
            if clock::instant() < self.coordinator.tenure().valid_until {
                return Ok(());
            }
            // Renewed or lost: the latter ends the term, and with it this wait.
            if self.leadership.changed().await.is_err() {
                return Err(Ended::Stopped);
            }
        }
    }

    /// Lets everything go on that can go on by itself.
    async fn settle(&mut self) -> Result<(), Ended> {
        loop {
            self.renew();
            match self.coordinator.decide(clock::now(), Input::Tick) {
                Ok(changes) if changes.is_empty() => return Ok(()),
                Ok(changes) => self.commit(changes).await?,
                // Not leading at the moment: wait for a renewal, or for the term's end.
                Err(_) => return Ok(()),
            }
        }
    }

    /// Waits for the next thing to happen, and takes in all that has.
    async fn wait(&mut self) -> Result<(), Ended> {
        let now = clock::now();
        let retry =
            self.retries.iter().filter(|(kind, _)| !self.in_flight.contains(*kind)).map(|(_, retry)| retry.at).min();
        // A status that was held back is due soon after.
        let status = Some(self.told.0 + STATUS_INTERVAL).filter(|due| *due > now.instant);
        let wakeup =
            [self.coordinator.next_wakeup(now), retry, status, self.scheduled(now)].into_iter().flatten().min();
        // A minute is as good as never: it bounds how long a missed wake-up, or a wall clock that was set, goes unnoticed.
        let pause = wakeup.map_or(Duration::from_secs(60), |at| at.since(now.instant)).min(Duration::from_secs(60));
        let mut mails = Vec::new();
        tokio::select! {
            count = self.mail.recv_many(&mut mails, BATCH) => {
                if count == 0 {
                    return Err(Ended::Stopped);
                }
                for mail in mails {
                    self.take_in(mail).await?;
                }
            }
            Some(outcome) = self.effects.join_next() => self.effect_ended(outcome).await?,
            Ok(()) = self.leadership.changed() => {}
            () = tokio::time::sleep(pause) => {}
        }
        Ok(())
    }

    async fn take_in(&mut self, mail: Mail) -> Result<(), Ended> {
        // Saving what the mail before has changed may have taken longer than the leadership was known to last.
        self.renew();
        match mail {
            Mail::Input(input) => self.input(*input).await,
            Mail::Sync { key, sequence, report, reply } => {
                let input = Input::Sync { key: key.clone(), sequence, report };
                match self.coordinator.decide(clock::now(), input) {
                    Ok(changes) => {
                        self.commit(changes).await?;
                        if let Some(grant) = self.coordinator.grant(&key) {
                            let traceparent =
                                grant.state.as_ref().and_then(|_| self.spans.traceparent()).unwrap_or_default();
                            // The caller may have given up waiting; its next Sync repairs that.
                            drop(reply.send(Granted { grant, traceparent }));
                        }
                    }
                    Err(rejection) => debug!(secret = %self.secret, %rejection, "refused a Sync"),
                }
                Ok(())
            }
            Mail::Operator { by, order, reply } => {
                let counted = Intake::label(&order);
                let answer = match self.coordinator.decide(clock::now(), Input::Operator { by: by.clone(), order }) {
                    Ok(changes) => {
                        self.commit_for(changes, Some(&by)).await?;
                        let rotation = self.coordinator.record().rotation.as_ref();
                        Ok(OrderOutcome { rotation: rotation.map(|rotation| (rotation.generation, rotation.new)) })
                    }
                    Err(rejection) => Err(rejection),
                };
                self.environment.metrics.intake().order(counted, answer.is_ok());
                // The operator's client may be gone; the order stands all the same.
                drop(reply.send(answer));
                Ok(())
            }
            Mail::Gap { missing, found } => {
                let lost = self.lost_between(missing, found);
                if lost.is_empty() {
                    let secret = &self.secret;
                    warn!(%secret, %missing, %found, "a version is missing; later ones wait until it is written");
                } else {
                    self.note_lost(lost).await;
                }
                Ok(())
            }
            Mail::LastVersion(reply) => {
                // Whoever asked may be gone.
                reply.send(self.coordinator.record().last_version).ok();
                Ok(())
            }
            Mail::Reconfigured => {
                self.settings = self.environment.settings.of(&self.secret);
                self.input(Input::PolicyChanged(Box::new(self.settings.policy.clone()))).await
            }
            Mail::Status(reply) => {
                drop(reply.send(status::of(&self.coordinator, &self.settings, clock::now())));
                Ok(())
            }
            Mail::Expendable { silent, reply } => {
                drop(reply.send(self.expendable(silent)));
                Ok(())
            }
            Mail::Instances { not_on, reply } => {
                drop(reply.send(status::instances(&self.coordinator, not_on, clock::now())));
                Ok(())
            }
        }
    }

    fn expendable(&self, silent: Duration) -> BTreeSet<InstanceKey> {
        let now = clock::now();
        let over = |member: &&Member| {
            let heard = member.heard.map_or(member.first_seen.instant, |heard| heard.instant);
            let gone = member.is_gone() || self.coordinator.is_out_of_reach(member, now);
            gone && now.instant.since(heard) >= silent
        };
        self.coordinator.members().filter(over).map(|member| member.key.clone()).collect()
    }

    async fn input(&mut self, input: Input) -> Result<(), Ended> {
        self.leading().await?;
        if let Input::VersionSeen { version } = &input {
            self.warn_of_taken(*version);
        }
        match self.coordinator.decide(clock::now(), input) {
            Ok(changes) => self.commit(changes).await,
            Err(rejection @ (Rejection::Stale { .. } | Rejection::Deposed { .. })) => {
                debug!(secret = %self.secret, %rejection, "nothing new");
                Ok(())
            }
            // Such as a report that was under way when its instance left.
            Err(rejection @ Rejection::Sender { .. }) => {
                info!(secret = %self.secret, %rejection, "refused");
                Ok(())
            }
            Err(rejection) => {
                warn!(secret = %self.secret, %rejection, "refused");
                Ok(())
            }
        }
    }

    /// Saves what is durable, then applies everything.
    async fn commit(&mut self, changes: Vec<Change>) -> Result<(), Ended> {
        self.commit_for(changes, None).await
    }

    /// The same, for an operator who ordered it.
    async fn commit_for(&mut self, changes: Vec<Change>, operator: Option<&OperatorName>) -> Result<(), Ended> {
        if let Some(next) = self.coordinator.record_after(&changes) {
            self.audit_before(&changes, operator).await?;
            self.save(next.encode()).await?;
        }
        let now = clock::now();
        let known = self.coordinator.record().last_version.map_or(Version::FIRST, Version::next);
        let mut rotations = Vec::with_capacity(changes.len());
        for change in &changes {
            let before = self.rotation();
            let counts = self.environment.metrics.rotations();
            let stood = counts.before(&self.coordinator, change);
            self.coordinator.apply(now, change);
            counts.after(stood, change, &self.coordinator, now.wall);
            if matches!(change, Change::Record(_)) {
                let record = self.coordinator.record();
                self.spans.changed(record);
                self.context.changed(record, self.spans.trace());
            }
            // A start belongs to the rotation it opens, an end to the one it closes.
            rotations.push(self.rotation().or(before));
        }
        self.audit_after(&changes, &rotations, operator).await;
        for change in &changes {
            if let Change::Record(RecordChange::NumbersLost { last }) = change {
                self.note_lost(self.lost_between(known, last.next())).await;
            }
        }
        Ok(())
    }

    /// Saves the record by compare-and-swap. When the outcome is unknown, the store is asked until it is known: the
    /// next decision must not be made on a guess.
    async fn save(&mut self, bytes: Vec<u8>) -> Result<(), Ended> {
        let mut pauses = super::backoff();
        let epoch = self.coordinator.tenure().epoch;
        loop {
            let outcome = self.environment.tree.save_record(&self.secret, bytes.clone(), self.cursor, epoch).await;
            let refused = matches!(outcome, Ok(Committed::Conflict));
            let problem = match outcome {
                Ok(Committed::Done(cursor)) => {
                    self.cursor = Some(cursor);
                    return Ok(());
                }
                Ok(Committed::Conflict) => "the record was changed, or the leadership is over".to_owned(),
                Err(StoreError::NotLeader { problem }) => return Err(Ended::Deposed(problem)),
                Err(problem) => problem.to_string(),
            };
            // A first attempt may have landed although its answer was lost.
            match self.environment.tree.read_record(&self.secret).await {
                Ok(Some(stored)) if stored.bytes == bytes => {
                    self.cursor = Some(stored.cursor);
                    return Ok(());
                }
                Ok(stored) if stored.as_ref().map(|stored| stored.cursor) != self.cursor => {
                    return Err(Ended::Deposed(format!("somebody else has written the record: {problem}")));
                }
                Ok(_) if refused => return Err(Ended::Deposed(problem)),
                Ok(_) => {}
                Err(unreadable) => warn!(secret = %self.secret, problem = %unreadable, "cannot read the record back"),
            }
            warn!(secret = %self.secret, %problem, "cannot save the record; trying again");
            super::pause(&mut pauses, &self.stop).await;
            if self.stop.is_cancelled() {
                return Err(Ended::Stopped);
            }
        }
    }

    /// An override cuts somebody off: its entry is durable before it takes effect. So is the intent to retire, which
    /// has a command of its own.
    async fn audit_before(&mut self, changes: &[Change], operator: Option<&OperatorName>) -> Result<(), Ended> {
        for change in changes {
            if let Change::Record(change @ RecordChange::Overridden { .. }) = change {
                let mut pauses = super::backoff();
                while let Err(problem) =
                    super::effect::record(&self.environment, &self.coordinator, self.rotation(), change, operator).await
                {
                    error!(secret = %self.secret, %problem, "the audit log takes no entry; the override waits");
                    super::pause(&mut pauses, &self.stop).await;
                    if self.stop.is_cancelled() {
                        return Err(Ended::Stopped);
                    }
                }
            }
        }
        Ok(())
    }

    /// The rotation in flight, by the generation that opened it.
    fn rotation(&self) -> Option<Generation> {
        self.coordinator.record().rotation.as_ref().map(|rotation| rotation.generation)
    }

    async fn audit_after(
        &mut self,
        changes: &[Change],
        rotations: &[Option<Generation>],
        operator: Option<&OperatorName>,
    ) {
        for (change, rotation) in changes.iter().zip(rotations) {
            let Change::Record(change) = change else { continue };
            if matches!(change, RecordChange::Overridden { .. }) {
                continue;
            }
            if let Err(problem) =
                super::effect::record(&self.environment, &self.coordinator, *rotation, change, operator).await
            {
                // Nothing irreversible goes by this entry; those that do are written before their action.
                error!(secret = %self.secret, %problem, "the audit log takes no entry");
            }
        }
    }

    /// Tells listeners: of a new revision at once, of anything else at most every so often, since a status looks at
    /// every member.
    fn publish_status(&mut self) {
        let (now, revision) = (clock::instant(), self.coordinator.record().revision);
        if revision == self.told.1 && now.since(self.told.0) < STATUS_INTERVAL {
            return;
        }
        self.told = (now, revision);
        let at = clock::now();
        let fresh = status::of(&self.coordinator, &self.settings, at);
        self.figures.tell(Figures::of(&self.coordinator, &fresh, status::standings(&self.coordinator, at)));
        let changed = self.status.send_if_modified(|status| {
            let changed = **status != fresh;
            if changed {
                *status = Arc::new(fresh);
            }
            changed
        });
        if changed {
            self.secrets.announce(self.secret.clone());
        }
    }
}
