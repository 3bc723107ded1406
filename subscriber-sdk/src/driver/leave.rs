//! A clean leave: nothing more is handed out, the last guards and hooks end, and the broadcaster hears of it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rotacast_holder::Step;
use rotacast_protocol::Instant;
use rotacast_protocol::message::Registration;
use tokio::sync::watch;

use crate::credential::CredentialView;
use crate::driver::job::{Done, JobKey, call};
use crate::driver::{Context, Driver, FIRST_PAUSE, REFUSAL_RETRY, backoff};
use crate::error::{Error, ErrorKind};
use crate::hooks::Hooks;

/// How long one attempt to make the leave durable may take.
const LEAVE_ATTEMPT: Duration = Duration::from_secs(5);

/// How long a leave that was not confirmed in its bound is tried on in the background: a bus that restarts is back by then, and
/// a process that leaves is about to exit.
const LEAVE_BEHIND: Duration = Duration::from_secs(30);

/// How a leave stands: none while it is under way, `Ok` once the bus has accepted it or there was nothing to leave. An error
/// may still become `Ok`: a leave goes on after its bound.
pub(crate) type LeaveOutcome = Option<Result<(), Error>>;

/// The order to leave, within a bound.
pub(crate) struct LeaveOrder {
    pub(crate) bound: Duration,
    pub(crate) outcome: watch::Sender<LeaveOutcome>,
}

pub(super) struct Leaving {
    /// Until when a registration in flight may take: the other half of the bound is for the leave.
    registered_by: Instant,
    deadline: Instant,
    /// None once the task that tells the bus has it.
    outcome: Option<watch::Sender<LeaveOutcome>>,
    /// Everything is given back; the service closes what is left, and the leave is made durable.
    telling: bool,
    /// The bound is over and the caller was told why. The leave goes on as long as somebody may ask again.
    late: Option<String>,
    over: bool,
}

impl Leaving {
    /// When the driver must look again; none while a job is at work.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let next = if now < self.registered_by { self.registered_by } else { self.deadline };
        (!self.telling && self.late.is_none()).then_some(next)
    }

    /// Whether it was not over within its bound.
    pub(super) fn is_late(&self) -> bool {
        self.late.is_some()
    }
}

impl Driver {
    pub(super) fn begin_leave(&mut self, order: LeaveOrder) {
        let LeaveOrder { bound, outcome } = order;
        let (registered_by, deadline) = (self.now() + bound / 2, self.now() + bound);
        for runtime in self.secrets.values() {
            runtime.close();
        }
        self.leaving =
            Some(Leaving { registered_by, deadline, outcome: Some(outcome), telling: false, late: None, over: false });
    }

    /// Takes the next step of a leave. Says whether the driver's work is over.
    pub(super) fn advance_leave(&mut self) -> bool {
        let now = self.now();
        let Some(leaving) = &self.leaving else { return false };
        if leaving.over {
            return true;
        }
        let telling = leaving.telling;
        let registration_is_late = now >= leaving.registered_by;
        let bound_is_over = now >= leaving.deadline;
        let in_use: Vec<String> = self
            .secrets
            .values()
            .flat_map(|runtime| {
                let secret = runtime.cell.secret.clone();
                runtime.close().into_iter().map(move |version| format!("{secret} version {version}"))
            })
            .collect();
        let stepping = self.in_flight.iter().any(|key| matches!(key, JobKey::Step(_)));
        // One that arrives after the leave would take its place.
        let registering = self.in_flight.contains(&JobKey::Register);
        let released = in_use.is_empty() && !stepping;
        // Once the service closes what is left, the job that waits for it knows what is in the way.
        if bound_is_over && !telling && !released {
            let what = if in_use.is_empty() {
                "a hook is still running".to_owned()
            } else {
                format!("guards are still held: {}", in_use.join(", "))
            };
            self.late(what);
        }
        if registering && registration_is_late {
            self.registering = None;
        }
        if !telling && released && !registering {
            if !self.may_be_registered {
                self.end_leave(Ok(()));
                return true;
            }
            self.tell_leave(now);
        }
        false
    }

    /// Tells the caller what is in the way, again when that has changed.
    fn late(&mut self, what: String) {
        let Some(leaving) = &mut self.leaving else { return };
        if leaving.late.as_ref() == Some(&what) {
            return;
        }
        if let Some(outcome) = &leaving.outcome {
            let fix = "the leave goes on once that is over; until then rotations wait for this instance";
            outcome.send_replace(Some(Err(Error::new(ErrorKind::InUse, what.clone(), fix))));
        }
        leaving.late = Some(what);
    }

