//! The few calls of etcd's API that Rotacast makes, on tonic.

use std::future::Future;
use std::sync::{Arc, PoisonError, RwLock};

use rotacast_proto::FileError;
use tokio::sync::{Mutex, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status, Streaming};

use super::options::EtcdUser;
use super::pb::auth_client::AuthClient;
#[cfg(feature = "leader")]
use super::pb::cluster_client::ClusterClient;
use super::pb::kv_client::KvClient;
#[cfg(feature = "leader")]
use super::pb::lease_client::LeaseClient;
#[cfg(feature = "leader")]
use super::pb::maintenance_client::MaintenanceClient;
use super::pb::watch_client::WatchClient;
use super::pb::watch_request::RequestUnion;
use super::pb::{self, AuthenticateRequest, RangeRequest, RangeResponse};

/// Largest answer that is accepted: a page of a listing, or what a watch has to catch up with at once. A watch
/// that has more to catch up with lists anew.
const MAX_ANSWER_BYTES: usize = 256 * 1024 * 1024;
/// Requests on one stream that etcd has not taken yet. Each side sends the next only after an answer or a pause.
const STREAM_QUEUE: usize = 4;

type Line = InterceptedService<Channel, Headers>;

/// A client of all members of a cluster. Cheap to clone.
#[derive(Clone)]
pub(super) struct Client {
    channel: Channel,
    headers: Headers,
    user: Option<EtcdUser>,
    /// Held while a token is being fetched, so that calls refused at the same time fetch one.
    renewing: Arc<Mutex<()>>,
}

/// What every call carries: who calls, and that a member without a leader must refuse instead of answering with what it
/// last knew. A member that loses its leader ends watches for the same reason.
#[derive(Clone, Default)]
struct Headers {
    token: Arc<RwLock<Option<AsciiMetadataValue>>>,
}

impl Headers {
    fn token(&self) -> Option<AsciiMetadataValue> {
        self.token.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Interceptor for Headers {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        metadata.insert("hasleader", AsciiMetadataValue::from_static("true"));
        if let Some(token) = self.token() {
            metadata.insert("token", token);
        }
        Ok(request)
    }
}

impl Client {
    /// Balances calls over `endpoints`. Connects when it is first used; with a user, that is now.
    pub(super) async fn connect(endpoints: Vec<Endpoint>, user: Option<EtcdUser>) -> Result<Self, Status> {
        let client = Self {
            channel: Channel::balance_list(endpoints.into_iter()),
            headers: Headers::default(),
            user,
            renewing: Arc::default(),
        };
        client.renew_token(None).await?;
        Ok(client)
    }

    /// Fetches a new token, unless the one in use is no longer `stale`. Does nothing without a user.
    async fn renew_token(&self, stale: Option<AsciiMetadataValue>) -> Result<(), Status> {
        let Some(user) = &self.user else { return Ok(()) };
        let _one_at_a_time = self.renewing.lock().await;
        if self.headers.token() != stale {
            return Ok(());
        }
        let password = user.password.fetch().await.map_err(own_file)?;
        let request = AuthenticateRequest { name: user.name.clone(), password: password.to_string() };
        // Without the headers: a stale token would be refused here too.
        let answer = match AuthClient::new(self.channel.clone()).authenticate(request).await {
            // An administrator has turned authentication off, maybe for a moment: etcd lets every client in until then.
            Err(status) if status.message().contains("authentication is not enabled") => {
                tracing::warn!("etcd's authentication is off, although a user is set for it: going on without");
                *self.headers.token.write().unwrap_or_else(PoisonError::into_inner) = None;
                return Ok(());
            }
            answer => answer?.into_inner(),
        };
        let token = answer.token.parse().map_err(|_| Status::internal("the token that etcd gave is no header"))?;
        *self.headers.token.write().unwrap_or_else(PoisonError::into_inner) = Some(token);
        Ok(())
    }

    /// Fetches a new token. A stream goes on with the one it began with, which etcd may stop to accept.
    pub(super) async fn refresh_token(&self) -> Result<(), Status> {
        self.renew_token(self.headers.token()).await
    }

    /// Makes a call, and once more with a new token if etcd did not accept the one it had. A call refused for its token
    /// has done nothing.
    async fn call<T, F>(&self, call: impl Fn() -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let token = self.headers.token();
        let answer = match call().await {
            Err(status) if self.user.is_some() && asks_for_a_token(&status) => {
                self.renew_token(token).await?;
                call().await
            }
            answer => answer,
        };
        answer.map(Response::into_inner)
    }

    fn line(&self) -> Line {
        InterceptedService::new(self.channel.clone(), self.headers.clone())
    }

    pub(super) async fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Status> {
        let client = KvClient::new(self.line()).max_decoding_message_size(MAX_ANSWER_BYTES);
        self.call(|| {
            let (mut client, request) = (client.clone(), request.clone());
            async move { client.range(request).await }
        })
        .await
    }

