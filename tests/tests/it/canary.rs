//! Values that are easy to recognise, and all the places where they must not be.

mod at_rest;
mod web;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use futures::StreamExt as _;
use rotacast_tests::collector::Collector;
use rotacast_tests::programs;
use rotacast_tests::world::{CLUSTER, Database, Options, PREFIX, SECRET, World};
use tokio::io::AsyncWriteExt as _;

/// A secret without a provider that no service uses.
const OPAQUE: &str = "apps/token";
/// With characters that every encoding writes differently.
const OPAQUE_VALUE: &str = "ROTACAST-canary/opaque+Zq8%7\"\u{fc}&=end";
const MALFORMED: &str = "ROTACAST-canary-malformed-Qx31";
const WRONG: &str = "ROTACAST-canary-wrong-password-Hj77";
/// Shortest part of an encoded value that is searched for: shorter parts occur by chance.
const SHORTEST: usize = 12;

/// A value, and its forms in the encodings that a careless line of code would use.
struct Canary {
    name: &'static str,
    needles: Vec<String>,
}

impl Canary {
    fn new(name: &'static str, value: &str) -> Self {
        let bytes = value.as_bytes();
        let mut texts = vec![value.to_owned(), format!("{value:?}"), serde_json::Value::from(value).to_string()];
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        texts.extend([hex.to_uppercase(), hex]);
        for upper in [true, false] {
            let mut url = String::new();
            for byte in bytes {
                match byte {
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => url.push(char::from(*byte)),
                    _ if upper => write!(url, "%{byte:02X}").expect("into a String"),
                    _ => write!(url, "%{byte:02x}").expect("into a String"),
                }
            }
            texts.push(url);
        }
        // As `{:?}` prints bytes.
        texts.push(bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(", "));
        // In a longer text, base64 may begin at any of three offsets, and the edges depend on the neighbouring bytes.
        for offset in 0..3 {
            let mut padded = vec![0; offset];
            padded.extend_from_slice(bytes);
            for engine in [&STANDARD, &URL_SAFE] {
                let text = engine.encode(&padded);
                let text = text.trim_end_matches('=');
                texts.push(text[4.min(text.len())..text.len() - 2].to_owned());
            }
        }
        let mut needles: Vec<String> = texts.iter().map(|text| text.trim_matches('"').to_owned()).collect();
        needles.sort();
        needles.dedup();
        assert!(needles.iter().all(|needle| needle.len() >= SHORTEST), "{name} is too short to be recognised");
        Self { name, needles }
    }

    fn is_in(&self, haystack: &[u8]) -> bool {
        let text = String::from_utf8_lossy(haystack);
        self.needles.iter().any(|needle| text.contains(needle.as_str()))
    }
}

/// The places that were searched, and what was found there.
#[derive(Default)]
struct Hunt {
    canaries: Vec<Canary>,
    looked: Vec<String>,
    found: Vec<String>,
}

impl Hunt {
    fn look(&mut self, place: impl Into<String>, bytes: &[u8]) {
        let place = place.into();
        for canary in self.canaries.iter().filter(|canary| canary.is_in(bytes)) {
            self.found.push(format!("{} in {place}", canary.name));
        }
        self.looked.push(format!("{place} ({} bytes)", bytes.len()));
    }

    /// Every file in a folder and in the folders below it.
    fn look_into(&mut self, folder: &Path, skip: &[&str]) {
        let mut folders = vec![PathBuf::from(folder)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).expect("the folder is there") {
                let path = entry.expect("the folder can be listed").path();
                if skip.iter().any(|name| path.ends_with(name)) {
                    continue;
                }
                if path.is_dir() {
                    folders.push(path);
                } else if path.is_file() {
                    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                    self.look(path.display().to_string(), &bytes);
                }
            }
        }
    }
}

