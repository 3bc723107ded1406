//! One secret's task: the shell of its machine, and the only writer of its record.

mod commands;
mod lost;
mod observers;
mod question;
mod save;
mod scheduled;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rotacast_bus::BusError;
use rotacast_clock as clock;
use rotacast_proto::WireMessage as _;
use rotacast_proto::v1::SecretStatus;
use rotacast_protocol::coordinator::{CommandKind, Coordinator, Input, Rejection};
use rotacast_protocol::machine::{Action, Answer, CommandId, Event, Machine};
use rotacast_protocol::{Instant, Revision, SecretName};
use rotacast_store::Cursor;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, debug, info, warn};

use self::observers::Observers;
use self::question::Waiting;
use super::directory::Secrets;
use super::effect::{EffectOutcome, EndedByOthers, newer_on_bus};
use super::mail::{Granted, Mail, OrderOutcome};
use super::turns::{Turn, Turns};
use super::{Environment, status};
use crate::metrics::{Figures, FiguresSlot, Intake};
use crate::settings::SecretSettings;
use crate::traces::envelope_of;

/// Inputs that may wait for one task. At one input per instance, a burst of this size is taken in at once; beyond it
/// senders wait, and reports are dropped, which their resending repairs.
pub(super) const MAILBOX: usize = 4096;

/// How long a new leader waits for the bus to say whether it knows more than the store: leases are granted after it.
const LOOK_AT_BUS: Duration = Duration::from_secs(1);

/// Shortest time between two status updates to listeners.
const STATUS_INTERVAL: Duration = Duration::from_millis(100);

/// Longest time for which an instance that fell silent is shown as live: while a secret has members, its status is made
/// anew at least this often.
const STANDINGS_INTERVAL: Duration = Duration::from_secs(60);

/// Why a task ends.
#[derive(Debug)]
pub(super) enum Ended {
    /// The term is over.
    Stopped,
    /// Another client has written the record: another leader is at work.
    Deposed(String),
}

