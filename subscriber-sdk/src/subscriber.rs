//! The connection of one process to Rotacast.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rotacast_holder::Instance;
use rotacast_protocol::{Incarnation, InstanceKey, SecretName};
use tokio::sync::{mpsc, oneshot};

use crate::builder::Builder;
use crate::driver::{Context, Control, Driver};
use crate::error::{Error, ErrorKind};
use crate::handle::SecretHandle;
use crate::hooks::Hooks;

/// How long [`Subscriber::leave`] waits for guards and hooks: longer than most requests, shorter than the 30 s an
/// orchestrator usually grants a shutdown.
pub const LEAVE_BOUND: Duration = Duration::from_secs(20);

/// How long a secret may be absent before that counts as final: a first version put at the same moment shows up in
/// well under a second.
const ABSENCE_PATIENCE: Duration = Duration::from_secs(5);

/// Calls to the driver that may wait at once.
pub(crate) const CONTROL_QUEUE: usize = 16;

/// How long a start that failed waits until the bus has its leave: a service that gives up its start is about to exit, and is to
/// do so soon.
const LET_GO_BOUND: Duration = Duration::from_secs(3);

/// How far a subscriber is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// No secret was handed out yet.
    Starting,
    InUse,
    /// The start failed and the incarnation has left; the next attempt is a new incarnation.
    LetGo,
    /// The service has left.
    Left,
}

/// The incarnation in force.
struct Running {
    control: mpsc::Sender<Control>,
    key: InstanceKey,
    stage: Stage,
    /// Calls that are opening a secret.
    opening: u32,
}

/// What subscribers and handles share. The driver ends when the last of them is gone.
pub(crate) struct Shared {
    context: Context,
    exclusive: bool,
    start_timeout: Duration,
    running: Mutex<Running>,
}

impl Shared {
    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a secret is being opened, by a new incarnation if the one before has let go.
    fn begin_opening(&self) -> Opening<'_> {
        let mut running = self.running();
        if running.stage == Stage::LetGo {
            let (service, instance) = (running.key.service.clone(), running.key.instance.clone());
            let key = InstanceKey::new(service, instance, Incarnation(rand::random()));
            *running = Running { opening: running.opening, ..Running::begin(&self.context, key, self.exclusive) };
        }
        running.opening += 1;
        Opening { shared: self }
    }

    /// After a start that failed: the incarnation leaves, so that no rotation waits for it. Not if this process uses another secret
    /// with it, or is about to.
    async fn let_go(&self) {
        let (reply, answer) = oneshot::channel();
        let (control, key) = {
            let mut running = self.running();
            if running.stage != Stage::Starting || running.opening > 1 {
                return;
            }
            running.stage = Stage::LetGo;
            (running.control.clone(), running.key.clone())
        };
        let left = match control.send(Control::Leave { bound: LET_GO_BOUND, reply }).await {
            Ok(()) => answer.await.unwrap_or_else(|_| Err(closed())),
            Err(_) => Err(closed()),
        };
        if let Err(problem) = left {
            tracing::warn!(instance = %key, %problem, "the start failed, and this instance could not leave");
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let running = self.running();
        if running.stage == Stage::Starting {
            let (reply, _) = oneshot::channel();
            // If so many calls wait that this one finds no place, rotations wait until the instance's leases are over.
            drop(running.control.try_send(Control::Leave { bound: LET_GO_BOUND, reply }));
        }
    }
}

impl Running {
    fn begin(context: &Context, key: InstanceKey, exclusive: bool) -> Self {
        let (control, receiver) = mpsc::channel(CONTROL_QUEUE);
        let context = Context { wake: Arc::default(), ..context.clone() };
        let driver = Driver::new(Arc::new(context), Instance::new(key.clone(), exclusive), receiver);
        tokio::spawn(driver.run());
        Self { control, key, stage: Stage::Starting, opening: 0 }
    }
}

/// A secret that is being opened.
struct Opening<'a> {
    shared: &'a Shared,
}

impl Opening<'_> {
    fn handed_out(&self) {
        let mut running = self.shared.running();
        if running.stage == Stage::Starting {
            running.stage = Stage::InUse;
        }
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.shared.running().opening -= 1;
    }
}

/// The connection of one service instance to Rotacast: see the [crate's documentation](crate).
///
/// Dropping it and all handles without [`leave`](Self::leave) is safe. Rotations then wait until the leases of this instance
/// have expired. If no secret was handed out yet, the instance leaves in the background, as long as the runtime lives.
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
        let running = Mutex::new(Running::begin(&context, key, exclusive));
        Self { shared: Arc::new(Shared { context, exclusive, start_timeout, running }) }
    }

    /// The names of this service and instance, and the incarnation that was drawn for this process. After a start that failed
    /// the next attempt draws another one.
    #[must_use]
    pub fn key(&self) -> InstanceKey {
        self.shared.running().key.clone()
    }

    /// How many messages this instance ignored because no trusted broadcaster had signed them.
    #[must_use]
    pub fn refused_messages(&self) -> u64 {
        self.shared.context.trust.refused()
    }

    /// Begins to use a secret: registers, gets a lease, reads the value, and returns when you can use it.
    ///
    /// If it fails and this subscriber uses no other secret, the instance leaves, for up to 3 s, so that no rotation waits for it.
    /// You can call it again.
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
        let opening = self.shared.begin_opening();
        let opened = self.wait_for(secret, hooks).await;
        match &opened {
            Ok(_) => opening.handed_out(),
            Err(_) => self.shared.let_go().await,
        }
        opened
    }

    async fn wait_for(&self, secret: SecretName, hooks: Option<Hooks>) -> Result<SecretHandle, Error> {
        let (reply, answer) = oneshot::channel();
        let add = Control::Add { secret, hooks, reply };
        let control = self.shared.running().control.clone();
        control.send(add).await.map_err(|_| closed())?;
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
        let control = {
            let mut running = self.shared.running();
            if std::mem::replace(&mut running.stage, Stage::Left) == Stage::LetGo {
                return Ok(());
            }
            running.control.clone()
        };
        control.send(Control::Leave { bound, reply }).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the subscriber is closed", "it has left, or its runtime was shut down")
}
