//! Syncs beside Kafka: to a leader in this process, or over gRPC to whichever broadcaster leads.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use rotacast_proto::Envelope;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::options::KafkaSync;
use crate::{BusError, GrpcBus, InstanceBus as _, Replier, SyncCall};

/// Sync requests waiting for the leader. A leader that is this far behind is as good as none: callers ask again.
const QUEUE: usize = 1024;

pub(super) struct Sync {
    endpoint: String,
    /// The holder of the newest `serve_sync` stream.
    leader: Mutex<Option<mpsc::Sender<SyncCall>>>,
    /// None: a leader in this process.
    broadcasters: Option<GrpcBus>,
}

impl Sync {
    pub(super) fn new(endpoint: String, sync: &KafkaSync) -> Result<Self, BusError> {
        let broadcasters = match sync {
            KafkaSync::Local => None,
            KafkaSync::Grpc(options) if options.is_empty() => {
                let problem = "no broadcaster's address for Syncs, which do not go over Kafka; expected at least one";
                return Err(BusError::Misconfigured { endpoint, problem: problem.into() });
            }
            KafkaSync::Grpc(options) => Some(GrpcBus::connect_any_later(options.clone())?),
        };
        Ok(Self { endpoint, leader: Mutex::new(None), broadcasters })
    }

    pub(super) fn serve(&self) -> BoxStream<'static, Result<SyncCall, BusError>> {
        let (sender, calls) = mpsc::channel(QUEUE);
        *self.leader.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        ReceiverStream::new(calls).map(Ok).boxed()
    }

    pub(super) async fn ask(&self, request: &Envelope, timeout: Duration) -> Result<Envelope, BusError> {
        match &self.broadcasters {
            None => self.ask_here(request, timeout).await,
            Some(broadcasters) => broadcasters.sync(request, timeout).await,
        }
    }

    async fn ask_here(&self, request: &Envelope, timeout: Duration) -> Result<Envelope, BusError> {
        let leader = self.leader.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let leader = leader.ok_or_else(|| self.no_leader("no broadcaster leads here"))?;
        let (reply, answer) = Replier::channel();
        leader.try_send(SyncCall { request: request.clone(), reply }).map_err(|problem| match problem {
            mpsc::error::TrySendError::Full(_) => self.no_leader("the leader has too many requests waiting"),
            mpsc::error::TrySendError::Closed(_) => self.no_leader("no broadcaster leads here any more"),
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
