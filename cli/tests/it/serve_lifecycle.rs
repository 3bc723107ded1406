//! `rotacast serve` from its start to its end, as probes, systemd and readers of its log see it.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::Duration;

use rotacast_broadcaster::token::Token;
use rustix::process::{Pid, Signal, kill_process};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// A test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A broadcaster on the embedded store and bus, with the environment that systemd gives it.
struct Served {
    process: Child,
    log: BufReader<ChildStderr>,
    systemd: UnixDatagram,
    address: String,
    folder: tempfile::TempDir,
}

impl Served {
    fn start() -> Self {
        Self::start_with(None, "")
    }

    /// With a limit on open files, soft and hard, and with further settings.
    fn start_with(open_files: Option<usize>, settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let systemd = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        systemd.set_read_timeout(Some(PATIENCE)).unwrap();
        let rotacast = || {
            let mut command = Command::new(env!("CARGO_BIN_EXE_rotacast"));
            command.env_clear().current_dir(folder.path());
            command
        };
        assert!(rotacast().args(["keygen", "--out", "broadcaster"]).output().unwrap().status.success());
        let text = format!(
            "cluster = \"test\"\n[listen]\ngrpc = \"127.0.0.1:0\"\n[keys]\nsigning_key = \"broadcaster.key\"\n[log]\nformat = \"json\"\n{settings}"
        );
        std::fs::write(folder.path().join("rotacast.toml"), text).unwrap();
        let mut serve = match open_files {
            None => rotacast(),
            Some(limit) => {
                let mut shell = Command::new("/bin/sh");
                shell.env_clear().current_dir(folder.path());
                shell.args(["-c", &format!("ulimit -n {limit} && exec \"$0\" \"$@\"")]);
                shell.arg(env!("CARGO_BIN_EXE_rotacast"));
                shell
            }
        };
        // A test about open files does not read the log, and a full socket would hold the broadcaster up.
        if open_files.is_none() {
            serve.env("WATCHDOG_USEC", "200000");
        }
        let mut process = serve
            .args(["serve", "--config", "rotacast.toml"])
            .env("NOTIFY_SOCKET", folder.path().join("notify"))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(process.stderr.take().unwrap());
        let mut served = Self { process, log, systemd, address: String::new(), folder };
        served.address = served.logged("listening")["address"].as_str().unwrap().to_owned();
        served
    }

    /// The next line of the log with this message. Every line is JSON.
    fn logged(&mut self, message: &str) -> serde_json::Value {
        for line in (&mut self.log).lines() {
            let line = line.unwrap();
            let line: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
            if line["message"] == message {
                return line;
            }
        }
        panic!("the log ended without {message:?}");
    }

    /// The next matching message to systemd.
    fn told(&self, fits: impl Fn(&str) -> bool) -> String {
        loop {
            let mut buffer = [0; 4096];
            let length = self.systemd.recv(&mut buffer).expect("a message to systemd in time");
            let text = String::from_utf8(buffer[..length].to_vec()).unwrap();
            if fits(&text) {
                return text;
            }
        }
    }

    /// How many files the broadcaster has open.
    fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.process.id())).unwrap().count()
    }

    /// Connections that send nothing.
    fn silent(&self, count: usize) -> Vec<TcpStream> {
        (0..count).map(|_| TcpStream::connect(&self.address).unwrap()).collect()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    /// Status and body of a plain HTTP/1.1 request.
    fn get(&self, path: &str) -> (u16, serde_json::Value) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: kubelet-does-not-care\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        (status, serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}")))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn systemd_hears_of_every_change_of_state() {
    let mut served = Served::start();
    let turn = |text: &str| !text.starts_with("WATCHDOG") && !text.starts_with("STATUS");
    assert_eq!(served.told(turn).trim_end(), "READY=1");
    served.told(|text| text.starts_with("STATUS=leads") || text.starts_with("STATUS=follows"));
    for _ in 0..3 {
        assert_eq!(served.told(|text| text.starts_with("WATCHDOG")).trim_end(), "WATCHDOG=1");
    }
    served.signal(Signal::HUP);
    let reloading = served.told(|text| text.starts_with("RELOADING"));
    let monotonic = reloading.lines().nth(1).and_then(|line| line.strip_prefix("MONOTONIC_USEC=")).unwrap();
    assert!(monotonic.parse::<u64>().unwrap() > 0);
    served.told(|text| text.starts_with("READY=1"));
    served.signal(Signal::TERM);
    served.told(|text| text.starts_with("STOPPING=1"));
    assert!(served.process.wait().unwrap().success());
}

#[tokio::test]
async fn probes_are_answered_over_http_and_grpc() {
    let served = Served::start();
    served.told(|text| text.starts_with("READY=1"));
    let (status, body) = served.get("/healthz");
    assert_eq!((status, &body["alive"]), (200, &true.into()), "{body}");
    let (status, body) = served.get("/readyz");
    assert_eq!((status, &body["ready"]), (200, &true.into()), "{body}");
    assert!(["leader", "follower"].contains(&body["role"].as_str().unwrap()), "{body}");

    let url = format!("http://{}", served.address);
    let channel = tonic::transport::Channel::from_shared(url).unwrap().connect().await.unwrap();
    let mut health = HealthClient::new(channel);
    for service in ["", "rotacast.v1.Admin", "rotacast.v1.Instances", "liveness"] {
        let asked = HealthCheckRequest { service: service.into() };
        let mut told = health.watch(asked).await.unwrap().into_inner();
        let serving = async { while told.message().await.unwrap().unwrap().status != ServingStatus::Serving as i32 {} };
        tokio::time::timeout(PATIENCE, serving).await.unwrap_or_else(|_| panic!("{service:?} never serves"));
    }
    // At the end, a watch says NOT_SERVING before the connection closes.
    let mut told = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(told.message().await.unwrap().unwrap().status, ServingStatus::Serving as i32);
    served.signal(Signal::TERM);
    let ended = async {
        while let Ok(Some(told)) = told.message().await {
            if told.status == ServingStatus::NotServing as i32 {
                return true;
            }
        }
        false
    };
    assert!(tokio::time::timeout(PATIENCE, ended).await.unwrap(), "the watch did not say that it stops");
}