/// One secret's task.
pub(super) struct SecretTask {
    secret: SecretName,
    environment: Environment,
    settings: SecretSettings,
    machine: Machine<Waiting>,
    /// The record key's cursor as last written or read.
    cursor: Option<Cursor>,
    mail: mpsc::Receiver<Mail>,
    leadership: watch::Receiver<Instant>,
    /// Why the record may be older than what has happened, until it says so itself.
    setback: Option<String>,
    turns: Turns,
    effects: JoinSet<(CommandId, EffectOutcome)>,
    /// Commands whose newest run failed.
    failing: BTreeSet<CommandKind>,
    ended_by_others: EndedByOthers,
    /// When the schedule's rotation may be asked for again, after it was refused.
    ask_again: Option<Instant>,
    observers: Observers,
    status: watch::Sender<Arc<SecretStatus>>,
    figures: FiguresSlot,
    /// When listeners were last updated, and with which revision.
    told: (Instant, Revision),
    /// Something happened since then.
    changed: bool,
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
        Self {
            secret: coordinator.record().secret.clone(),
            observers: Observers::new(&environment, coordinator.record()),
            figures: environment.metrics.figures(),
            environment,
            settings,
            machine: Machine::new(coordinator),
            cursor,
            mail,
            leadership,
            setback,
            turns,
            effects: JoinSet::new(),
            failing: BTreeSet::new(),
            ended_by_others: EndedByOthers::default(),
            ask_again: None,
            status,
            told: (Instant::ZERO, Revision(0)),
            changed: true,
            secrets,
            stop,
        }
    }

    /// Runs until the term ends. Begins when it is its turn.
    pub(super) async fn run(mut self, turn: Turn) -> Ended {
        let span = self.observers.span();
        let stop = self.stop.clone();
        async move {
            let ended = tokio::select! {
                Err(ended) = self.drive(turn) => ended,
                () = stop.cancelled() => Ended::Stopped,
            };
            // Effects are cut off where they are: each is idempotent, and the next leader starts it again.
            self.effects.shutdown().await;
            ended
        }
        .instrument(span)
        .await
    }

    async fn drive(&mut self, turn: Turn) -> Result<std::convert::Infallible, Ended> {
        let mut place = Some(turn.await);
        let setback = match self.setback.take() {
            Some(reason) => Some(reason),
            None => self.bus_knows_more().await,
        };
        if let Some(reason) = setback {
            self.machine.handle(Event::Input(Input::StoreWentBack { reason }));
        }
        loop {
            self.settle().await?;
            // Its record is this term's by now.
            drop(place.take());
            if self.ask_for_scheduled_rotation() {
                continue;
            }
            self.publish_status();
            self.wait().await?;
        }
    }

    /// Carries out what the machine wants, until it waits.
    async fn settle(&mut self) -> Result<(), Ended> {
        loop {
            let leads_until = *self.leadership.borrow_and_update();
            let Some(action) = self.machine.poll(clock::now(), leads_until, &mut self.observers) else { return Ok(()) };
            match action {
                Action::Save { id, record, changes, by } => {
                    self.audit_overrides(&changes, by.as_ref()).await?;
                    self.save(record.encode()).await?;
                    self.machine.saved(clock::now(), id, &mut self.observers);
                }
                Action::Changed { changes, by } => self.audit(&changes, by.as_ref()).await,
                Action::Run { id, command } => self.start(id, command),
                Action::Reply { to, answer } => self.reply(to, answer),
                Action::NoteLost { numbers } => self.note_lost(numbers).await,
                Action::AwaitVersion { missing, found } => {
                    let secret = &self.secret;
                    warn!(%secret, %missing, %found, "a version is missing; later ones wait until it is written");
                }
                Action::Refused(rejection) => self.log_refused(&rejection),
            }
        }
    }

    /// Waits for the next thing to happen, and takes in all that has.
    async fn wait(&mut self) -> Result<(), Ended> {
        let now = clock::now();
        // A status that was held back is due soon after.
        let has_members = || self.machine.coordinator().members().any(|member| !member.is_gone());
        let status = match self.changed {
            true => Some(self.told.0 + STATUS_INTERVAL),
            false => has_members().then(|| self.told.0 + STANDINGS_INTERVAL),
        };
        let due = [self.machine.next_wakeup(now), status, self.scheduled(now)].into_iter().flatten().min();
        let sleep = async {
            match due {
                Some(due) => tokio::time::sleep(due.since(clock::instant())).await,
                None => std::future::pending().await,
            }
        };
        let mut mails = Vec::new();
        tokio::select! {
            // Without room nothing is received: `recv_many` would say at once that the channel is closed.
            count = self.mail.recv_many(&mut mails, self.machine.room()), if self.machine.room() > 0 => {
                if count == 0 {
                    return Err(Ended::Stopped);
                }
                mails.into_iter().for_each(|mail| self.take_in(mail));
            }
            Some(outcome) = self.effects.join_next() => self.effect_ended(outcome)?,
            // A renewal wakes the task only if it waits for one: thousands of secrets that rest cost nothing.
            Ok(()) = self.leadership.changed(), if self.machine.awaits_leadership() => {}
            // What time alone changes is shown too: a deadline that passes makes no event.
            () = sleep => self.changed = true,
        }
        Ok(())
    }

    fn take_in(&mut self, mail: Mail) {
        self.changed = true;
        let event = match mail {
            Mail::Input(input) => {
                if let Input::VersionSeen { version } = &*input {
                    self.warn_of_taken(*version);
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
            Mail::Gap { missing, found } => Event::Gap { missing, found },
            Mail::Reconfigured => {
                self.settings = self.environment.settings.of(&self.secret);
                Event::Input(Input::PolicyChanged(Box::new(self.settings.policy.clone())))
            }
            Mail::Question(question) => Event::Question { reply: Waiting::Question(question) },
        };
        self.machine.handle(event);
    }

    /// Answers. A caller that has given up waiting asks again.
    fn reply(&mut self, to: Waiting, answer: Answer) {
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
                question.answer(self.machine.coordinator(), &self.settings, clock::now());
            }
            (Waiting::Sync(_), Answer::Refused(rejection)) => {
                debug!(secret = %self.secret, %rejection, "refused a Sync")
            }
            (Waiting::Sync(_) | Waiting::Schedule, _) => {}
        }
    }

    fn log_refused(&self, rejection: &Rejection) {
        let secret = &self.secret;
        match rejection {
            Rejection::Stale { .. } | Rejection::Deposed { .. } => debug!(%secret, %rejection, "nothing new"),
            // Such as a report that was under way when its instance left.
            Rejection::Sender { .. } => info!(%secret, %rejection, "refused"),
            Rejection::Gap { .. } | Rejection::Operator { .. } => warn!(%secret, %rejection, "refused"),
        }
    }

    /// Whether the bus has a newer state than the record as it was loaded: then the store has lost what it had. Asked by
    /// publishing that record's state once more, before this term adds to it and hides the difference. A bus that does not
    /// answer is not waited for: every later publish asks again, if less sharply.
    async fn bus_knows_more(&self) -> Option<String> {
        let record = self.machine.coordinator().record();
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

    /// Updates listeners: of a new revision at once, of anything else at most every so often, since a status looks at
    /// every member.
    fn publish_status(&mut self) {
        let coordinator = self.machine.coordinator();
        let (at, revision) = (clock::now(), coordinator.record().revision);
        let held_back = at.instant.since(self.told.0) < STATUS_INTERVAL;
        if revision == self.told.1 && (!self.changed || held_back) {
            return;
        }
        self.told = (at.instant, revision);
        self.changed = false;
        let fresh = status::of(coordinator, &self.settings, at);
        self.figures.tell(Figures::of(coordinator, &fresh, status::standings(coordinator, at)));
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
