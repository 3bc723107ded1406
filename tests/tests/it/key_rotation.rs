//! The keys of Rotacast itself are replaced while services use the credential: not one use fails, and a key that is revoked counts
//! no more.

use std::path::Path;
use std::time::Duration;

use rotacast_proto::{SigningKey, SigningKeys, VerifyingKey, v1};
use rotacast_tests::programs;
use rotacast_tests::servers::until;
use rotacast_tests::world::{Action, Commands, LIMIT, OPERATOR, Options, SECRET, Service, World};
use rustix::process::Signal;
use serde_json::Value;

/// Runs a command that must work; its JSON.
async fn json(commands: &Commands, arguments: &[&str]) -> Value {
    let ran = commands.run(&[arguments, &["-o", "json"]].concat()).await;
    assert!(ran.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
    serde_json::from_slice(&ran.stdout).unwrap()
}

/// Runs a command that must be refused; its text.
async fn refused(commands: &Commands, arguments: &[&str]) -> String {
    let ran = commands.run(arguments).await;
    assert!(!ran.status.success(), "{arguments:?} was not refused");
    String::from_utf8_lossy(&ran.stderr).into_owned()
}

/// Adds a signing key to a key file; the ids of the one in use and of the new one.
async fn new_key(commands: &Commands, file: &str) -> (String, String) {
    let keys = json(commands, &["keys", "new", "--for", "signing", "--file", file]).await;
    let signing: Vec<&Value> = keys.as_array().unwrap().iter().filter(|key| key["use"] == "signing").collect();
    let id = |key: &Value| key["key_id"].as_str().unwrap().to_owned();
    (id(signing[0]), id(signing.last().unwrap()))
}

/// Waits until a key is shown as it should be.
async fn until_shown(commands: &Commands, key: &str, what: &str, fits: impl Fn(&Value) -> bool) {
    until(&format!("key {key}: {what}"), LIMIT, async || {
        let ran = commands.run(&["keys", "status", "-o", "json"]).await;
        let shown: Value = serde_json::from_slice(&ran.stdout).ok()?;
        let found = shown["keys"].as_array()?.iter().find(|found| found["key_id"] == key)?.clone();
        fits(&found).then_some(())
    })
    .await;
}

fn public(file: &Path) -> Vec<VerifyingKey> {
    let keys = SigningKeys::read_file(file).unwrap_or_else(|error| panic!("{error}"));
    keys.iter().map(|key| key.public().clone()).collect()
}

fn edit(world: &World, old: &str, new: &str) {
    let text = std::fs::read_to_string(world.broadcaster.config()).unwrap();
    assert!(text.contains(old), "{old}: {text}");
    std::fs::write(world.broadcaster.config(), text.replace(old, new)).unwrap();
}

async fn reload(world: &mut World) {
    let lines = |world: &World| world.broadcaster.log().matches("the configuration was read again").count();
    let before = lines(world);
    world.broadcaster.signal(Signal::HUP);
    until("the configuration to be read", LIMIT, async || (lines(world) > before).then_some(())).await;
}

async fn restart(world: &mut World) {
    world.broadcaster.stop().await;
    let operator = world.operator.at(0);
    world.broadcaster.start(&operator).await;
}

/// Waits until an entry of the audit log has all of these.
async fn until_on_record(world: &World, parts: &[&str]) {
    until(&format!("{parts:?} in the audit log"), LIMIT, async || {
        let text = std::fs::read_to_string(world.audit_file()).ok()?;
        text.lines().any(|line| parts.iter().all(|part| line.contains(part))).then_some(())
    })
    .await;
}

/// A newcomer whose attestation is by this key: it gets no credential.
async fn newcomer_is_refused(world: &World, key: &SigningKey) {
    let (builder, bus) = world.subscriber("payments-api", "thief");
    let thief = builder.identity(key.clone()).start_timeout(Duration::from_secs(3)).connect(&bus).await.unwrap();
    assert!(thief.secret(SECRET).await.is_err(), "a newcomer got a credential with a key that does not count");
}

async fn none_failed(services: &mut [Service]) {
    for service in services {
        let status = service.status().unwrap();
        assert_eq!(status.queries_failed, 0, "{}: {status:?}", service.name());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_key_of_rotacast_is_replaced_without_one_failed_use_and_a_revoked_key_counts_no_more() {
    let Some(mut world) = World::start(programs!(), Options::default()).await else { return };
    let operator = world.operator.at(0);
    world.broadcaster.start(&operator).await;
    world.first_version().await;
    let mut services = vec![
        world.service("ledger", "one", &[]),
        world.service_without_store("payments-api", "one", &[]),
        world.service_over_grpc("mailer", "one"),
    ];
    for service in &mut services {
        service.uses(1).await;
    }
    let commands = world.commands();
    let keys = world.folder().join("keys");

    // 1. The broadcaster's signing key. No instance knows the new one: it is not used.
    let file = "keys/broadcaster.key";
    let (old, new) = new_key(&commands, file).await;
    let told = refused(&commands, &["keys", "use", "--file", file, &new]).await;
    assert!(told.contains("the leader does not know key"), "{told}");
    refused(&commands, &["keys", "drop", "--file", file, &old]).await;
    // Announced, signed by the old one, all of them trust it.
    restart(&mut world).await;
    until_shown(&commands, &new, "announced to all", |key| {
        key["standing"] == "announced" && key["by_announcement"].as_array().is_some_and(|all| all.len() == 3)
    })
    .await;
    // By their settings too: the file is read again while they run.
    let lines: Vec<String> = public(&keys.join("broadcaster.key")).iter().map(VerifyingKey::to_text).collect();
    std::fs::write(keys.join("broadcaster.pub"), lines.join("\n")).unwrap();
    until_shown(&commands, &new, "trusted by all", |key| {
        key["instances"] == 3 && key["by_announcement"].as_array().is_some_and(Vec::is_empty)
    })
    .await;
    json(&commands, &["keys", "use", "--file", file, &new]).await;
    restart(&mut world).await;
    until_shown(&commands, &new, "in use", |key| key["standing"] == "in_use" && key["instances"] == 3).await;
    assert_eq!(world.rotate().await.outcome, "retired");
    std::fs::write(keys.join("broadcaster.pub"), &lines[1]).unwrap();
    json(&commands, &["keys", "drop", "--file", file, &old]).await;
    restart(&mut world).await;
    until_shown(&commands, &new, "the only one", |key| key["instances"] == 3).await;
    assert_eq!(world.rotate().await.outcome, "retired");
    none_failed(&mut services).await;

    // 2. A service's key. Instances that run go on under a former key, and no newcomer comes in with it.
    let file = "keys/payments-api.key";
    let stolen = SigningKey::read_file(keys.join("payments-api.key")).unwrap_or_else(|error| panic!("{error}"));
    let (old, new) = new_key(&commands, file).await;
    let told = refused(&commands, &["keys", "use", "--file", file, &new]).await;
    assert!(told.contains("the leader does not know key"), "{told}");
    let texts: Vec<String> = public(&keys.join("payments-api.key")).iter().map(VerifyingKey::to_text).collect();
    let (only_old, only_new) = (format!("keys = [\"{}\"]", texts[0]), format!("keys = [\"{}\"]", texts[1]));
    edit(&world, &only_old, &format!("{only_new}\nformer_keys = [\"{}\"]", texts[0]));
    reload(&mut world).await;
    until_on_record(&world, &["\"keys_changed\"", &old, &new, "\"former\""]).await;
    until_shown(&commands, &old, "former, and in use", |key| key["standing"] == "former" && key["instances"] == 1)
        .await;
    newcomer_is_refused(&world, &stolen).await;
    until_on_record(&world, &["\"key_refused\"", &old, "\"former\"", "payments-api/thief/"]).await;
    assert_eq!(world.rotate().await.outcome, "retired");
    // The same incarnation is attested by the new key, and the old one is revoked.
    json(&commands, &["keys", "use", "--file", file, &new]).await;
    until_shown(&commands, &new, "attests the instance", |key| key["instances"] == 1).await;
    edit(&world, "former_keys = [", "revoked_keys = [");
    reload(&mut world).await;
    newcomer_is_refused(&world, &stolen).await;
    until_on_record(&world, &["\"key_refused\"", &old, "\"revoked\"", "payments-api/thief/"]).await;
    until_shown(&commands, &old, "revoked, and attests none", |key| {
        key["standing"] == "revoked" && key["instances"] == 0
    })
    .await;
    assert_eq!(world.rotate().await.outcome, "retired");
    none_failed(&mut services).await;

    // 3. An operator's key: both sign meanwhile; the old one is refused from the reload on.
    let file = format!("keys/{OPERATOR}.key");
    let (old, new) = new_key(&commands, &file).await;
    let texts: Vec<String> = public(&world.folder().join(&file)).iter().map(VerifyingKey::to_text).collect();
    let (old_text, new_text) = (&texts[0], &texts[1]);
    edit(&world, &format!("keys = [\"{old_text}\"]"), &format!("keys = [\"{old_text}\", \"{new_text}\"]"));
    reload(&mut world).await;
    json(&commands, &["keys", "use", "--file", &file, &new]).await;
    json(&commands, &["pause", SECRET, "--reason", "signed with the new key"]).await;
    world.operator.order(Action::Resume(v1::Resume {})).await.unwrap();
    edit(&world, &format!("keys = [\"{old_text}\", \"{new_text}\"]"), &format!("keys = [\"{new_text}\"]"));
    reload(&mut world).await;
    assert!(world.operator.order(Action::Pause(v1::Pause {})).await.is_err(), "its key was taken away");
    until_on_record(&world, &["\"keys_changed\"", "\"removed\"", &old]).await;
    until_on_record(&world, &["\"sign_in_failed\""]).await;
    json(&commands, &["pause", SECRET, "--reason", "the new key still signs"]).await;

    none_failed(&mut services).await;
    for service in &mut services {
        let status = service.stop().await;
        assert_eq!(status.queries_failed, 0, "{status:?}");
    }
    world.broadcaster.stop().await;
    let trail = world.audit();
    assert!(trail.count("keys_changed") >= 4, "{}", trail.count("keys_changed"));
}