    fn tell_leave(&mut self, now: Instant) {
        let Some(leaving) = &mut self.leaving else { return };
        let Some(outcome) = leaving.outcome.take() else { return };
        leaving.telling = true;
        let deadline = tokio::time::Instant::now() + leaving.deadline.since(now);
        let shown = self.secrets.values().flat_map(|runtime| {
            runtime.views().map(|view| (runtime.hooks.clone(), Arc::clone(view))).collect::<Vec<_>>()
        });
        let shown: Vec<(Hooks, Arc<CredentialView>)> = shown.collect();
        let registration = self.instance.registration(true);
        self.jobs.spawn(leave(Arc::clone(&self.context), shown, registration, deadline, outcome));
    }

    /// The outcome of a leave was told.
    pub(super) fn left(&mut self) {
        if let Some(leaving) = &mut self.leaving {
            leaving.over = true;
        }
    }

    fn end_leave(&mut self, result: Result<(), Error>) {
        if let Some(outcome) = self.leaving.as_mut().and_then(|leaving| leaving.outcome.take()) {
            outcome.send_replace(Some(result));
        }
        self.left();
    }
}

/// Lets the service close what it uses, then says so. A service that does not manage to must not be said to have left: its
/// hooks are neither cut off nor given up, and what the caller is told meanwhile is what is in the way.
async fn leave(
    context: Arc<Context>,
    shown: Vec<(Hooks, Arc<CredentialView>)>,
    registration: Registration,
    deadline: tokio::time::Instant,
    outcome: watch::Sender<LeaveOutcome>,
) -> Done {
    for (hooks, view) in shown {
        release(&context, &hooks, &view, deadline, &outcome).await;
    }
    // The caller of a late leave has its answer. Whoever asks again waits for a new one.
    let was_late = outcome.send_replace(None).is_some();
    let deadline = if was_late { tokio::time::Instant::now() + LEAVE_ATTEMPT } else { deadline };
    let mut told = outcome.subscribe();
    // A task of its own outlives the driver, which renews leases as long as it runs.
    tokio::spawn(tell(context, registration, deadline, outcome));
    // Closed without an outcome: the runtime shuts down.
    drop(told.wait_for(Option::is_some).await);
    Done::Left
}

/// Runs a release hook until it has succeeded.
async fn release(
    context: &Context,
    hooks: &Hooks,
    view: &Arc<CredentialView>,
    deadline: tokio::time::Instant,
    outcome: &watch::Sender<LeaveOutcome>,
) {
    let (secret, version) = (view.secret(), view.version());
    let late = |problem: &str| {
        let what = format!("secret {secret} version {version} is not released: {problem}");
        let fix = "the leave goes on once it is; until then rotations wait for this instance";
        outcome.send_replace(Some(Err(Error::new(ErrorKind::Refused, what, fix))));
    };
    loop {
        let mut hook = pin!(hooks.run(Step::Release, Arc::clone(view), context.hook_timeout));
        let ended = match tokio::time::timeout_at(deadline, &mut hook).await {
            Ok(ended) => ended,
            Err(_) => {
                late("its release hook has not ended");
                hook.await
            }
        };
        let Err(refusal) = ended else { return };
        tracing::warn!(%secret, version = version.get(), %refusal, "not released, will be tried again");
        late(&refusal.to_string());
        tokio::time::sleep(refusal.pause().unwrap_or(REFUSAL_RETRY)).await;
    }
}

/// Makes the leave durable, and says how that stands at the deadline at the latest.
async fn tell(
    context: Arc<Context>,
    registration: Registration,
    deadline: tokio::time::Instant,
    outcome: watch::Sender<LeaveOutcome>,
) {
    let id = format!("{}-left", registration.key.incarnation);
    let envelope = context.identity.seal(&registration, id, rotacast_clock::wall());
    let last = deadline + LEAVE_BEHIND;
    let mut pauses = backoff();
    loop {
        let left = until(if outcome.borrow().is_none() { deadline } else { last });
        let attempt = context.bus.register(&registration.key, &envelope);
        let Err(error) = call(context.bus.describe(), LEAVE_ATTEMPT.min(left), attempt).await else {
            outcome.send_replace(Some(Ok(())));
            return;
        };
        let resume = tokio::time::Instant::now() + pauses.next().unwrap_or(FIRST_PAUSE);
        let is_over = error.kind() != ErrorKind::Unreachable || resume >= last;
        if is_over || resume >= deadline {
            let what = format!("every version is released, but the leave was not made durable: {error}");
            let fix = "rotations wait until the bus has it, or this instance's leases are over";
            outcome.send_replace(Some(Err(Error::new(error.kind(), what, fix))));
        }
        if is_over {
            return;
        }
        tokio::time::sleep_until(resume).await;
    }
}

fn until(at: tokio::time::Instant) -> Duration {
    at.saturating_duration_since(tokio::time::Instant::now())
}
