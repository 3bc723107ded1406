//! One broadcaster on its embedded store and bus, an instance of the SDK, and what a scrape shows.

use std::path::Path;
use std::process::{Command, Output};

use rotacast_proto::SigningKey;
use rotacast_seal::{SealingKey, create_key_file};
use rotacast_subscriber::Subscriber;
use rotacast_tests::http;
use rotacast_tests::servers::{Process, Scratch, free_port, until};
use rotacast_tests::world::{LIMIT, Programs};

pub(crate) const CLUSTER: &str = "metrics";
/// A secret without anything that holds its rotations.
pub(crate) const FREE: &str = "app/token";
/// A secret whose provider's address does not answer.
pub(crate) const GONE: &str = "app/gone";
/// A secret that needs an approval, and has a deadline.
pub(crate) const APPROVED: &str = "app/signing";

pub(crate) struct Rig {
    program: std::path::PathBuf,
    folder: Scratch,
    port: u16,
    process: Process,
}

fn key(folder: &Path, name: &str) -> String {
    let key = SigningKey::generate();
    create_key_file(folder.join(format!("{name}.key")), &key, &SealingKey::generate()).expect("the folder is new");
    std::fs::write(folder.join(format!("{name}.pub")), key.public().to_text()).expect("the folder is new");
    key.public().to_text()
}

impl Rig {
    /// Starts it and waits until it leads.
    pub(crate) async fn start(programs: Programs) -> Self {
        let folder = Scratch::new("metrics");
        let port = free_port();
        let path = folder.path();
        key(path, "broadcaster");
        let (operator, service) = (key(path, "ada"), key(path, "api"));
        let config = format!(
            r#"cluster = "{CLUSTER}"
data_dir = "data"

[listen]
grpc = "127.0.0.1:{port}"

[store]
kind = "embedded"

[bus]
kind = "embedded"

[keys]
signing_key = "broadcaster.key"

[operators.ada]
keys = ["{operator}"]

[services.api]
keys = ["{service}"]
secrets = ["app/*"]

[defaults]
lease_idle = "6s"
lease_rotating = "3s"
self_lease = "1s"
max_use = "300ms"
sync_idle = "1s"
sync_rotating = "500ms"
auth_failure_budget = 1000

[providers.random]
kind = "generate"

[secrets."{FREE}"]
provider = "random"

[providers.gone]
kind = "postgres"
admin = "postgres://nobody@127.0.0.1:1/none"
group_role = "nobody"
database = "none"
host = "127.0.0.1"
port = 1

[secrets."{GONE}"]
provider = "gone"

[secrets."{APPROVED}"]
provider = "random"
approval = true

[secrets."{APPROVED}".deadlines]
preparing = {{ after = "1h", then = "hold" }}
"#
        );
        std::fs::write(path.join("rotacast.toml"), config).expect("the folder is ours");
        let mut command = Command::new(&programs.rotacast);
        command.arg("serve").arg("--config").arg(path.join("rotacast.toml"));
        let process = Process::spawn("broadcaster", command, &path.join("log"), None);
        let mut rig = Self { program: programs.rotacast, folder, port, process };
        let leads = async || rig.scrape().await.filter(|text| value(text, "rotacast_leader") == Some(1.0)).map(drop);
        until("the broadcaster to lead", LIMIT, leads).await;
        assert!(rig.process.ended().is_none());
        rig
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What Prometheus gets; `None` while no process listens.
    async fn scrape(&self) -> Option<String> {
        let (status, text) = http::get(&self.address(), "/metrics").await.ok()?;
        assert_eq!(status, 200, "{text}");
        Some(text)
    }

    pub(crate) async fn metrics(&self) -> String {
        self.scrape().await.expect("the broadcaster listens")
    }

    /// Waits until a series has a matching value.
    pub(crate) async fn until(&self, series: &str, fits: impl Fn(f64) -> bool) -> String {
        let looked = async || {
            let text = self.metrics().await;
            value(&text, series).is_some_and(&fits).then_some(text)
        };
        until(series, LIMIT, looked).await
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(&self.program)
            .args(arguments)
            .env("ROTACAST_SERVER", format!("http://{}", self.address()))
            .env("ROTACAST_OPERATOR", "ada")
            .env("ROTACAST_OPERATOR_KEY", self.folder.path().join("ada.key"))
            .env("ROTACAST_CLUSTER", CLUSTER)
            .current_dir(self.folder.path())
            .output()
            .expect("it was built")
    }

    /// An order that is accepted.
    pub(crate) fn order(&self, arguments: &[&str]) {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }

    /// An order that is refused.
    pub(crate) fn refused(&self, arguments: &[&str]) {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments:?}: {output:?}");
    }

    pub(crate) fn put(&self, secret: &str, value: &str) {
        let file = self.folder.path().join("value");
        std::fs::write(&file, value).expect("the folder is ours");
        self.order(&["put", secret, "--file", "value"]);
    }

    pub(crate) async fn subscriber(&self) -> Subscriber {
        let path = self.folder.path();
        Subscriber::builder()
            .service("api")
            .instance("one")
            .cluster(CLUSTER)
            .identity_file(path.join("api.key"))
            .trust_file(path.join("broadcaster.pub"))
            .connect(&format!("grpc://{}", self.address()))
            .await
            .expect("the broadcaster takes instances")
    }
}

/// One series' value.
pub(crate) fn value(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// A run that uses every metric: rotations that end, one that rolls back, failed logins, one that is stuck, and one
/// that waits for its approval, at which the text was scraped. The subscriber keeps running.
pub(crate) async fn a_life(rig: &Rig) -> (String, Subscriber) {
    rig.put(FREE, "first");
    rig.put(APPROVED, "first");
    rig.until("rotacast_rotations_finished_total{outcome=\"retired\"}", |ended| ended == 2.0).await;
    let subscriber = rig.subscriber().await;
    let free = subscriber.secret(FREE).await.expect("version 1 is current");
    subscriber.secret(APPROVED).await.expect("version 1 is current");
    rig.until("rotacast_instances{standing=\"live\"}", |live| live == 2.0).await;

    rig.order(&["rotate", FREE]);
    rig.until("rotacast_rotations_finished_total{outcome=\"retired\"}", |ended| ended == 3.0).await;
    let (version, same) = {
        let credential = free.current().expect("version 2 is in force");
        (credential.version(), String::from_utf8(credential.expose().to_vec()).expect("a generated value is text"))
    };
    (0..3).for_each(|_| free.report_auth_failure(version));
    rig.until("rotacast_authentication_failures_total{version=\"new\"}", |failed| failed == 3.0).await;

    // The value that is current already: the provider rejects it.
    rig.put(FREE, &same);
    rig.until("rotacast_rotations_finished_total{outcome=\"rolled_back\"}", |ended| ended == 1.0).await;

    rig.order(&["rotate", GONE]);
    rig.until("rotacast_secrets_overlaid{overlay=\"stuck\"}", |stuck| stuck == 1.0).await;

    rig.refused(&["approve", FREE]);
    rig.order(&["rotate", APPROVED]);
    let text = rig.until("rotacast_secrets_overlaid{overlay=\"awaiting_approval\"}", |waiting| waiting == 1.0).await;
    (text, subscriber)
}
