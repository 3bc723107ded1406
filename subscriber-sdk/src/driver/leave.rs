//! A clean leave: nothing more is handed out, the last guards and hooks end, and the roster hears of it.

use std::sync::Arc;
use std::time::Duration;

use rotacast_holder::Step;
use rotacast_proto::WireMessage as _;
use rotacast_protocol::Instant;
use rotacast_protocol::message::Registration;
use tokio::sync::oneshot;

use crate::credential::CredentialView;
use crate::driver::job::{Done, JobKey, call};
use crate::driver::{Context, Driver, FIRST_PAUSE, backoff};
use crate::error::{Error, ErrorKind};
use crate::hooks::Hooks;

/// How long one attempt to make the leave durable may take.
const LEAVE_ATTEMPT: Duration = Duration::from_secs(5);

pub(super) struct Leaving {
    deadline: Instant,
    reply: Option<oneshot::Sender<Result<(), Error>>>,
    /// Everything is released; the leave is being made durable.
    telling: bool,
    over: bool,
}

impl Leaving {
    /// When the driver must look again; none while a job is at work.
    pub(super) fn deadline(&self) -> Option<Instant> {
        (!self.telling).then_some(self.deadline)
    }
}

impl Driver {
    pub(super) fn begin_leave(&mut self, bound: Duration, reply: oneshot::Sender<Result<(), Error>>) {
        let deadline = self.now() + bound;
        for runtime in self.secrets.values() {
            runtime.close();
        }
        self.leaving = Some(Leaving { deadline, reply: Some(reply), telling: false, over: false });
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
        // One that arrives after the leave would take its place in the roster.
        let registering = self.in_flight.contains(&JobKey::Register);
        // Once the leave is being told, its job ends in time by itself, and knows why it did not succeed.
        if now >= leaving.deadline && !leaving.telling {
            let what = match (in_use.is_empty(), stepping) {
                (false, _) => format!("guards are still held: {}", in_use.join(", ")),
                (true, true) => "a hook is still running".to_owned(),
                (true, false) => "the registration has no answer yet".to_owned(),
            };
            let fix = "rotations wait until this instance's leases are over; drop all guards before leave()";
            self.end_leave(Err(Error::new(ErrorKind::InUse, what, fix)));
            return true;
        }
        if !leaving.telling && in_use.is_empty() && !stepping && !registering {
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
        leaving.telling = true;
        let left = leaving.deadline.since(now);
        let shown = self.secrets.values().flat_map(|runtime| {
            runtime.views().map(|view| (runtime.hooks.clone(), Arc::clone(view))).collect::<Vec<_>>()
        });
        let shown: Vec<(Hooks, Arc<CredentialView>)> = shown.collect();
        let registration = self.instance.registration(true);
        self.jobs.spawn(leave(Arc::clone(&self.context), shown, registration, left));
    }

    pub(super) fn left(&mut self, result: Result<(), Error>) {
        self.end_leave(result);
    }

    fn end_leave(&mut self, result: Result<(), Error>) {
        if let Some(leaving) = &mut self.leaving {
            leaving.over = true;
            if let Some(reply) = leaving.reply.take() {
                // The caller may have given up waiting.
                drop(reply.send(result));
            }
        }
    }
}

/// Lets the service close what it uses, then says so. A service that does not manage to must not be said to have left.
async fn leave(
    context: Arc<Context>,
    shown: Vec<(Hooks, Arc<CredentialView>)>,
    registration: Registration,
    left: Duration,
) -> Done {
    let deadline = tokio::time::Instant::now() + left;
    for (hooks, view) in shown {
        let (secret, version) = (view.secret().clone(), view.version());
        if let Err(refusal) = hooks.run(Step::Release, view, context.hook_timeout.min(left)).await {
            let what = format!("secret {secret} version {version} was not released: {refusal}");
            let fix = "rotations wait until this instance's leases are over";
            return Done::Left(Err(Error::new(ErrorKind::Refused, what, fix)));
        }
    }
    let id = format!("{}-left", registration.key.incarnation);
    let envelope = registration.seal(&context.identity, &context.cluster, id, rotacast_clock::wall());
    let mut pauses = backoff();
    loop {
        let attempt = context.bus.register(&registration.key, &envelope);
        let Err(error) = call(context.bus.describe(), LEAVE_ATTEMPT.min(left), attempt).await else {
            return Done::Left(Ok(()));
        };
        let resume = tokio::time::Instant::now() + pauses.next().unwrap_or(FIRST_PAUSE);
        if error.kind() != ErrorKind::Unreachable || resume >= deadline {
            let what = format!("every version is released, but the leave was not made durable: {error}");
            let fix = "rotations wait until this instance's leases are over";
            return Done::Left(Err(Error::new(error.kind(), what, fix)));
        }
        tokio::time::sleep_until(resume).await;
    }
}
