//! `rotacast serve` with servers that answer and refuse it, or are configured wrongly: one line says which setting,
//! what was found and the fix.

use std::path::Path;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rotacast_tests::programs;
use rotacast_tests::servers::{
    Consul, ConsulCertificates, ConsulConfig, Etcd, Kafka, KafkaConfig, Nats, NatsConfig, Process, Scratch,
    make_certificates, until,
};
use rustix::process::Signal;
use tokio::process::Command;

const WRONG: &str = "canary-of-a-wrong-password";

/// For a broadcaster to start or to end. Only a fault takes this long.
const LIMIT: Duration = Duration::from_secs(90);

/// Writes a configuration with these settings, and the files that it names, into a folder.
async fn configure(folder: &Path, settings: &str) {
    let mut keygen = Command::new(programs!().rotacast);
    keygen.args(["keygen", "--out", "broadcaster"]).env_clear().current_dir(folder).kill_on_drop(true);
    assert!(keygen.output().await.unwrap().status.success());
    std::fs::write(folder.join("wrong"), WRONG).unwrap();
    let text = format!(
        "cluster = \"e2e\"\nstart_timeout = \"8s\"\n[listen]\ngrpc = \"127.0.0.1:0\"\n[keys]\nsigning_key = \"broadcaster.key\"\n{settings}"
    );
    std::fs::write(folder.join("rotacast.toml"), text).unwrap();
}

