//! The bus without a server: both sides in one process.

mod file;
mod log;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use rotacast_proto::Envelope;
use rotacast_protocol::{InstanceKey, Revision, SecretName};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use self::file::{Change, Request};
use self::log::Log;
use crate::bus::check_size;
use crate::{
    BusError, BusEvent, CALL_TIMEOUT, Finding, InstanceBus, LeaderBus, Level, MAX_MESSAGE_BYTES, Replier, SyncCall,
};

/// Writes waiting for the disk; more callers than this wait for a place. One fsync carries a whole batch.
const WRITE_QUEUE: usize = 1024;
/// Sync requests waiting for the leader. A leader that is this far behind is as good as none: callers ask again.
const SYNC_QUEUE: usize = 1024;
/// Most reports kept: the newest of this many incarnations. Reports are soft, so the oldest may go.
const MAX_REPORTS: usize = 200_000;

/// States and registrations in a file of their own, reports in memory. A cheap handle: clones share everything.
///
/// Only one process may have the file open.
#[derive(Clone)]
pub struct EmbeddedBus {
    shared: Arc<Shared>,
}

struct Shared {
    endpoint: String,
    memory: Memory,
    writer: mpsc::Sender<Request>,
    /// The holder of the newest `serve_sync` stream.
    leader: Mutex<Option<mpsc::Sender<SyncCall>>>,
}

/// What subscribers see: the last message of every key, and the newer ones as they come.
#[derive(Clone)]
struct Memory {
    states: Arc<Mutex<Log<SecretName>>>,
    registrations: Arc<Mutex<Log<InstanceKey>>>,
    reports: Arc<Mutex<Log<InstanceKey>>>,
    /// Whose the bus is.
    claim: Arc<Mutex<Option<Envelope>>>,
    /// Cancelled when the bus is closed.
    closed: CancellationToken,
}

impl EmbeddedBus {
    /// Opens or creates the file and reads it.
    ///
    /// # Errors
    /// `Misconfigured` when the file is of a newer Rotacast, is no bus of ours or is open in another process;
    /// `Unreachable` when it cannot be read or written.
    pub async fn open(path: &Path) -> Result<Self, BusError> {
        let endpoint = format!("embedded bus {}", path.display());
        let memory = Memory {
            states: Arc::new(Mutex::new(Log::new())),
            registrations: Arc::new(Mutex::new(Log::new())),
            reports: Arc::new(Mutex::new(Log::new())),
            claim: Arc::default(),
            closed: CancellationToken::new(),
        };
        let (writer, requests) = mpsc::channel(WRITE_QUEUE);
        file::start(path.to_owned(), endpoint.clone(), memory.clone(), requests).await?;
        Ok(Self { shared: Arc::new(Shared { endpoint, memory, writer, leader: Mutex::new(None) }) })
    }

    /// Closes the file: calls fail from now on and subscriptions end with `Cancelled`. Returns when the file
    /// may be opened again. Dropping every handle closes too, without waiting.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        // Either end missing means that the writer has stopped already.
        if self.shared.writer.send(Request::Close(done)).await.is_ok() {
            drop(closed.await);
        }
    }

    async fn write(&self, change: Change) -> Result<(), BusError> {
        let unreachable = |problem: &str| BusError::Unreachable {
            endpoint: self.shared.endpoint.clone(),
            problem: problem.to_owned(),
        };
        let attempt = async {
            let (done, outcome) = oneshot::channel();
            let sent = self.shared.writer.send(Request::Write(Box::new(change), done)).await;
            sent.map_err(|_| unreachable("it is closed"))?;
            outcome.await.map_err(|_| unreachable("it was closed meanwhile; the outcome is unknown"))?
        };
        match tokio::time::timeout(CALL_TIMEOUT, attempt).await {
            Ok(outcome) => outcome,
            Err(_) => Err(unreachable("the disk did not answer in time; the outcome is unknown")),
        }
    }

    fn check_open(&self) -> Result<(), BusError> {
        if self.shared.memory.closed.is_cancelled() {
            return Err(BusError::Unreachable {
                endpoint: self.shared.endpoint.clone(),
                problem: "it is closed".into(),
            });
        }
        Ok(())
    }

    fn check(&self, envelope: &Envelope) -> Result<(), BusError> {
        check_size(envelope, MAX_MESSAGE_BYTES, &self.shared.endpoint)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.memory.closed.cancel();
    }
}

#[async_trait]
impl LeaderBus for EmbeddedBus {
    fn describe(&self) -> String {
        self.shared.endpoint.clone()
    }

    async fn publish_over(
        &self,
        secret: &SecretName,
        revision: Revision,
        state: &Envelope,
        over: Option<&Envelope>,
    ) -> Result<(), BusError> {
        self.check(state)?;
        let over = over.map(|over| over.signature.clone());
        self.write(Change::State { secret: secret.clone(), revision, envelope: state.clone(), over }).await
    }

