//! An operator at the admin API.

use std::time::Duration;

use prost::Message as _;
use rotacast_clock as clock;
use rotacast_proto::v1::admin_client::AdminClient;
use rotacast_proto::{Envelope, Kind, SigningKey, v1};
use rotacast_protocol::ClusterName;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

pub use rotacast_proto::v1::operator_command::Action;

use super::{CLUSTER, OPERATOR, SECRET};

/// Timeout of one call: a broadcaster that takes longer is down.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// Gives signed orders and asks for the status.
#[derive(Clone)]
pub struct Operator {
    clients: Vec<Admin>,
    key: SigningKey,
}

type Admin = AdminClient<InterceptedService<Channel, Bearer>>;

/// Shows the operator's token with every request.
#[derive(Clone)]
struct Bearer(AsciiMetadataValue);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

impl Operator {
    /// At the broadcasters that listen there.
    pub(super) fn new(urls: Vec<String>, key: SigningKey, token: &str) -> Self {
        let bearer = Bearer(format!("Bearer {token}").parse().expect("a token is ASCII"));
        let client = |url| {
            let endpoint = Endpoint::from_shared(url).expect("a valid address").timeout(CALL_LIMIT);
            AdminClient::with_interceptor(endpoint.connect_timeout(CALL_LIMIT).connect_lazy(), bearer.clone())
        };
        Self { clients: urls.into_iter().map(client).collect(), key }
    }

    /// The same operator at one broadcaster only.
    #[must_use]
    pub fn at(&self, which: usize) -> Self {
        Self { clients: vec![self.clients[which].clone()], key: self.key.clone() }
    }

    /// The same operator at each of the broadcasters.
    pub fn each(&self) -> impl Iterator<Item = Self> {
        (0..self.clients.len()).map(|which| self.at(which))
    }

    /// The first answer. If all refuse, the last refusal.
    async fn any<T, F>(&self, call: impl Fn(Admin) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let mut last = Status::unavailable("no broadcaster to ask");
        for client in &self.clients {
            match call(client.clone()).await {
                Ok(reply) => return Ok(reply.into_inner()),
                Err(status) => last = status,
            }
        }
        Err(last)
    }

    /// The status of the secret.
    ///
    /// # Errors
    /// The broadcaster's error, or that none answers.
    pub async fn status(&self) -> Result<v1::SecretStatus, Status> {
        let request = v1::StatusRequest { secret: SECRET.into(), brief: false };
        let reply = self
            .any(|mut client| {
                let request = request.clone();
                async move { client.status(request).await }
            })
            .await?;
        let found = reply.secrets.into_iter().next();
        found.ok_or_else(|| Status::not_found(format!("no status of {SECRET} in the reply")))
    }

    /// The broadcaster's own status, without a secret's.
    ///
    /// # Errors
    /// As [`Operator::status`].
    pub async fn broadcaster(&self) -> Result<v1::StatusReply, Status> {
        let request = v1::StatusRequest { secret: String::new(), brief: true };
        self.any(|mut client| {
            let request = request.clone();
            async move { client.status(request).await }
        })
        .await
    }

    /// Every instance that uses the secret.
    ///
    /// # Errors
    /// As [`Operator::status`].
    pub async fn instances(&self) -> Result<Vec<v1::InstanceInfo>, Status> {
        let request = v1::InstancesRequest { secret: SECRET.into(), not_on: 0 };
        Ok(self
            .any(|mut client| {
                let request = request.clone();
                async move { client.instances(request).await }
            })
            .await?
            .instances)
    }

    /// Gives an order about the secret.
    ///
    /// # Errors
    /// As [`Operator::status`]. After an error that is no refusal, the order may have been carried out.
    pub async fn order(&self, action: Action) -> Result<v1::CommandReply, Status> {
        // Only the first broadcaster: an order may have been carried out.
        let mut first = self.clients[0].clone();
        let about = v1::StatusRequest { secret: String::new(), brief: true };
        let epoch = first.status(about).await?.into_inner().epoch;
        let command = v1::OperatorCommand {
            operator: OPERATOR.into(),
            secret: SECRET.into(),
            reason: "end-to-end test".into(),
            nonce: rand::random(),
            issued_ms: clock::wall().0,
            epoch,
            emergency: false,
            action: Some(action),
        };
        let payload = command.encode_to_vec().into();
        let cluster = ClusterName::new(CLUSTER).expect("a valid name");
        let id = format!("e2e:{}", command.nonce);
        let envelope = Envelope::sign(&self.key, Kind::OperatorCommand, &cluster, SECRET, id, clock::wall(), payload);
        Ok(first.command(v1::Envelope::from(envelope)).await?.into_inner())
    }
}
