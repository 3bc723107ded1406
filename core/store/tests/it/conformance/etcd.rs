//! The etcd store against the suite, on a real server behind a proxy.

use std::sync::Arc;

use async_trait::async_trait;
use rotacast_store::conformance::{ServerFixture, StoreFixture};
use rotacast_store::{EtcdOptions, EtcdStore, Prefix, Store};
use rotacast_test_servers::{Etcd, Proxy};
use tokio::sync::Mutex;

struct Line {
    etcd: Mutex<Etcd>,
    endpoint: String,
    proxy: Proxy,
}

async fn start() -> Option<Line> {
    let etcd = Etcd::start().await?;
    let proxy = Proxy::start(etcd.port()).await;
    Some(Line { endpoint: etcd.endpoint(), etcd: Mutex::new(etcd), proxy })
}

fn store(endpoint: &str) -> EtcdStore {
    EtcdStore::new(EtcdOptions { endpoints: vec![endpoint.to_owned()], ..EtcdOptions::default() }).unwrap()
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

    async fn compact(&self) {
        self.etcd.lock().await.compact().await;
    }

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
        self.etcd.lock().await.kill().await;
    }

    async fn restart(&self) {
        self.etcd.lock().await.restart().await;
    }

    async fn stall(&self) {
        self.proxy.stall();
    }
}

rotacast_store::conformance_suite!(start, server);
