//! One term: takes every record over, then feeds the tasks from the store and the bus until the leadership ends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use futures::StreamExt as _;
use rotacast_bus::{BusEvent, SyncCall};
use rotacast_clock as clock;
use rotacast_proto::{Envelope, WireMessage as _};
use rotacast_protocol::coordinator::{Coordinator, Input, Tenure};
use rotacast_protocol::message::{Registration, SyncReply};
use rotacast_protocol::record::{SecretRecord, Timing};
use rotacast_protocol::{InstanceKey, SecretName, Version};
use rotacast_store::{Cursor, Leadership, StoreError, VersionEvent};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::directory::{MAX_SECRETS, Secrets, TaskHandle};
use super::mail::{Granted, Mail, Question};
use super::secret_task::{Ended, MAILBOX, SecretTask};
use super::share::Shares;
use super::turns::Turns;
use super::{Environment, Role, status};
use crate::metrics::SyncOutcome;

/// Syncs answered at once; further ones wait their turn in the bus's own bounded queue.
pub(super) const SYNCS_AT_ONCE: usize = 1024;

/// How long a Sync may wait for the answers of its secrets, altogether. Half of the two seconds after which its sender
/// gives up: a secret that cannot answer must not cost the others their leases.
const SYNC_PATIENCE: Duration = Duration::from_secs(1);

/// Events of the versions that are taken in together, if so many wait.
const EVENTS_AT_ONCE: usize = 256;

/// How long a process life stays in the roster after it is over or was last heard, and how often that is looked at. Long
/// enough for people to ask about it; without an end, every restart of every instance would stay on the bus for ever.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// See [`REMEMBERED`].
const SWEEP: Duration = Duration::from_secs(600);

/// How long a replica that steps down waits for the store to hear of it.
const RESIGN_PATIENCE: Duration = Duration::from_secs(3);

/// Leads until the leadership is lost, `stop`, or an error that ends the term. `setbacks` counts those of the store that
/// every record knows of; a further one puts every secret into safe mode before anything else is done for it.
pub(super) async fn run(
    environment: &Environment,
    secrets: &Secrets,
    leadership: Leadership,
    role: &watch::Sender<Role>,
    setbacks: &Arc<AtomicU64>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let over = CancellationToken::new();
    // After the election, so that whatever made it necessary is known; before the records are read.
    let setback = environment.tree.store().setback().filter(|setback| setback.count > setbacks.load(Ordering::Acquire));
    let term = Arc::new(Term {
        environment: environment.clone(),
        secrets: secrets.clone(),
        tenure: Tenure { epoch: leadership.epoch, since: clock::now(), valid_until: *leadership.valid_until.borrow() },
        leadership: leadership.valid_until.clone(),
        roster: Mutex::default(),
        roster_read: AtomicBool::new(false),
        tasks: Mutex::new(JoinSet::new()),
        shares: Arc::default(),
        turns: Turns::default(),
        setback: setback
            .as_ref()
            .map(|setback| format!("{}: {}", environment.tree.store().describe(), setback.problem)),
        over: over.clone(),
    });
    let mut work: JoinSet<anyhow::Result<()>> = JoinSet::new();
    let outcome = async {
        let known = term.take_records_over().await?;
        work.spawn(Arc::clone(&term).follow_versions(known));
        work.spawn(Arc::clone(&term).follow_roster());
        work.spawn(Arc::clone(&term).follow_reports());
        work.spawn(Arc::clone(&term).answer_syncs());
        work.spawn(Arc::clone(&term).sweep_roster());
        if let Some(setback) = setback {
            work.spawn(Arc::clone(&term).note_setback(setback.count, Arc::clone(setbacks)));
        }
        environment.metrics.leadership().leads();
        role.send_replace(Role::Leader { epoch: leadership.epoch });
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            () = leadership.lost.cancelled() => Ok(()),
            ended = term.a_task_ends() => Err(ended),
            Some(ended) = work.join_next() => match ended {
                Ok(Ok(())) => Err(anyhow::anyhow!("a watch ended by itself")),
                Ok(Err(problem)) => Err(problem),
                Err(problem) => Err(problem).context("a watch broke off"),
            },
        }
    }
    .await;
    // First everything stops, then the leadership is given up: nothing is done in the name of a term that is over.
    over.cancel();
    work.shutdown().await;
    term.end_tasks().await;
    leadership.resign.cancel();
    if tokio::time::timeout(RESIGN_PATIENCE, leadership.resigned).await.is_err() {
        warn!("the store did not hear in time that this broadcaster steps down; its term runs out by itself");
    }
    outcome
}

