//! The floor: one publish, a delivery to every instance, a counted reply from each, with the same client library and the
//! same number of connections; with and without the signatures that Rotacast checks.

use std::time::{Duration, Instant};

use async_nats::{Client, Subscriber};
use bytes::Bytes;
use futures::StreamExt as _;
use rotacast_proto::{Envelope, Kind, SigningKey};
use rotacast_protocol::{ClusterName, WallTime};

/// What is signed and checked on the way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Signatures {
    None,
    /// Each instance checks one and makes one, the reader checks them all, one after the other.
    Checked,
}

/// Instances that reply, and a reader that counts.
pub(super) struct Raw {
    client: Client,
    subject: String,
    replies: Subscriber,
    payload: Bytes,
    signer: Signer,
    signatures: Signatures,
    instances: usize,
}

impl Raw {
    /// A connection for every instance and one for the reader. Payloads are as large as Rotacast's.
    pub(super) async fn start(
        url: &str,
        instances: usize,
        announced: usize,
        reported: usize,
        signatures: Signatures,
    ) -> Self {
        let signer = Signer::new();
        let subject = format!("raw.{signatures:?}.announce").to_lowercase();
        let answers = format!("raw.{signatures:?}.answer").to_lowercase();
        let client = async_nats::ConnectOptions::new().subscription_capacity(16 * 1024).connect(url).await.unwrap();
        let replies = client.subscribe(answers.clone()).await.unwrap();
        client.flush().await.unwrap();
        for number in 0..instances {
            let instance = async_nats::connect(url).await.unwrap();
            let mut announcements = instance.subscribe(subject.clone()).await.unwrap();
            instance.flush().await.unwrap();
            let (answers, signer) = (answers.clone(), signer.clone());
            let mut reply = vec![0_u8; reported];
            let end = reported.min(8);
            reply[..end].copy_from_slice(&number.to_be_bytes()[..end]);
            let reply = Bytes::from(reply);
            tokio::spawn(async move {
                while let Some(message) = announcements.next().await {
                    let mut answer = reply.clone();
                    if signatures == Signatures::Checked {
                        signer.check(&message.payload);
                        answer = signer.sign(&answer);
                    }
                    instance.publish(answers.clone(), answer).await.unwrap();
                }
            });
        }
        let body = Bytes::from(vec![0_u8; announced]);
        let payload = if signatures == Signatures::Checked { signer.sign(&body) } else { body };
        Self { client, subject, replies, payload, signer, signatures, instances }
    }

    /// One round: from the publish to the last reply counted.
    pub(super) async fn round(&mut self) -> Duration {
        let began = Instant::now();
        self.client.publish(self.subject.clone(), self.payload.clone()).await.unwrap();
        for _ in 0..self.instances {
            let reply = self.replies.next().await.unwrap();
            if self.signatures == Signatures::Checked {
                self.signer.check(&reply.payload);
            }
        }
        began.elapsed()
    }
}

/// Signs and checks as Rotacast does, and puts the signature behind the payload.
#[derive(Clone)]
struct Signer {
    key: SigningKey,
    cluster: ClusterName,
    template: Envelope,
}

impl Signer {
    fn new() -> Self {
        let (key, cluster) = (SigningKey::from_seed(&[7; 32]), ClusterName::new("raw").unwrap());
        let template = Envelope::sign(&key, Kind::InstanceReport, &cluster, "a/b/c", "raw", WallTime(0), Bytes::new());
        Self { key, cluster, template }
    }

    fn sign(&self, body: &Bytes) -> Bytes {
        let signed =
            Envelope::sign(&self.key, Kind::InstanceReport, &self.cluster, "a/b/c", "raw", WallTime(0), body.clone());
        let mut bytes = body.to_vec();
        bytes.extend_from_slice(&signed.signature);
        bytes.into()
    }

    fn check(&self, bytes: &Bytes) {
        let end = bytes.len() - self.template.signature.len();
        let envelope = Envelope { payload: bytes.slice(..end), signature: bytes.slice(end..), ..self.template.clone() };
        envelope.verify(Kind::InstanceReport, &self.cluster, |_| Some(self.key.public())).unwrap();
    }
}
