//! The way in for instances without bus access: any [`InstanceBus`] served over gRPC.

use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use futures::{Stream, StreamExt as _};
use rotacast_proto::v1::instances_server::{Instances, InstancesServer};
use rotacast_proto::{Envelope, Kind, v1};
use rotacast_protocol::message::MAX_SECRETS_PER_INSTANCE;
use rotacast_protocol::{InstanceKey, SecretName};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::status::to_status;
use crate::{BusEvent, CALL_TIMEOUT, InstanceBus, MAX_MESSAGE_BYTES};

/// Room for protobuf's own framing around the largest message.
const FRAMING: usize = 1024;

/// Answers `Fetch`: checks who asks for what, reads the store, and logs who was given what.
#[async_trait]
pub trait ValueSource: Send + Sync + 'static {
    /// The value or the desired state that the signed request asks for.
    ///
    /// # Errors
    /// A status by whose fault it is. Never with a value in it.
    async fn fetch(&self, request: Envelope) -> Result<v1::FetchReply, Status>;
}

/// Decides whether a message may pass on to the bus, normally by its signature.
pub trait Admission: Send + Sync + 'static {
    /// Whether this registration, report or Sync may pass.
    ///
    /// # Errors
    /// A status that says why not.
    fn admit(&self, message: &Envelope) -> Result<(), Status>;
}

/// The gRPC service `rotacast.v1.Instances` over a bus. It does not bound how many watches are open: what accepts its
/// connections does.
pub struct Gateway {
    bus: Arc<dyn InstanceBus>,
    values: Arc<dyn ValueSource>,
    admission: Option<Arc<dyn Admission>>,
    stopping: CancellationToken,
}

impl Gateway {
    /// A gateway that passes every well-formed message on. The bus keeps the last message of every key, so
    /// without [`Gateway::with_admission`] any client that reaches this can hide another instance's registration
    /// behind one that no leader accepts.
    #[must_use]
    pub fn new(bus: Arc<dyn InstanceBus>, values: Arc<dyn ValueSource>) -> Self {
        Self { bus, values, admission: None, stopping: CancellationToken::new() }
    }

    /// Refuses what `admission` does not admit.
    #[must_use]
    pub fn with_admission(mut self, admission: Arc<dyn Admission>) -> Self {
        self.admission = Some(admission);
        self
    }

    /// Ends open watches once `stopping` is cancelled: a graceful shutdown of the server waits for them.
    #[must_use]
    pub fn with_shutdown(mut self, stopping: CancellationToken) -> Self {
        self.stopping = stopping;
        self
    }

    /// The service for a tonic server, with its message sizes bounded.
    #[must_use]
    pub fn into_service(self) -> InstancesServer<Self> {
        InstancesServer::new(self).max_decoding_message_size(MAX_MESSAGE_BYTES + FRAMING)
    }

    /// The envelope, if it is a message of this kind and may pass. The bus keeps the last message of each key: one of another
    /// kind in its place would hide it.
    fn admit(&self, kind: Kind, request: Request<v1::Envelope>) -> Result<Envelope, Status> {
        let envelope = Envelope::from(request.into_inner());
        if envelope.kind != kind.as_str() {
            let found: String = envelope.kind.chars().take(64).collect();
            return Err(Status::invalid_argument(format!("expected a message of type {kind}, found {found:?}")));
        }
        if let Some(admission) = &self.admission {
            admission.admit(&envelope)?;
        }
        Ok(envelope)
    }
}

#[async_trait]
impl Instances for Gateway {
    async fn register(&self, request: Request<v1::Envelope>) -> Result<Response<v1::Accepted>, Status> {
        let envelope = self.admit(Kind::Registration, request)?;
        let key = sender(&envelope)?;
        self.bus.register(&key, &envelope).await.map_err(|problem| to_status(&problem))?;
        Ok(Response::new(v1::Accepted {}))
    }

    async fn report(&self, request: Request<v1::Envelope>) -> Result<Response<v1::Accepted>, Status> {
        let envelope = self.admit(Kind::InstanceReport, request)?;
        let key = sender(&envelope)?;
        self.bus.report(&key, &envelope).await.map_err(|problem| to_status(&problem))?;
        Ok(Response::new(v1::Accepted {}))
    }

    async fn sync(&self, request: Request<v1::Envelope>) -> Result<Response<v1::Envelope>, Status> {
        let envelope = self.admit(Kind::SyncRequest, request)?;
        // A caller with less patience hangs up, which drops this call.
        let reply = self.bus.sync(&envelope, CALL_TIMEOUT).await.map_err(|problem| to_status(&problem))?;
        Ok(Response::new(reply.into()))
    }

    type WatchStatesStream = Pin<Box<dyn Stream<Item = Result<v1::StateEvent, Status>> + Send>>;

    async fn watch_states(
        &self,
        request: Request<v1::WatchStatesRequest>,
    ) -> Result<Response<Self::WatchStatesStream>, Status> {
        let names = request.into_inner().secrets;
        if names.len() > MAX_SECRETS_PER_INSTANCE {
            let found = names.len();
            return Err(Status::invalid_argument(format!(
                "watch of {found} secrets, expected at most {MAX_SECRETS_PER_INSTANCE}"
            )));
        }
        let secrets = names
            .into_iter()
            .map(|name| SecretName::new(name).map_err(|problem| Status::invalid_argument(problem.to_string())))
            .collect::<Result<Vec<_>, _>>()?;
        let events = self.bus.watch_states(&secrets);
        let events = events.map(|event| event.map(state_event).map_err(|problem| to_status(&problem)));
        Ok(Response::new(Box::pin(events.take_until(self.stopping.clone().cancelled_owned()))))
    }

    async fn fetch(&self, request: Request<v1::Envelope>) -> Result<Response<v1::FetchReply>, Status> {
        self.values.fetch(request.into_inner().into()).await.map(Response::new)
    }
}

fn state_event(event: BusEvent) -> v1::StateEvent {
    use v1::state_event::Event;
    let event = match event {
        BusEvent::Message(envelope) => Event::State(envelope.into()),
        BusEvent::CaughtUp => Event::CaughtUp(v1::Accepted {}),
        BusEvent::Resync => Event::Resync(v1::Accepted {}),
    };
    v1::StateEvent { event: Some(event) }
}

/// Whom a message is about, by its signed subject.
fn sender(envelope: &Envelope) -> Result<InstanceKey, Status> {
    InstanceKey::of_full_name(&envelope.subject).ok_or_else(|| {
        let found: String = envelope.subject.chars().take(300).collect();
        Status::invalid_argument(format!("subject {found:?} is not of the form service/instance/incarnation"))
    })
}
