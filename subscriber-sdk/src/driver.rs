//! Drives the pure holders: carries out what they ask for, and keeps the hot path in step with them.

mod job;
mod leave;
mod runtime;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use backon::BackoffBuilder as _;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use rotacast_bus::{BusError, BusEvent, InstanceBus};
use rotacast_holder::{
    Command, Input, Instance, InstanceCommand, InstanceInput, Rejection, Setback, Step, StepFailure,
};
use rotacast_log_limit::LogLimit;
use rotacast_proto::{Envelope, InstanceIdentity, ReplyWithKeys};
use rotacast_protocol::message::{FailureKind, SecretState};
use rotacast_protocol::{ClusterName, Instant, SecretName};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinSet;

use crate::clock::Watch;
use crate::driver::job::{Done, JobKey};
use crate::driver::leave::Leaving;
pub(crate) use crate::driver::leave::{LeaveOrder, LeaveOutcome};
use crate::driver::runtime::SecretRuntime;
use crate::error::{Error, ErrorKind};
use crate::hooks::Hooks;
use crate::incarnations::Incarnations;
use crate::live::Cell;
use crate::source::ValueSource;
use crate::trace::SecretTrace;
use crate::trust::Trust;

/// Longest sleep: a machine that was suspended is noticed at least this soon after it wakes up.
const LONGEST_NAP: Duration = Duration::from_secs(5);
/// First and longest pause between attempts at something that fails. Short at first, since most
/// outages are reconnects; long enough at the end that thousands of instances do not hold a server down.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A refused version is offered again this much later, once the instance serves one: the service may have been wrong, but
/// hardly often. Until then it is tried as often as anything else: what it needs may just be starting.
const REFUSAL_RETRY: Duration = Duration::from_secs(30);

/// A subscriber begins to use a secret.
pub(crate) struct Add {
    pub(crate) secret: SecretName,
    pub(crate) hooks: Option<Hooks>,
    pub(crate) reply: oneshot::Sender<Result<(Arc<Cell>, Hooks), Error>>,
}

/// What stays the same for an incarnation.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) cluster: ClusterName,
    pub(crate) identity: Arc<InstanceIdentity>,
    pub(crate) incarnations: Arc<Incarnations>,
    pub(crate) trust: Arc<Trust>,
    pub(crate) bus: Arc<dyn InstanceBus>,
    pub(crate) values: Arc<dyn ValueSource>,
    pub(crate) watch: Watch,
    pub(crate) wake: Arc<Notify>,
    /// Where the driver runs.
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) hook_timeout: Duration,
}

/// Attempts at something that has failed.
struct Pause {
    backoff: backon::ExponentialBackoff,
    not_before: Instant,
}

pub(crate) struct Driver {
    context: Arc<Context>,
    instance: Instance,
    secrets: BTreeMap<SecretName, SecretRuntime>,
    control: mpsc::Receiver<Add>,
    jobs: JoinSet<Done>,
    in_flight: BTreeSet<JobKey>,
    pauses: BTreeMap<JobKey, Pause>,
    states: Option<BoxStream<'static, Result<BusEvent, BusError>>>,
    /// How many registrations were made durable: each new one is a new message.
    registrations: u64,
    problems: BTreeMap<JobKey, Error>,
    ordered: oneshot::Receiver<LeaveOrder>,
    leaving: Option<Leaving>,
    /// Dropped, it gives up the registration in flight.
    registering: Option<oneshot::Sender<()>>,
    /// A registration was sent, whether or not an answer came.
    may_be_registered: bool,
}

impl Driver {
    pub(crate) fn new(
        context: Arc<Context>,
        instance: Instance,
        control: mpsc::Receiver<Add>,
        ordered: oneshot::Receiver<LeaveOrder>,
    ) -> Self {
        Self {
            context,
            instance,
            secrets: BTreeMap::new(),
            control,
            jobs: JoinSet::new(),
            in_flight: BTreeSet::new(),
            pauses: BTreeMap::new(),
            states: None,
            registrations: 0,
            problems: BTreeMap::new(),
            ordered,
            leaving: None,
            registering: None,
            may_be_registered: false,
        }
    }

