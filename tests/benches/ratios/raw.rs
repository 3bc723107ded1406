//! The floor: one publish, a delivery to every instance, a counted reply from each, with the same client library and as
//! few connections as Rotacast has, with and without the signatures that Rotacast checks.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::JoinSet;

use super::carrier::{Carrier, Link};
use super::rotacast::Sizes;
use super::signer::Signer;

/// The messages that are signed and checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Signatures {
    None,
    /// Each instance checks one signature and makes one. The reader checks them all, one after the other.
    Checked,
}

/// Instances that reply, and a reader that counts.
pub(super) struct Raw<C: Carrier> {
    link: C::Link,
    payload: Bytes,
    signer: Signer,
    signatures: Signatures,
    instances: JoinSet<()>,
}

impl<C: Carrier> Raw<C> {
    /// A link for every instance and one for the reader. Payloads are as large as Rotacast's.
    pub(super) async fn start(carrier: &C, sizes: Sizes, signatures: Signatures) -> Self {
        let signer = Signer::new();
        let announcements = format!("raw.{signatures:?}.announce").to_lowercase();
        let answers = format!("raw.{signatures:?}.answer").to_lowercase();
        let link = carrier.link(&answers, &announcements).await;
        let mut instances = JoinSet::new();
        for number in 0..C::INSTANCES {
            let mut reply = vec![0_u8; sizes.report];
            let end = sizes.report.min(8);
            reply[..end].copy_from_slice(&number.to_be_bytes()[..end]);
            let instance = carrier.link(&announcements, &answers).await;
            instances.spawn(answer(instance, reply.into(), signer.clone(), signatures));
        }
        let body = Bytes::from(vec![0_u8; sizes.announcement]);
        let payload = if signatures == Signatures::Checked { signer.sign(&body) } else { body };
        Self { link, payload, signer, signatures, instances }
    }

    /// One round: from the publish to the last reply counted.
    pub(super) async fn round(&mut self) -> Duration {
        let began = Instant::now();
        self.link.publish(self.payload.clone()).await;
        for _ in 0..self.instances.len() {
            let reply = self.link.next().await;
            if self.signatures == Signatures::Checked {
                self.signer.check(&reply);
            }
        }
        began.elapsed()
    }

    /// Ends all connections.
    pub(super) async fn stop(mut self) {
        self.instances.shutdown().await;
    }
}

/// One instance.
async fn answer<L: Link>(mut link: L, reply: Bytes, signer: Signer, signatures: Signatures) {
    loop {
        let announcement = link.next().await;
        let mut answer = reply.clone();
        if signatures == Signatures::Checked {
            signer.check(&announcement);
            answer = signer.sign(&answer);
        }
        link.publish(answer).await;
    }
}
