//! The hot path: what is handed out, without locks.

use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rotacast_protocol::{Instant, SecretName, Version};
use tokio::sync::{Notify, watch};

use crate::clock::Watch;
use crate::credential::CredentialView;
use crate::error::{Error, ErrorKind};

/// One installation of a version for new work. Alive for as long as it is installed or a guard points to it.
pub(crate) struct Live {
    view: Arc<CredentialView>,
    /// When its lease ends, in nanoseconds of the clock.
    until: AtomicU64,
    max_use: Duration,
    watch: Watch,
    wake: Arc<Notify>,
}

impl Live {
    pub(crate) fn new(view: Arc<CredentialView>, until: Instant, max_use: Duration, cell: &Cell) -> Self {
        let until = AtomicU64::new(until.as_nanos());
        Self { view, until, max_use, watch: cell.watch.clone(), wake: Arc::clone(&cell.wake) }
    }

    pub(crate) fn set_until(&self, until: Instant) {
        // Release, with the Acquire below: no thread sees the new lease before the driver has taken it over.
        self.until.store(until.as_nanos(), Ordering::Release);
    }

    #[inline]
    fn until(&self) -> Instant {
        Instant::from_nanos(self.until.load(Ordering::Acquire))
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // The last guard is gone: the driver may report it.
        self.wake.notify_one();
    }
}

/// What the handles of one secret share with the driver.
pub(crate) struct Cell {
    pub(crate) secret: SecretName,
    pub(crate) live: ArcSwapOption<Live>,
    pub(crate) watch: Watch,
    pub(crate) wake: Arc<Notify>,
    pub(crate) closed: AtomicBool,
    pub(crate) status: watch::Sender<Status>,
    /// Failed logins the driver has not taken in yet.
    auth_failures: Mutex<Vec<(Version, u64)>>,
}

/// How a secret stands, for people who wait.
#[derive(Clone, Default)]
pub(crate) struct Status {
    /// Handed out for new work, if its lease allows.
    pub(crate) version: Option<Version>,
    /// What is in the way, if anything is.
    pub(crate) problem: Option<Error>,
}

impl Cell {
    pub(crate) fn new(secret: SecretName, watch: Watch, wake: Arc<Notify>) -> Self {
        Self {
            secret,
            live: ArcSwapOption::empty(),
            watch,
            wake,
            closed: AtomicBool::new(false),
            status: watch::Sender::new(Status::default()),
            auth_failures: Mutex::new(Vec::new()),
        }
    }

    /// Wait-free: a pointer load, the clock, one comparison.
    #[inline]
    pub(crate) fn current(&self) -> Result<Guard, Error> {
        let live = self.live.load();
        match &*live {
            Some(inner) if inner.until() > self.watch.now() => Ok(Guard(live)),
            _ => Err(self.why_not()),
        }
    }

    #[cold]
    fn why_not(&self) -> Error {
        // A machine that was suspended wakes up here before the driver's timer does.
        self.wake.notify_one();
        if self.closed.load(Ordering::Acquire) {
            let what = format!("secret {}: the subscriber is closed", self.secret);
            return Error::new(ErrorKind::Closed, what, "do not use its handles after leave() or after dropping it");
        }
        let because = self.status.borrow().problem.as_ref().map_or_else(String::new, |problem| format!(" ({problem})"));
        Error::new(
            ErrorKind::Lapsed,
            format!("secret {}: no lease allows the use of any version right now{because}", self.secret),
            "check that this instance reaches the store or a broadcaster; it goes on by itself once it does",
        )
    }

    pub(crate) fn auth_failed(&self, version: Version) {
        let mut failures = self.auth_failures.lock().unwrap_or_else(PoisonError::into_inner);
        match failures.iter_mut().find(|(failed, _)| *failed == version) {
            Some((_, count)) => *count = count.saturating_add(1),
            None => failures.push((version, 1)),
        }
        // As many as the protocol counts; a service cannot fail with more versions than it was handed.
        if failures.len() > rotacast_protocol::message::MAX_HELD_VERSIONS {
            failures.remove(0);
        }
        drop(failures);
        self.wake.notify_one();
    }

    pub(crate) fn take_auth_failures(&self) -> Vec<(Version, u64)> {
        std::mem::take(&mut *self.auth_failures.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The right to use one version, for one piece of work: a query, a request, a connection.
///
/// While a guard exists, its version counts as held and Rotacast does not retire its credential. Hold the guard as long as
/// the work lasts and no longer. The work must end within `max_use` after the end of the lease: see
/// [`use_until`](Guard::use_until).
pub struct Guard(arc_swap::Guard<Option<Arc<Live>>>);

impl Guard {
    fn live(&self) -> &Live {
        self.0.as_deref().expect("a guard is only made around an installed version")
    }

    /// When the lease ends, by the clock of this machine. It moves on while the SDK renews the lease.
    #[must_use]
    pub fn valid_until(&self) -> Instant {
        self.live().until()
    }

    /// When work under this guard must be over: at the end of the lease plus the policy's `max_use` (5 s by default).
    #[must_use]
    pub fn use_until(&self) -> Instant {
        self.live().until() + self.live().max_use
    }

    /// How long work under this guard may still last. Zero when it must be over.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.use_until().since(self.live().watch.now())
    }

    /// Whether the lease has ended. Then begin no more work with this guard, and close its connections.
    #[must_use]
    pub fn is_lapsed(&self) -> bool {
        self.live().until() <= self.live().watch.now()
    }

    /// The version that this guard allows.
    #[must_use]
    pub fn version(&self) -> Version {
        self.live().view.version()
    }
}

impl Deref for Guard {
    type Target = CredentialView;
    fn deref(&self) -> &CredentialView {
        &self.live().view
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Guard({} {:?})", self.secret(), self.version())
    }
}