    /// Runs until it has left, or until every subscriber and handle is gone.
    pub(crate) async fn run(mut self) {
        let wake = Arc::clone(&self.context.wake);
        loop {
            self.take_stock();
            // In this order: what was asked last may be to leave.
            let is_deserted = self.control.is_closed() && self.control.is_empty();
            if let Ok(order) = self.ordered.try_recv() {
                self.begin_leave(order);
            }
            if self.advance_leave() || is_deserted && self.leaving.as_ref().is_none_or(Leaving::is_late) {
                break;
            }
            let resume = self.start_commands();
            let nap = self.nap(resume);
            tokio::select! {
                () = wake.notified() => {}
                () = tokio::time::sleep(nap) => {}
                control = self.control.recv(), if !is_deserted => control.into_iter().for_each(|it| self.answer(it)),
                Some(done) = self.jobs.join_next(), if !self.jobs.is_empty() => match done {
                    Ok(done) => self.finish(done),
                    // Jobs catch their panics; what is left is a runtime that shuts down.
                    Err(_) => break,
                },
                event = next_state(&mut self.states) => self.state_event(event),
            }
        }
        for runtime in self.secrets.values() {
            runtime.close();
        }
    }

    fn now(&self) -> Instant {
        self.context.watch.now()
    }

    fn answer(&mut self, add: Add) {
        let result = self.add(&add.secret, add.hooks);
        // The caller may have given up; the secret is in use all the same.
        drop(add.reply.send(result));
    }

    fn add(&mut self, secret: &SecretName, hooks: Option<Hooks>) -> Result<(Arc<Cell>, Hooks), Error> {
        if self.leaving.is_some() {
            return Err(Error::new(ErrorKind::Closed, format!("secret {secret}: the subscriber is leaving"), ""));
        }
        if !self.instance.add(secret.clone()) {
            let most = rotacast_protocol::message::MAX_SECRETS_PER_INSTANCE;
            return Err(Error::new(
                ErrorKind::Config,
                format!("secret {secret}: one instance uses at most {most} secrets"),
                "use a second subscriber with its own instance name",
            ));
        }
        if !self.secrets.contains_key(secret) {
            let context = &self.context;
            let cell = Cell::new(secret.clone(), context.watch.clone(), Arc::clone(&context.wake));
            let trace = SecretTrace::new(secret, self.instance.key());
            self.secrets.insert(secret.clone(), SecretRuntime::new(Arc::new(cell), trace));
            // The subscription names the secrets: begin it anew.
            self.states = None;
        }
        let runtime = &self.secrets[secret];
        if let Some(hooks) = hooks {
            // The driver's own, and whoever opens it or has a handle.
            let in_use = Arc::strong_count(&runtime.cell) > 1;
            if in_use && !runtime.hooks.is_empty() {
                return Err(Error::new(
                    ErrorKind::Config,
                    format!("secret {secret}: this subscriber uses it already, with hooks"),
                    "share the handle by cloning it; its on_prepare, on_switch and on_release replace a hook",
                ));
            }
            runtime.hooks.replace(&hooks);
        }
        Ok((Arc::clone(&runtime.cell), runtime.hooks.clone()))
    }

    /// Takes in what happened to one secret, and brings the hot path in step before anything else can be sent.
    fn secret(&mut self, secret: &SecretName, input: Input) -> Result<(), Rejection> {
        let now = self.now();
        let result = self.instance.handle(now, InstanceInput::Secret(secret.clone(), input));
        self.install(secret);
        result
    }

    /// Notes whose trace the next work belongs to.
    fn told(&mut self, state: &SecretState, traceparent: &str) {
        if let Some(runtime) = self.secrets.get_mut(&state.secret) {
            runtime.trace.told(state, traceparent);
        }
    }

