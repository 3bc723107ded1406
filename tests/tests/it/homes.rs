//! What is stored belongs to one cluster: a tree that was moved to another server, another cluster on the same store or
//! bus, two replicas of one name.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rotacast_proto::SecretValue;
use rotacast_store::{Commit, EtcdOptions, EtcdStore, Key, Store as _, Write};
use rotacast_tests::programs;
use rotacast_tests::servers::{Consul, Etcd, Nats, Process, Scratch, free_port, until};
use rustix::process::Signal;
use tokio::process::Command;

/// For a broadcaster to start, to rotate or to end. Only a fault takes this long.
const LIMIT: Duration = Duration::from_secs(90);

/// A folder with keys, and the broadcasters that run in it.
struct Folder {
    scratch: Scratch,
}

impl Folder {
    async fn new() -> Self {
        let folder = Self { scratch: Scratch::new("homes") };
        for key in ["production", "staging", "ada"] {
            folder.run(&["keygen", "--out", key]).await;
        }
        folder
    }

    fn path(&self) -> &Path {
        self.scratch.path()
    }

    /// The output, whether or not the command succeeded.
    async fn run(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(programs!().rotacast);
        command.args(arguments).env_clear().current_dir(self.path()).kill_on_drop(true);
        let output = command.output().await.unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    }

    /// Writes the configuration of a broadcaster that signs with one of the keys.
    fn configure(&self, name: &str, cluster: &str, key: &str, settings: &str) -> Broadcaster<'_> {
        let port = free_port();
        let ada = std::fs::read_to_string(self.path().join("ada.pub")).unwrap();
        let text = format!(
            r#"cluster = "{cluster}"
replica = "{name}"
data_dir = "{name}"
[listen]
grpc = "127.0.0.1:{port}"
[leader]
ttl = "3s"
[keys]
signing_key = "{key}.key"
[operators.ada]
keys = ["{}"]
[defaults]
when_empty = "proceed"
lease_idle = "10s"
lease_rotating = "5s"
self_lease = "2s"
max_use = "1s"
sync_idle = "5s"
sync_rotating = "1s"
{settings}"#,
            ada.trim()
        );
        let config = self.path().join(format!("{name}-{port}.toml"));
        std::fs::write(&config, text).unwrap();
        Broadcaster { folder: self, config, port, log: self.path().join(format!("{name}-{port}.log")) }
    }
}

struct Broadcaster<'f> {
    folder: &'f Folder,
    config: PathBuf,
    port: u16,
    log: PathBuf,
}

impl Broadcaster<'_> {
    fn serve(&self) -> Process {
        let mut serve = std::process::Command::new(programs!().rotacast);
        serve.args(["serve", "--config"]).arg(&self.config).env_clear().current_dir(self.folder.path());
        Process::spawn("broadcaster", serve, &self.log, None)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    async fn ask(&self, arguments: &[&str]) -> String {
        let server = format!("http://127.0.0.1:{}", self.port);
        let signed = ["--server", &server, "--operator", "ada", "--operator-key", "ada.key"];
        self.folder.run(&[arguments, &signed].concat()).await
    }

    async fn leads(&self) {
        until("the broadcaster to lead", LIMIT, async || {
            self.ask(&["status", "-o", "json"]).await.contains("\"leader\": true").then_some(())
        })
        .await;
    }

    /// Waits until this version is current and no rotation is in flight.
    async fn rests_at(&self, secret: &str, version: u64) {
        until("the version to be current", LIMIT, async || {
            let status: serde_json::Value =
                serde_json::from_str(&self.ask(&["status", secret, "-o", "json"]).await).ok()?;
            let status = &status["secrets"][0];
            (status["current"] == version && status["rotation"].is_null()).then_some(())
        })
        .await;
    }

    async fn doctor_names(&self, words: &str) -> String {
        until("doctor to name it", LIMIT, async || {
            let told = self.ask(&["doctor"]).await;
            told.contains(words).then_some(told)
        })
        .await
    }
}

async fn stop(mut process: Process) {
    process.stop(Signal::TERM, LIMIT).await;
}

const PLAIN: &str = "layout = \"plain\"\nsource_prefix = \"secrets\"\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_tree_that_was_exported_and_imported_into_another_consul_is_followed_on() {
    let (Some(before), Some(after)) = (Consul::start().await, Consul::start().await) else { return };
    let folder = Folder::new().await;
    let settings =
        |consul: &Consul| format!("[store]\nkind = \"consul\"\naddress = \"{}\"\n{PLAIN}", consul.endpoint());
    let broadcaster = folder.configure("one", "production", "production", &settings(&before));
    let running = broadcaster.serve();
    for number in 1..=3 {
        before.ctl(&["kv", "put", "secrets/a", &format!("value {number}")]).await;
        broadcaster.rests_at("a", number).await;
    }
    // The indexes of the other server are far lower.
    for number in 0..40 {
        before.ctl(&["kv", "put", "other/key", &number.to_string()]).await;
    }
    before.ctl(&["kv", "put", "secrets/a", "value 4"]).await;
    broadcaster.rests_at("a", 4).await;
    stop(running).await;
    let dump = folder.path().join("dump.json");
    std::fs::write(&dump, before.ctl(&["kv", "export", ""]).await).unwrap();
    after.ctl(&["kv", "import", &format!("@{}", dump.display())]).await;
    after.ctl(&["kv", "delete", "rotacast/leader"]).await;

    let moved = folder.configure("one", "production", "production", &settings(&after));
    let running = moved.serve();
    moved.rests_at("a", 4).await;
    after.ctl(&["kv", "put", "secrets/a", "a new value"]).await;
    moved.rests_at("a", 5).await;
    assert!(moved.log().contains("the plain tree was moved here from another server"), "{}", moved.log());
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_tree_that_was_copied_key_by_key_into_another_etcd_is_followed_on() {
    let (Some(before), Some(after)) = (Etcd::start().await, Etcd::start().await) else { return };
    let folder = Folder::new().await;
    let settings = |etcd: &Etcd| format!("[store]\nkind = \"etcd\"\nendpoints = [\"{}\"]\n{PLAIN}", etcd.endpoint());
    let broadcaster = folder.configure("one", "production", "production", &settings(&before));
    let running = broadcaster.serve();
    for number in 1..=3 {
        for _ in 0..20 {
            before.ctl(&["put", "other/key", "x"]).await;
        }
        before.ctl(&["put", "secrets/a", &format!("value {number}")]).await;
        broadcaster.rests_at("a", number).await;
    }
    stop(running).await;
    copy(&before, &after).await;

    let moved = folder.configure("one", "production", "production", &settings(&after));
    let running = moved.serve();
    moved.rests_at("a", 3).await;
    after.ctl(&["put", "secrets/a", "a new value"]).await;
    moved.rests_at("a", 4).await;
    assert!(moved.log().contains("the plain tree was moved here from another server"), "{}", moved.log());
    stop(running).await;
}

