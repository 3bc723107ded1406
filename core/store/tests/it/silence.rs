//! A server that says once what is wrong and then does not answer: the caller gets that reason.

use std::net::SocketAddr;

use rotacast_store::{ConsulOptions, ConsulStore, EtcdOptions, EtcdStore, Key, ReadStore, StoreError};
use tokio::net::TcpListener;

/// Closes its first connection at once. Keeps the later ones, and never answers.
async fn says_it_once() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        drop(listener.accept().await.unwrap());
        let mut kept = vec![];
        while let Ok(connection) = listener.accept().await {
            kept.push(connection);
        }
    });
    address
}

async fn is_told_the_reason(store: impl ReadStore) {
    match store.get(&Key::new("rotacast/x")).await {
        Err(StoreError::Unreachable { problem, .. }) => {
            assert!(!problem.contains("no answer in time"), "expected why the first attempt failed, found {problem:?}");
        }
        other => panic!("expected Unreachable, found {:?}", other.err()),
    }
}

#[tokio::test]
async fn the_reason_of_etcd_outlasts_its_silence() {
    let endpoints = vec![format!("http://{}", says_it_once().await)];
    is_told_the_reason(EtcdStore::new(EtcdOptions { endpoints, tls: None, user: None }).unwrap()).await;
}

#[tokio::test]
async fn the_reason_of_consul_outlasts_its_silence() {
    let address = format!("http://{}", says_it_once().await);
    is_told_the_reason(ConsulStore::new(ConsulOptions { address, ..ConsulOptions::default() }).unwrap()).await;
}
