//! The connection of one process to Rotacast.

use std::sync::Arc;
use std::time::Duration;

use rotacast_holder::Instance;
use rotacast_protocol::{InstanceKey, SecretName};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::builder::Builder;
use crate::driver::{Context, Control, Driver};
use crate::error::{Error, ErrorKind};
use crate::handle::SecretHandle;
use crate::hooks::Hooks;
use crate::trust::Trust;

/// How long [`Subscriber::leave`] waits for guards and hooks: longer than most requests, shorter than the 30 s an
/// orchestrator usually grants a shutdown.
pub const LEAVE_BOUND: Duration = Duration::from_secs(20);

/// How long a secret may be absent before that counts as final: a first version put at the same moment shows up in
/// well under a second.
const ABSENCE_PATIENCE: Duration = Duration::from_secs(5);

/// Calls to the driver that may wait at once.
pub(crate) const CONTROL_QUEUE: usize = 16;

/// Ends the driver when the last subscriber or handle is gone.
pub(crate) struct Shared {
    control: mpsc::Sender<Control>,
    cancel: CancellationToken,
    key: InstanceKey,
    trust: Arc<Trust>,
    start_timeout: Duration,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// The connection of one service instance to Rotacast: see the [crate's documentation](crate).
///
/// Dropping it and all handles without [`leave`](Self::leave) is safe. Rotations then wait until the leases of this instance
/// have expired.
#[derive(Clone)]
pub struct Subscriber {
    shared: Arc<Shared>,
}

impl Subscriber {
    /// Starts with the settings: see [`Builder`].
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn start(context: Context, key: InstanceKey, exclusive: bool, start_timeout: Duration) -> Self {
        let (control, receiver) = mpsc::channel(CONTROL_QUEUE);
        let cancel = CancellationToken::new();
        let trust = Arc::clone(&context.trust);
        let driver = Driver::new(Arc::new(context), Instance::new(key.clone(), exclusive), receiver);
        tokio::spawn(driver.run(cancel.clone()));
        Self { shared: Arc::new(Shared { control, cancel, key, trust, start_timeout }) }
    }

    /// The names of this service and instance, and the incarnation that was drawn for this process.
    #[must_use]
    pub fn key(&self) -> &InstanceKey {
        &self.shared.key
    }

    /// How many messages this instance ignored because no trusted broadcaster had signed them.
    #[must_use]
    pub fn refused_messages(&self) -> u64 {
        self.shared.trust.refused()
    }

    /// Begins to use a secret: registers, gets a lease, reads the value, and returns when you can use it.
    ///
    /// # Errors
    /// If that takes longer than [`Builder::start_timeout`], what is missing: [`ErrorKind::Unreachable`],
    /// [`ErrorKind::Denied`] and others. [`ErrorKind::NoSuchSecret`] after 5 s already. [`ErrorKind::Config`] for an
    /// invalid name.
    pub async fn secret(&self, name: &str) -> Result<SecretHandle, Error> {
        self.open(name, None).await
    }

    /// Like [`secret`](Self::secret), with hooks that run from the first version on.
    ///
    /// # Errors
    /// As [`secret`](Self::secret), and [`ErrorKind::Refused`] if a hook refuses the first version.
    pub async fn secret_with(&self, name: &str, hooks: Hooks) -> Result<SecretHandle, Error> {
        self.open(name, Some(hooks)).await
    }

    async fn open(&self, name: &str, hooks: Option<Hooks>) -> Result<SecretHandle, Error> {
        let secret = SecretName::new(name)
            .map_err(|error| Error::new(ErrorKind::Config, error.to_string(), "secret names look like payments/db"))?;
        let (reply, answer) = oneshot::channel();
        let add = Control::Add { secret, hooks, reply };
        self.shared.control.send(add).await.map_err(|_| closed())?;
        let (cell, hooks) = answer.await.map_err(|_| closed())??;
        let mut status = cell.status.subscribe();
        let started = tokio::time::Instant::now();
        let absent = started + self.shared.start_timeout.min(ABSENCE_PATIENCE);
        let last = started + self.shared.start_timeout;
        for deadline in [absent, last] {
            // A closed channel ends the wait as well; `current` below then says why.
            let usable = async { status.wait_for(|status| status.version.is_some()).await.is_ok() };
            if tokio::time::timeout_at(deadline, usable).await.unwrap_or(false) {
                return Ok(SecretHandle::new(cell, hooks, Arc::clone(&self.shared)));
            }
            let problem = cell.status.borrow().problem.clone();
            if let Some(problem) = problem
                && (deadline == last || problem.kind() == ErrorKind::NoSuchSecret)
            {
                return Err(problem);
            }
        }
        cell.current()?;
        Ok(SecretHandle::new(cell, hooks, Arc::clone(&self.shared)))
    }

    /// Leaves for good, so that no rotation waits for this instance. `current()` fails from now on. The call waits up to
    /// [`LEAVE_BOUND`] for guards to be dropped, runs the release hooks, and makes the leave durable on the bus.
    ///
    /// # Errors
    /// [`ErrorKind::InUse`] if guards are still held, [`ErrorKind::Refused`] if a release hook fails,
    /// [`ErrorKind::Unreachable`] if the bus does not answer. Rotations then wait until the leases have expired.
    pub async fn leave(&self) -> Result<(), Error> {
        self.leave_within(LEAVE_BOUND).await
    }

    /// Like [`leave`](Self::leave), but waits up to `bound` for guards.
    ///
    /// # Errors
    /// As [`leave`](Self::leave).
    pub async fn leave_within(&self, bound: Duration) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        self.shared.control.send(Control::Leave { bound, reply }).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the subscriber is closed", "it has left, or its runtime was shut down")
}
