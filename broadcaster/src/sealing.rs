//! Whom values are sealed for, as configured.

use std::sync::Arc;

use rotacast_protocol::SecretName;
use rotacast_seal::{Reader, ReaderName, SealingPublicKey};
use rotacast_store::Readers;

use crate::identities::Identities;

/// The broadcasters, by the first of their keys, and the services that may use a secret. A reload of the configuration counts at once.
pub struct ConfiguredReaders {
    ours: SealingPublicKey,
    identities: Arc<Identities>,
}

impl ConfiguredReaders {
    /// The broadcasters' key, and the services.
    #[must_use]
    pub fn new(ours: SealingPublicKey, identities: Arc<Identities>) -> Self {
        Self { ours, identities }
    }
}

impl Readers for ConfiguredReaders {
    fn readers(&self, secret: &SecretName) -> Vec<Reader> {
        let mut readers = vec![Reader { name: ReaderName::Broadcasters, key: self.ours.clone() }];
        for reader in self.identities.sealing_readers(secret) {
            // Services that share a key share what is wrapped for it.
            if !readers.iter().any(|known| known.key == reader.key) {
                readers.push(reader);
            }
        }
        readers
    }
}
