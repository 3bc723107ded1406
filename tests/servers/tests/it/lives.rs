//! The harness keeps its own promises: readiness, restarts on the same data, and nothing left behind.

use std::process::{Command, Stdio};
use std::time::Duration;

use rotacast_test_servers::{Etcd, Nats, NatsConfig, Postgres, Process, Proxy, Scratch, until};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn etcd_keeps_its_data_over_a_kill_and_a_stop() {
    let Some(mut etcd) = Etcd::start().await else { return };
    let before = etcd.id();
    etcd.ctl(&["put", "a", "1"]).await;
    etcd.kill().await;
    etcd.restart().await;
    assert_ne!(etcd.id(), before);
    assert_eq!(etcd.ctl(&["get", "a", "--print-value-only"]).await.trim(), "1");
    etcd.stop().await;
    assert!(TcpStream::connect(("127.0.0.1", etcd.port())).await.is_err());
    etcd.restart().await;
    assert_eq!(etcd.ctl(&["get", "a", "--print-value-only"]).await.trim(), "1");
}

/// Fails on purpose.
#[tokio::test]
#[ignore = "run as a child process by the next test"]
async fn refused_start() {
    Etcd::start_with(&["--no-such-argument"]).await;
}

#[tokio::test]
async fn etcd_takes_further_arguments_and_a_failure_shows_and_keeps_its_log() {
    if Etcd::start_with(&["--quota-backend-bytes=16777216"]).await.is_none() {
        return;
    }
    let scratch = Scratch::new("refused");
    let output = Command::new(std::env::current_exe().expect("it runs"))
        .args(["--exact", "lives::refused_start", "--ignored", "--nocapture"])
        .env("TMPDIR", scratch.path())
        .output()
        .expect("it runs");
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("flag provided but not defined: -no-such-argument"), "{text}");
    let kept = text.split("kept for inspection: ").nth(1).and_then(|rest| rest.lines().next()).expect("it says where");
    assert!(std::path::Path::new(kept).join("log").exists(), "{kept}");
}

#[tokio::test]
async fn nats_answers_until_it_is_paused_and_again_after() {
    let Some(mut nats) = Nats::start_with(NatsConfig { top: "max_payload: 4096", jetstream: "" }).await else { return };
    let stream = TcpStream::connect(("127.0.0.1", nats.port())).await.expect("it is ready");
    let mut lines = BufReader::new(stream);
    let mut line = String::new();
    lines.read_line(&mut line).await.expect("it greets");
    assert!(line.contains("\"max_payload\":4096") && line.contains("\"jetstream\":true"), "{line}");

    nats.pause();
    lines.write_all(b"CONNECT {\"verbose\":false}\r\nPING\r\n").await.expect("the kernel takes it");
    // A paused process does not answer however long the test waits. Its state says so at once.
    let state = std::fs::read_to_string(format!("/proc/{}/stat", nats.id())).expect("it exists");
    assert!(state.contains(") T "), "{state}");
    nats.resume();
    line.clear();
    tokio::time::timeout(LIMIT, lines.read_line(&mut line)).await.expect("it answers again").expect("still connected");
    assert_eq!(line, "PONG\r\n");

    nats.stop().await;
    nats.lose_streams();
    nats.restart().await;
}

#[tokio::test]
async fn postgres_checks_passwords_and_survives_a_kill() {
    let Some(mut postgres) = Postgres::start_with(&["max_connections=20"]).await else { return };
    postgres.create_database("shop").await;
    let session = postgres.admin("shop").await;
    session.batch_execute("CREATE TABLE t AS SELECT 42 AS answer").await.expect("a superuser may");
    let wrong = postgres.admin_url("shop").replace(postgres.admin_password(), "wrong");
    assert!(tokio_postgres::connect(&wrong, tokio_postgres::NoTls).await.is_err());

    postgres.kill().await;
    until("the session to notice", LIMIT, async || session.is_closed().then_some(())).await;
    postgres.restart().await;
    let row = postgres.admin("shop").await.query_one("SELECT answer FROM t", &[]).await.expect("it is still there");
    assert_eq!(row.get::<_, i32>(0), 42);
}

#[tokio::test]
async fn a_paused_postgres_stops_its_open_sessions_too() {
    let Some(mut postgres) = Postgres::start().await else { return };
    let session = postgres.admin("postgres").await;
    let backend: i32 = session.query_one("SELECT pg_backend_pid()", &[]).await.expect("a query works").get(0);
    postgres.pause();
    let state = std::fs::read_to_string(format!("/proc/{backend}/stat")).expect("it exists");
    assert!(state.contains(") T "), "{state}");
    postgres.resume();
    session.query_one("SELECT 1", &[]).await.expect("the session goes on");
}

