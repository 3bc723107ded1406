//! The connection of one process to Rotacast.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rotacast_holder::Instance;
use rotacast_proto::InstanceIdentity;
use rotacast_protocol::{InstanceKey, SecretName};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::builder::Builder;
use crate::driver::{Add, Context, Driver, LeaveOrder, LeaveOutcome};
use crate::error::{Error, ErrorKind};
use crate::handle::SecretHandle;
use crate::hooks::Hooks;
use crate::incarnations::Incarnations;

/// How long [`Subscriber::leave`] waits for guards and hooks: longer than most requests, shorter than the 30 s an
/// orchestrator usually grants a shutdown.
pub const LEAVE_BOUND: Duration = Duration::from_secs(20);

/// How long a secret may be absent before that counts as final: a first version put at the same moment shows up in
/// well under a second.
const ABSENCE_PATIENCE: Duration = Duration::from_secs(5);

/// Calls to the driver that may wait at once.
pub(crate) const CONTROL_QUEUE: usize = 16;

/// How long a start that failed waits until the bus has accepted its leave: a service that gives up its start is about to exit,
/// and is to do so soon.
const LET_GO_BOUND: Duration = Duration::from_secs(3);

/// How far a subscriber is.
enum Stage {
    /// No secret was handed out yet.
    Starting,
    InUse,
    /// The start failed and the incarnation leaves; the next attempt is a new incarnation.
    LetGo(watch::Receiver<LeaveOutcome>),
    /// The service leaves.
    Left(watch::Receiver<LeaveOutcome>),
}

/// The incarnation in force.
struct Running {
    control: mpsc::Sender<Add>,
    /// Takes the order to leave, once. It is no call in the queue, so that it always finds a place and cannot be cancelled.
    leave: Option<oneshot::Sender<LeaveOrder>>,
    wake: Arc<Notify>,
    key: InstanceKey,
    stage: Stage,
    /// Calls that are opening a secret.
    opening: u32,
}

/// What subscribers and handles share. The driver ends when the last of them is gone.
pub(crate) struct Shared {
    context: Context,
    incarnations: Arc<Incarnations>,
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
        if matches!(running.stage, Stage::LetGo(_)) {
            let begun = Running::begin(&self.context, self.incarnations.begin(), self.exclusive);
            *running = Running { opening: running.opening, ..begun };
        }
        running.opening += 1;
        Opening { shared: self, over: false }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let mut running = self.running();
        match running.stage {
            Stage::Starting => drop(running.order_leave(LET_GO_BOUND)),
            Stage::InUse => drop(running.order_leave(LEAVE_BOUND)),
            Stage::LetGo(_) | Stage::Left(_) => {}
        }
    }
}

impl Running {
    fn begin(context: &Context, identity: Arc<InstanceIdentity>, exclusive: bool) -> Self {
        let (control, receiver) = mpsc::channel(CONTROL_QUEUE);
        let (leave, ordered) = oneshot::channel();
        let wake = Arc::<Notify>::default();
        let key = identity.key().clone();
        let runtime = context.runtime.clone();
        let context = Context { wake: Arc::clone(&wake), identity, ..context.clone() };
        let driver = Driver::new(Arc::new(context), Instance::new(key.clone(), exclusive), receiver, ordered);
        runtime.spawn(driver.run());
        Self { control, leave: Some(leave), wake, key, stage: Stage::Starting, opening: 0 }
    }

    /// Has the driver leave, unless it was told to before.
    fn order_leave(&mut self, bound: Duration) -> watch::Receiver<LeaveOutcome> {
        let (outcome, answer) = watch::channel(None);
        if let Some(leave) = self.leave.take() {
            // A driver that has ended drops the order; its reader then finds the channel closed.
            drop(leave.send(LeaveOrder { bound, outcome }));
            self.wake.notify_one();
        }
        answer
    }
}

/// A secret that is being opened.
struct Opening<'a> {
    shared: &'a Shared,
    over: bool,
}

impl Opening<'_> {
    fn handed_out(&self) {
        let mut running = self.shared.running();
        if matches!(running.stage, Stage::Starting) {
            running.stage = Stage::InUse;
        }
    }

    /// After a start that failed: the incarnation leaves, so that no rotation waits for it. Not if this process uses another secret
    /// with it, or is about to.
    async fn let_go(mut self) {
        let (mut answer, key) = {
            let mut running = self.shared.running();
            // Under the same lock, so that of several that fail at once the last one leaves.
            running.opening -= 1;
            self.over = true;
            if !matches!(running.stage, Stage::Starting) || running.opening > 0 {
                return;
            }
            let answer = running.order_leave(LET_GO_BOUND);
            running.stage = Stage::LetGo(answer.clone());
            (answer, running.key.clone())
        };
        if let Err(problem) = told(&mut answer).await {
            tracing::warn!(instance = %key, %problem, "the start failed, and this instance could not leave in time");
        }
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        if !self.over {
            self.shared.running().opening -= 1;
        }
    }
}

