//! Syncs beside Kafka: to a leader in this process, or over gRPC to whichever broadcaster leads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use rotacast_proto::Envelope;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

use super::options::KafkaSync;
use crate::{BusError, GrpcBus, InstanceBus as _, Replier, SyncCall};

/// Sync requests waiting for the leader. A leader that is this far behind is as good as none: callers ask again.
const QUEUE: usize = 1024;

pub(super) struct Sync {
    endpoint: String,
    /// Whoever holds the newest `serve_sync` stream.
    leader: Mutex<Option<mpsc::Sender<SyncCall>>>,
    /// Empty: a leader in this process.
    broadcasters: Vec<GrpcBus>,
    /// The one that answered last.
    first: AtomicUsize,
}

impl Sync {
    pub(super) fn new(endpoint: String, sync: &KafkaSync) -> Result<Self, BusError> {
        let broadcasters = match sync {
            KafkaSync::Local => Vec::new(),
            KafkaSync::Grpc(options) if options.is_empty() => {
                let problem = "no broadcaster's address for Syncs, which do not go over Kafka; expected at least one";
                return Err(BusError::Misconfigured { endpoint, problem: problem.into() });
            }
            KafkaSync::Grpc(options) => {
                options.iter().cloned().map(GrpcBus::connect_later).collect::<Result<_, _>>()?
            }
        };
        Ok(Self { endpoint, leader: Mutex::new(None), broadcasters, first: AtomicUsize::new(0) })
    }

    pub(super) fn serve(&self) -> BoxStream<'static, Result<SyncCall, BusError>> {
        let (sender, calls) = mpsc::channel(QUEUE);
        *self.leader.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        ReceiverStream::new(calls).map(Ok).boxed()
    }

    pub(super) async fn ask(&self, request: &Envelope, timeout: Duration) -> Result<Envelope, BusError> {
        if self.broadcasters.is_empty() {
            return self.ask_here(request, timeout).await;
        }
        let deadline = Instant::now() + timeout;
        let first = self.first.load(Ordering::Relaxed);
        let mut last = self.no_leader("no broadcaster was asked in time");
        for turn in 0..self.broadcasters.len() {
            let which = (first + turn) % self.broadcasters.len();
            // One that hangs must leave time for the others.
            let left = u32::try_from(self.broadcasters.len() - turn).unwrap_or(u32::MAX);
            let share = deadline.saturating_duration_since(Instant::now()) / left;
            match self.broadcasters[which].sync(request, share).await {
                Ok(reply) => {
                    self.first.store(which, Ordering::Relaxed);
                    return Ok(reply);
                }
                Err(problem) if problem.is_transient() => {
                    // "Nobody leads" says more than "nobody there".
                    if !matches!(last, BusError::NoLeader { .. })
                        || turn == 0
                        || matches!(problem, BusError::NoLeader { .. })
                    {
                        last = problem;
                    }
                }
                Err(problem) => return Err(problem),
            }
        }
        Err(last)
    }

    async fn ask_here(&self, request: &Envelope, timeout: Duration) -> Result<Envelope, BusError> {
        let leader = self.leader.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let leader = leader.ok_or_else(|| self.no_leader("nobody leads here"))?;
        let (reply, answer) = Replier::channel();
        leader.try_send(SyncCall { request: request.clone(), reply }).map_err(|problem| match problem {
            mpsc::error::TrySendError::Full(_) => self.no_leader("the leader has too many requests waiting"),
            mpsc::error::TrySendError::Closed(_) => self.no_leader("nobody leads here any more"),
        })?;
        // A sender that outlives this call's wait would keep the leader's stream from ending.
        drop(leader);
        match tokio::time::timeout(timeout, answer).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_)) => Err(self.no_leader("the leader dropped the request")),
            Err(_) => Err(self.no_leader("the leader did not answer in time")),
        }
    }

    fn no_leader(&self, problem: &str) -> BusError {
        BusError::NoLeader { endpoint: self.endpoint.clone(), problem: problem.to_owned() }
    }
}
