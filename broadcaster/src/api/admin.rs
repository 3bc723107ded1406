//! The admin service over [`Control`].

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use rotacast_log_limit::LogLimit;
use rotacast_proto::v1;
use rotacast_proto::v1::admin_server::{Admin, AdminServer};
use rotacast_protocol::status::{BroadcasterStatus, FindingCounts, SecretStatus};
use rotacast_protocol::{ClusterName, SecretName, Version, WallTime};
use tokio::time::Instant;
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status};

use super::Refusal;
use super::control::{CommandReply, Control, Instances};
use super::operator::{Asked, Gate};
use crate::key_book::KeyBook;
use crate::operators::Reading;
use crate::orders::{Approval, Desk, Outcome, Standing, Waiting};
use crate::sign_ins::source;
use crate::viewers::{Viewer, Viewers};

/// Largest request, in bytes: an envelope's payload of 256 KiB and its attributes.
const MAX_REQUEST_BYTES: usize = 320 * 1024;

/// Serves the admin API for one broadcaster.
pub struct AdminFront {
    control: Arc<dyn Control>,
    desk: Arc<Desk>,
    viewers: Viewers,
    gate: Gate,
    clock: fn() -> WallTime,
    key_book: Option<Arc<KeyBook>>,
}

impl AdminFront {
    /// A front for `control`, whose orders go to `desk`.
    #[must_use]
    pub fn new(control: Arc<dyn Control>, desk: Arc<Desk>, cluster: ClusterName, viewers: Viewers) -> Self {
        let clock = rotacast_clock::wall;
        Self { control, desk, viewers, gate: Gate::new(cluster), clock, key_book: None }
    }

    /// The same, which also tells of the keys that Rotacast itself uses.
    #[must_use]
    pub fn with_keys(mut self, book: Arc<KeyBook>) -> Self {
        self.key_book = Some(book);
        self
    }

    fn viewer<T>(&self, request: &Request<T>) -> Result<Viewer, Refusal> {
        self.viewers.admit_program(request.metadata().as_ref(), source(request.extensions()))
    }

    /// As a service for tonic's router.
    #[must_use]
    pub fn into_service(self) -> AdminServer<Self> {
        AdminServer::new(self).max_decoding_message_size(MAX_REQUEST_BYTES)
    }
}

/// What an order needs to be signed and sent to the leader, and nothing else.
fn for_an_order(broadcaster: BroadcasterStatus) -> BroadcasterStatus {
    BroadcasterStatus { store: String::new(), bus: String::new(), findings: FindingCounts::default(), ..broadcaster }
}

/// An empty name stands for every secret.
fn secret_or_all(name: String) -> Result<Option<SecretName>, Refusal> {
    if name.is_empty() {
        return Ok(None);
    }
    SecretName::new(name).map(Some).map_err(|error| Refusal::Invalid(error.to_string()))
}

/// Whether something may be read of a secret, or of any at all if none is named.
fn check(viewer: &Viewer, what: Reading, secret: Option<&SecretName>) -> Result<(), Refusal> {
    match secret {
        Some(_) => viewer.check(what, secret),
        None => viewer.check_some(what),
    }
}

/// A request on the wire.
fn to_wire(waiting: &Waiting) -> v1::OrderRequest {
    let Waiting { request, standing, digest } = waiting;
    let (missing, void) = match standing {
        Standing::Complete { .. } => (0, String::new()),
        Standing::Waits { missing } => (*missing, String::new()),
        Standing::Expired => (request.needed.get(), "it has expired".to_owned()),
        Standing::Void { why } => (request.needed.get(), why.clone()),
    };
    let approval = |it: &Approval| v1::Approval { operator: it.by.name.to_string(), at_ms: it.at.0 };
    v1::OrderRequest {
        id: request.id.to_string(),
        digest: digest.0.to_vec().into(),
        operator: request.by.name.to_string(),
        secret: request.secret.as_ref().map(ToString::to_string).unwrap_or_default(),
        order: request.order.to_string(),
        role: request.role.to_string(),
        asked_ms: request.asked.0,
        expires_ms: request.expires.0,
        needed: request.needed.get(),
        missing,
        void,
        approvals: request.approvals.iter().map(approval).collect(),
        command: request.command.clone(),
        generation: request.generation.map_or(0, |it| it.0),
    }
}