    fn install(&mut self, secret: &SecretName) {
        let (Some(runtime), Some(holder)) = (self.secrets.get_mut(secret), self.instance.holder(secret)) else {
            return;
        };
        let changed = runtime.install(holder, self.leaving.is_some());
        if let Some(held) = changed {
            let now = self.context.watch.now();
            let input = InstanceInput::Secret(secret.clone(), Input::Held(held));
            note(secret, self.instance.handle(now, input));
        }
        if let (Some(runtime), Some(holder)) = (self.secrets.get_mut(secret), self.instance.holder(secret)) {
            runtime.forget(holder);
        }
    }

    /// What changed without a message: dropped guards, failed logins, lapsed leases.
    fn take_stock(&mut self) {
        let names: Vec<SecretName> = self.secrets.keys().cloned().collect();
        for secret in names {
            for (version, count) in self.secrets[&secret].cell.take_auth_failures() {
                note(&secret, self.secret(&secret, Input::AuthFailure { version, count }));
            }
            self.note_overdue(&secret);
            self.install(&secret);
            self.tell_status(&secret);
        }
    }

    /// A release that takes too long goes on, and operators are to know.
    fn note_overdue(&mut self, secret: &SecretName) {
        let (now, timeout) = (self.now(), self.context.hook_timeout);
        let Some(runtime) = self.secrets.get_mut(secret) else { return };
        let Some(version) = runtime.release_is_overdue(now, timeout) else { return };
        let text = format!("the release hook has not ended within {timeout:?}; it goes on");
        tracing::warn!(%secret, version = version.get(), "{text}");
        note(secret, self.secret(secret, Input::ReleaseOverdue { version, text }));
    }

    fn tell_status(&self, secret: &SecretName) {
        let (Some(runtime), Some(holder)) = (self.secrets.get(secret), self.instance.holder(secret)) else { return };
        let active = holder.active(self.now()).is_some();
        let problem = if active { None } else { self.problem(secret, holder) };
        let version = if active { holder.serving() } else { None };
        runtime.cell.status.send_if_modified(|status| {
            let changed = version.is_some() && status.version != version;
            if changed {
                status.version = version;
            }
            status.problem = problem;
            changed
        });
    }

    /// Why a secret cannot be used, as far as it shows.
    fn problem(&self, secret: &SecretName, holder: &rotacast_holder::Holder) -> Option<Error> {
        if let Some(failure) = holder.failure().filter(|failure| failure.kind != FailureKind::Fetch) {
            let what = format!(
                "secret {secret} version {}: this service {}: {}",
                failure.version,
                failure.kind.words(),
                failure.text
            );
            return Some(Error::new(ErrorKind::Refused, what, "correct the value or the hook; the SDK tries again"));
        }
        let concerns = |key: &JobKey| key.secret().is_none_or(|about| about == secret);
        let problems: Vec<&Error> =
            self.problems.iter().filter(|(key, _)| concerns(key)).map(|(_, error)| error).collect();
        let gravest =
            problems.iter().find(|error| error.kind() != ErrorKind::Unreachable).or_else(|| problems.first())?;
        if problems.len() == 1 {
            return Some((*gravest).clone());
        }
        let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
        Some(Error::new(gravest.kind(), all.join(" | "), ""))
    }

    /// Starts what is due and not in flight. Returns when something that waits after a failure may be tried again.
    fn start_commands(&mut self) -> Option<Instant> {
        let now = self.now();
        let mut resume: Option<Instant> = None;
        if self.states.is_none() && !self.secrets.is_empty() {
            match self.paused(&JobKey::States, now) {
                Some(at) => resume = Some(at),
                None => {
                    let names: Vec<SecretName> = self.secrets.keys().cloned().collect();
                    self.states = Some(self.context.bus.watch_states(&names));
                }
            }
        }
        for command in self.instance.commands(now) {
            let key = JobKey::of(&command);
            let leaving = self.leaving.is_some() && key.is_dropped_on_leave();
            if leaving || self.in_flight.contains(&key) {
                continue;
            }
            if let Some(at) = self.paused(&key, now) {
                resume = Some(resume.map_or(at, |resume| resume.min(at)));
                continue;
            }
            self.start(now, key, command);
        }
        resume
    }

