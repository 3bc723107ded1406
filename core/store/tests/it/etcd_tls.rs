//! The etcd store over TLS, with certificates on both sides.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rotacast_proto::SecretValue;
use rotacast_store::{
    ClientTls, Commit, Committed, EtcdOptions, EtcdStore, Key, LoginSecret, ReadStore, Store, StoreError, Write,
};
use rotacast_test_servers::{Scratch, free_port, make_certificates, skip, until};
use tokio::process::{Child, Command};

/// To start and to answer, on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

fn etcd_binary() -> Option<PathBuf> {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.servers/bin/etcd");
    let found = std::env::var_os("ROTACAST_ETCD").map_or(installed, PathBuf::from);
    found.exists().then_some(found)
}

/// etcd with the certificates that are in the folder.
fn start(folder: &Path, port: u16) -> Option<Child> {
    let Some(etcd) = etcd_binary() else {
        skip("etcd");
        return None;
    };
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
    if !make_certificates(folder, &["server", "client"]).await {
        return;
    }
    let Some(_etcd) = start(folder, port) else { return };
    let file = |name: &str| LoginSecret::File(folder.join(name));
    let tls = ClientTls {
        authority: file("ca.pem"),
        identity: Some((file("client.pem"), file("client.key"))),
        server_name: None,
    };
    let with = |tls: ClientTls| {
        let endpoints = vec![format!("https://127.0.0.1:{port}")];
        EtcdStore::new(EtcdOptions { endpoints, tls: Some(tls), user: None }).unwrap()
    };
    let store = with(tls.clone());
    let key = Key::new("rotacast/x");
    let write = || Commit { checks: vec![], writes: vec![Write::Put(key.clone(), SecretValue::new(b"x".to_vec()))] };
    let done = until("etcd over TLS", LIMIT, async || store.commit(write()).await.ok()).await;
    assert!(matches!(done, Committed::Done(_)));
    assert!(store.get(&key).await.unwrap().is_some());

    for (what, broken) in [
        ("no certificate of our own", ClientTls { identity: None, ..tls.clone() }),
        ("another authority", ClientTls { authority: file("client.pem"), ..tls.clone() }),
        ("another server's name", ClientTls { server_name: Some("elsewhere.example".into()), ..tls.clone() }),
    ] {
        let refused = with(broken).get(&key).await.err();
        assert!(matches!(refused, Some(StoreError::Unreachable { .. })), "{what}: {refused:?}");
    }
}

/// The authority, the members' certificates and the client's are all replaced: the store uses the new files without
/// being opened again.
#[tokio::test]
async fn renewed_certificates_count_for_the_next_connection() {
    let scratch = Scratch::new("etcd-renewed");
    let folder = scratch.path();
    let port = free_port();
    if !make_certificates(folder, &["server", "client"]).await {
        return;
    }
    let Some(mut etcd) = start(folder, port) else { return };
    let file = |name: &str| LoginSecret::File(folder.join(name));
    let tls = ClientTls {
        authority: file("ca.pem"),
        identity: Some((file("client.pem"), file("client.key"))),
        server_name: None,
    };
    let endpoints = vec![format!("https://127.0.0.1:{port}")];
    let store = EtcdStore::new(EtcdOptions { endpoints, tls: Some(tls), user: None }).unwrap();
    let key = Key::new("rotacast/x");
    let answers = async |store: &EtcdStore| store.get(&key).await.ok();
    until("etcd over TLS", LIMIT, async || answers(&store).await).await;
    etcd.kill().await.unwrap();
    assert!(make_certificates(folder, &["server", "client"]).await);
    let _etcd = start(folder, port);
    until("etcd by its new certificates", LIMIT, async || answers(&store).await).await;
}
