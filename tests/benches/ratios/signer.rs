//! Signatures as Rotacast makes and checks them, for the floor.

use bytes::Bytes;
use rotacast_proto::{Envelope, Kind, SigningKey};
use rotacast_protocol::{ClusterName, WallTime};

/// Puts the signature behind the payload.
#[derive(Clone)]
pub(super) struct Signer {
    key: SigningKey,
    cluster: ClusterName,
    template: Envelope,
}

impl Signer {
    pub(super) fn new() -> Self {
        let (key, cluster) = (SigningKey::from_seed(&[7; 32]), ClusterName::new("raw").unwrap());
        let template = Envelope::sign(&key, Kind::InstanceReport, &cluster, "a/b/c", "raw", WallTime(0), Bytes::new());
        Self { key, cluster, template }
    }

    pub(super) fn sign(&self, body: &Bytes) -> Bytes {
        let signed =
            Envelope::sign(&self.key, Kind::InstanceReport, &self.cluster, "a/b/c", "raw", WallTime(0), body.clone());
        let mut bytes = body.to_vec();
        bytes.extend_from_slice(&signed.signature);
        bytes.into()
    }

    pub(super) fn check(&self, bytes: &Bytes) {
        let end = bytes.len() - self.template.signature.len();
        let envelope = Envelope { payload: bytes.slice(..end), signature: bytes.slice(end..), ..self.template.clone() };
        envelope.verify(Kind::InstanceReport, &self.cluster, |_| Some(self.key.public())).unwrap();
    }
}