    fn start(&mut self, now: Instant, key: JobKey, command: InstanceCommand) {
        let context = Arc::clone(&self.context);
        match command {
            InstanceCommand::Register(registration) => {
                // The same for every retry of one content, and never the same for two: a bus may take the second
                // for a duplicate and keep the first. The set of secrets only grows.
                let (life, secrets) = (registration.key.incarnation, registration.secrets.len());
                let id = format!("{life}-{}-{secrets}", self.registrations);
                self.may_be_registered = true;
                let (registering, given_up) = oneshot::channel();
                self.registering = Some(registering);
                self.jobs.spawn(job::register(context, registration, id, given_up));
            }
            InstanceCommand::Report => {
                self.jobs.spawn(job::report(context, self.instance.report()));
            }
            InstanceCommand::Sync => {
                let nonce = rotacast_protocol::Nonce(rand::random());
                let sent = InstanceInput::SyncSent { nonce, at: now };
                if let Err(rejection) = self.instance.handle(now, sent) {
                    tracing::error!(%rejection, "sync not begun");
                    return;
                }
                self.jobs.spawn(job::sync(context, self.instance.sync_request(nonce)));
            }
            InstanceCommand::Secret(secret, Command::ReadStore) => {
                self.jobs.spawn(job::read_state(context, secret));
            }
            InstanceCommand::Secret(secret, Command::Load(version)) => {
                let Some(runtime) = self.secrets.get(&secret) else { return };
                let span = runtime.trace.load(version);
                self.jobs.spawn(job::load(context, secret, version, span));
            }
            InstanceCommand::Secret(secret, Command::Run(step, version)) => {
                let Some(runtime) = self.secrets.get(&secret) else { return };
                let Some(view) = runtime.view(version) else { return };
                let hooks = runtime.hooks.clone();
                if self.secret(&secret, Input::Begin { step, version }).is_err() {
                    return;
                }
                let Some(runtime) = self.secrets.get_mut(&secret) else { return };
                runtime.began(step, version, now);
                let span = runtime.trace.step(step, version);
                self.jobs.spawn(job::step(context, hooks, step, view, span));
            }
            InstanceCommand::Secret(_, Command::Sync) => return,
        }
        self.in_flight.insert(key);
    }

    fn finish(&mut self, done: Done) {
        let now = self.now();
        match done {
            Done::Registered { secrets, result } => {
                self.ended(JobKey::Register, result.as_ref().err());
                if result.is_ok() {
                    self.registrations += 1;
                    note_all(self.instance.handle(now, InstanceInput::Registered(secrets)));
                }
            }
            Done::Reported { sequence, result } => {
                self.ended(JobKey::Report, result.as_ref().err());
                if result.is_ok() {
                    note_all(self.instance.handle(now, InstanceInput::Reported(sequence)));
                }
            }
            Done::Synced { nonce, result } => self.synced(nonce, result),
            Done::StateRead { secret, sent, result } => {
                self.ended(JobKey::ReadStore(secret.clone()), result.as_ref().err());
                if let Ok(state) = result {
                    self.told(&state, "");
                    note(&secret, self.secret(&secret, Input::StoreRead { sent, state }));
                }
            }
            Done::Loaded { secret, version, result } => {
                let key = JobKey::Load(secret.clone(), version);
                self.ended(key.clone(), result.as_ref().err());
                let input = match result {
                    Ok(view) => {
                        if let Some(runtime) = self.secrets.get_mut(&secret) {
                            runtime.keep(view);
                        }
                        Input::Loaded { version }
                    }
                    Err(error) => {
                        let retry_after =
                            self.pauses.get(&key).map_or(FIRST_PAUSE, |pause| pause.not_before.since(now));
                        Input::LoadFailed { version, setback: Setback { text: error.to_string(), retry_after } }
                    }
                };
                note(&secret, self.secret(&secret, input));
            }
            Done::Stepped { secret, step, version, result } => self.stepped(&secret, step, version, result),
            Done::Left => self.left(),
        }
    }