    pub(super) async fn watch(&self, request: &pb::WatchCreateRequest) -> Result<WatchStream, Status> {
        let client = WatchClient::new(self.line()).max_decoding_message_size(MAX_ANSWER_BYTES);
        let first = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(request.clone())) };
        let (requests, answers) = self
            .open(first, |requests| {
                let mut client = client.clone();
                async move { client.watch(requests).await }
            })
            .await?;
        Ok(WatchStream { requests, answers })
    }

    /// Opens a stream in both directions whose first request is `first`: etcd answers nothing, not even headers, before
    /// it has one.
    async fn open<Q, A, F>(
        &self,
        first: Q,
        call: impl Fn(ReceiverStream<Q>) -> F,
    ) -> Result<(mpsc::Sender<Q>, Streaming<A>), Status>
    where
        Q: Clone,
        F: Future<Output = Result<Response<Streaming<A>>, Status>>,
    {
        let opened = std::sync::Mutex::new(None);
        let answers = self
            .call(|| {
                let (requests, queue) = mpsc::channel(STREAM_QUEUE);
                // The queue is empty and its other end is below.
                drop(requests.try_send(first.clone()));
                *opened.lock().unwrap_or_else(PoisonError::into_inner) = Some(requests);
                call(ReceiverStream::new(queue))
            })
            .await?;
        let requests = opened.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok((requests.ok_or_else(|| Status::internal("the stream was never opened"))?, answers))
    }
}

/// The leader's calls.
#[cfg(feature = "leader")]
impl Client {
    pub(super) async fn txn(&self, request: &pb::TxnRequest) -> Result<pb::TxnResponse, Status> {
        let client = KvClient::new(self.line()).max_decoding_message_size(MAX_ANSWER_BYTES);
        self.call(|| {
            let (mut client, request) = (client.clone(), request.clone());
            async move { client.txn(request).await }
        })
        .await
    }

    /// A lease of so many seconds.
    pub(super) async fn grant(&self, seconds: i64) -> Result<pb::LeaseGrantResponse, Status> {
        let client = LeaseClient::new(self.line());
        self.call(|| {
            let mut client = client.clone();
            async move { client.lease_grant(pb::LeaseGrantRequest { ttl: seconds }).await }
        })
        .await
    }

    pub(super) async fn revoke(&self, lease: i64) -> Result<(), Status> {
        let client = LeaseClient::new(self.line());
        self.call(|| {
            let mut client = client.clone();
            async move { client.lease_revoke(pb::LeaseRevokeRequest { id: lease }).await }
        })
        .await
        .map(drop)
    }

    /// A stream on which one renewal is under way.
    pub(super) async fn keep_alive(&self, lease: i64) -> Result<Renewals, Status> {
        let client = LeaseClient::new(self.line());
        let (requests, answers) = self
            .open(pb::LeaseKeepAliveRequest { id: lease }, |requests| {
                let mut client = client.clone();
                async move { client.lease_keep_alive(requests).await }
            })
            .await?;
        Ok(Renewals { lease, requests, answers })
    }

    /// The alarms that members have raised.
    pub(super) async fn alarms(&self) -> Result<pb::AlarmResponse, Status> {
        let client = MaintenanceClient::new(self.line());
        self.call(|| {
            let mut client = client.clone();
            async move { client.alarm(pb::AlarmRequest::default()).await }
        })
        .await
    }

    /// Of any one member.
    pub(super) async fn status(&self) -> Result<pb::StatusResponse, Status> {
        let client = MaintenanceClient::new(self.line());
        self.call(|| {
            let mut client = client.clone();
            async move { client.status(pb::StatusRequest {}).await }
        })
        .await
    }

    pub(super) async fn members(&self) -> Result<pb::MemberListResponse, Status> {
        let client = ClusterClient::new(self.line());
        self.call(|| {
            let mut client = client.clone();
            async move { client.member_list(pb::MemberListRequest {}).await }
        })
        .await
    }
}

/// Whether a call was refused for the token it had, or for having none: authentication may have been turned on, or its
/// rules changed, since the token was fetched.
fn asks_for_a_token(status: &Status) -> bool {
    let says = |text: &str| status.message().contains(text);
    status.code() == Code::Unauthenticated || says("user name is empty") || says("revision of auth store is old")
}

/// An open watch.
pub(super) struct WatchStream {
    requests: mpsc::Sender<pb::WatchRequest>,
    answers: Streaming<pb::WatchResponse>,
}

impl WatchStream {
    /// The next answer; `None` when etcd has ended the stream.
    pub(super) async fn message(&mut self) -> Result<Option<pb::WatchResponse>, Status> {
        self.answers.message().await
    }

    /// Asks for an answer even if nothing has changed.
    pub(super) async fn request_progress(&self) -> Result<(), Status> {
        let request_union = Some(RequestUnion::ProgressRequest(pb::WatchProgressRequest {}));
        let sent = self.requests.send(pb::WatchRequest { request_union }).await;
        sent.map_err(|_| Status::unavailable("the watch was closed"))
    }
}

/// An open stream of a lease's renewals.
#[cfg(feature = "leader")]
pub(super) struct Renewals {
    lease: i64,
    requests: mpsc::Sender<pb::LeaseKeepAliveRequest>,
    answers: Streaming<pb::LeaseKeepAliveResponse>,
}

#[cfg(feature = "leader")]
impl Renewals {
    pub(super) async fn renew(&self) -> Result<(), Status> {
        let sent = self.requests.send(pb::LeaseKeepAliveRequest { id: self.lease }).await;
        sent.map_err(|_| Status::unavailable("the renewals were closed"))
    }

    /// The answer to the renewal under way: for how many seconds the lease lasts. `None`: there is no such lease.
    pub(super) async fn renewed(&mut self) -> Result<Option<u64>, Status> {
        let answer = self.answers.message().await?;
        let answer = answer.ok_or_else(|| Status::unavailable("the renewals were closed"))?;
        Ok(u64::try_from(answer.ttl).ok().filter(|&seconds| seconds > 0))
    }
}

/// A file of ours that cannot be read, among the errors of calls: see [`super::call`], which takes it out again.
fn own_file(problem: FileError) -> Status {
    let mut status = Status::failed_precondition(problem.to_string());
    status.set_source(Arc::new(problem));
    status
}
