//! How one process reaches store and bus: through proxies that can be told to misbehave.

use super::{BusServer, StoreServer};
use crate::servers::Proxy;

/// The proxies of one process.
#[derive(Debug)]
pub struct Way {
    /// To the store.
    pub store: Proxy,
    /// To the bus.
    pub bus: Proxy,
}

impl Way {
    /// # Panics
    /// If store or bus cannot stand behind a proxy.
    pub(super) async fn to(store: &StoreServer, bus: &BusServer) -> Self {
        let store = store.port().expect("a store that is a server");
        let bus = bus.port().expect("NATS: Kafka's brokers say themselves where they are");
        Self { store: Proxy::start(store).await, bus: Proxy::start(bus).await }
    }

    /// Nothing gets through any more, as if it were in a separate network.
    pub fn stall(&self) {
        self.store.stall();
        self.bus.stall();
    }

    /// Everything gets through again.
    pub fn heal(&self) {
        self.store.heal();
        self.bus.heal();
    }
}