    fn synced(&mut self, nonce: rotacast_protocol::Nonce, result: Result<Envelope, Error>) {
        let mut traceparent = String::new();
        let reply = result.and_then(|envelope| {
            traceparent.clone_from(&envelope.traceparent);
            let opened = self.context.trust.open::<ReplyWithKeys>(&self.context.cluster, &envelope).map_err(|error| {
                let fix = "check that the trusted keys are this cluster's broadcasters'";
                Error::new(ErrorKind::Denied, format!("Sync reply refused: {error}"), fix)
            });
            opened.map(|opened| (opened, envelope.key_id))
        });
        // An older reply that comes again announces nothing.
        let reply = reply.map(|(ReplyWithKeys { reply, announced }, signer)| {
            if reply.nonce == nonce {
                self.context.trust.heard(&signer, announced);
            }
            reply
        });
        self.ended(JobKey::Sync, reply.as_ref().err());
        let now = self.now();
        let input = match reply {
            Ok(reply) if reply.nonce == nonce => {
                let states = || reply.secrets.values().filter_map(|grant| grant.state.as_ref());
                // It came with one context, of the only rotation that it tells of.
                states().for_each(|state| self.told(state, if state.rotation.is_some() { &traceparent } else { "" }));
                InstanceInput::SyncReply(reply)
            }
            Ok(_) | Err(_) => InstanceInput::SyncFailed { nonce },
        };
        note_all(self.instance.handle(now, input));
        let names: Vec<SecretName> = self.secrets.keys().cloned().collect();
        for secret in names {
            self.install(&secret);
        }
    }

    fn stepped(
        &mut self,
        secret: &SecretName,
        step: Step,
        version: rotacast_protocol::Version,
        result: Result<(), crate::Refusal>,
    ) {
        self.in_flight.remove(&JobKey::Step(secret.clone()));
        match &result {
            Ok(()) => tracing::info!(%secret, version = version.get(), %step, "done"),
            Err(refusal) => tracing::warn!(%secret, version = version.get(), %step, %refusal, "failed"),
        }
        let serves = self.instance.holder(secret).is_some_and(|holder| holder.serving().is_some());
        let Some(runtime) = self.secrets.get_mut(secret) else { return };
        runtime.ended();
        let result = result.map_err(|refusal| {
            let text = refusal.to_string();
            match refusal.pause() {
                Some(retry_after) => StepFailure::NotReady(Setback { text, retry_after }),
                None if serves => StepFailure::Refused(Setback { text, retry_after: REFUSAL_RETRY }),
                None => StepFailure::Refused(Setback { text, retry_after: runtime.next_first_attempt() }),
            }
        });
        note(secret, self.secret(secret, Input::Finished { step, version, result }));
    }

    fn state_event(&mut self, event: Option<Result<BusEvent, BusError>>) {
        match event {
            Some(Ok(BusEvent::Message(envelope))) => {
                self.ended(JobKey::States, None);
                match self.context.trust.open::<SecretState>(&self.context.cluster, &envelope) {
                    Ok(state) => {
                        let secret = state.secret.clone();
                        self.told(&state, &envelope.traceparent);
                        let result = self.secret(&secret, Input::State(state));
                        if result.is_ok() {
                            self.ask_again();
                        }
                        note(&secret, result);
                    }
                    Err(error) => {
                        // Any client of the bus may have written it.
                        static LIMIT: LogLimit = LogLimit::new();
                        if let Some(left_out) = LIMIT.admit() {
                            tracing::warn!(%error, left_out, "desired state refused");
                        }
                    }
                }
            }
            Some(Ok(BusEvent::CaughtUp | BusEvent::Resync)) => {
                self.ended(JobKey::States, None);
                self.ask_again();
            }
            Some(Err(error)) => {
                self.states = None;
                self.ended(JobKey::States, Some(&Error::from(error)));
            }
            None => {
                self.states = None;
                let what = format!("{}: the subscription to desired states has ended", self.context.bus.describe());
                self.ended(JobKey::States, Some(&Error::new(ErrorKind::Unreachable, what, "it is begun anew")));
            }
        }
    }

