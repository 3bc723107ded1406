//! A listener's certificate that is renewed in its file is used for the next connection, without a restart.

use std::path::Path;
use std::time::Duration;

use rotacast_tests::programs;
use rotacast_tests::servers::{Process, Scratch, free_port, make_certificates, until};
use rustix::process::Signal;
use tokio::process::Command;

/// For a broadcaster to start, or to read its files again. Only a fault takes this long.
const LIMIT: Duration = Duration::from_secs(90);

async fn rotacast(folder: &Path, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(programs!().rotacast);
    let output = command.args(arguments).env_clear().current_dir(folder).kill_on_drop(true).output().await.unwrap();
    let told = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.success(), told)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_listener_certificate_counts_and_a_broken_one_does_not() {
    let scratch = Scratch::new("renewed");
    let folder = scratch.path();
    if !make_certificates(folder, &["server"]).await {
        return;
    }
    std::fs::copy(folder.join("ca.pem"), folder.join("first-ca.pem")).unwrap();
    assert!(rotacast(folder, &["keygen", "--out", "broadcaster"]).await.0);
    let port = free_port();
    let text = format!(
        "cluster = \"e2e\"\n[listen]\ngrpc = \"127.0.0.1:{port}\"\n[listen.tls]\ncert = \"server.pem\"\n\
         key = \"server.key\"\n[keys]\nsigning_key = \"broadcaster.key\"\n"
    );
    std::fs::write(folder.join("rotacast.toml"), text).unwrap();
    let mut serve = std::process::Command::new(programs!().rotacast);
    serve.args(["serve", "--config", "rotacast.toml"]).env_clear().current_dir(folder);
    let mut broadcaster = Process::spawn("rotacast", serve, &folder.join("log"), None);
    let server = format!("https://localhost:{port}");
    let doctor = async |ca: &str| rotacast(folder, &["doctor", "--server", &server, "--ca", ca]).await.1;
    let trusts = async |ca: &str| rotacast(folder, &["status", "--server", &server, "--ca", ca]).await.0;
    until("the broadcaster to answer", LIMIT, async || trusts("first-ca.pem").await.then_some(())).await;
    // The certificates are valid for two days: the finding is there from the start.
    let told = until("the finding", LIMIT, async || {
        let told = doctor("first-ca.pem").await;
        told.contains("certificate listen.tls.cert").then_some(told)
    })
    .await;
    assert!(told.contains("expires in 1 days") || told.contains("expires in 2 days"), "{told}");

    assert!(make_certificates(folder, &["server"]).await);
    until("the renewed certificate", LIMIT, async || trusts("ca.pem").await.then_some(())).await;
    assert!(!trusts("first-ca.pem").await, "the first certificate is shown no more");

    std::fs::write(folder.join("server.key"), "half a ke").unwrap();
    let broken = async || doctor("ca.pem").await.contains("holds no private key").then_some(());
    until("the broken file to be named", LIMIT, broken).await;
    assert!(trusts("ca.pem").await, "the earlier certificate stays in force");
    assert!(broadcaster.ended().is_none(), "it still runs");
    assert!(broadcaster.stop(Signal::TERM, LIMIT).await.success());
}
