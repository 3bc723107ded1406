//! The etcd store over TLS, with certificates on both sides.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rotacast_proto::SecretValue;
use rotacast_store::{Commit, Committed, EtcdOptions, EtcdStore, EtcdTls, Key, ReadStore, Store, StoreError, Write};
use rotacast_test_servers::{Scratch, free_port, make_certificates, skip, until};
use tokio::process::{Child, Command};

fn etcd_binary() -> Option<PathBuf> {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.servers/bin/etcd");
    let found = std::env::var_os("ROTACAST_ETCD").map_or(installed, PathBuf::from);
    found.exists().then_some(found)
}

async fn start(folder: &Path, port: u16) -> Option<Child> {
    let Some(etcd) = etcd_binary() else {
        skip("etcd");
        return None;
    };
    if !make_certificates(folder, &["server", "client"]).await {
        return None;
    }
    let client = format!("https://127.0.0.1:{port}");
    let peer = format!("http://127.0.0.1:{}", free_port());
    let arguments = [
        "--name=tls".to_owned(),
        "--data-dir=data".into(),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=tls={peer}"),
        "--cert-file=server.pem".into(),
        "--key-file=server.key".into(),
        "--trusted-ca-file=ca.pem".into(),
        "--client-cert-auth".into(),
    ];
    let mut command = Command::new(etcd);
    command.args(arguments).current_dir(folder).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    Some(command.spawn().unwrap())
}

#[tokio::test]
async fn both_sides_show_certificates() {
    let scratch = Scratch::new("etcd-tls");
    let folder = scratch.path();
    let port = free_port();
    let Some(_etcd) = start(folder, port).await else { return };
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let tls = EtcdTls {
        authority: read("ca.pem"),
        identity: Some((read("client.pem"), read("client.key").into())),
        server_name: None,
    };
    let with = |tls: EtcdTls| {
        let endpoints = vec![format!("https://127.0.0.1:{port}")];
        EtcdStore::new(EtcdOptions { endpoints, tls: Some(tls), user: None }).unwrap()
    };
    let store = with(tls.clone());
    let key = Key::new("rotacast/x");
    let write = || Commit { checks: vec![], writes: vec![Write::Put(key.clone(), SecretValue::new(b"x".to_vec()))] };
    let done = until("etcd over TLS", Duration::from_secs(60), async || store.commit(write()).await.ok()).await;
    assert!(matches!(done, Committed::Done(_)));
    assert!(store.get(&key).await.unwrap().is_some());

    for (what, broken) in [
        ("no certificate of our own", EtcdTls { identity: None, ..tls.clone() }),
        ("another authority", EtcdTls { authority: read("client.pem"), ..tls.clone() }),
        ("another server's name", EtcdTls { server_name: Some("elsewhere.example".into()), ..tls.clone() }),
    ] {
        let refused = with(broken).get(&key).await.err();
        assert!(matches!(refused, Some(StoreError::Unreachable { .. })), "{what}: {refused:?}");
    }
}
