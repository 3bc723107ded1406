//! How a service takes part in a rotation.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use rotacast_holder::Step;
use rotacast_log_limit::LogLimit;

use crate::credential::CredentialView;

/// How long a hook may take, unless [`Builder::hook_timeout`](crate::Builder::hook_timeout) says otherwise:
/// enough to open a pool of connections, short enough that a stuck one is noticed within a rotation.
pub const HOOK_TIMEOUT: Duration = Duration::from_secs(30);

/// Shortest pause before a hook is called again, whatever it asks for: it must not spin.
const SHORTEST_RETRY: Duration = Duration::from_millis(100);

/// A hook that keeps its thread for this long without a break is named in the log. A runtime of one thread does nothing else
/// meanwhile, and half a second is far more than a poll should take.
const BLOCKING: Duration = Duration::from_millis(500);

/// A hook's reason to refuse a version. Operators see the text, cut to 256 bytes.
#[derive(Clone, Debug)]
pub struct Refusal {
    reason: String,
    retry_after: Option<Duration>,
}

impl Refusal {
    /// A refusal with a reason. Do not put the value into it. The SDK withholds a reason that contains the value.
    ///
    /// The version is offered again after 30 s. While the instance serves no version yet, that begins with 0.1 s and grows
    /// to 5 s.
    #[must_use]
    pub fn new(reason: impl fmt::Display) -> Self {
        Self { reason: reason.to_string(), retry_after: None }
    }

    /// Says that this is not the version's fault, such as a database that does not answer: the hook is to be called again after
    /// `pause`, at least 0.1 s. Operators see the reason, and it does not count against the policy's `failure_budget`.
    #[must_use]
    pub fn retry_after(self, pause: Duration) -> Self {
        Self { retry_after: Some(pause.max(SHORTEST_RETRY)), ..self }
    }

    /// The pause that the hook asked for, if this is not the version's fault.
    pub(crate) fn pause(&self) -> Option<Duration> {
        self.retry_after
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Refusal {}

/// What a hook may return: `()` or `Result<(), Refusal>`.
pub trait HookOutcome {
    /// Turns it into a result.
    ///
    /// # Errors
    /// The hook's refusal.
    fn into_result(self) -> Result<(), Refusal>;
}

impl HookOutcome for () {
    fn into_result(self) -> Result<(), Refusal> {
        Ok(())
    }
}

impl HookOutcome for Result<(), Refusal> {
    fn into_result(self) -> Result<(), Refusal> {
        self
    }
}

type Running = Pin<Box<dyn Future<Output = Result<(), Refusal>> + Send>>;
type Hook = Arc<dyn Fn(Arc<CredentialView>) -> Running + Send + Sync>;

#[derive(Clone, Default)]
struct Three {
    prepare: Option<Hook>,
    switch: Option<Hook>,
    release: Option<Hook>,
}

/// A service's hooks for one secret. One runs at a time per secret, in the order prepare, switch, release.
#[derive(Clone, Default)]
pub struct Hooks(Arc<Mutex<Three>>);

impl Hooks {
    /// No hooks: the instance switches to a version as soon as the broadcaster asks for it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Called with a version before it becomes current. Check it and get ready, such as by a login, but do not use it for work.
    ///
    /// A refusal counts against the policy's `failure_budget` (0 by default), unless it says
    /// [`retry_after`](Refusal::retry_after). The old version stays in use. The hook may be called again with the same version.
    #[must_use]
    pub fn on_prepare<F, Fut>(self, hook: F) -> Self
    where
        F: Fn(Arc<CredentialView>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: HookOutcome> + Send + 'static,
    {
        self.set(Step::Prepare, hook);
        self
    }

    /// Called when new work must use this version from now on. `current()` returns it once the hook has ended.
    #[must_use]
    pub fn on_switch<F, Fut>(self, hook: F) -> Self
    where
        F: Fn(Arc<CredentialView>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: HookOutcome> + Send + 'static,
    {
        self.set(Step::Switch, hook);
        self
    }

    /// Called with a version that is no longer wanted, once its last guard is dropped. Close what is left of it, such as an old
    /// pool. The instance reports the version as released once the hook has succeeded.
    ///
    /// This hook is never cut off: one that takes longer than [`Builder::hook_timeout`](crate::Builder::hook_timeout) is named
    /// to operators, and the version stays held until it ends. If it fails or panics, it is called again with the same
    /// version.
    #[must_use]
    pub fn on_release<F, Fut>(self, hook: F) -> Self
    where
        F: Fn(Arc<CredentialView>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: HookOutcome> + Send + 'static,
    {
        self.set(Step::Release, hook);
        self
    }

    pub(crate) fn set<F, Fut>(&self, step: Step, hook: F)
    where
        F: Fn(Arc<CredentialView>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: HookOutcome> + Send + 'static,
    {
        let hook: Hook = Arc::new(move |view| {
            let running = hook(view);
            Box::pin(async move { running.await.into_result() })
        });
        let mut hooks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *hooks.slot(step) = Some(hook);
    }

    /// Replaces these hooks by those of another set.
    pub(crate) fn replace(&self, other: &Hooks) {
        let other = other.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = other;
    }

    pub(crate) fn is_empty(&self) -> bool {
        let hooks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        hooks.prepare.is_none() && hooks.switch.is_none() && hooks.release.is_none()
    }

    /// Runs a hook to its end, panics caught. Prepare and switch are cut off after `timeout`. A release is not: what it has taken
    /// in hand would be lost to its next run.
    pub(crate) async fn run(&self, step: Step, view: Arc<CredentialView>, timeout: Duration) -> Result<(), Refusal> {
        let hook = self.0.lock().unwrap_or_else(PoisonError::into_inner).slot(step).clone();
        let Some(hook) = hook else { return Ok(()) };
        let shown = Arc::clone(&view);
        let running = AssertUnwindSafe(watched(step, async move { hook(shown).await })).catch_unwind();
        let ended = match step {
            Step::Prepare | Step::Switch => tokio::time::timeout(timeout, running).await.ok(),
            Step::Release => Some(running.await),
        };
        let result = match ended {
            Some(Ok(result)) => result,
            Some(Err(panic)) => Err(Refusal::new(format!("the {step} hook panicked: {}", panic_text(&*panic)))),
            None => Err(Refusal::new(format!("the {step} hook did not end within {timeout:?}"))),
        };
        result.map_err(|refusal| {
            if view.appears_in(&refusal.reason) {
                let reason = format!("the {step} hook refused; its reason is withheld because it contains the value");
                Refusal { reason, ..refusal }
            } else {
                refusal
            }
        })
    }
}

/// Names a hook that blocks its thread.
async fn watched<T>(step: Step, hook: impl Future<Output = T>) -> T {
    let mut hook = std::pin::pin!(hook);
    std::future::poll_fn(|context| {
        let began = std::time::Instant::now();
        let polled = hook.as_mut().poll(context);
        let blocked = began.elapsed();
        if blocked >= BLOCKING {
            static LIMIT: LogLimit = LogLimit::new();
            if let Some(left_out) = LIMIT.admit() {
                tracing::warn!(
                    %step, ?blocked, left_out,
                    "a hook blocked its thread; use async calls, or tokio::task::spawn_blocking"
                );
            }
        }
        polled
    })
    .await
}

impl Three {
    fn slot(&mut self, step: Step) -> &mut Option<Hook> {
        match step {
            Step::Prepare => &mut self.prepare,
            Step::Switch => &mut self.switch,
            Step::Release => &mut self.release,
        }
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
