//! Wrong tokens at `rotacast serve`, from addresses of this machine.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rotacast_broadcaster::token::Token;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

/// A test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serve(folder: &Path, token: &Token) -> (Ends, SocketAddr) {
    let rotacast = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rotacast"));
        command.env_clear().current_dir(folder);
        command
    };
    assert!(rotacast().args(["keygen", "--out", "broadcaster"]).output().unwrap().status.success());
    let text = format!(
        "cluster = \"test\"\n[listen]\ngrpc = \"127.0.0.1:0\"\n[keys]\nsigning_key = \"broadcaster.key\"\n[log]\nformat = \
         \"json\"\n[operators.ada]\ntokens = [\"{}\"]\nroles = [\"viewer\"]\n[roles.viewer]\nsecrets = [\"*\"]\n",
        token.digest()
    );
    std::fs::write(folder.join("rotacast.toml"), text).unwrap();
    let mut serve = rotacast();
    let mut process = serve.args(["serve", "--config", "rotacast.toml"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(process.stderr.take().unwrap());
    let process = Ends(process);
    let mut line = String::new();
    while log.read_line(&mut line).unwrap() > 0 {
        let said: serde_json::Value = serde_json::from_str(&line).unwrap();
        if said["message"] == "listening" {
            let address = said["address"].as_str().unwrap().parse().unwrap();
            // A full pipe would hold the broadcaster up.
            std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
            return (process, address);
        }
        line.clear();
    }
    panic!("it does not listen");
}

/// The status of a request that shows a token, from this address of the machine.
async fn shows(from: &str, to: SocketAddr, token: &str) -> u16 {
    let asking = async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
        let mut stream = socket.connect(to).await.unwrap();
        let request = format!(
            "GET /api/fleet HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.split(' ').nth(1).unwrap().parse().unwrap()
    };
    tokio::time::timeout(PATIENCE, asking).await.expect("an answer in time")
}

#[tokio::test]
async fn guessing_tokens_is_limited_and_on_record_and_locks_no_one_out() {
    let (folder, token) = (tempfile::tempdir().unwrap(), Token::generate());
    let (_process, address) = serve(folder.path(), &token);
    let mut statuses = Vec::new();
    for _ in 0..15 {
        statuses.push(shows("127.0.0.2", address, Token::generate().text()).await);
    }
    assert_eq!(statuses, [[401; 10].as_slice(), &[429; 5]].concat());
    // What is right is let in, also beside a stranger behind the same address.
    for from in ["127.0.0.2", "127.0.0.3"] {
        assert_eq!(shows(from, address, token.text()).await, 200, "{from}");
    }
    let log = folder.path().join("rotacast-data/audit.jsonl");
    let recorded = async {
        loop {
            let text = std::fs::read_to_string(&log).unwrap();
            if let Some(line) = text.lines().find(|line| line.contains("sign_in_failed")) {
                return serde_json::from_str::<serde_json::Value>(line).unwrap();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let entry = tokio::time::timeout(PATIENCE, recorded).await.expect("an entry in time");
    assert_eq!((&entry["details"]["source"], &entry["actor"]), (&"127.0.0.2".into(), &"broadcaster".into()), "{entry}");
    assert!(entry["details"]["times"].as_u64().unwrap() > 0, "{entry}");
}
