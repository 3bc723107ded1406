//! Over NATS: a connection for every instance.

use std::sync::Arc;

use async_nats::{Client, ConnectOptions, Subscriber};
use bytes::Bytes;
use futures::StreamExt as _;
use rotacast_bus::{InstanceBus, LeaderBus, NatsBus, NatsOptions, NatsParty};
use rotacast_tests::servers::Nats;

use super::carrier::{Carrier, Link, cluster};

pub(super) struct OverNats {
    server: Nats,
}

impl Carrier for OverNats {
    const NAME: &'static str = "NATS";
    const INSTANCES: usize = 1000;
    type Link = NatsLink;

    async fn start() -> Option<Self> {
        Some(Self { server: Nats::start().await? })
    }

    async fn leader(&self) -> Arc<dyn LeaderBus> {
        Arc::new(
            NatsBus::connect(NatsOptions::new(self.server.url(), cluster(), NatsParty::Broadcaster)).await.unwrap(),
        )
    }

    async fn instance(&self) -> Arc<dyn InstanceBus> {
        let party = NatsParty::Service("service-0".parse().unwrap());
        let options = NatsOptions::new(self.server.url(), cluster(), party);
        Arc::new(NatsBus::connect(options).await.unwrap())
    }

    async fn link(&self, reads: &str, writes: &str) -> NatsLink {
        let client = ConnectOptions::new().subscription_capacity(16 * 1024).connect(self.server.url()).await.unwrap();
        let incoming = client.subscribe(reads.to_owned()).await.unwrap();
        client.flush().await.unwrap();
        NatsLink { client, incoming, writes: writes.to_owned() }
    }
}

/// Core NATS: nothing is stored.
pub(super) struct NatsLink {
    client: Client,
    incoming: Subscriber,
    writes: String,
}

impl Link for NatsLink {
    async fn publish(&mut self, message: Bytes) {
        self.client.publish(self.writes.clone(), message).await.unwrap();
    }

    async fn next(&mut self) -> Bytes {
        self.incoming.next().await.unwrap().payload
    }
}