/// The connection of one service instance to Rotacast: see the [crate's documentation](crate).
///
/// When it and all handles are dropped, the instance leaves in the background, as long as the runtime lives. To know that it has
/// left, call [`leave`](Self::leave) before. If it cannot leave, rotations wait until its leases have expired.
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

    pub(crate) fn start(
        context: Context,
        incarnations: Arc<Incarnations>,
        exclusive: bool,
        start_timeout: Duration,
    ) -> Self {
        let running = Mutex::new(Running::begin(&context, incarnations.current(), exclusive));
        Self { shared: Arc::new(Shared { context, incarnations, exclusive, start_timeout, running }) }
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

    /// Like [`secret`](Self::secret), with hooks that run from the first version on. A first version that a hook refuses is offered
    /// again until [`Builder::start_timeout`], so that a service starts although its database is late.
    ///
    /// # Errors
    /// As [`secret`](Self::secret), and [`ErrorKind::Refused`] if a hook refuses the first version.
    /// [`ErrorKind::Config`] if this subscriber uses the secret already, with hooks: those of one user would replace the other's.
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
            Err(_) => opening.let_go().await,
        }
        opened
    }

    async fn wait_for(&self, secret: SecretName, hooks: Option<Hooks>) -> Result<SecretHandle, Error> {
        let (reply, answer) = oneshot::channel();
        let add = Add { secret, hooks, reply };
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
    /// [`LEAVE_BOUND`] for guards to be dropped, runs the release hooks, and makes the leave durable on the bus. It is `Ok` only
    /// once the bus has accepted the leave, also if the leave was begun before: by a start that failed, or by another call.
    ///
    /// A leave goes on after its bound. Call it again, also from several tasks, to wait for it once more.
    ///
    /// # Errors
    /// [`ErrorKind::InUse`] if guards are still held or a hook runs: the leave goes on when that is over. [`ErrorKind::Refused`] if a
    /// release hook fails or has not ended: it is not cut off, and one that failed is called again after 30 s, or when it says.
    /// [`ErrorKind::Unreachable`] if the bus does not answer: it is tried for 30 s more. If the leave does not succeed, rotations
    /// wait until the leases have expired.
    pub async fn leave(&self) -> Result<(), Error> {
        self.leave_within(LEAVE_BOUND).await
    }

    /// Like [`leave`](Self::leave), but waits up to `bound` for guards.
    ///
    /// # Errors
    /// As [`leave`](Self::leave).
    pub async fn leave_within(&self, bound: Duration) -> Result<(), Error> {
        let (mut answer, began) = {
            let mut running = self.shared.running();
            let (answer, began) = match &running.stage {
                Stage::Starting | Stage::InUse => (running.order_leave(bound), true),
                Stage::LetGo(answer) | Stage::Left(answer) => (answer.clone(), false),
            };
            running.stage = Stage::Left(answer.clone());
            (answer, began)
        };
        if began {
            return told(&mut answer).await;
        }
        // What was told is not the last word: the bus may accept the leave yet.
        let accepted = answer.wait_for(|outcome| matches!(outcome, Some(Ok(()))));
        let in_time = tokio::time::timeout(bound, accepted).await.is_ok();
        let outcome = answer.borrow().clone();
        outcome.unwrap_or_else(|| Err(if in_time { closed() } else { unconfirmed(bound) }))
    }
}

/// Waits for what the driver says about a leave; the driver keeps the bound.
async fn told(answer: &mut watch::Receiver<LeaveOutcome>) -> Result<(), Error> {
    match answer.wait_for(Option::is_some).await {
        Ok(outcome) => outcome.clone().unwrap_or_else(|| Err(closed())),
        Err(_) => Err(closed()),
    }
}

fn unconfirmed(bound: Duration) -> Error {
    let what = format!("the bus has not accepted the leave within {bound:?}: it is still under way");
    Error::new(ErrorKind::Unreachable, what, "rotations wait until the bus has it, or this instance's leases are over")
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the subscriber is closed", "it has left, or its runtime was shut down")
}