/// What a watch hears.
enum Told {
    Status(Box<Result<SecretStatus, Refusal>>),
    /// Operators or roles have changed.
    Rights,
    End,
}

/// A refusal is the last thing that a watch tells.
fn until_refused<'a>(
    changes: BoxStream<'a, Result<SecretStatus, Refusal>>,
) -> BoxStream<'a, Result<SecretStatus, Refusal>> {
    let told = futures::stream::unfold(Some(changes), |changes| async {
        let mut changes = changes?;
        let change = changes.next().await?;
        let goes_on = change.is_ok().then_some(changes);
        Some((change, goes_on))
    });
    told.boxed()
}

#[tonic::async_trait]
impl Admin for AdminFront {
    type WatchStream = BoxStream<'static, Result<v1::SecretStatus, Status>>;

    async fn status(&self, request: Request<v1::StatusRequest>) -> Result<Response<v1::StatusReply>, Status> {
        let viewer = self.viewer(&request);
        let request = request.into_inner();
        if request.brief {
            let broadcaster = self.control.broadcaster().await;
            return Ok(Response::new(match viewer {
                Ok(viewer) if viewer.check_some(Reading::Status).is_ok() => broadcaster.into(),
                Ok(_) | Err(_) => for_an_order(broadcaster).into(),
            }));
        }
        let viewer = viewer?;
        let secret = secret_or_all(request.secret)?;
        check(&viewer, Reading::Status, secret.as_ref())?;
        let mut status = self.control.status(secret).await?;
        status.secrets.retain(|it| viewer.reads(Reading::Status, Some(&it.secret)));
        Ok(Response::new(status.into()))
    }

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let viewer = self.viewer(&request)?;
        let (metadata, _, request) = request.into_parts();
        let secret = secret_or_all(request.secret)?;
        check(&viewer, Reading::Status, secret.as_ref())?;
        let statuses = self.control.watch(secret.clone()).map(|status| Told::Status(Box::new(status)));
        // Rights may change meanwhile, and then no next status is waited for.
        let rights = WatchStream::from_changes(self.viewers.changes()).map(|_| Told::Rights);
        let (viewers, mut viewer) = (self.viewers.clone(), viewer);
        let ended = statuses.chain(futures::stream::once(async { Told::End }));
        let told =
            futures::stream::select(ended, rights).take_while(|told| std::future::ready(!matches!(told, Told::End)));
        let changes = told.filter_map(move |told| {
            let told = match told {
                Told::Rights => match viewers.admit_again(metadata.as_ref()) {
                    Ok(fresh) => {
                        viewer = fresh;
                        check(&viewer, Reading::Status, secret.as_ref()).err().map(Err)
                    }
                    Err(refusal) => Some(Err(refusal)),
                },
                Told::Status(status) => match *status {
                    Ok(status) => viewer.reads(Reading::Status, Some(&status.secret)).then_some(Ok(status)),
                    Err(refusal) => Some(Err(refusal)),
                },
                Told::End => None,
            };
            std::future::ready(told)
        });
        let changes = until_refused(changes.boxed());
        Ok(Response::new(changes.map(|change| change.map(v1::SecretStatus::from).map_err(Status::from)).boxed()))
    }

    async fn instances(&self, request: Request<v1::InstancesRequest>) -> Result<Response<v1::InstancesReply>, Status> {
        let viewer = self.viewer(&request)?;
        let request = request.into_inner();
        let secret = secret_or_all(request.secret)?;
        check(&viewer, Reading::Fleet, secret.as_ref())?;
        let not_on = Version::new(request.not_on).ok();
        let Instances { mut found, mut unanswered } = self.control.instances(secret, not_on).await?;
        found.retain(|it| viewer.reads(Reading::Fleet, Some(&it.secret)));
        unanswered.retain(|secret| viewer.reads(Reading::Fleet, Some(secret)));
        let instances = found.into_iter().map(v1::InstanceInfo::from).collect();
        let unanswered = unanswered.iter().map(ToString::to_string).collect();
        Ok(Response::new(v1::InstancesReply { instances, unanswered }))
    }

    async fn command(&self, request: Request<v1::Envelope>) -> Result<Response<v1::CommandReply>, Status> {
        // First of all: a follower must not remember an order that goes to the leader next.
        let term = self.control.term().await?;
        let source = source(request.extensions());
        let envelope = request.into_inner();
        let authentic = self
            .viewers
            .sign_ins()
            .attempt(source, Instant::now(), || self.gate.authenticate(envelope, &self.desk.operators()));
        let admitted = authentic.and_then(|authentic| self.gate.take(authentic, term, (self.clock)()));
        let (by, asked) = admitted.inspect_err(|refusal| {
            // Its sender is not known yet.
            static LIMIT: LogLimit = LogLimit::new();
            if let Some(left_out) = LIMIT.admit() {
                tracing::warn!(kind = refusal.kind().as_str(), %refusal, left_out, "operator's command refused");
            }
        })?;
        let outcome = match asked {
            Asked::Order(given) => self.desk.give(by, given).await?,
            Asked::Approve { secret, request, seen, proof } => {
                self.desk.approve(by, (request, secret), seen, proof).await?
            }
            Asked::Withdraw { secret, request, proof } => {
                self.desk.withdraw(by, (request, secret), proof).await?;
                Outcome::Done(CommandReply::default())
            }
        };
        Ok(Response::new(match outcome {
            Outcome::Done(reply) => v1::CommandReply {
                version: reply.version.map_or(0, Version::get),
                number: reply.number.map_or(0, |number| number.0),
                request: None,
            },
            Outcome::Waits(waiting) => {
                v1::CommandReply { request: Some(to_wire(&waiting)), ..v1::CommandReply::default() }
            }
        }))
    }

    async fn requests(&self, request: Request<v1::RequestsRequest>) -> Result<Response<v1::RequestsReply>, Status> {
        let viewer = self.viewer(&request)?;
        viewer.check_some(Reading::Status)?;
        let mut waiting = self.desk.requests().await?;
        waiting.retain(|it| viewer.reads(Reading::Status, it.request.secret.as_ref()));
        Ok(Response::new(v1::RequestsReply { requests: waiting.iter().map(to_wire).collect() }))
    }

    async fn keys(&self, request: Request<v1::KeysRequest>) -> Result<Response<v1::KeysReply>, Status> {
        self.viewer(&request)?.check(Reading::Fleet, None)?;
        // Syncs go to the leader: no other broadcaster knows who trusts what.
        self.control.term().await?;
        let told = self.key_book.as_ref().map(|book| book.told(std::time::Instant::now()));
        Ok(Response::new(told.unwrap_or_default()))
    }

    async fn doctor(&self, request: Request<v1::DoctorRequest>) -> Result<Response<v1::DoctorReply>, Status> {
        // Its findings name secrets of all kinds.
        self.viewer(&request)?.check(Reading::Status, None)?;
        Ok(Response::new(self.control.doctor().await))
    }
}

/// The standard health service; what it says is told through the reporter. Until then nothing serves.
#[must_use]
pub fn health() -> (
    tonic_health::server::HealthReporter,
    tonic_health::pb::health_server::HealthServer<impl tonic_health::pb::health_server::Health>,
) {
    tonic_health::server::health_reporter()
}

/// The standard reflection service over Rotacast's own contract and health.
#[must_use]
pub fn reflection()
-> tonic_reflection::server::v1::ServerReflectionServer<impl tonic_reflection::server::v1::ServerReflection> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(v1::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .expect("the descriptor sets were made by the build from files that compiled")
}