struct Term {
    environment: Environment,
    secrets: Secrets,
    tenure: Tenure,
    leadership: watch::Receiver<rotacast_protocol::Instant>,
    /// Who has how many Syncs under way.
    shares: Arc<Shares>,
    /// Which tasks may write to store and bus for the first time.
    turns: Turns,
    /// Every process life in the roster, for secrets that come later. As bounded as the roster itself.
    roster: Mutex<BTreeMap<InstanceKey, Registration>>,
    /// The roster was read to its end in this term.
    roster_read: AtomicBool,
    tasks: Mutex<JoinSet<(SecretName, Ended)>>,
    /// Why the records that this term found may be older than what has happened.
    setback: Option<String>,
    over: CancellationToken,
}

impl Term {
    fn tasks(&self) -> std::sync::MutexGuard<'_, JoinSet<(SecretName, Ended)>> {
        self.tasks.lock().expect("nobody panics while holding this lock")
    }

    fn roster(&self) -> std::sync::MutexGuard<'_, BTreeMap<InstanceKey, Registration>> {
        self.roster.lock().expect("nobody panics while holding this lock")
    }

    /// A linearizable read of all records: what earlier leaders have left. Tasks begin in this order: secrets that rotate
    /// first. The secrets whose record knows versions already.
    async fn take_records_over(&self) -> anyhow::Result<BTreeSet<SecretName>> {
        let entries = self.environment.tree.load_records().await.context("reading the rotation records")?;
        let mut records = Vec::with_capacity(entries.len());
        for entry in entries {
            let record =
                SecretRecord::decode(&entry.bytes).with_context(|| format!("the record of {}", entry.secret))?;
            records.push((record, entry.cursor));
        }
        records.sort_by_key(|(record, _)| !record.is_rotating());
        let count = records.len();
        let mut known = BTreeSet::new();
        for (record, cursor) in records {
            let secret = record.secret.clone();
            if !record.versions.is_empty() {
                known.insert(secret.clone());
            }
            if self.has_room_for(&secret) {
                self.start_task(secret, Some((record, cursor))).await;
            }
        }
        for secret in self.environment.settings.configured() {
            if self.secrets.get(&secret).is_none() && self.has_room_for(&secret) {
                self.start_task(secret, None).await;
            }
        }
        info!(records = count, epoch = %self.tenure.epoch, "took the rotation records over");
        Ok(known)
    }

    fn has_room_for(&self, secret: &SecretName) -> bool {
        let room = self.secrets.len() < MAX_SECRETS;
        if !room {
            error!(%secret, "not served: one broadcaster serves at most {MAX_SECRETS} secrets");
        }
        room
    }

    /// Starts a secret's task, with the record that was read in this term if there is one.
    async fn start_task(&self, secret: SecretName, stored: Option<(SecretRecord, Cursor)>) -> TaskHandle {
        let settings = self.environment.settings.of(&secret);
        let (record, cursor) = match stored {
            Some((record, cursor)) => (record, Some(cursor)),
            None => (SecretRecord::new(secret.clone(), self.tenure.epoch, Timing::of(&settings.policy)), None),
        };
        let coordinator = Coordinator::take_over(record, settings.policy.clone(), self.tenure);
        let (mail, mailbox) = mpsc::channel(MAILBOX);
        let (status_sender, status) = watch::channel(Arc::new(status::of(&coordinator, &settings, clock::now())));
        let task = SecretTask::new(
            self.environment.clone(),
            settings,
            coordinator,
            cursor,
            mailbox,
            self.leadership.clone(),
            self.setback.clone(),
            self.turns.clone(),
            status_sender,
            self.secrets.clone(),
            self.over.clone(),
        );
        let (name, turn) = (secret.clone(), self.turns.beginning());
        self.tasks().spawn(async move { (name, task.run(turn).await) });
        let handle = TaskHandle { mail, status };
        // First the task can be found, then the roster is read: whoever registers in between is told to it at least once.
        self.secrets.insert(secret.clone(), handle.clone());
        // Everyone in the roster who uses it is a member from the start.
        let members: Vec<Registration> =
            self.roster().values().filter(|registration| registration.secrets.contains(&secret)).cloned().collect();
        for registration in members {
            send(&handle, registered(&registration, false)).await;
        }
        if self.roster_read.load(Ordering::Acquire) {
            send(&handle, Input::RosterRead).await;
        }
        handle
    }

    /// Once every record says so, the store's setback needs no telling in later terms.
    async fn note_setback(self: Arc<Self>, count: u64, setbacks: Arc<AtomicU64>) -> anyhow::Result<()> {
        if let Some(reason) = &self.setback {
            error!(reason, "safe mode: nothing irreversible happens until an operator has looked");
        }
        for (_, task) in self.secrets.all() {
            // It takes the setback before any mail, and a task that ends takes the term with it.
            let (reply, answer) = oneshot::channel();
            task.mail.send(Mail::Question(Question::LastVersion(reply))).await.ok().context("a task ended")?;
            answer.await.context("a task ended")?;
        }
        setbacks.fetch_max(count, Ordering::AcqRel);
        std::future::pending().await
    }

    /// Waits until a task ends by itself, which ends the term.
    async fn a_task_ends(&self) -> anyhow::Error {
        loop {
            let ended = std::future::poll_fn(|context| match self.tasks().poll_join_next(context) {
                // No task yet: one may be started later, and the watches below wake this term up.
                std::task::Poll::Ready(None) => std::task::Poll::Pending,
                other => other,
            });
            let interval = tokio::time::sleep(Duration::from_secs(1));
            let ended = tokio::select! {
                ended = ended => ended,
                // A task set that was empty when it was polled does not wake anybody up.
                () = interval => continue,
            };
            match ended {
                Some(Ok((secret, Ended::Deposed(problem)))) => {
                    return anyhow::anyhow!("the record of {secret}: {problem}");
                }
                Some(Ok((_, Ended::Stopped))) | None => {}
                Some(Err(problem)) => return anyhow::anyhow!("a secret's task broke off: {problem}"),
            }
        }
    }

    async fn end_tasks(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks());
        while tasks.join_next().await.is_some() {}
    }

    /// Versions, in order and without a gap. `known`: the secrets that were taken up already.
    async fn follow_versions(self: Arc<Self>, mut known: BTreeSet<SecretName>) -> anyhow::Result<()> {
        let mut events = self.environment.tree.watch_versions().ready_chunks(EVENTS_AT_ONCE);
        // What is told of secrets that are not: the newest version, and what else there is.
        let (mut newest, mut later) = (BTreeMap::new(), Vec::new());
        let mut read = false;
        while let Some(chunk) = events.next().await {
            for event in chunk {
                let event = match event {
                    Ok(event) => event,
                    Err(StoreError::WentBackwards { endpoint, problem }) => {
                        let reason = format!("store {endpoint}: {problem}");
                        error!(reason, "safe mode: nothing irreversible happens until an operator has looked");
                        for (_, task) in self.secrets.all() {
                            send(&task, Input::StoreWentBack { reason: reason.clone() }).await;
                        }
                        anyhow::bail!("{reason}");
                    }
                    Err(problem) => return Err(problem).context("watching the versions"),
                };
                self.environment.metrics.intake().version(&event);
                read |= matches!(event, VersionEvent::Resynced(_));
                match event {
                    VersionEvent::Listed { secret, stamp } | VersionEvent::Added { secret, stamp }
                        if !known.contains(&secret) =>
                    {
                        newest.insert(secret, stamp.version);
                    }
                    VersionEvent::Gap { ref secret, .. } if newest.contains_key(secret) => later.push(event),
                    event => self.version_event(event).await,
                }
            }
            // Until the listing is read, something newer may follow.
            if read {
                for (secret, version) in std::mem::take(&mut newest) {
                    self.take_up(&secret, version).await;
                    known.insert(secret);
                }
                for event in later.drain(..) {
                    self.version_event(event).await;
                }
            }
        }
        Ok(())
    }

    async fn version_event(&self, event: VersionEvent) {
        match event {
            VersionEvent::Listed { secret, stamp } | VersionEvent::Added { secret, stamp } => {
                if let Some(task) = self.secrets.get(&secret) {
                    send(&task, Input::VersionSeen { version: stamp.version }).await;
                }
            }
            VersionEvent::Changed { secret, stamp } => {
                error!(
                    %secret, version = %stamp.version,
                    "the value of this version was changed in place; versions never change: write the next number instead"
                );
            }
            VersionEvent::Deleted { secret, version, .. } => {
                debug!(%secret, %version, "the value of this version is gone from the store");
            }
            VersionEvent::Gap { secret, missing, found } => {
                if let Some(task) = self.secrets.get(&secret)
                    && task.mail.send(Mail::Gap { missing, found }).await.is_err()
                {
                    debug!(%secret, "a task is gone");
                }
            }
            VersionEvent::Ignored { key, problem } => warn!(%key, problem, "ignored a key"),
            VersionEvent::Resynced(cursor) => debug!(cursor = cursor.0, "the versions are read in full"),
        }
    }

    /// Takes up a secret that is new to Rotacast, or whose record knows of no version: a predecessor may have begun it, and
    /// crashed before it did. It starts with its newest version: older ones are not Rotacast's to manage.
    async fn take_up(&self, secret: &SecretName, newest: Version) {
        let task = match self.secrets.get(secret) {
            Some(task) => task,
            // All records were read in this term, which alone writes them since: this secret has none.
            None if self.has_room_for(secret) => self.start_task(secret.clone(), None).await,
            None => return,
        };
        send(&task, Input::VersionSeen { version: newest }).await;
    }

    async fn follow_roster(self: Arc<Self>) -> anyhow::Result<()> {
        let mut events = self.environment.bus.watch_roster();
        let mut live = false;
        while let Some(event) = events.next().await {
            match event.context("watching the roster")? {
                BusEvent::CaughtUp => {
                    live = true;
                    // Before it is read, whoever has not been heard yet would be missing from every count.
                    self.roster_read.store(true, Ordering::Release);
                    for (_, task) in self.secrets.all() {
                        send(&task, Input::RosterRead).await;
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

    async fn registered(&self, registration: Registration, live: bool) {
        {
            let mut roster = self.roster();
            // A leave is final, whatever arrives after it.
            if roster.get(&registration.key).is_some_and(|known| known.left) {
                return;
            }
            roster.insert(registration.key.clone(), registration.clone());
        }
        for secret in &registration.secrets {
            if let Some(task) = self.secrets.get(secret) {
                send(&task, registered(&registration, live)).await;
            }
        }
    }

    /// Takes process lives out of the roster that nothing waits for any more. One that comes back after all is told to
    /// register again.
    async fn sweep_roster(self: Arc<Self>) -> anyhow::Result<()> {
        loop {
            tokio::time::sleep(SWEEP).await;
            let lives: Vec<Registration> = self.roster().values().cloned().collect();
            let mut expendable = BTreeMap::new();
            for (secret, task) in self.secrets.all() {
                let (reply, answer) = oneshot::channel();
                if task.mail.send(Mail::Question(Question::Expendable { silent: REMEMBERED, reply })).await.is_ok()
                    && let Ok(keys) = answer.await
                {
                    expendable.insert(secret, keys);
                }
            }
            for life in lives {
                // A secret without a task has nothing that could wait for anybody.
                let over = |secret: &SecretName| expendable.get(secret).is_none_or(|keys| keys.contains(&life.key));
                if life.secrets.iter().all(over) {
                    match self.environment.bus.prune_roster(&life.key).await {
                        Ok(()) => {
                            self.roster().remove(&life.key);
                            debug!(instance = %life.key, "taken out of the roster");
                        }
                        Err(problem) => warn!(instance = %life.key, %problem, "cannot be taken out of the roster"),
                    }
                }
            }
        }
    }

    async fn follow_reports(self: Arc<Self>) -> anyhow::Result<()> {
        let mut events = self.environment.bus.watch_reports();
        while let Some(event) = events.next().await {
            let BusEvent::Message(envelope) = event.context("watching the reports")? else { continue };
            let intake = self.environment.metrics.intake();
            let Ok(report) = self.environment.identities.report(&envelope) else {
                intake.report_refused();
                continue;
            };
            let mut dropped = false;
            for (secret, part) in report.secrets {
                if let Some(task) = self.secrets.get(&secret) {
                    let input = Input::Report { key: report.key.clone(), sequence: report.sequence, report: part };
                    // A full mailbox drops reports: they are resent with every Sync.
                    if task.mail.try_send(Mail::Input(Box::new(input))).is_err() {
                        debug!(%secret, "dropped a report");
                        dropped = true;
                    }
                }
            }
            intake.report(&envelope.time, clock::wall(), dropped);
        }
        Ok(())
    }

    async fn answer_syncs(self: Arc<Self>) -> anyhow::Result<()> {
        let places = Arc::new(Semaphore::new(SYNCS_AT_ONCE));
        let mut calls = self.environment.bus.serve_sync();
        let mut answers = JoinSet::new();
        while let Some(call) = calls.next().await {
            let SyncCall { request, reply } = call.context("serving Sync")?;
            while answers.try_join_next().is_some() {}
            let place = Arc::clone(&places).acquire_owned().await.context("the semaphore is never closed")?;
            let term = Arc::clone(&self);
            answers.spawn(async move {
                let began = std::time::Instant::now();
                let (outcome, answer) = term.answer(&request).await;
                if let Some(answer) = answer {
                    reply.send(answer);
                }
                term.environment.metrics.intake().sync(outcome, began.elapsed());
                drop(place);
            });
        }
        Ok(())
    }

    /// One Sync: every secret's task folds its part and says what it grants.
    async fn answer(&self, request: &Envelope) -> (SyncOutcome, Option<Envelope>) {
        let Environment { identities, key: signing, cluster, metrics, .. } = &self.environment;
        let Ok(request) = identities.sync(request) else { return (SyncOutcome::Refused, None) };
        let report = request.report;
        // Before the roster is read nobody is known, and thousands would register anew for nothing.
        let unregistered = self.roster_read.load(Ordering::Acquire)
            && self.roster().get(&report.key).is_none_or(|registration| registration.left);
        let Some(_share) = self.shares.take(&report.key, !unregistered) else { return (SyncOutcome::Throttled, None) };
        let over = tokio::time::Instant::now() + SYNC_PATIENCE;
        let (mut refused, mut timed_out) = (0, 0);
        let mut waiting = Vec::new();
        for (secret, part) in report.secrets {
            let Some(task) = self.secrets.get(&secret) else { continue };
            let (reply, answer) = oneshot::channel();
            let mail = Mail::Sync { key: report.key.clone(), sequence: report.sequence, report: part, reply };
            match tokio::time::timeout_at(over, task.mail.send(mail)).await {
                Ok(Ok(())) => waiting.push((secret, answer)),
                // The task has ended, and the term with it.
                Ok(Err(_)) => refused += 1,
                Err(_) => timed_out += 1,
            }
        }
        let mut grants = BTreeMap::new();
        let mut traces = Vec::new();
        for (secret, answer) in waiting {
            match tokio::time::timeout_at(over, answer).await {
                Ok(Ok(Granted { grant, traceparent })) => {
                    traces.extend(Some(traceparent).filter(|it| !it.is_empty()));
                    grants.insert(secret, grant);
                }
                Ok(Err(_)) => refused += 1,
                Err(_) => timed_out += 1,
            }
        }
        metrics.intake().leases(grants.len() as u64, refused, timed_out);
        let reply = SyncReply {
            key: report.key.clone(),
            nonce: request.nonce,
            epoch: self.tenure.epoch,
            covered: report.sequence,
            unregistered,
            secrets: grants,
        };
        let id = format!("sync:{}:{}", report.key.incarnation, request.nonce.0);
        let mut envelope = reply.seal(signing, cluster, id, clock::wall());
        // One message has one trace context: with news of two rotations, each comes with its state over the bus.
        if let ([_], Some(only)) = (&*traces, traces.first()) {
            envelope.traceparent.clone_from(only);
        }
        let outcome = if unregistered { SyncOutcome::Unregistered } else { SyncOutcome::Answered };
        (outcome, Some(envelope))
    }
}

fn registered(registration: &Registration, live: bool) -> Input {
    let key = registration.key.clone();
    if registration.left {
        Input::Left { key }
    } else {
        Input::Registered { key, exclusive: registration.exclusive, live }
    }
}

async fn send(task: &TaskHandle, input: Input) {
    if task.mail.send(Mail::Input(Box::new(input))).await.is_err() {
        // The task has ended, and with it the term: the next one reads everything anew.
        debug!("a task is gone");
    }
}
