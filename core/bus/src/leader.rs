//! The bus seam: the broadcaster's side.

use async_trait::async_trait;
use futures::stream::BoxStream;
use rotacast_proto::{Envelope, Finding};
use rotacast_protocol::{InstanceKey, Revision, SecretName};
use tokio::sync::oneshot;

use crate::{BusError, BusEvent, Stray};

/// One Sync request with the way back.
pub struct SyncCall {
    /// The signed request.
    pub request: Envelope,
    /// Where the answer goes.
    pub reply: Replier,
}

/// The way back of one Sync. Dropping it leaves the caller to its timeout.
pub struct Replier(oneshot::Sender<Envelope>);

impl Replier {
    /// A replier and the end an implementation forwards from.
    #[must_use]
    pub fn channel() -> (Self, oneshot::Receiver<Envelope>) {
        let (sender, receiver) = oneshot::channel();
        (Self(sender), receiver)
    }

    /// Answers. A caller that has gone away is no error: it asks again.
    pub fn send(self, reply: Envelope) {
        // The receiver is gone when the caller timed out; its next Sync repairs that.
        drop(self.0.send(reply));
    }
}

/// The subject of a claim, and its key in the log of states. No secret has this name.
pub const CLAIM: &str = "~cluster";

/// The broadcaster's side.
///
/// The contract, which `conformance` checks on every implementation:
/// - Subscriptions deliver the last message of every key to a newcomer, then `CaughtUp`, then every
///   later message at least once; after any loss of continuity `Resync` and all again. They reconnect
///   by themselves and end only with an error that retrying cannot mend.
/// - A registration or leave that was acknowledged reaches every watch that begins later. A bus may lose it after all, as
///   any message: the instance registers again at its next Sync.
/// - Every call ends within [`CALL_TIMEOUT`](crate::CALL_TIMEOUT) or with `Unreachable`.
/// - No call buffers without bound: a slow consumer gets a `Resync`, never unbounded memory.
#[async_trait]
pub trait LeaderBus: Send + Sync + 'static {
    /// What and where it is, for people.
    fn describe(&self) -> String;

    /// Publishes a secret's desired state as the last message of its key; durable when it returns. States
    /// with an older revision than what was published last, by any broadcaster, are refused with `Fenced` where the
    /// bus can tell.
    async fn publish_state(&self, secret: &SecretName, revision: Revision, state: &Envelope) -> Result<(), BusError> {
        self.publish_over(secret, revision, state, None).await
    }

    /// The same, except that `over` fences nothing: a state that the caller has read and found to be none of its cluster's.
    async fn publish_over(
        &self,
        secret: &SecretName,
        revision: Revision,
        state: &Envelope,
        over: Option<&Envelope>,
    ) -> Result<(), BusError>;

    /// The state of a secret that was published last, by any broadcaster.
    async fn read_state(&self, secret: &SecretName) -> Result<Option<Envelope>, BusError>;

    /// Which cluster the bus was claimed for. `None`: for none yet, or the log of states was lost.
    async fn read_claim(&self) -> Result<Option<Envelope>, BusError>;

    /// Claims the bus for a cluster; durable when it returns. Of two at once the later stays. The envelope's subject is
    /// [`CLAIM`].
    async fn publish_claim(&self, claim: &Envelope) -> Result<(), BusError>;

    /// Registrations: the last message of every incarnation (a Registration, or its leave), and then all later ones.
    fn watch_registrations(&self) -> BoxStream<'static, Result<BusEvent, BusError>>;

    /// Forgets an incarnation that is over for good: its registration and its reports.
    async fn prune_registration(&self, key: &InstanceKey) -> Result<(), BusError>;

    /// What is stored as this incarnation's registration is none that any leader accepts: forgets it soon, where the bus
    /// can tell who may store it. Returns at once.
    fn sweep_registration(&self, _key: &InstanceKey) {}

    /// Reports: soft, the last of every incarnation and then all later ones.
    fn watch_reports(&self) -> BoxStream<'static, Result<BusEvent, BusError>>;

    /// Sync requests. Only the leader listens; while there is none, callers get `NoLeader` or a timeout.
    fn serve_sync(&self) -> BoxStream<'static, Result<SyncCall, BusError>>;

    /// Checks version and stream settings, and makes anew what is missing, where it may: for `doctor`, at the start, and every
    /// 15 seconds while a broadcaster runs.
    async fn examine(&self) -> Vec<Finding>;

    /// How many messages were dropped since the start because their sender had no business sending them.
    fn strays(&self) -> Vec<(Stray, u64)> {
        Vec::new()
    }

    /// How full each log was when it was last [examined](LeaderBus::examine), where the bus knows.
    fn fills(&self) -> Vec<LogFill> {
        Vec::new()
    }
}

/// How full one log is.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct LogFill {
    /// `states`, `registrations` or `reports`.
    pub log: &'static str,
    /// From 0 to 1: by bytes or messages, whichever is nearer to its limit.
    pub fill: f64,
}
