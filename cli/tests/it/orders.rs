//! Orders of operators: signed, with the operator's name, and refused with the reason.

use rotacast_broadcaster::api::Refusal;
use rotacast_proto::SigningKey;
use rotacast_protocol::coordinator::Standing;
use rotacast_protocol::status::InstanceStatus;
use serde_json::json;

use super::scripted_broadcaster::{Order, Rig, SECRET, draining, instance};

fn order(action: &'static str, reason: &str) -> Order {
    Order {
        operator: "ada".into(),
        action,
        secret: SECRET.into(),
        reason: reason.into(),
        value: Vec::new(),
        instances: Vec::new(),
        sessions: false,
        version: 0,
    }
}

#[tokio::test]
async fn every_order_arrives_as_it_was_given() {
    let rig = Rig::start().await;
    for (arguments, action, reason) in [
        (vec!["approve", SECRET], "approve", ""),
        (vec!["pause", SECRET, "--reason", "deploy freeze"], "pause", "deploy freeze"),
        (vec!["resume", SECRET], "resume", ""),
        (vec!["rollback", SECRET, "--reason", "logins fail"], "rollback", "logins fail"),
        (vec!["leave-safe-mode", SECRET, "--reason", "checked"], "leave_safe_mode", "checked"),
        (vec!["rotate", SECRET], "rotate", ""),
    ] {
        let ran = rig.run(&arguments).await.exits(0);
        assert!(ran.out.starts_with("payments/db: "), "{}", ran.out);
        assert_eq!(rig.orders().pop(), Some(order(action, reason)));
        let json = rig.run(&[&arguments[..], &["-o", "json"]].concat()).await.exits(0).json();
        assert_eq!((&json["secret"], &json["command"]), (&json!(SECRET), &json!(action)));
    }
    let json = rig.run(&["rotate", SECRET, "-o", "json"]).await.exits(0).json();
    assert_eq!(json, json!({"secret": SECRET, "command": "rotate", "version": 2, "number": 4}));
}

#[tokio::test]
async fn a_value_arrives_byte_for_byte_and_is_never_shown() {
    let rig = Rig::start().await;
    let value = b"canary-value \xff\x00\n";
    let ran = rig.run_with(&["put", SECRET], value).await.exits(0);
    assert_eq!(ran.out, "payments/db: version 2 written, 16 bytes\n");
    assert!(ran.err.contains("ends with a line break"), "{}", ran.err);
    assert_eq!(rig.orders().pop().unwrap().value, value);
    std::fs::write(rig.folder.path().join("value"), "canary-file").unwrap();
    let ran = rig.run(&["put", SECRET, "--file", "value", "-o", "json"]).await.exits(0);
    assert!(ran.err.is_empty() && !ran.out.contains("canary"), "{}{}", ran.out, ran.err);
    assert_eq!(rig.orders().pop().unwrap().value, b"canary-file");
    // A value in an argument, an empty one and one that is too large are all refused.
    rig.run(&["put", SECRET, "canary"]).await.exits(2);
    let empty = rig.run(&["put", SECRET]).await.exits(2);
    assert!(empty.err.contains("standard input holds nothing"), "{}", empty.err);
    let large = rig.run_with(&["put", SECRET], &vec![b'x'; 255 * 1024 + 1]).await.exits(2);
    assert!(large.err.contains("holds more than 261120 bytes"), "{}", large.err);
    assert_eq!(rig.orders().len(), 2);
    rig.run_with(&["put", SECRET], &vec![b'x'; 255 * 1024]).await.exits(0);
}

#[tokio::test]
async fn a_value_is_not_sent_where_others_can_read_along() {
    let rig = Rig::start().await;
    // The address is loopback, but its name does not say so.
    let port = rig.address.rsplit(':').next().unwrap();
    let server = format!("http://0.0.0.0:{port}");
    let ran = rig.run_with(&["put", SECRET, "--server", &server], b"canary").await.exits(2);
    assert!(ran.err.contains("a value is not sent over plain HTTP"), "{}", ran.err);
    assert!(rig.orders().is_empty());
}