/// Runs `serve` with these settings in a folder until it gives up. Returns its errors.
async fn serve(folder: &Path, settings: &str) -> Vec<String> {
    configure(folder, settings).await;
    let mut serve = Command::new(programs!().rotacast);
    serve.args(["serve", "--config", "rotacast.toml"]).env_clear().current_dir(folder).kill_on_drop(true);
    let output = serve.output().await.unwrap();
    let told = String::from_utf8([output.stderr, output.stdout].concat()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(!told.contains(WRONG), "the password is told: {told}");
    told.lines().filter(|line| line.starts_with("error: ")).map(str::to_owned).collect()
}

async fn tells(settings: &str, setting: &str, fix: &str) {
    let scratch = Scratch::new("refused");
    tells_in(scratch.path(), settings, setting, fix).await;
}

async fn tells_in(folder: &Path, settings: &str, setting: &str, fix: &str) {
    let errors = serve(folder, settings).await;
    println!("{errors:#?}");
    let [error] = &errors[..] else { panic!("expected one error, found {errors:?}") };
    assert!(error.contains(setting), "expected {setting} in: {error}");
    assert!(error.contains(fix), "expected {fix} in: {error}");
}

const CREDENTIALS: &str = "expected credentials that it accepts";
const AUTHORITY: &str = "must hold the authority of the certificate";
/// Lines of Kafka's settings.
const SCRAM: &str = "listener.name.secured.sasl.enabled.mechanisms=SCRAM-SHA-512\n\
    listener.name.secured.scram-sha-512.sasl.jaas.config=\
    org.apache.kafka.common.security.scram.ScramLoginModule required;\n";
/// Before these releases of their series, etcd lacks fixes to leases and watches. Later series have them.
const ETCD_FLOORS: [[u64; 3]; 3] = [[3, 5, 33], [3, 6, 14], [3, 7, 1]];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_with_a_wrong_password() {
    let Some(etcd) = Etcd::start().await else { return };
    for command in [&["user", "add", "root:root-pw"][..], &["user", "grant-role", "root", "root"], &["auth", "enable"]]
    {
        etcd.ctl(command).await;
    }
    let settings = format!(
        "[store]\nkind = \"etcd\"\nendpoints = [\"{}\"]\nuser = \"root\"\npassword_file = \"wrong\"\n",
        etcd.endpoint()
    );
    tells(&settings, "store.password_file", CREDENTIALS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_of_another_authority() {
    let scratch = Scratch::new("refused-tls");
    let folder = scratch.path();
    if !make_certificates(folder, &["server", "stranger"]).await {
        return;
    }
    let started = Etcd::start_with_certificate(&folder.join("server.pem"), &folder.join("server.key")).await;
    let Some(etcd) = started else { return };
    let settings = format!(
        "[store]\nkind = \"etcd\"\nendpoints = [\"{}\"]\n[store.tls]\nca = \"stranger.pem\"\n",
        etcd.https_endpoint().unwrap()
    );
    tells_in(folder, &settings, "store.tls.ca", AUTHORITY).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consul_with_a_wrong_token() {
    let config = ConsulConfig { management_token: Some("6b1f0f3c-5f2b-4d4e-9a51-0c6f1d2e3a4b"), ..Default::default() };
    let Some(consul) = Consul::start_with(config).await else { return };
    let settings = format!("[store]\nkind = \"consul\"\naddress = \"{}\"\ntoken_file = \"wrong\"\n", consul.endpoint());
    tells(&settings, "store.token_file", CREDENTIALS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consul_of_another_authority() {
    let scratch = Scratch::new("refused-tls");
    let folder = scratch.path();
    if !make_certificates(folder, &["server", "stranger"]).await {
        return;
    }
    let certificates = ConsulCertificates {
        authority: folder.join("ca.pem"),
        certificate: folder.join("server.pem"),
        key: folder.join("server.key"),
        ask_clients: false,
    };
    let config = ConsulConfig { tls: Some(certificates), ..Default::default() };
    let Some(consul) = Consul::start_with(config).await else { return };
    let settings = format!(
        "[store]\nkind = \"consul\"\naddress = \"{}\"\n[store.tls]\nca = \"stranger.pem\"\n",
        consul.https_endpoint().unwrap()
    );
    tells_in(folder, &settings, "store.tls.ca", AUTHORITY).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_with_a_wrong_password() {
    let config = NatsConfig { top: "authorization { user: rotacast, password: right }\n", ..NatsConfig::default() };
    let Some(nats) = Nats::start_with(config).await else { return };
    let settings =
        format!("[bus]\nkind = \"nats\"\nurl = \"{}\"\nuser = \"rotacast\"\npassword_file = \"wrong\"\n", nats.url());
    tells(&settings, "bus.password_file", CREDENTIALS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_of_another_authority() {
    let scratch = Scratch::new("refused-tls");
    let folder = scratch.path();
    if !make_certificates(folder, &["server", "stranger"]).await {
        return;
    }
    let path = |name: &str| folder.join(name).display().to_string();
    let top = format!("tls {{ cert_file: {:?}, key_file: {:?} }}\n", path("server.pem"), path("server.key"));
    let Some(nats) = Nats::start_with(NatsConfig { top: &top, ..NatsConfig::default() }).await else { return };
    let settings = format!(
        "[bus]\nkind = \"nats\"\nurl = \"{}\"\n[bus.tls]\nca = \"stranger.pem\"\n",
        nats.url().replacen("nats://", "tls://", 1)
    );
    tells_in(folder, &settings, "bus.tls.ca", AUTHORITY).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_with_a_wrong_password() {
    let config = KafkaConfig {
        secured: Some("SASL_PLAINTEXT"),
        properties: SCRAM,
        scram: &[("rotacast", "right")],
        ..KafkaConfig::default()
    };
    let Some(kafka) = Kafka::start_with(config).await else { return };
    let settings = format!(
        "[bus]\nkind = \"kafka\"\nbrokers = [\"{}\"]\nuser = \"rotacast\"\npassword_file = \"wrong\"\n",
        kafka.secured()
    );
    tells(&settings, "bus.password_file", CREDENTIALS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_of_another_authority() {
    let scratch = Scratch::new("refused-tls");
    let folder = scratch.path();
    if !make_certificates(folder, &["server", "stranger"]).await {
        return;
    }
    // Kafka needs a key and its certificate in one file.
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    std::fs::write(folder.join("keystore.pem"), [read("server.key"), read("server.pem")].concat()).unwrap();
    let properties = format!(
        "listener.name.secured.ssl.keystore.type=PEM\nlistener.name.secured.ssl.keystore.location={}\n{SCRAM}",
        folder.join("keystore.pem").display()
    );
    let config = KafkaConfig {
        secured: Some("SASL_SSL"),
        properties: &properties,
        scram: &[("rotacast", WRONG)],
        ..KafkaConfig::default()
    };
    let Some(kafka) = Kafka::start_with(config).await else { return };
    let settings = format!(
        "[bus]\nkind = \"kafka\"\nbrokers = [\"{}\"]\nuser = \"rotacast\"\npassword_file = \"wrong\"\n\
         [bus.tls]\nca = \"stranger.pem\"\n",
        kafka.secured()
    );
    tells_in(folder, &settings, "bus.tls.ca", AUTHORITY).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_with_a_topic_that_forgets() {
    let Some(kafka) = Kafka::start().await else { return };
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", kafka.broker()).create().unwrap();
    let topic = NewTopic::new("rotacast.e2e.state", 1, TopicReplication::Fixed(1)).set("cleanup.policy", "delete");
    admin.create_topics([&topic], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    let settings = format!("[bus]\nkind = \"kafka\"\nbrokers = [\"{}\"]\n", kafka.broker());
    tells(&settings, "rotacast.e2e.state", "cleanup.policy=compact").await;
}

/// The server's version, as three numbers.
async fn version(etcd: &Etcd) -> [u64; 3] {
    let answer: serde_json::Value =
        serde_json::from_str(&etcd.ctl(&["endpoint", "status", "--write-out=json"]).await).unwrap();
    let text = answer.pointer("/0/Status/version").and_then(serde_json::Value::as_str).unwrap();
    let numbers: Vec<u64> = text.split(['.', '-', '+']).take(3).map(|number| number.parse().unwrap()).collect();
    numbers.try_into().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_below_the_minimum_version_is_reported_once_and_no_other() {
    let Some(etcd) = Etcd::start().await else { return };
    let version = version(&etcd).await;
    let scratch = Scratch::new("etcd-version");
    let folder = scratch.path();
    configure(folder, &format!("[store]\nkind = \"etcd\"\nendpoints = [\"{}\"]\n", etcd.endpoint())).await;
    let mut serve = std::process::Command::new(programs!().rotacast);
    serve.args(["serve", "--config", "rotacast.toml"]).env_clear().current_dir(folder);
    let mut broadcaster = Process::spawn("rotacast", serve, &folder.join("log"), None);
    let told = || std::fs::read_to_string(folder.join("log")).unwrap();
    // Findings come before that.
    until("the broadcaster to listen", LIMIT, async || told().contains("listening").then_some(())).await;
    let ended = broadcaster.stop(Signal::TERM, LIMIT).await;
    let told = told();
    assert!(ended.success(), "{ended}: {told}");
    let about: Vec<&str> = told.lines().filter(|line| line.contains("etcd version")).collect();
    println!("{version:?}: {about:#?}");
    let [line] = about[..] else { panic!("expected one line about the version, found {about:?} in {told}") };
    let number = version.map(|number| number.to_string()).join(".");
    assert!(line.contains(&number), "{line}");
    let floor = ETCD_FLOORS.iter().find(|floor| floor[..2] == version[..2]);
    match floor.filter(|floor| version < **floor) {
        Some(floor) => {
            let floor = floor.map(|number| number.to_string()).join(".");
            assert!(line.contains(" WARN ") && line.contains("leases and watches"), "{line}");
            assert!(line.contains("upgrade to ") && line.contains(&floor), "{line}");
        }
        None => assert!(line.contains(" INFO "), "{line}"),
    }
}