    /// The bus is back, or a leader has spoken: the pauses after what failed before are over. So the leader's lease comes before the
    /// service is moved to a version on the shorter one that the store gives.
    fn ask_again(&mut self) {
        for key in [JobKey::Register, JobKey::Sync, JobKey::Report] {
            if let Some(pause) = self.pauses.get_mut(&key) {
                pause.not_before = Instant::ZERO;
            }
        }
    }

    /// Books the end of a job: after a failure the next attempt waits, longer each time.
    fn ended(&mut self, key: JobKey, problem: Option<&Error>) {
        self.in_flight.remove(&key);
        let Some(problem) = problem else {
            self.pauses.remove(&key);
            self.problems.remove(&key);
            return;
        };
        if self.problems.get(&key).map(ToString::to_string) != Some(problem.to_string()) {
            tracing::warn!(job = ?key, %problem, "failed, will be tried again");
        }
        let now = self.now();
        let pause = self.pauses.entry(key.clone()).or_insert_with(|| Pause { backoff: backoff(), not_before: now });
        pause.not_before = now + pause.backoff.next().unwrap_or(LONGEST_PAUSE);
        self.problems.insert(key, problem.clone());
    }

    fn paused(&self, key: &JobKey, now: Instant) -> Option<Instant> {
        self.pauses.get(key).map(|pause| pause.not_before).filter(|at| *at > now)
    }

    fn nap(&self, resume: Option<Instant>) -> Duration {
        let now = self.now();
        let leave = self.leaving.as_ref().and_then(|leaving| leaving.deadline(now));
        let overdue = self.secrets.values().filter_map(|runtime| runtime.overdue_at(self.context.hook_timeout)).min();
        let next = [self.instance.next_wakeup(now), resume, leave, overdue].into_iter().flatten().min();
        // A little late rather than a little early: timers round down to milliseconds.
        let nap = next.map_or(LONGEST_NAP, |next| next.since(now) + Duration::from_millis(1));
        nap.min(LONGEST_NAP)
    }
}

pub(crate) fn backoff() -> backon::ExponentialBackoff {
    backon::ExponentialBuilder::new()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .with_factor(2.0)
        .without_max_times()
        .with_jitter()
        .build()
}

async fn next_state(
    states: &mut Option<BoxStream<'static, Result<BusEvent, BusError>>>,
) -> Option<Result<BusEvent, BusError>> {
    match states {
        Some(states) => states.next().await,
        None => std::future::pending().await,
    }
}

/// Duplicates and replays are normal; what breaks the protocol is worth a line.
fn note(secret: &SecretName, result: Result<(), Rejection>) {
    match result {
        Ok(()) => {}
        Err(rejection @ Rejection::GoesBack { .. }) => {
            static LIMIT: LogLimit = LogLimit::new();
            if let Some(left_out) = LIMIT.admit() {
                tracing::error!(%secret, %rejection, left_out, "desired state refused");
            }
        }
        Err(rejection) => tracing::debug!(%secret, %rejection, "ignored"),
    }
}

fn note_all(result: Result<(), Rejection>) {
    match result {
        Ok(()) => {}
        Err(rejection @ Rejection::GoesBack { .. }) => {
            static LIMIT: LogLimit = LogLimit::new();
            if let Some(left_out) = LIMIT.admit() {
                tracing::error!(%rejection, left_out, "desired state refused");
            }
        }
        Err(rejection) => tracing::debug!(%rejection, "ignored"),
    }
}
