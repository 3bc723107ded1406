//! The admin service over [`Control`].

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use rotacast_log_limit::LogLimit;
use rotacast_proto::v1;
use rotacast_proto::v1::admin_server::{Admin, AdminServer};
use rotacast_protocol::status::{BroadcasterStatus, FindingCounts};
use rotacast_protocol::{ClusterName, SecretName, Version, WallTime};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::Refusal;
use super::control::{Control, Instances};
use super::operator::{Admitted, Gate, Operators};
use crate::readers::Readers;

/// Largest request, in bytes: an envelope's payload of 256 KiB and its attributes.
const MAX_REQUEST_BYTES: usize = 320 * 1024;

/// Serves the admin API for one broadcaster.
pub struct AdminFront {
    control: Arc<dyn Control>,
    operators: watch::Receiver<Arc<Operators>>,
    readers: Readers,
    gate: Gate,
    clock: fn() -> WallTime,
}

impl AdminFront {
    /// A front for `control`. Whom it obeys is read anew for every command, so that a reload of the
    /// configuration takes effect at once.
    #[must_use]
    pub fn new(
        control: Arc<dyn Control>,
        cluster: ClusterName,
        operators: watch::Receiver<Arc<Operators>>,
        readers: Readers,
    ) -> Self {
        let clock = rotacast_clock::wall;
        Self { control, operators, readers, gate: Gate::new(cluster), clock }
    }

    fn may_read<T>(&self, request: &Request<T>) -> Result<(), Refusal> {
        self.readers.admit_program(request.metadata().as_ref()).map(drop)
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

#[tonic::async_trait]
impl Admin for AdminFront {
    type WatchStream = BoxStream<'static, Result<v1::SecretStatus, Status>>;

    async fn status(&self, request: Request<v1::StatusRequest>) -> Result<Response<v1::StatusReply>, Status> {
        let may_read = self.may_read(&request);
        let request = request.into_inner();
        if request.brief {
            let broadcaster = self.control.broadcaster().await;
            return Ok(Response::new(match may_read {
                Ok(()) => broadcaster.into(),
                Err(_) => for_an_order(broadcaster).into(),
            }));
        }
        may_read?;
        let secret = secret_or_all(request.secret)?;
        Ok(Response::new(self.control.status(secret).await?.into()))
    }

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        self.may_read(&request)?;
        let (metadata, _, request) = request.into_parts();
        let secret = secret_or_all(request.secret)?;
        let readers = self.readers.clone();
        let changes = self.control.watch(secret).map(move |change| {
            // A token may be withdrawn meanwhile.
            readers.admit_program(metadata.as_ref())?;
            change.map(v1::SecretStatus::from).map_err(Status::from)
        });
        Ok(Response::new(changes.boxed()))
    }

    async fn instances(&self, request: Request<v1::InstancesRequest>) -> Result<Response<v1::InstancesReply>, Status> {
        self.may_read(&request)?;
        let request = request.into_inner();
        let secret = secret_or_all(request.secret)?;
        let not_on = Version::new(request.not_on).ok();
        let Instances { found, unanswered } = self.control.instances(secret, not_on).await?;
        let instances = found.into_iter().map(v1::InstanceInfo::from).collect();
        let unanswered = unanswered.iter().map(ToString::to_string).collect();
        Ok(Response::new(v1::InstancesReply { instances, unanswered }))
    }

    async fn command(&self, request: Request<v1::Envelope>) -> Result<Response<v1::CommandReply>, Status> {
        let operators = Arc::clone(&self.operators.borrow());
        // First of all: a follower must not remember an order that goes to the leader next.
        let term = self.control.term().await?;
        let admitted = self.gate.admit(request.into_inner(), &operators, term, (self.clock)());
        let (operator, command) = admitted.inspect_err(|refusal| {
            // Its sender is not known yet.
            static LIMIT: LogLimit = LogLimit::new();
            if let Some(left_out) = LIMIT.admit() {
                tracing::warn!(kind = refusal.kind().as_str(), %refusal, left_out, "operator's command refused");
            }
        })?;
        let command = match command {
            Admitted::Command(command) => command,
            Admitted::AuditLoss(loss) => {
                tracing::warn!(%operator, doubt = loss.doubt, reason = loss.reason, "operator accepts a loss of audit entries");
                self.control.accept_audit_loss(operator, loss).await?;
                return Ok(Response::new(v1::CommandReply::default()));
            }
        };
        let (secret, action) = (command.secret.clone(), command.action.name());
        match self.control.command(operator.clone(), command).await {
            Ok(reply) => {
                tracing::info!(%operator, %secret, action, "operator's command taken");
                Ok(Response::new(v1::CommandReply {
                    version: reply.version.map_or(0, Version::get),
                    number: reply.number.map_or(0, |number| number.0),
                }))
            }
            Err(refusal) => {
                tracing::warn!(%operator, %secret, action, kind = refusal.kind().as_str(), %refusal, "operator's command refused");
                Err(refusal.into())
            }
        }
    }

    async fn doctor(&self, request: Request<v1::DoctorRequest>) -> Result<Response<v1::DoctorReply>, Status> {
        self.may_read(&request)?;
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
