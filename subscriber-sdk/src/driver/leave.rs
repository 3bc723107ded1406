//! A clean leave: nothing more is handed out, the last guards and hooks end, and the broadcaster hears of it.

use std::sync::Arc;
use std::time::Duration;

use rotacast_holder::Step;
use rotacast_protocol::Instant;
use rotacast_protocol::message::Registration;
use tokio::sync::watch;

use crate::credential::CredentialView;
use crate::driver::job::{Done, JobKey, call};
use crate::driver::{Context, Driver, FIRST_PAUSE, backoff};
use crate::error::{Error, ErrorKind};
use crate::hooks::Hooks;

/// How long one attempt to make the leave durable may take.
const LEAVE_ATTEMPT: Duration = Duration::from_secs(5);

/// How long a leave that was not confirmed in its bound is tried on in the background: a bus that restarts is back by then, and
/// later a usual lease (30 s) is over anyway.
const LEAVE_BEHIND: Duration = Duration::from_secs(30);

/// How a leave stands: none while it is under way, `Ok` once the bus has accepted it or there was nothing to leave.
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
    /// Everything is released; the leave is being made durable.
    telling: bool,
    over: bool,
}

impl Leaving {
    /// When the driver must look again; none while a job is at work.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let next = if now < self.registered_by { self.registered_by } else { self.deadline };
        (!self.telling).then_some(next)
    }
}

impl Driver {
    pub(super) fn begin_leave(&mut self, order: LeaveOrder) {
        let LeaveOrder { bound, outcome } = order;
        let (registered_by, deadline) = (self.now() + bound / 2, self.now() + bound);
        for runtime in self.secrets.values() {
            runtime.close();
        }
        self.leaving = Some(Leaving { registered_by, deadline, outcome: Some(outcome), telling: false, over: false });
    }

    /// Takes the next step of a leave. Says whether the driver's work is over.
    pub(super) fn advance_leave(&mut self) -> bool {
        let now = self.now();
        let Some(leaving) = &self.leaving else { return false };
        if leaving.over {
            return true;
        }
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
        // Once the leave is being told, its job ends in time by itself, and knows why it did not succeed.
        if now >= leaving.deadline && !leaving.telling && !released {
            let what = if in_use.is_empty() {
                "a hook is still running".to_owned()
            } else {
                format!("guards are still held: {}", in_use.join(", "))
            };
            let fix = "rotations wait until this instance's leases are over; drop all guards before leave()";
            self.end_leave(Err(Error::new(ErrorKind::InUse, what, fix)));
            return true;
        }
        if registering && now >= leaving.registered_by {
            self.registering = None;
        }
        if !leaving.telling && released && !registering {
            if !self.may_be_registered {
                self.end_leave(Ok(()));
                return true;
            }
            self.tell_leave(now);
        }
        false
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

/// Lets the service close what it uses, then says so. A service that does not manage to must not be said to have left.
async fn leave(
    context: Arc<Context>,
    shown: Vec<(Hooks, Arc<CredentialView>)>,
    registration: Registration,
    deadline: tokio::time::Instant,
    outcome: watch::Sender<LeaveOutcome>,
) -> Done {
    for (hooks, view) in shown {
        let (secret, version) = (view.secret().clone(), view.version());
        if let Err(refusal) = hooks.run(Step::Release, view, context.hook_timeout.min(until(deadline))).await {
            let what = format!("secret {secret} version {version} was not released: {refusal}");
            let fix = "rotations wait until this instance's leases are over";
            outcome.send_replace(Some(Err(Error::new(ErrorKind::Refused, what, fix))));
            return Done::Left;
        }
    }
    let mut told = outcome.subscribe();
    // A task of its own outlives the driver, which renews leases as long as it runs.
    tokio::spawn(tell(context, registration, deadline, outcome));
    // Closed without an outcome: the runtime shuts down.
    drop(told.wait_for(Option::is_some).await);
    Done::Left
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