#[test]
fn a_canary_is_recognised_in_every_disguise() {
    let canary = Canary::new("opaque", OPAQUE_VALUE);
    let bytes = OPAQUE_VALUE.as_bytes();
    let around = |text: String| format!("{{\"x\":\"{text}\"}}");
    let mut disguises = vec![
        around(OPAQUE_VALUE.to_owned()),
        around(serde_json::Value::from(OPAQUE_VALUE).to_string()),
        around(format!("{OPAQUE_VALUE:?}")),
        around(format!("{bytes:?}")),
        around(bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
        around(bytes.iter().map(|byte| format!("{byte:02X}")).collect()),
    ];
    for before in ["", "a", "ab", "abc", "{\"password\":\""] {
        for engine in [&STANDARD, &URL_SAFE] {
            disguises.push(engine.encode(format!("{before}{OPAQUE_VALUE}\"}} and more")));
        }
    }
    for disguise in disguises {
        assert!(canary.is_in(disguise.as_bytes()), "not recognised: {disguise}");
    }
    assert!(!canary.is_in(b"ROTACAST-canary/opaq"));
}

/// Turns on every log target of the broadcaster's own crates.
fn log_everything(world: &World) {
    let file = world.broadcaster.config();
    let text = std::fs::read_to_string(file).expect("it was written at the start");
    let (before, after) = (
        "info,rotacast=debug",
        "info,rotacast=trace,rotacast_bus=trace,rotacast_store=trace,\
         rotacast_provider=trace,rotacast_proto=trace,rotacast_protocol=trace",
    );
    assert!(text.contains(before), "{text}");
    std::fs::write(file, text.replace(before, after)).expect("the folder is ours");
}

async fn put(world: &World, value: &str) {
    let file = world.folder().join("value-to-put");
    std::fs::write(&file, value).expect("the folder is ours");
    let output = world.cli(&["put", OPAQUE, "--file", &file.display().to_string()]).await;
    std::fs::remove_file(&file).expect("it was just written");
    assert!(output.status.success(), "{output:?}");
}

/// The password of a version, as it is in etcd under the seal.
async fn password(world: &World, version: u64) -> String {
    let value: serde_json::Value =
        serde_json::from_str(&world.value(version).await).expect("a credential as it is stored");
    value["password"].as_str().expect("a credential has a password").to_owned()
}

async fn rejected(world: &World, version: u64) {
    let ended = world.ended(version).await;
    println!("version {version}: {}: {}", ended.outcome, ended.reason);
    assert_eq!(ended.outcome, "rolled_back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s57_no_value_is_anywhere_but_in_the_store() {
    let collector = Collector::start().await;
    let options = Options::default().leader_ttl("10s").collector(collector.url()).json_logs();
    let Some(mut world) = World::start(programs!(), options).await else { return };
    log_everything(&world);
    let client = async_nats::connect(world.bus.nats().url()).await.expect("NATS runs");
    let mut wire = client.subscribe(">").await.expect("NATS lets every client listen");
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let listening = tokio::spawn(async move {
        let mut messages = Vec::new();
        loop {
            let message = tokio::select! {
                message = wire.next() => message.expect("the subscription lasts"),
                _ = &mut stopped => return messages,
            };
            let mut bytes = format!("{} {:?} ", message.subject, message.headers).into_bytes();
            bytes.extend_from_slice(&message.payload);
            messages.push((message.subject.to_string(), bytes));
        }
    });

    world.broadcaster.start(&world.operator).await;
    world.first_version().await;
    put(&world, OPAQUE_VALUE).await;
    let streams = web::Streams::listen(&world);
    let mut one = world.service("payments-api", "one", &[]);
    let mut ledger = world.service_without_store("ledger", "one", &[]);
    one.uses(1).await;
    ledger.uses(1).await;

    // Rotacast makes this version: its password is read from the store while the rotation is held up.
    let hidden = world.session(1).await;
    let order = world.cli(&["rotate", SECRET, "-o", "json"]).await;
    assert!(order.status.success(), "{order:?}");
    one.uses(2).await;
    ledger.uses(2).await;
    let managed = password(&world, 2).await;
    assert!(managed.len() >= SHORTEST, "a password of {} characters", managed.len());

    let canaries = vec![
        Canary::new("the opaque value", OPAQUE_VALUE),
        Canary::new("the password that Rotacast made", &managed),
        Canary::new("the malformed value", MALFORMED),
        Canary::new("the wrong password", WRONG),
    ];
    let mut hunt = Hunt { canaries, ..Hunt::default() };
    hunt.look("the answer to rotate", &order.stdout);
    // The output for people and for programs, in the middle of the rotation.
    web::orders(&world, &mut hunt).await;
    shown(&world, &mut hunt, "while it drains").await;
    web::pages(&world, &mut hunt, "while it drains").await;
    web::resume(&world).await;
    drop(hidden);
    assert_eq!(world.ended(2).await.outcome, "retired");

    // Values that cause errors: no JSON, not the expected fields, a password that is refused.
    world.store.put(3, &format!("{{\"engine\": \"postgres\", \"password\": \"{MALFORMED}\", ")).await;
    rejected(&world, 3).await;
    world
        .store
        .put(4, &format!("{{\"engine\": \"postgres\", \"{MALFORMED}\": \"{MALFORMED}\", \"port\": \"{MALFORMED}\"}}"))
        .await;
    rejected(&world, 4).await;
    world.database.make_login(5).await;
    let value = world.database.value(&Database::login_by_hand(5), WRONG);
    world.store.put(5, &value).await;
    rejected(&world, 5).await;
    // A later put to the opaque secret, which takes other paths than the first.
    put(&world, &format!("{OPAQUE_VALUE}{OPAQUE_VALUE}")).await;

    shown(&world, &mut hunt, "at the end").await;
    web::pages(&world, &mut hunt, "at the end").await;
    web::bundle(&world, &mut hunt).await;
    refused_puts(&world, &mut hunt).await;

    // What this test has written into etcd by hand may still be there, as it is.
    for (key, value) in world.store.all().await {
        let by_hand = [3, 4, 5].iter().any(|number| key == format!("{PREFIX}/versions/{SECRET}/{number}"));
        if !by_hand {
            hunt.look(format!("etcd key {key}"), &value);
        }
    }

    for service in [&mut one, &mut ledger] {
        let last = service.stop().await;
        assert_eq!(last.queries_failed, 0, "{last:?}");
    }
    world.broadcaster.stop().await;
    streams.end(&mut hunt).await;
    let _ = stop.send(());
    let messages = listening.await.expect("listening does not panic");
    assert!(messages.iter().any(|(subject, _)| subject.contains(&format!("rotacast.{CLUSTER}.state."))));
    assert!(messages.iter().any(|(subject, _)| subject.contains(&format!("rotacast.{CLUSTER}.report."))));
    let carried = messages.len();
    for (subject, bytes) in messages {
        hunt.look(format!("NATS message {subject}"), &bytes);
    }
    // What the broadcaster and the services sent to the collector of traces, including refusals and their reasons.
    let senders: std::collections::BTreeSet<String> = collector.spans().into_iter().map(|span| span.service).collect();
    assert_eq!(senders, ["ledger", "payments-api", "rotacast"].map(str::to_owned).into());
    assert!(collector.spans().iter().any(|span| span.error.is_some()), "no span tells of an error");
    let bodies = collector.raw();
    // Neither compressed nor split: a word that belongs there is found.
    let known = |body: &Vec<u8>| String::from_utf8_lossy(body).contains("payments-api");
    assert!(bodies.iter().any(known), "the search is blind for what spans say");
    for (number, body) in bodies.into_iter().enumerate() {
        hunt.look(format!("OTLP request {number}"), &body);
    }
    assert!(world.broadcaster.log().starts_with('{'), "the log is not JSON");
    // Logs of broadcaster and services, their output, the audit log, the configuration. Keys are not values.
    hunt.look_into(world.folder(), &["keys"]);
    assert!(
        world.broadcaster.log().contains("TRACE") || world.broadcaster.log().contains("DEBUG"),
        "nothing was logged"
    );
    hunt.look_into(&world.bus.nats().scratch().path().join("jetstream"), &[]);
    // The text that PostgreSQL was sent: its log has every statement about roles.
    hunt.look("PostgreSQL's log", &std::fs::read(world.database.scratch().path().join("log")).expect("it logs"));

    let places: Vec<&String> =
        hunt.looked.iter().filter(|place| !place.starts_with("NATS message") && !place.starts_with("OTLP")).collect();
    println!("looked at {carried} NATS messages and at {} other places, such as:", places.len());
    places.iter().for_each(|place| println!("  {place}"));
    assert_eq!(hunt.found, Vec::<String>::new());
}

/// Everything the command line shows, for people and for programs.
async fn shown(world: &World, hunt: &mut Hunt, when: &str) {
    let audit = world.audit_file().display().to_string();
    let commands: [&[&str]; 9] = [
        &["status"],
        &["status", SECRET],
        &["status", OPAQUE],
        &["why", SECRET],
        &["why", OPAQUE],
        &["instances"],
        &["doctor"],
        &["audit", "show", "--file", &audit],
        &["audit", "verify", "--file", &audit],
    ];
    for command in commands {
        for format in ["table", "json"] {
            let arguments: Vec<&str> = command.iter().copied().chain(["-o", format]).collect();
            let output = world.cli(&arguments).await;
            let what = format!("rotacast {} ({when})", arguments.join(" "));
            // The doctor may have findings, which is no failure to answer.
            assert!(output.status.success() || command == ["doctor"], "{what}: {output:?}");
            assert!(!output.stdout.is_empty(), "{what}: {output:?}");
            hunt.look(&what, &output.stdout);
            hunt.look(format!("{what}, errors"), &output.stderr);
        }
    }
    let status = world.operator.status().await.expect("the broadcaster answers");
    hunt.look(format!("the status ({when})"), format!("{status:?}").as_bytes());
}

/// What is said about a value that is refused: one that is too large, and one from a sender without the right.
async fn refused_puts(world: &World, hunt: &mut Hunt) {
    let huge = OPAQUE_VALUE.repeat(600 * 1024 / OPAQUE_VALUE.len());
    let mut child = tokio::process::Command::new(programs!().rotacast)
        .args(["put", OPAQUE])
        .env("ROTACAST_SERVER", world.broadcaster.url())
        .env("ROTACAST_OPERATOR", "nobody")
        .env("ROTACAST_OPERATOR_KEY", world.folder().join("keys/ledger.key"))
        .env("ROTACAST_CLUSTER", CLUSTER)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("it was built");
    let mut input = child.stdin.take().expect("it is a pipe");
    input.write_all(OPAQUE_VALUE.as_bytes()).await.expect("it reads its input");
    drop(input);
    let output = child.wait_with_output().await.expect("it ends");
    assert!(!output.status.success(), "a stranger's put was accepted");
    println!("to a stranger: {}", String::from_utf8_lossy(&output.stderr).trim_end());
    hunt.look("the answer to a stranger's put", &[output.stdout, output.stderr].concat());

    let file = world.folder().join("value-to-put");
    std::fs::write(&file, &huge).expect("the folder is ours");
    let output = world.cli(&["put", OPAQUE, "--file", &file.display().to_string()]).await;
    std::fs::remove_file(&file).expect("it was just written");
    assert!(!output.status.success(), "a huge value was accepted");
    println!("to a huge value: {}", String::from_utf8_lossy(&output.stderr).trim_end());
    hunt.look("the answer to a huge put", &[output.stdout, output.stderr].concat());
}