#[tokio::test]
async fn refusals_come_with_their_fix_and_exit_code() {
    let rig = Rig::start().await;
    for (refusal, exit, problem, fix) in [
        (
            Refusal::Conflict { problem: "no rotation in flight".into(), fix: "start one".into() },
            1,
            "no rotation in flight",
            "start one",
        ),
        (
            Refusal::NotLeader { problem: "b-2 leads".into() },
            3,
            "does not lead: b-2 leads",
            "the broadcaster that leads",
        ),
        (
            Refusal::Unavailable { problem: "etcd is gone".into(), fix: "look again".into() },
            3,
            "etcd is gone",
            "look again",
        ),
        (Refusal::NotFound { what: "secret x".into(), fix: "put it".into() }, 5, "secret x: not found", "put it"),
    ] {
        let kind = refusal.kind();
        for json in [false, true] {
            *rig.fake.refusal.lock().unwrap() = Some(refusal.clone());
            let format = if json { "json" } else { "table" };
            let ran = rig.run(&["resume", SECRET, "-o", format]).await.exits(exit);
            assert!(ran.out.is_empty(), "{}", ran.out);
            assert!(ran.err.contains(problem) && ran.err.contains(fix), "{}", ran.err);
            assert!(!json || ran.err.contains(&format!("\"kind\":\"{kind}\"")), "{}", ran.err);
        }
    }
}

#[tokio::test]
async fn orders_need_the_right_key_name_and_cluster() {
    let rig = Rig::start().await;
    let ran = rig.run(&["resume", SECRET, "--operator", "eve"]).await.exits(1);
    assert!(ran.err.contains("in the name of operator \"eve\""), "{}", ran.err);
    SigningKey::generate().create_file(rig.folder.path().join("other.key")).unwrap();
    let ran = rig.run(&["resume", SECRET, "--operator-key", "other.key"]).await.exits(1);
    assert!(ran.err.contains("[operators]"), "{}", ran.err);
    let ran = rig.run(&["resume", SECRET, "--cluster", "staging"]).await.exits(1);
    assert!(ran.err.contains("staging"), "{}", ran.err);
    let ran = rig.run(&["resume", SECRET, "--operator-key", "missing.key"]).await.exits(2);
    assert!(ran.err.contains("missing.key"), "{}", ran.err);
    let mut bare = rig.command(&["resume", SECRET]);
    bare.env_remove("ROTACAST_OPERATOR_KEY");
    let ran = super::scripted_broadcaster::run(bare, b"").await.exits(2);
    assert!(ran.err.contains("no operator's key"), "{}", ran.err);
    assert!(rig.orders().is_empty());
}

#[tokio::test]
async fn the_key_that_dev_made_is_found() {
    let rig = Rig::start().await;
    let keys = rig.folder.path().join("rotacast-data/keys");
    std::fs::create_dir_all(&keys).unwrap();
    std::fs::copy(rig.folder.path().join("ada.key"), keys.join("operator.key")).unwrap();
    let mut command = rig.command(&["resume", SECRET]);
    command.env_remove("ROTACAST_OPERATOR_KEY").env_remove("ROTACAST_OPERATOR");
    let ran = super::scripted_broadcaster::run(command, b"").await.exits(1);
    // `dev` calls the key's owner `operator`. This server calls the owner `ada`.
    assert!(ran.err.contains("in the name of operator \"operator\""), "{}", ran.err);
}

fn several_lives(rig: &Rig) {
    *rig.fake.instances.lock().unwrap() = vec![
        instance("api", "pod-1", 0x0a, Standing::Live),
        instance("api", "pod-1", 0x0b, Standing::Silent),
        instance("api", "pod-1", 0x0c, Standing::Left),
        instance("api", "pod-2", 0x0d, Standing::Live),
    ];
}

