//! Whose word counts.

use std::sync::atomic::{AtomicU64, Ordering};

use rotacast_proto::{Envelope, EnvelopeError, VerifyingKey, WireMessage};
use rotacast_protocol::ClusterName;

/// The broadcasters' keys, and how many messages were refused.
pub(crate) struct Trust {
    keys: Vec<VerifyingKey>,
    refused: AtomicU64,
}

impl Trust {
    pub(crate) fn new(keys: Vec<VerifyingKey>) -> Self {
        Self { keys, refused: AtomicU64::new(0) }
    }

    /// Reads a message signed by a trusted broadcaster; anything else is counted.
    pub(crate) fn open<M: WireMessage>(&self, cluster: &ClusterName, envelope: &Envelope) -> Result<M, EnvelopeError> {
        let result = M::open(envelope, cluster, |id, _| self.keys.iter().find(|key| key.id().as_str() == id));
        if result.is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    /// Messages refused so far.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}
