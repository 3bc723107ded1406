//! Who says what: checks the signature of everything that comes from an instance, and whether the signer may
//! speak for that instance and use those secrets. Nothing unchecked gets past here.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use rotacast_bus::Admission;
use rotacast_log_limit::LogLimit;
use rotacast_proto::{Envelope, EnvelopeError, InstanceMessage, KeyId, Kind, Sender, SyncWithKeys, VerifyingKey};
use rotacast_protocol::message::{FetchRequest, InstanceReport, Registration, SyncRequest};
use rotacast_protocol::{ClusterName, InstanceKey, SecretName, ServiceName};
use rotacast_seal::{Reader, ReaderName, SealingPublicKey};
use tokio::sync::watch;
use tonic::Status;
use tracing::warn;

use crate::config::SecretPattern;
use crate::key_uses::{InstanceUse, KeyUses, RefusedUse};

/// The keys of a service, by what they count for. No key is in two of the lists.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ServiceKeys {
    /// They attest new instances. Several while one takes the place of another.
    pub trusted: Vec<VerifyingKey>,
    /// They count for instances that registered with them before.
    pub former: Vec<VerifyingKey>,
    /// What they attest is refused at once, and on record.
    pub revoked: Vec<VerifyingKey>,
}

impl From<VerifyingKey> for ServiceKeys {
    fn from(key: VerifyingKey) -> Self {
        Self { trusted: vec![key], ..Self::default() }
    }
}

/// What a key of a service counts for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyStanding {
    /// It attests new instances.
    Trusted,
    /// It counts for instances that registered with it before.
    Former,
    /// It counts for nothing.
    Revoked,
}

impl ServiceKeys {
    /// Every key, with what it counts for.
    pub fn iter(&self) -> impl Iterator<Item = (&VerifyingKey, KeyStanding)> {
        let trusted = self.trusted.iter().map(|key| (key, KeyStanding::Trusted));
        let former = self.former.iter().map(|key| (key, KeyStanding::Former));
        trusted.chain(former).chain(self.revoked.iter().map(|key| (key, KeyStanding::Revoked)))
    }

    fn find(&self, id: &KeyId) -> Option<(&VerifyingKey, KeyStanding)> {
        self.iter().find(|(key, _)| key.id() == id)
    }
}

/// A message of an instance, and what the key that attests it counts for.
#[derive(Debug)]
pub struct Attested<M> {
    /// The message.
    pub message: M,
    /// The key that attests its sender.
    pub by: KeyId,
    /// Whether that key attests former instances only.
    pub former: bool,
}

/// One service as configured.
#[derive(Clone, Debug)]
pub struct Service {
    /// The keys that attest its instances.
    pub keys: ServiceKeys,
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
    uses: KeyUses,
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
            uses: KeyUses::default(),
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

    /// Which keys are used, by which live instances.
    #[must_use]
    pub fn uses(&self) -> &KeyUses {
        &self.uses
    }

    /// Refuses a newcomer that a former key attests: it is counted.
    pub(crate) fn refuse_newcomer(&self, key: &InstanceKey, by: &KeyId) -> EnvelopeError {
        self.uses.note_refused(by, RefusedUse::Former, key);
        self.count(EnvelopeError::FormerKey { key: by.clone(), subject: key.full_name() })
    }

    /// The services of this moment.
    pub(crate) fn services(&self) -> Arc<Services> {
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

    /// Opens a message of an instance: signed with the key of the incarnation that it is about, which a key of its service
    /// attests.
    fn open<M: InstanceMessage>(&self, envelope: &Envelope) -> Result<Attested<M>, EnvelopeError> {
        self.try_open(envelope).map_err(|problem| self.count(problem))
    }

    fn count(&self, problem: EnvelopeError) -> EnvelopeError {
        static LIMIT: LogLimit = LogLimit::new();
        let refused = self.refused.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(left_out) = LIMIT.admit() {
            warn!(%problem, refused, left_out, "refused a message");
        }
        problem
    }

    fn try_open<M: InstanceMessage>(&self, envelope: &Envelope) -> Result<Attested<M>, EnvelopeError> {
        let sender = Sender::of(envelope, M::KIND, &self.cluster)?;
        let (by, subject) = (sender.service_key().clone(), || sender.key().full_name());
        let services = self.services();
        let service = services.find(sender.key().service.as_str());
        let (key, standing) = service
            .and_then(|service| service.keys.find(&by))
            .ok_or_else(|| EnvelopeError::UnknownKey { found: by.to_string(), subject: subject() })?;
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
        // Only now is it known that the key was used: any client can name one.
        if standing == KeyStanding::Revoked {
            self.uses.note_refused(&by, RefusedUse::Revoked, sender.key());
            return Err(EnvelopeError::RevokedKey { key: by, subject: subject() });
        }
        Ok(Attested { message, by, former: standing == KeyStanding::Former })
    }

    fn attested(&self) -> std::sync::MutexGuard<'_, HashSet<[u8; 32]>> {
        self.attested.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A registration, with the secrets its service may not use taken out.
    pub(super) fn registration(&self, envelope: &Envelope) -> Result<Attested<Registration>, EnvelopeError> {
        let mut attested: Attested<Registration> = self.open(envelope)?;
        let registration = &mut attested.message;
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
        Ok(attested)
    }

    /// A report, with the secrets its service may not use taken out.
    ///
    /// # Errors
    /// What is wrong with the message; it was counted.
    pub fn report(&self, envelope: &Envelope) -> Result<InstanceReport, EnvelopeError> {
        let mut report: InstanceReport = self.open(envelope)?.message;
        self.restrict(&mut report);
        Ok(report)
    }

    /// A Sync, with the secrets its service may not use taken out, and what it says of keys.
    pub(super) fn sync(&self, envelope: &Envelope) -> Result<(SyncRequest, InstanceUse), EnvelopeError> {
        let Attested { message, by, .. } = self.open(envelope)?;
        let SyncWithKeys { mut request, trusted, announced } = message;
        self.restrict(&mut request.report);
        Ok((request, InstanceUse { attested_by: by, trusted, announced, heard: Instant::now() }))
    }

    /// A fetch; the caller checks [`Identities::may_use`] and answers for it.
    pub(super) fn fetch(&self, envelope: &Envelope) -> Result<Attested<FetchRequest>, EnvelopeError> {
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
