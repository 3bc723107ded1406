//! Who says what: checks the signature of everything that comes from an instance, and whether the signer may
//! speak for that instance and use those secrets. Nothing unchecked gets past here.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rotacast_bus::Admission;
use rotacast_log_limit::LogLimit;
use rotacast_proto::{Envelope, EnvelopeError, InstanceMessage, Kind, Sender, VerifyingKey};
use rotacast_protocol::message::{FetchRequest, InstanceReport, Registration, SyncRequest};
use rotacast_protocol::{ClusterName, SecretName, ServiceName};
use rotacast_seal::{Reader, ReaderName, SealingPublicKey};
use tokio::sync::watch;
use tonic::Status;
use tracing::warn;

use crate::config::SecretPattern;

/// One service as configured.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its public key.
    pub key: VerifyingKey,
    /// Values that it may use are sealed for it; none: it gets them from broadcasters alone.
    pub sealing_key: Option<SealingPublicKey>,
    /// The secrets it may use.
    pub secrets: Vec<SecretPattern>,
}

impl Service {
    fn may_use(&self, secret: &SecretName) -> bool {
        self.secrets.iter().any(|pattern| pattern.matches(secret))
    }
}

/// The services by name.
#[derive(Clone, Debug, Default)]
pub struct Services {
    /// Those named.
    pub named: BTreeMap<ServiceName, Service>,
    /// For services not named: development only.
    pub anyone: Option<Service>,
}

impl Services {
    fn find(&self, name: &str) -> Option<&Service> {
        let name = ServiceName::new(name).ok()?;
        self.named.get(&name).or(self.anyone.as_ref())
    }
}

/// How many attestations are remembered as checked, 32 bytes each. Above the incarnations that one broadcaster usually hears;
/// beyond it all are forgotten, which costs one more check of each.
const REMEMBERED_ATTESTATIONS: usize = 100_000;

/// The services, and a count of what was refused.
#[derive(Debug)]
pub struct Identities {
    cluster: ClusterName,
    services: RwLock<Arc<Services>>,
    /// Digests of attestations that were found to be good: each is checked once, not with every message.
    attested: Mutex<HashSet<[u8; 32]>>,
    refused: AtomicU64,
    /// Told at each reload.
    changes: watch::Sender<()>,
}

impl Identities {
    /// The configured services.
    #[must_use]
    pub fn new(cluster: ClusterName, services: Services) -> Self {
        let services = RwLock::new(Arc::new(services));
        Self {
            cluster,
            services,
            attested: Mutex::default(),
            refused: AtomicU64::new(0),
            changes: watch::Sender::new(()),
        }
    }

    /// The configuration was reloaded.
    pub fn replace(&self, services: Services) {
        *self.services.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(services);
        self.changes.send_replace(());
    }