/// Key by key, as bytes: sealed values are no text.
async fn copy(before: &Etcd, after: &Etcd) {
    let dump: serde_json::Value =
        serde_json::from_str(&before.ctl(&["get", "", "--from-key", "--write-out=json"]).await).expect("etcd's JSON");
    let options = EtcdOptions { endpoints: vec![after.endpoint()], ..EtcdOptions::default() };
    let after = EtcdStore::new(options).expect("an address of loopback");
    for pair in dump["kvs"].as_array().expect("there are keys") {
        let bytes = |field: &str| BASE64.decode(pair[field].as_str().expect("Base64")).expect("Base64");
        let key = Key::new(String::from_utf8(bytes("key")).expect("the keys of this test are text"));
        if key.as_str() != "rotacast/leader" {
            let writes = vec![Write::Put(key, SecretValue::new(bytes("value")))];
            after.commit(Commit { checks: Vec::new(), writes }).await.expect("etcd takes it");
        }
    }
}

const SECRET: &str = "[providers.random]\nkind = \"generate\"\n[secrets.\"x/a\"]\nprovider = \"random\"\n";

fn on(etcd: &Etcd, nats: &Nats) -> String {
    let (store, bus) = (etcd.endpoint(), nats.url());
    format!("[store]\nkind = \"etcd\"\nendpoints = [\"{store}\"]\n[bus]\nkind = \"nats\"\nurl = \"{bus}\"\n{SECRET}")
}

/// Both are configured with the former default name: on one bus, and on one store.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_cluster_on_the_bus_or_in_the_store_of_another_is_refused_by_name_and_stops_nothing() {
    let (Some(etcd), Some(its_own), Some(nats)) = (Etcd::start().await, Etcd::start().await, Nats::start().await)
    else {
        return;
    };
    let folder = Folder::new().await;
    let production = folder.configure("prod", "default", "production", &on(&etcd, &nats));
    let running = production.serve();
    production.leads().await;
    production.ask(&["rotate", "x/a", "--wait"]).await;
    production.rests_at("x/a", 1).await;

    let refused = async |staging: &Broadcaster<'_>, expected: &[&str]| {
        let mut process = staging.serve();
        assert!(!process.wait(LIMIT).await.success());
        for expected in expected {
            assert!(staging.log().contains(expected), "{expected} is not in:\n{}", staging.log());
        }
    };
    let staging = folder.configure("stage", "default", "staging", &on(&its_own, &nats));
    refused(&staging, &["another cluster publishes here under the same name, default (id ", "another `cluster`"]).await;
    let staging = folder.configure("stage", "staging", "staging", &on(&etcd, &nats));
    refused(&staging, &["belong to cluster default (id ", "configured as staging: change `cluster` or `store.prefix`"])
        .await;

    production.ask(&["rotate", "x/a", "--wait"]).await;
    production.rests_at("x/a", 2).await;
    let doctor = production.ask(&["doctor"]).await;
    assert!(!doctor.contains("safe mode"), "{doctor}");
    // Under another name both run on one bus. The refused start has left its store as it was.
    let staging = folder.configure("stage", "staging", "staging", &on(&its_own, &nats));
    let second = staging.serve();
    staging.leads().await;
    staging.ask(&["rotate", "x/a", "--wait"]).await;
    staging.rests_at("x/a", 1).await;
    stop(second).await;
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_broadcaster_of_the_same_replica_name_is_named() {
    let (Some(etcd), Some(nats)) = (Etcd::start().await, Nats::start().await) else { return };
    let folder = Folder::new().await;
    let first = folder.configure("same", "production", "production", &on(&etcd, &nats));
    let leading = first.serve();
    first.leads().await;
    let second = folder.configure(
        "same",
        "production",
        "production",
        &on(&etcd, &nats).replace("[store]", "[audit]\nfile = \"second.jsonl\"\n[store]"),
    );
    let following = second.serve();
    let told = second.doctor_names("another broadcaster is also called same, and leads").await;
    assert!(told.contains(&format!("127.0.0.1:{}", first.port)), "where it is: {told}");
    stop(following).await;
    stop(leading).await;
}