fn lives(order: &Order) -> Vec<String> {
    order.instances.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn an_override_names_the_incarnations_it_cuts_off() {
    let rig = Rig::start().await;
    several_lives(&rig);
    rig.set(draining());
    let base = ["retire", SECRET, "--version", "1", "--override", "--reason", "pod-1 hangs"];
    let with = |more: &[&'static str]| [&base[..], more].concat();
    rig.run(&with(&["--instance", "api/pod-1", "--yes"])).await.exits(0);
    let given = rig.orders().pop().unwrap();
    assert_eq!((given.action, given.version, given.sessions), ("override", 1, false));
    assert_eq!(given.reason, "pod-1 hangs");
    assert_eq!(lives(&given), ["api/pod-1#0a0a0a0a", "api/pod-1#0b0b0b0b"], "every incarnation but the one that left");
    rig.run(&with(&["--instance", "api/pod-1/0b0b0b0b", "--sessions", "--yes"])).await.exits(0);
    let given = rig.orders().pop().unwrap();
    assert_eq!((lives(&given), given.sessions), (vec!["api/pod-1#0b0b0b0b".to_owned()], true));

    let taken = rig.orders().len();
    let ran = rig.run(&with(&["--instance", "api/pod-9", "--yes"])).await.exits(5);
    assert!(ran.err.contains("instance api/pod-9: not found"), "{}", ran.err);
    let ran = rig.run(&with(&["--yes"])).await.exits(2);
    assert!(ran.err.contains("held up by payments-api/pod-1#0a0a0a0a"), "{}", ran.err);
    let ran = rig.run(&with(&["--sessions"])).await.exits(2);
    assert!(ran.err.contains("standard input is no terminal"), "{}", ran.err);
    let unmeant: Vec<&str> = with(&["--sessions", "--yes"]).into_iter().filter(|it| *it != "--override").collect();
    rig.run(&unmeant).await.exits(2);
    assert_eq!(rig.orders().len(), taken);
}

#[tokio::test]
async fn an_excuse_is_for_one_incarnation() {
    let rig = Rig::start().await;
    several_lives(&rig);
    rig.run(&["excuse", SECRET, "api/pod-2"]).await.exits(0);
    assert_eq!(lives(&rig.orders().pop().unwrap()), ["api/pod-2#0d0d0d0d"]);
    let ran = rig.run(&["excuse", SECRET, "api/pod-1"]).await.exits(2);
    assert!(ran.err.contains("is 2 incarnations"), "{}", ran.err);
    rig.run(&["excuse", SECRET, "api/pod-1#0b0b0b0b"]).await.exits(0);
    assert_eq!(lives(&rig.orders().pop().unwrap()), ["api/pod-1#0b0b0b0b"]);
    rig.fake.instances.lock().unwrap().clear();
    rig.run(&["excuse", SECRET, "api/pod-1"]).await.exits(5);
}

#[tokio::test]
async fn an_incarnation_that_runs_is_never_said_to_be_gone() {
    let rig = Rig::start().await;
    *rig.fake.instances.lock().unwrap() = vec![
        instance("api", "pod-1", 0x0a, Standing::Silent),
        instance("api", "pod-1", 0x0b, Standing::Live),
        instance("api", "pod-2", 0x0d, Standing::Live),
    ];
    let with = |more: &[&'static str]| [&["gone", "--reason", "its node burnt down"], more].concat();
    let ran = rig.run(&with(&["api/pod-1", "--yes"])).await.exits(0);
    assert!(ran.err.contains("api/pod-1#0a0a0a0a · payments/db · held version 1, 2 · heard 3 s ago"), "{}", ran.err);
    assert!(ran.err.contains("Not meant, since it runs: api/pod-1#0b0b0b0b"), "{}", ran.err);
    let orders = rig.orders();
    assert_eq!(orders.len(), 1, "the replacement is left alone");
    assert_eq!((orders[0].action, orders[0].reason.as_str()), ("gone", "its node burnt down"));
    assert_eq!(lives(&orders[0]), ["api/pod-1#0a0a0a0a"]);
    for live in ["api/pod-2", "api/pod-1/0b0b0b0b"] {
        let ran = rig.run(&with(&[live, "--yes"])).await.exits(1);
        assert!(ran.err.contains("so it runs"), "{}", ran.err);
    }
    let ran = rig.run(&with(&["api/pod-1"])).await.exits(2);
    assert!(ran.err.contains("standard input is no terminal"), "{}", ran.err);
    assert_eq!(rig.orders().len(), 1);
}

#[tokio::test]
async fn an_incarnation_that_is_heard_for_one_secret_runs_for_all() {
    let rig = Rig::start().await;
    let silent = instance("api", "pod-1", 0x0a, Standing::Silent);
    let live =
        InstanceStatus { secret: "payments/idle".parse().unwrap(), ..instance("api", "pod-1", 0x0a, Standing::Live) };
    *rig.fake.instances.lock().unwrap() = vec![silent, live];
    let ran = rig.run(&["gone", "api/pod-1", "--reason", "its node burnt down", "--yes"]).await.exits(1);
    assert!(ran.err.contains("so it runs"), "{}", ran.err);
    assert!(rig.orders().is_empty());
}

#[tokio::test]
async fn one_refusal_does_not_keep_an_incarnation_for_the_other_secrets() {
    let rig = Rig::start().await;
    let of = |secret: &str| InstanceStatus {
        secret: secret.parse().unwrap(),
        ..instance("api", "pod-1", 0x0a, Standing::Silent)
    };
    *rig.fake.instances.lock().unwrap() = vec![of("payments/a"), of("payments/b"), of("payments/c")];
    *rig.fake.refusal.lock().unwrap() =
        Some(Refusal::Conflict { problem: "heard meanwhile".into(), fix: String::new() });
    let ran = rig.run(&["gone", "api/pod-1", "--reason", "its node burnt down", "--yes"]).await.exits(1);
    assert!(ran.err.contains("1 of 3 orders were not taken"), "{}", ran.err);
    assert!(ran.err.contains("payments/a: ") && ran.err.contains("heard meanwhile"), "{}", ran.err);
    let told: Vec<_> = rig.orders().into_iter().map(|it| it.secret).collect();
    assert_eq!(told, ["payments/b", "payments/c"]);
}

#[tokio::test]
async fn a_secret_that_hangs_is_named_and_keeps_an_incarnation_for_no_other() {
    let rig = Rig::start().await;
    *rig.fake.instances.lock().unwrap() = vec![instance("api", "pod-1", 0x0a, Standing::Silent)];
    *rig.fake.unanswered.lock().unwrap() = vec!["billing/db".parse().unwrap()];
    let ran = rig.run(&["gone", "api/pod-1", "--reason", "its node burnt down", "--yes"]).await.exits(1);
    assert!(ran.err.contains("Not meant, since billing/db does not answer"), "{}", ran.err);
    assert!(ran.err.contains("taken for every secret that answers; 1 did not: billing/db"), "{}", ran.err);
    assert_eq!(rig.orders().len(), 1);
    let ran = rig.run(&["instances"]).await.exits(0);
    assert!(ran.err.contains("Not listed: the instances of billing/db"), "{}", ran.err);
    let ran = rig.run(&["instances", "--output", "json"]).await.exits(0);
    assert!(ran.out.contains("billing/db"), "{}", ran.out);
}

#[tokio::test]
async fn a_pasted_command_needs_its_reason() {
    let rig = Rig::start().await;
    for command in [&["gone", "api/pod-1", "--yes"][..], &["abandon", SECRET, "2"]] {
        let ran = rig.run(&[command, &["--reason", "WHY"]].concat()).await.exits(2);
        assert!(ran.err.contains("the reason is still WHY"), "{}", ran.err);
    }
    assert!(rig.orders().is_empty());
}

#[tokio::test]
async fn a_version_is_given_up_with_a_reason() {
    let rig = Rig::start().await;
    rig.run(&["abandon", SECRET, "2"]).await.exits(2);
    rig.run(&["abandon", SECRET, "0", "--reason", "no login"]).await.exits(2);
    let ran = rig.run(&["abandon", SECRET, "2", "--reason", "no login"]).await.exits(0);
    assert!(ran.out.contains("version 2 is given up") && ran.out.contains("end it there"), "{}", ran.out);
    let given = rig.orders().pop().unwrap();
    assert_eq!((given.action, given.version, given.reason.as_str()), ("abandon", 2, "no login"));
}