    /// Tells when the configuration was reloaded.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    fn services(&self) -> Arc<Services> {
        Arc::clone(&self.services.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many messages were refused since the start.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Whether a service may use a secret.
    #[must_use]
    pub fn may_use(&self, service: &ServiceName, secret: &SecretName) -> bool {
        self.services().find(service.as_str()).is_some_and(|service| service.may_use(secret))
    }

    /// The services that may use a secret and have a key to open its values with.
    #[must_use]
    pub fn sealing_readers(&self, secret: &SecretName) -> Vec<Reader> {
        let services = self.services();
        let named = services.named.iter().map(|(name, service)| (ReaderName::Service(name.clone()), service));
        let anyone = services.anyone.iter().map(|service| (ReaderName::OtherServices, service));
        let reading = named.chain(anyone).filter(|(_, service)| service.may_use(secret));
        reading.filter_map(|(name, service)| Some(Reader { name, key: service.sealing_key.clone()? })).collect()
    }

    /// Opens a message of an instance: signed with the key of the incarnation that it is about, which the key of its service
    /// attests.
    fn open<M: InstanceMessage>(&self, envelope: &Envelope) -> Result<M, EnvelopeError> {
        self.try_open(envelope).inspect_err(|problem| {
            static LIMIT: LogLimit = LogLimit::new();
            let refused = self.refused.fetch_add(1, Ordering::Relaxed) + 1;
            if let Some(left_out) = LIMIT.admit() {
                warn!(%problem, refused, left_out, "refused a message");
            }
        })
    }

    fn try_open<M: InstanceMessage>(&self, envelope: &Envelope) -> Result<M, EnvelopeError> {
        let sender = Sender::of(envelope, M::KIND, &self.cluster)?;
        let services = self.services();
        let key = services.find(sender.key().service.as_str()).map(|service| &service.key);
        let key = key.filter(|key| key.id() == sender.service_key()).ok_or_else(|| EnvelopeError::UnknownKey {
            found: sender.service_key().to_string(),
            subject: sender.key().full_name(),
        })?;
        let message = sender.open()?;
        let digest = sender.digest();
        if !self.attested().contains(&digest) {
            sender.check_attestation(key)?;
            let mut attested = self.attested();
            if attested.len() >= REMEMBERED_ATTESTATIONS {
                attested.clear();
            }
            attested.insert(digest);
        }
        Ok(message)
    }

    fn attested(&self) -> std::sync::MutexGuard<'_, HashSet<[u8; 32]>> {
        self.attested.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A registration, with the secrets its service may not use taken out.
    pub(super) fn registration(&self, envelope: &Envelope) -> Result<Registration, EnvelopeError> {
        let mut registration: Registration = self.open(envelope)?;
        let service = registration.key.service.clone();
        registration.secrets.retain(|secret| {
            let allowed = self.may_use(&service, secret);
            if !allowed {
                static LIMIT: LogLimit = LogLimit::new();
                self.refused.fetch_add(1, Ordering::Relaxed);
                if let Some(left_out) = LIMIT.admit() {
                    warn!(
                        %service, %secret, left_out,
                        "the service registered for a secret it may not use; ignored for that secret"
                    );
                }
            }
            allowed
        });
        Ok(registration)
    }

    /// A report, with the secrets its service may not use taken out.
    ///
    /// # Errors
    /// What is wrong with the message; it was counted.
    pub fn report(&self, envelope: &Envelope) -> Result<InstanceReport, EnvelopeError> {
        let mut report: InstanceReport = self.open(envelope)?;
        self.restrict(&mut report);
        Ok(report)
    }

    /// A Sync, with the secrets its service may not use taken out.
    pub(super) fn sync(&self, envelope: &Envelope) -> Result<SyncRequest, EnvelopeError> {
        let mut request: SyncRequest = self.open(envelope)?;
        self.restrict(&mut request.report);
        Ok(request)
    }

    /// A fetch; the caller checks [`Identities::may_use`] and answers for it.
    pub(super) fn fetch(&self, envelope: &Envelope) -> Result<FetchRequest, EnvelopeError> {
        self.open(envelope)
    }

    /// Checks a message at the gateway, before it reaches the bus: what no receiver would accept must not hide, as the
    /// last message of its key, a valid one.
    fn check(&self, envelope: &Envelope) -> Result<(), EnvelopeError> {
        match envelope.kind.as_str() {
            kind if kind == Kind::Registration.as_str() => self.open::<Registration>(envelope).map(drop),
            kind if kind == Kind::InstanceReport.as_str() => self.open::<InstanceReport>(envelope).map(drop),
            _ => self.open::<SyncRequest>(envelope).map(drop),
        }
    }

    fn restrict(&self, report: &mut InstanceReport) {
        let InstanceReport { key, secrets, .. } = report;
        secrets.retain(|secret, _| self.may_use(&key.service, secret));
    }
}

impl Admission for Identities {
    fn admit(&self, message: &Envelope) -> Result<(), Status> {
        self.check(message).map_err(|problem| Status::unauthenticated(problem.to_string()))
    }
}
