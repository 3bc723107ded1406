//! The handle to one secret.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use rotacast_holder::Step;
use rotacast_protocol::{SecretName, Version};
use tokio::sync::watch;

use crate::credential::CredentialView;
use crate::error::{Error, ErrorKind};
use crate::hooks::{HookOutcome, Hooks};
use crate::live::{Cell, Guard, Status};
use crate::subscriber::Shared;

/// The handle to one secret. Clones share everything.
///
/// The subscriber works as long as it or one of its handles exists. A hook that owns a handle of its own secret keeps the
/// subscriber alive until [`leave`](crate::Subscriber::leave).
#[derive(Clone)]
pub struct SecretHandle {
    cell: Arc<Cell>,
    hooks: Hooks,
    _shared: Arc<Shared>,
}

impl SecretHandle {
    pub(crate) fn new(cell: Arc<Cell>, hooks: Hooks, shared: Arc<Shared>) -> Self {
        Self { cell, hooks, _shared: shared }
    }

    /// The secret's name.
    #[must_use]
    pub fn name(&self) -> &SecretName {
        &self.cell.secret
    }

    /// The version to use for work that begins now. It is wait-free and takes nanoseconds: call it for each piece of work
    /// instead of keeping a guard.
    ///
    /// # Errors
    /// [`ErrorKind::Lapsed`] if no lease allows any use, because neither a broadcaster nor the store has answered for longer
    /// than the lease. [`ErrorKind::Closed`] after the subscriber has left.
    #[inline]
    pub fn current(&self) -> Result<Guard, Error> {
        self.cell.current()
    }

    /// The version for new work, whether or not its lease runs at the moment. `None` before the first one and after leaving.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        self.cell.status.borrow().version
    }

    /// Follows the version for new work.
    #[must_use]
    pub fn subscribe(&self) -> Changes {
        Changes { status: self.cell.status.subscribe(), seen: self.version(), cell: Arc::clone(&self.cell) }
    }

    /// Waits until new work uses another version than `seen`, without a time limit.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] if the subscriber closes first.
    pub async fn wait_for_change(&self, seen: Version) -> Result<Version, Error> {
        let mut changes = self.subscribe();
        changes.seen = Some(seen);
        changes.next().await
    }

    /// See [`Hooks::on_prepare`]. Replaces an earlier one.
    pub fn on_prepare<F, Fut>(&self, hook: F)
    where
        F: Fn(Arc<CredentialView>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: HookOutcome> + Send + 'static,
    {
        self.hooks.set(Step::Prepare, hook);
    }

    /// See [`Hooks::on_switch`]. Replaces an earlier one.
    pub fn on_switch<F, Fut>(&self, hook: F)
    where
        F: Fn(Arc<CredentialView>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: HookOutcome> + Send + 'static,
    {
        self.hooks.set(Step::Switch, hook);
    }

    /// The same as [`on_switch`](Self::on_switch).
    pub fn on_reload<F, Fut>(&self, hook: F)
    where
        F: Fn(Arc<CredentialView>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: HookOutcome> + Send + 'static,
    {
        self.on_switch(hook);
    }

    /// See [`Hooks::on_release`]. Replaces an earlier one.
    pub fn on_release<F, Fut>(&self, hook: F)
    where
        F: Fn(Arc<CredentialView>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: HookOutcome> + Send + 'static,
    {
        self.hooks.set(Step::Release, hook);
    }

    /// Reports that a login with this version failed. If all instances together report more failures of the new version than
    /// the policy's `auth_failure_budget` (10 by default), the rotation rolls back.
    pub fn report_auth_failure(&self, version: Version) {
        self.cell.auth_failed(version);
    }
}

impl fmt::Debug for SecretHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretHandle({}, {:?})", self.name(), self.version())
    }
}

/// The versions of one secret as they change.
pub struct Changes {
    status: watch::Receiver<Status>,
    seen: Option<Version>,
    cell: Arc<Cell>,
}

impl Changes {
    /// Waits for the next version that differs from the last one returned. It skips versions that came and went in between.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] if the subscriber closes.
    pub async fn next(&mut self) -> Result<Version, Error> {
        loop {
            let version = self.status.borrow_and_update().version;
            if let Some(version) = version
                && self.seen != Some(version)
            {
                self.seen = Some(version);
                return Ok(version);
            }
            let closed = self.cell.closed.load(std::sync::atomic::Ordering::Acquire);
            if closed || self.status.changed().await.is_err() {
                let what = format!("secret {}: the subscriber is closed", self.cell.secret);
                return Err(Error::new(ErrorKind::Closed, what, ""));
            }
        }
    }
}
