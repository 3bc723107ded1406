//! One secret's task: the shell of its machine, and the only writer of its record.

mod checks;
mod commands;
mod listeners;
mod lost;
mod mailbox;
mod observers;
mod providers;
mod question;
mod save;
mod scheduled;
mod setback;
mod stored;

use std::collections::BTreeSet;
use std::sync::Arc;

use rotacast_clock as clock;
use rotacast_protocol::coordinator::{CommandKind, Coordinator, Input};
use rotacast_protocol::machine::{Action, CommandId, Event, Machine};
use rotacast_protocol::status::SecretStatus;
use rotacast_protocol::{Instant, Revision, SecretName, WallTime};
use rotacast_store::Cursor;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, warn};

use self::checks::Checks;
use self::observers::Observers;
use self::question::Waiting;
use self::stored::Stored;
pub(super) use self::stored::{ValueFault, needs_value};
use super::Environment;
use super::directory::Secrets;
use super::effect::{EffectOutcome, LookedAt};
use super::mail::Mail;
use super::turns::{Turn, Turns};
use crate::metrics::FiguresSlot;
use crate::settings::SecretSettings;

/// Inputs that may wait for one task. At one input per instance, a burst of this size is taken in at once; beyond it
/// senders wait, and reports are dropped, which their resending repairs.
pub(super) const MAILBOX: usize = if cfg!(test) { 64 } else { 4096 };

/// Why a task ends.
#[derive(Debug)]
pub(super) enum Ended {
    /// The term is over.
    Stopped,
    /// Another leader is at work.
    Deposed(String),
    /// Another client has written or deleted the record although this term lasts.
    Overwritten(String),
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
    looked_at: LookedAt,
    checks: Checks,
    stored: Stored,
    /// When the schedule's rotation may be asked for again, after it was refused.
    ask_again: Option<Instant>,
    /// The schedule's rotation that is overdue, and when it begins.
    overdue: Option<(WallTime, Instant)>,
    /// Since when a finding says that the record was written by a clock that was ahead.
    said_ahead: Option<WallTime>,
    observers: Observers,
    status: watch::Sender<Arc<SecretStatus>>,
    figures: FiguresSlot,
    /// When listeners were last updated, and with which revision.
    told: (Instant, Revision),
    /// Whether listeners were told that it is stuck.
    stuck: bool,
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
            looked_at: LookedAt::default(),
            checks: Checks::default(),
            stored: Stored::default(),
            ask_again: None,
            overdue: None,
            said_ahead: None,
            status,
            told: (Instant::ZERO, Revision(0)),
            stuck: false,
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
            self.checks.cut_off().await;
            ended
        }
        .instrument(span)
        .await
    }

    async fn drive(&mut self, turn: Turn) -> Result<std::convert::Infallible, Ended> {
        let mut place = Some(turn.await);
        self.look_for_providers();
        self.plan_check();
        let setback = match self.setback.take() {
            Some(reason) => Some(reason),
            None => self.bus_knows_more().await,
        };
        if let Some(reason) = setback {
            self.machine.handle(Event::Input(Input::StoreWentBack { reason }));
        }
        loop {
            self.look_at_clock();
            self.settle().await?;
            // Its record is this term's by now.
            drop(place.take());
            if self.ask_for_scheduled_rotation() {
                continue;
            }
            self.check_if_due();
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
                Action::Changed { changes, by } => {
                    self.audit(&changes, by.as_ref()).await;
                    self.look_for_providers();
                    self.plan_check();
                    self.look_at_values();
                }
                Action::Run { id, command } => self.start(id, command),
                Action::Reply { to, answer } => self.reply(to, answer),
                Action::NoteLost { numbers } => self.note_lost(numbers).await,
                Action::AwaitVersion { missing, found } => {
                    let secret = &self.secret;
                    warn!(%secret, %missing, %found, "a version is missing; later ones wait until it is written");
                    self.raise_gap(missing, found);
                }
                Action::Refused(rejection) => self.log_refused(&rejection),
            }
        }
    }

    /// Waits for the next thing to happen, and takes in all that has.
    async fn wait(&mut self) -> Result<(), Ended> {
        let now = clock::now();
        let due = [self.machine.next_wakeup(now), self.status_due(), self.scheduled(now), self.checks.due()]
            .into_iter()
            .flatten()
            .min();
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
            Some(checked) = self.checks.ended() => self.check_ended(checked),
            // A renewal wakes the task only if it waits for one: thousands of secrets that rest cost nothing.
            Ok(()) = self.leadership.changed(), if self.machine.awaits_leadership() => {}
            // What time alone changes is shown too: a deadline that passes makes no event.
            () = sleep => self.changed = true,
        }
        Ok(())
    }
}