#[test]
fn a_log_begins_with_what_wrote_it() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rotacast"));
    command.args(["version", "-o", "json"]).env_clear();
    let built: serde_json::Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("rotacast.toml"), "cluster = \"test\"\n[log]\nformat = \"json\"\n").unwrap();
    // It has no key and ends at once. The log says first what is starting, then why it ends.
    let output = Command::new(env!("CARGO_BIN_EXE_rotacast"))
        .args(["serve", "--config", "rotacast.toml"])
        .env_clear()
        .current_dir(folder.path())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    let first: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(first["message"], "rotacast starts");
    for (logged, field) in [
        ("version", "version"),
        ("commit", "commit"),
        ("rustc", "rustc"),
        ("platform", "target"),
        ("profile", "profile"),
    ] {
        assert_eq!(first[logged], built[field], "{field}");
    }
}

#[test]
fn silent_connections_leave_file_descriptors_and_the_way_in_to_others() {
    let mut served = Served::start_with(Some(96), "");
    served.told(|text| text.starts_with("READY=1"));
    let silent = served.silent(150);
    for _ in 0..5 {
        assert_eq!(served.get("/livez").0, 200, "while the connections are open");
    }
    let line = served.logged(
        "silent connections are closed to make room: a cap on connections is reached, of [listen] or of the limit on open \
         files",
    );
    assert_eq!((&line["open_files"], &line["max"]), (&96.into(), &32.into()), "{line}");
    assert!(served.open_files() <= 96 - 32, "{}", served.open_files());
    served.signal(Signal::TERM);
    assert!(served.process.wait().unwrap().success());
    drop(silent);
}

#[test]
fn a_broadcaster_without_file_descriptors_says_so_and_goes_on() {
    let idle = {
        let served = Served::start();
        served.told(|text| text.starts_with("READY=1"));
        served.open_files()
    };
    // Fewer than the connections that are always allowed.
    let mut served = Served::start_with(Some(idle + 4), "");
    served.told(|text| text.starts_with("READY=1"));
    let silent = served.silent(50);
    let line = served.logged(
        "cannot accept a connection; trying again. If file descriptors are short, raise the limit on open files (nofile), \
         such as with LimitNOFILE= in the systemd unit",
    );
    assert!(line["problem"].as_str().unwrap().contains("open files"), "{line}");
    assert_eq!(served.get("/livez").0, 200, "while the connections are open");
    drop(silent);
}

/// Runs a command that asks the broadcaster; `token` is a file.
fn ask(served: &Served, arguments: &[&str], token: Option<&Path>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rotacast"));
    command.env_clear().current_dir(served.folder.path()).env("ROTACAST_SERVER", format!("http://{}", served.address));
    if let Some(file) = token {
        command.env("ROTACAST_TOKEN_FILE", file);
    }
    command.args(arguments).output().unwrap()
}

#[test]
fn where_reading_needs_a_token_the_command_line_shows_it_and_the_support_bundle_is_whole() {
    let token = Token::generate();
    let readers = format!(
        "[operators.support]\ntokens = [\"{}\"]\nroles = [\"viewer\"]\n[roles.viewer]\nsecrets = [\"*\"]\n",
        token.digest()
    );
    let served = Served::start_with(None, &readers);
    served.told(|text| text.starts_with("READY=1"));
    let file = served.folder.path().join("support.token");
    token.create_file(&file).unwrap();
    for arguments in [["status"].as_slice(), &["instances"], &["doctor"], &["watch"]] {
        let refused = ask(&served, arguments, None);
        let told = String::from_utf8(refused.stderr).unwrap();
        assert!(told.contains("reading needs a token here") && told.contains("--token-file"), "{arguments:?}: {told}");
        assert_eq!(refused.status.code(), Some(1), "{arguments:?}");
    }
    assert!(ask(&served, &["status"], Some(&file)).status.success());
    let missing = |token| {
        let out = served.folder.path().join("bundle.json");
        let made = ask(&served, &["support-bundle", "--out", "bundle.json"], token);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let bundle: serde_json::Value = serde_json::from_slice(&std::fs::read(&out).unwrap()).unwrap();
        std::fs::remove_file(out).unwrap();
        let parts = bundle.as_object().unwrap().iter().filter(|(_, part)| part.get("missing").is_some());
        parts.map(|(name, _)| name.clone()).collect::<BTreeSet<_>>()
    };
    // Without --audit the bundle has no audit log. The health report is open to any client.
    assert_eq!(missing(Some(&file)), ["audit".to_owned()].into());
    assert_eq!(missing(None), ["audit", "doctor", "instances", "metrics", "status"].map(str::to_owned).into());
}
