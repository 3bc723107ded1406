//! Who an instance is: a key of its own for each incarnation, and its service's word for that key.
//!
//! The incarnation is a hash of the instance's public key. So every receiver can tell, from the message alone, that the
//! sender may speak for that incarnation and for no other: another instance of the service cannot, although it has the
//! service's key.

use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use rotacast_protocol::{ClusterName, Incarnation, InstanceKey, InstanceName, ServiceName, WallTime};
use sha2::{Digest as _, Sha256};

use crate::envelope::{Envelope, EnvelopeError, Kind, tagged};
use crate::key::{KeyId, SigningKey, VerifyingKey};
use crate::message::InstanceMessage;

/// How an attestation by the service's configured key begins. Other ways in which a service proves itself get other words.
const BY_SERVICE_KEY: &str = "key:";

/// The incarnation that a key speaks for: the first 128 bits of its SHA-256.
#[must_use]
pub fn incarnation_of(key: &VerifyingKey) -> Incarnation {
    let hash = Sha256::digest(key.as_bytes());
    let first: [u8; 16] = hash[..16].try_into().expect("SHA-256 has 32 bytes");
    Incarnation(u128::from_be_bytes(first))
}

/// What one incarnation signs with. The service's key is needed to make it, and to attest it anew when another key takes the
/// place of the first.
pub struct InstanceIdentity {
    key: InstanceKey,
    cluster: ClusterName,
    signing: SigningKey,
    attested: RwLock<Attested>,
}

/// The newest attestation, and the key that made it.
struct Attested {
    by: KeyId,
    text: String,
}

impl Attested {
    fn make(cluster: &ClusterName, key: &InstanceKey, public: &VerifyingKey, service_key: &SigningKey) -> Self {
        let signature = service_key.sign(&attested(cluster, key, public));
        let by = service_key.public().id().clone();
        let text = format!("{BY_SERVICE_KEY}{by}:{}", BASE64.encode(signature));
        Self { by, text }
    }
}

impl InstanceIdentity {
    /// Draws a key for a new incarnation, which the service's key attests.
    #[must_use]
    pub fn draw(cluster: ClusterName, service: ServiceName, instance: InstanceName, service_key: &SigningKey) -> Self {
        Self::with_key(SigningKey::generate(), cluster, service, instance, service_key)
    }

    /// The incarnation of a given key: for test vectors.
    #[must_use]
    pub fn with_key(
        signing: SigningKey,
        cluster: ClusterName,
        service: ServiceName,
        instance: InstanceName,
        service_key: &SigningKey,
    ) -> Self {
        let key = InstanceKey::new(service, instance, incarnation_of(signing.public()));
        let attested = RwLock::new(Attested::make(&cluster, &key, signing.public(), service_key));
        Self { key, cluster, signing, attested }
    }

    /// Attests the same incarnation with this key of its service, unless it did so last. Whether it is another one.
    pub fn attest_with(&self, service_key: &SigningKey) -> bool {
        if self.attested().by == *service_key.public().id() {
            return false;
        }
        let anew = Attested::make(&self.cluster, &self.key, self.signing.public(), service_key);
        *self.attested.write().unwrap_or_else(PoisonError::into_inner) = anew;
        true
    }

    fn attested(&self) -> RwLockReadGuard<'_, Attested> {
        self.attested.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who it is.
    #[must_use]
    pub fn key(&self) -> &InstanceKey {
        &self.key
    }

    /// Signs a message. `id` must be the same for every retry of one message. A message about another incarnation than this
    /// one's is refused by every receiver.
    #[must_use]
    pub fn seal<M: InstanceMessage>(&self, message: &M, id: impl Into<String>, time: WallTime) -> Envelope {
        Envelope {
            key_id: self.signing.public().to_text(),
            attestation: self.attested().text.clone(),
            ..message.seal(&self.signing, &self.cluster, id, time)
        }
    }
}

/// Who sent a message, as far as the message itself can prove: the key is the one of the incarnation.
pub struct Sender<'e> {
    envelope: &'e Envelope,
    cluster: &'e ClusterName,
    key: InstanceKey,
    public: VerifyingKey,
    service_key: KeyId,
    attestation: Vec<u8>,
}

impl<'e> Sender<'e> {
    /// Who an envelope says has sent it. Its signature and its attestation are still to be checked.
    ///
    /// # Errors
    /// [`EnvelopeError`] if its type or cluster is another, if it names no instance, if its key is not that of the incarnation,
    /// or if it has no attestation that this build can read.
    pub fn of(envelope: &'e Envelope, kind: Kind, cluster: &'e ClusterName) -> Result<Self, EnvelopeError> {
        envelope.check_place(kind, cluster)?;
        let subject = || envelope.subject.chars().take(300).collect::<String>();
        let key = InstanceKey::of_full_name(&envelope.subject)
            .ok_or_else(|| EnvelopeError::NoInstance { found: subject() })?;
        let public = VerifyingKey::parse(&envelope.key_id).map_err(|_| EnvelopeError::UnknownKey {
            found: envelope.key_id.chars().take(32).collect(),
            subject: subject(),
        })?;
        let expected = incarnation_of(&public);
        if expected != key.incarnation {
            return Err(EnvelopeError::WrongIncarnation { key: public.id().clone(), expected, subject: subject() });
        }
        let read = || {
            let (service_key, signature) = envelope.attestation.strip_prefix(BY_SERVICE_KEY)?.split_once(':')?;
            Some((KeyId::parse(service_key)?, BASE64.decode(signature).ok()?))
        };
        let (service_key, attestation) = read().ok_or_else(|| EnvelopeError::NoAttestation { subject: subject() })?;
        Ok(Self { envelope, cluster, key, public, service_key, attestation })
    }

    /// The incarnation.
    #[must_use]
    pub fn key(&self) -> &InstanceKey {
        &self.key
    }

    /// The key of the service that attests it, by its id.
    #[must_use]
    pub fn service_key(&self) -> &KeyId {
        &self.service_key
    }

    /// What an attestation that was found to be good is remembered by: two with the same digest are the same.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let parts = [&self.attested()[..], self.service_key.as_str().as_bytes(), &self.attestation];
        Sha256::digest(tagged(b"rotacast-attestation-seen-1", parts)).into()
    }

    /// Checks the attestation with the service's key, whose id is [`Sender::service_key`].
    ///
    /// # Errors
    /// [`EnvelopeError::BadAttestation`].
    pub fn check_attestation(&self, service_key: &VerifyingKey) -> Result<(), EnvelopeError> {
        if *service_key.id() != self.service_key || !service_key.verifies(&self.attested(), &self.attestation) {
            let (key, subject) = (self.service_key.clone(), self.key.full_name());
            return Err(EnvelopeError::BadAttestation { key, subject });
        }
        Ok(())
    }

    /// Checks the instance's signature and reads the message.
    ///
    /// # Errors
    /// [`EnvelopeError`], with expected and found.
    pub fn open<M: InstanceMessage>(&self) -> Result<M, EnvelopeError> {
        M::open(self.envelope, self.cluster, |_, _| Some(&self.public))
    }

    fn attested(&self) -> Vec<u8> {
        attested(self.cluster, &self.key, &self.public)
    }
}

/// What a service's key signs for an instance: a domain tag, then cluster, subject and the instance's public key.
fn attested(cluster: &ClusterName, instance: &InstanceKey, key: &VerifyingKey) -> Vec<u8> {
    let subject = instance.full_name();
    tagged(b"rotacast-attestation-1", [cluster.as_str().as_bytes(), subject.as_bytes(), key.as_bytes()])
}
