//! Answers Fetch: the value of one version, and the desired state as the store has it.

use std::sync::Arc;

use async_trait::async_trait;
use rotacast_bus::ValueSource;
use rotacast_clock as clock;
use rotacast_log_limit::LogLimit;
use rotacast_proto::v1::FetchReply;
use rotacast_proto::{Envelope, EnvelopeError, SigningKey, WireMessage as _};
use rotacast_protocol::message::FetchRequest;
use rotacast_protocol::record::SecretRecord;
use rotacast_protocol::{ClusterName, SecretName};
use rotacast_seal::SealError;
use rotacast_store::{SecretTree, StoreError};
use tonic::Status;
use tracing::{info, warn};

use super::Environment;
use super::reads::Reads;
use super::single_use::{SingleUse, Spent};
use crate::home::Home;
use crate::identities::{Attested, Identities};

/// Lines about fetched values in a minute: a rolling restart of a thousand instances that use one secret.
const FETCHED_LINES: u32 = 1_000;

/// Serves values out of the store to the services that may read them. Any replica can: the store answers.
pub struct StoreFetch {
    cluster: ClusterName,
    tree: SecretTree,
    key: SigningKey,
    identities: Arc<Identities>,
    home: Home,
    reads: Reads,
    single_use: SingleUse,
}

impl StoreFetch {
    /// Serves from its store, signing states with its key.
    #[must_use]
    pub fn new(environment: &Environment) -> Self {
        let Environment { cluster, tree, key, identities, home, audit, .. } = environment.clone();
        Self { cluster, tree, key, identities, home, reads: Reads::new(audit), single_use: SingleUse::default() }
    }
}

impl StoreFetch {
    /// Only an incarnation in the roster is given a value: the leader has written that it exists.
    async fn check_registered(&self, request: &FetchRequest) -> Result<(), Status> {
        let (key, secret) = (&request.key, &request.secret);
        if self.tree.is_in_roster(key).await.map_err(|problem| store_trouble(secret, &problem))? {
            return Ok(());
        }
        let problem = "it is not registered, or no leader has entered it yet: register, then ask again";
        self.reads.refused(key, secret, problem);
        Err(Status::failed_precondition(format!("{key}: {problem}")))
    }
}

/// What an instance hears of a problem with the store: whether asking again may help. Who else can open a value is not its
/// business: the log has all of it.
fn store_trouble(secret: &SecretName, problem: &StoreError) -> Status {
    static LIMIT: LogLimit = LogLimit::new();
    if let Some(left_out) = LIMIT.admit() {
        warn!(%secret, %problem, left_out, "a fetch could not be answered");
    }
    let damaged = |what: &str| {
        Status::data_loss(format!("{what}; no other broadcaster can give it either: `rotacast doctor` says what to do"))
    };
    match problem {
        StoreError::Sealed { problem: SealError::NoKey { .. }, .. } => {
            damaged(&format!("the broadcaster has no key that opens the value of {secret}"))
        }
        StoreError::Sealed { .. } => {
            damaged(&format!("the value of {secret} in the store is damaged and does not open"))
        }
        StoreError::Corrupt { .. } => damaged(&format!("what the store holds of {secret} is damaged")),
        other => Status::unavailable(other.to_string()),
    }
}

#[async_trait]
impl ValueSource for StoreFetch {
    async fn fetch(&self, request: Envelope) -> Result<FetchReply, Status> {
        let unauthenticated = |problem: EnvelopeError| Status::unauthenticated(problem.to_string());
        let Attested { message: request, by, former } = self.identities.fetch(&request).map_err(unauthenticated)?;
        if let Some(problem) = self.home.closed() {
            return Err(Status::unavailable(problem.to_string()));
        }
        // Such a key lets no newcomer in, here either.
        if former && !self.tree.is_in_roster(&request.key).await.map_err(|it| store_trouble(&request.secret, &it))? {
            return Err(unauthenticated(self.identities.refuse_newcomer(&request.key, &by)));
        }
        let (secret, service) = (&request.secret, &request.key.service);
        if !self.identities.may_use(service, secret) {
            return Err(Status::permission_denied(format!(
                "service {service} may not read {secret}: add it to `secrets` under [services.{service}]"
            )));
        }
        let stored = self.tree.read_record(secret).await.map_err(|problem| store_trouble(secret, &problem))?;
        let Some(stored) = stored else {
            return Err(Status::not_found(format!(
                "no secret {secret}: write its first version with `rotacast put {secret}`"
            )));
        };
        let record = SecretRecord::decode_of(secret, &stored.bytes);
        let record = record.map_err(|problem| Status::data_loss(format!("the record of {secret}: {problem}")))?;
        let state = record.state();
        let value = match request.version {
            None => Vec::new(),
            Some(version) => {
                // Only what the desired state asks for: no instance may begin to use anything else.
                if ![state.current, state.pending, state.previous].contains(&Some(version)) {
                    return Err(Status::failed_precondition(format!(
                        "version {version} of {secret} is not in use any more"
                    )));
                }
                self.check_registered(&request).await?;
                self.single_use.take(&request, clock::wall()).map_err(|spent| {
                    self.reads.refused(&request.key, secret, &spent.to_string());
                    match spent {
                        Spent::Again => Status::already_exists(spent.to_string()),
                        Spent::Time { .. } => Status::failed_precondition(spent.to_string()),
                        Spent::TooMany { .. } => Status::resource_exhausted(spent.to_string()),
                    }
                })?;
                let stored =
                    self.tree.read_version(secret, version).await.map_err(|problem| store_trouble(secret, &problem))?;
                let stored =
                    stored.ok_or_else(|| Status::not_found(format!("version {version} of {secret} is gone")))?;
                // A service may fetch in a loop, and a restart of all its instances is worth reading.
                static LIMIT: LogLimit = LogLimit::of(FETCHED_LINES);
                if let Some(left_out) = LIMIT.admit() {
                    info!(%secret, %version, instance = %request.key, left_out, "fetched");
                }
                self.reads.note(&request.key, secret, version);
                stored.value.expose().to_vec()
            }
        };
        let id = format!("fetch:{}:{}", request.key.incarnation, request.nonce.0);
        let state = state.seal(&self.key, &self.cluster, id, clock::wall());
        Ok(FetchReply { nonce: request.nonce.0, state: Some(state.into()), value: value.into() })
    }
}