#[tokio::test]
async fn shared_servers_are_one_server_with_many_names() {
    let (Some(a), Some(b)) = (Postgres::shared().await, Postgres::shared().await) else { return };
    assert_eq!(a.id(), b.id());
    assert_ne!(a.name(), b.name());
    a.create_database(a.name()).await;
    b.create_database(b.name()).await;
}

#[tokio::test]
async fn a_proxy_passes_stalls_delays_cuts_and_refuses() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
    let proxy = Proxy::start(port).await;
    let mut client = TcpStream::connect(("127.0.0.1", proxy.port())).await.expect("it listens");
    echo(&mut client, b"pass").await;

    proxy.stall();
    client.write_all(b"late").await.expect("the proxy still reads");
    let mut answer = [0; 4];
    let silent = tokio::time::timeout(Duration::from_millis(100), client.read_exact(&mut answer)).await;
    assert!(silent.is_err(), "nothing may pass while stalled");
    proxy.heal();
    client.read_exact(&mut answer).await.expect("it passes now");
    assert_eq!(&answer, b"late");

    let delay = Duration::from_millis(50);
    proxy.delay(delay);
    let start = std::time::Instant::now();
    echo(&mut client, b"slow").await;
    assert!(start.elapsed() >= delay * 2, "each direction is delayed");
    proxy.heal();

    proxy.cut();
    assert_eq!(client.read(&mut answer).await.unwrap_or(0), 0, "the connection is closed");
    let mut client = TcpStream::connect(("127.0.0.1", proxy.port())).await.expect("new ones work");
    echo(&mut client, b"anew").await;

    proxy.refuse();
    assert_eq!(client.read(&mut answer).await.unwrap_or(0), 0, "the connection is closed");
    let mut refused = TcpStream::connect(("127.0.0.1", proxy.port())).await.expect("the port is bound");
    assert_eq!(refused.read(&mut answer).await.unwrap_or(0), 0, "and closed at once");
}

async fn echo(client: &mut TcpStream, bytes: &[u8; 4]) {
    client.write_all(bytes).await.expect("connected");
    let mut answer = [0; 4];
    client.read_exact(&mut answer).await.expect("connected");
    assert_eq!(&answer, bytes);
}

const ORPHAN: &str = "ROTACAST_TEST_ORPHAN";

/// Starts two children, one of them paused, and waits to be killed.
#[tokio::test]
#[ignore = "run as a child process by the next test"]
async fn orphan_maker() {
    let file = std::env::var_os(ORPHAN).expect("the next test says where");
    let scratch = Scratch::new("orphan");
    let sleeper = || {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 600 & wait"]);
        command
    };
    let running = Process::spawn("running", sleeper(), &scratch.path().join("log"), None);
    let mut paused = Process::spawn("paused", sleeper(), &scratch.path().join("log"), None);
    paused.pause();
    let text = format!("{} {} {}", running.id(), paused.id(), scratch.path().display());
    let partial = std::path::PathBuf::from(&file).with_extension("partial");
    std::fs::write(&partial, text).expect("the test can write there");
    std::fs::rename(&partial, file).expect("the test can write there");
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn nothing_is_left_behind_when_the_test_process_is_killed() {
    let scratch = Scratch::new("killed");
    let file = scratch.path().join("children");
    let mut test = Command::new(std::env::current_exe().expect("it runs"))
        .args(["--exact", "lives::orphan_maker", "--ignored", "--nocapture"])
        .env(ORPHAN, &file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it runs");
    let text = until("the children to run", LIMIT, async || std::fs::read_to_string(&file).ok()).await;
    let parts: Vec<&str> = text.splitn(3, ' ').collect();
    let [running, paused, folder] = parts[..] else { panic!("expected two ids and a folder, found {text}") };
    assert!(is_alive(running) && is_alive(paused));

    test.kill().expect("it is ours");
    test.wait().expect("it is ours");
    until("its children to be gone", LIMIT, async || (!is_alive(running) && !is_alive(paused)).then_some(())).await;
    let folder = std::path::Path::new(folder).parent().expect("it lies in the folder of that process");
    until("its scratch folder to be gone", LIMIT, async || (!folder.exists()).then_some(())).await;
}

fn is_alive(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}
