//! The Consul store against the suite, on a real server behind a proxy.

use std::sync::Arc;

use async_trait::async_trait;
use rotacast_store::conformance::{ServerFixture, StoreFixture};
use rotacast_store::{ConsulOptions, ConsulStore, Prefix, Store};
use rotacast_test_servers::{Consul, Proxy};
use tokio::sync::Mutex;

struct Line {
    consul: Mutex<Consul>,
    endpoint: String,
    proxy: Proxy,
}

async fn start() -> Option<Line> {
    let consul = Consul::start().await?;
    let proxy = Proxy::start(consul.port()).await;
    Some(Line { endpoint: consul.endpoint(), consul: Mutex::new(consul), proxy })
}

fn store(endpoint: &str) -> ConsulStore {
    ConsulStore::new(ConsulOptions { address: endpoint.to_owned(), ..ConsulOptions::default() }).unwrap()
}

#[async_trait]
impl StoreFixture for Line {
    async fn client(&self) -> Arc<dyn Store> {
        Arc::new(store(&format!("http://127.0.0.1:{}", self.proxy.port())))
    }

    async fn undisturbed(&self) -> Arc<dyn Store> {
        Arc::new(store(&self.endpoint))
    }

    fn prefix(&self) -> Prefix {
        Prefix::new("rotacast").unwrap()
    }

    /// Consul keeps no history that could be compacted.
    async fn compact(&self) {}

    async fn interrupt(&self) {
        self.proxy.refuse();
    }

    async fn heal(&self) {
        self.proxy.heal();
    }
}

#[async_trait]
impl ServerFixture for Line {
    async fn kill(&self) {
        self.consul.lock().await.kill().await;
    }

    async fn restart(&self) {
        self.consul.lock().await.restart().await;
    }

    async fn stall(&self) {
        self.proxy.stall();
    }
}

rotacast_store::conformance_suite!(start, server);
