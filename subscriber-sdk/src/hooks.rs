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

use crate::credential::CredentialView;

/// How long a hook may take, unless [`Builder::hook_timeout`](crate::Builder::hook_timeout) says otherwise:
/// enough to open a pool of connections, short enough that a stuck one is noticed within a rotation.
pub const HOOK_TIMEOUT: Duration = Duration::from_secs(30);

/// A hook's reason to refuse a version. Operators see the text, cut to 256 bytes.
#[derive(Clone, Debug)]
pub struct Refusal(String);

impl Refusal {
    /// A refusal with a reason. Do not put the value into it. The SDK withholds a reason that contains the value.
    #[must_use]
    pub fn new(reason: impl fmt::Display) -> Self {
        Self(reason.to_string())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
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
    /// A refusal counts against the policy's `failure_budget` (0 by default), and the old version stays in use.
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

    /// Runs a hook to its end: within the time, panics caught.
    pub(crate) async fn run(&self, step: Step, view: Arc<CredentialView>, timeout: Duration) -> Result<(), Refusal> {
        let hook = self.0.lock().unwrap_or_else(PoisonError::into_inner).slot(step).clone();
        let Some(hook) = hook else { return Ok(()) };
        let shown = Arc::clone(&view);
        let running = AssertUnwindSafe(async move { hook(shown).await }).catch_unwind();
        let result = match tokio::time::timeout(timeout, running).await {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => Err(Refusal(format!("the {step} hook panicked: {}", panic_text(&*panic)))),
            Err(_) => Err(Refusal(format!("the {step} hook did not end within {timeout:?}"))),
        };
        result.map_err(|refusal| {
            if view.appears_in(&refusal.0) {
                Refusal(format!("the {step} hook refused; its reason is withheld because it contains the value"))
            } else {
                refusal
            }
        })
    }
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