    async fn read_state(&self, secret: &SecretName) -> Result<Option<Envelope>, BusError> {
        self.check_open()?;
        let only = BTreeSet::from([secret.clone()]);
        let state = lock(&self.shared.memory.states).all(Some(&only)).pop();
        Ok(state.map(|envelope| (*envelope).clone()))
    }

    async fn read_claim(&self) -> Result<Option<Envelope>, BusError> {
        self.check_open()?;
        Ok(lock(&self.shared.memory.claim).clone())
    }

    async fn publish_claim(&self, claim: &Envelope) -> Result<(), BusError> {
        self.check(claim)?;
        self.write(Change::Claim { envelope: claim.clone() }).await
    }

    fn watch_registrations(&self) -> BoxStream<'static, Result<BusEvent, BusError>> {
        log::watch(&self.shared.memory.registrations, None, self.shared.memory.closed.clone())
    }

    async fn prune_registration(&self, key: &InstanceKey) -> Result<(), BusError> {
        self.write(Change::Prune { key: key.clone() }).await
    }

    fn watch_reports(&self) -> BoxStream<'static, Result<BusEvent, BusError>> {
        log::watch(&self.shared.memory.reports, None, self.shared.memory.closed.clone())
    }

    fn serve_sync(&self) -> BoxStream<'static, Result<SyncCall, BusError>> {
        let (sender, calls) = mpsc::channel(SYNC_QUEUE);
        *lock(&self.shared.leader) = Some(sender);
        let closed = self.shared.memory.closed.clone().cancelled_owned();
        ReceiverStream::new(calls)
            .map(Ok)
            .take_until(closed)
            // After the close: an error once, then the end.
            .chain(futures::stream::once(async { Err(BusError::Cancelled) }))
            .boxed()
    }

    async fn examine(&self) -> Vec<Finding> {
        let subject = self.shared.endpoint.clone();
        if self.shared.memory.closed.is_cancelled() {
            let fix = "open it again".to_owned();
            return vec![Finding { level: Level::Error, subject, text: "closed".into(), fix }];
        }
        let states = lock(&self.shared.memory.states).len();
        let registrations = lock(&self.shared.memory.registrations).len();
        let text = format!(
            "{states} states and {registrations} registrations, every write synced; one process, one machine: for \
             more than one broadcaster use NATS"
        );
        vec![Finding { level: Level::Ok, subject, text, fix: String::new() }]
    }
}

#[async_trait]
impl InstanceBus for EmbeddedBus {
    fn describe(&self) -> String {
        self.shared.endpoint.clone()
    }

    async fn register(&self, key: &InstanceKey, registration: &Envelope) -> Result<(), BusError> {
        self.check(registration)?;
        self.write(Change::Registration { key: key.clone(), envelope: registration.clone() }).await
    }

    async fn report(&self, key: &InstanceKey, report: &Envelope) -> Result<(), BusError> {
        self.check(report)?;
        self.check_open()?;
        let mut reports = lock(&self.shared.memory.reports);
        reports.put(key.clone(), report.clone());
        reports.forget_oldest_beyond(MAX_REPORTS);
        Ok(())
    }

    fn watch_states(&self, secrets: &[SecretName]) -> BoxStream<'static, Result<BusEvent, BusError>> {
        let wanted = secrets.iter().cloned().collect();
        log::watch(&self.shared.memory.states, Some(wanted), self.shared.memory.closed.clone())
    }

    async fn sync(&self, request: &Envelope, timeout: Duration) -> Result<Envelope, BusError> {
        self.check(request)?;
        let no_leader =
            |problem: &str| BusError::NoLeader { endpoint: self.shared.endpoint.clone(), problem: problem.to_owned() };
        self.check_open()?;
        let leader = lock(&self.shared.leader).clone().ok_or_else(|| no_leader("no broadcaster leads here"))?;
        let (reply, answer) = Replier::channel();
        leader.try_send(SyncCall { request: request.clone(), reply }).map_err(|problem| match problem {
            mpsc::error::TrySendError::Full(_) => no_leader("the leader has too many requests waiting"),
            mpsc::error::TrySendError::Closed(_) => no_leader("no broadcaster leads here any more"),
        })?;
        // The sender must not outlive this call's own wait: without one the leader's stream could never end.
        drop(leader);
        tokio::time::timeout(timeout, answer)
            .map(|outcome| match outcome {
                Ok(Ok(reply)) => Ok(reply),
                Ok(Err(_)) => Err(no_leader("the leader dropped the request")),
                Err(_) => Err(no_leader("the leader did not answer in time")),
            })
            .await
    }
}

/// Every critical section leaves its data whole at every step, so a panic elsewhere poisons nothing.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
