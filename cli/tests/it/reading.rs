//! The commands that show something: `status`, `why`, `instances`, `doctor`.

use rotacast_proto::v1;
use rotacast_protocol::coordinator::{Overlay, Standing};
use rotacast_protocol::status::{FindingCounts, FindingStatus, SecretStatus, Severity};
use rotacast_protocol::{Outcome, SecretName, Version, WallTime};
use serde_json::json;

use super::scripted_broadcaster::{CUT_OFF, Rig, SECRET, draining, instance, over, v};

#[tokio::test]
async fn status_shows_every_secret_on_a_line() {
    let rig = Rig::start().await;
    let empty = rig.run(&["status"]).await.exits(0);
    assert!(empty.out.contains("cluster prod · leading, epoch 7 · store etcd 3.6.14"), "{}", empty.out);
    assert!(empty.out.contains("rotacast put"), "{}", empty.out);
    rig.set(draining());
    rig.set(SecretStatus {
        current: Some(v(3)),
        overlays: vec![Overlay::SafeMode],
        ..SecretStatus::new("a".parse().unwrap())
    });
    let ran = rig.run(&["status"]).await.exits(0);
    let lines: Vec<&str> = ran.out.lines().skip(2).collect();
    assert_eq!(
        lines,
        [
            "SECRET       CURRENT  ROTATION   PHASE            SINCE          PROGRESS         WAITS FOR",
            "a            3        -          idle, safe mode  -              -                -",
            "payments/db  2        1 → 2 (4)  draining         3 h 5 min ago  2 of 3 released  \
             payments-api/pod-1#0a0a0a0a (members released)",
        ]
    );
    assert!(!ran.out.contains('\x1b'), "no colours into a pipe: {:?}", ran.out);
}

#[tokio::test]
async fn status_counts_the_findings_that_stand() {
    let rig = Rig::start().await;
    rig.set(draining());
    assert!(!rig.run(&["status"]).await.exits(0).out.contains("findings"));
    *rig.fake.standing.lock().unwrap() = FindingCounts { errors: 1, warnings: 2 };
    let ran = rig.run(&["status"]).await.exits(0);
    assert_eq!(
        ran.out.lines().nth(1),
        Some("findings: 1 error, 2 warnings: `rotacast doctor` names them"),
        "{}",
        ran.out
    );
    let ran = rig.run(&["status", "-o", "json"]).await.exits(0);
    let status: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(status["findings"], json!({ "errors": 1, "warnings": 2 }));
}

#[tokio::test]
async fn status_of_one_secret_tells_all_of_it() {
    let rig = Rig::start().await;
    rig.set(draining());
    let ran = rig.run(&["status", SECRET]).await.exits(0);
    for part in [
        "payments/db · current 2 · provider postgres main",
        "versions · 2 current · 1 previous, sealed",
        "rotation 4 · 1 → 2 · draining since ",
        "SERVICE       MEMBERS  SEEN  PREPARED  SWITCHED  RELEASED  OUT OF REACH",
        "payments-api  3        3     3         3         2         0",
        "instances to release the version  payments-api/pod-1#0a0a0a0a  2 h 30 min ago  still holds version 1",
        "retire guard of version 1 · 1 of 2 conditions hold; not yet: members released",
        "1 d 3 h ago  2         first version 1  retired  12 s  -",
    ] {
        assert!(ran.out.contains(part), "{part:?} is not in:\n{}", ran.out);
    }
    assert!(ran.out.lines().count() <= 24, "fits a screen:\n{}", ran.out);
}

#[tokio::test]
async fn yaml_says_what_json_says() {
    let rig = Rig::start().await;
    rig.set(draining());
    for arguments in [vec!["status"], vec!["status", SECRET], vec!["instances"], vec!["why", SECRET]] {
        let json = rig.run(&[&["-o", "json"], arguments.as_slice()].concat()).await.exits(0).json();
        let yaml = rig.run(&[&["-o", "yaml"], arguments.as_slice()].concat()).await.exits(0).out;
        assert!(!yaml.starts_with('{'), "{yaml}");
        let parsed: serde_json::Value = serde_saphyr::from_str(&yaml).unwrap();
        assert_eq!(parsed, json, "{yaml}");
    }
    // Control characters of a terminal are escaped, and the output is YAML all the same.
    let hostile = SecretStatus { provider: "a\u{202e}\x1b[2J: #\n- b".into(), ..draining() };
    rig.set(hostile);
    let yaml = rig.run(&["-o", "yaml", "status"]).await.exits(0).out;
    assert!(!yaml.contains(['\x1b', '\u{202e}']), "{yaml:?}");
    let parsed: serde_json::Value = serde_saphyr::from_str(&yaml).unwrap();
    assert_eq!(parsed["secrets"][0]["provider"], "a\u{202e}\x1b[2J: #\n- b");
    let refused = rig.run(&["-o", "yaml", "why", "no/such"]).await.exits(5).err;
    let parsed: serde_json::Value = serde_saphyr::from_str(&refused).unwrap();
    assert_eq!(parsed["error"]["kind"], "not_found");
}

#[tokio::test]
async fn wide_tables_leave_nothing_out() {
    let rig = Rig::start().await;
    rig.set(draining());
    let ran = rig.run(&["-o", "wide", "status"]).await.exits(0);
    assert!(ran.out.contains("MEMBERS  REVISION  VERSIONS"), "{}", ran.out);
    assert!(ran.out.contains("1 previous, 2 current  postgres main"), "{}", ran.out);
    *rig.fake.instances.lock().unwrap() = vec![instance("payments-api", "pod-1", 10, Standing::Live)];
    let ran = rig.run(&["-o", "wide", "instances"]).await.exits(0);
    assert!(ran.out.contains(&"0a".repeat(16)), "{}", ran.out);
}

#[tokio::test]
async fn status_as_json_has_words_for_numbers_and_null_for_none() {
    let rig = Rig::start().await;
    rig.set(draining());
    let status = rig.run(&["-o", "json", "status"]).await.exits(0).json();
    assert_eq!(status["epoch"], 7);
    let secret = &status["secrets"][0];
    assert_eq!(
        secret["versions"][0],
        json!({"version": 1, "label": "previous", "sealed": true, "seen_at": "2026-11-23T00:00:00Z"})
    );
    assert_eq!(secret["rotation"]["phase"], "draining");
    assert_eq!(secret["rotation"]["rollback_reason"], json!(null));
    assert_eq!(secret["history"][0]["old"], json!(null));
    assert_eq!(secret["history"][0]["took_ms"], 12_000);
    assert_eq!(secret["blockers"][0]["who"], "payments-api/pod-1#0a0a0a0a");
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let rig = Rig::start().await;
    for arguments in [["status", "nope"], ["why", "nope"], ["watch", "nope"]] {
        let ran = rig.run(&arguments).await.exits(5);
        assert_eq!(ran.err, "error: secret nope: not found\n  fix: did you mean payments/db?\n");
        assert!(ran.out.is_empty(), "{}", ran.out);
    }
    let ran = rig.run(&["-o", "json", "status", "nope"]).await.exits(5);
    let error: serde_json::Value = serde_json::from_str(&ran.err).unwrap();
    let expected = json!({"kind": "not_found", "exit_code": 5, "problem": "secret nope: not found", "fix": "did you mean payments/db?"});
    assert_eq!(error["error"], expected);
}

#[tokio::test]
async fn why_names_each_blocker_its_reason_since_when_and_what_next() {
    let rig = Rig::start().await;
    rig.set(draining());
    let ran = rig.run(&["why", SECRET]).await.exits(0);
    for part in [
        "payments/db: rotation 4 (1 → 2, asked for by ada) is draining since ",
        " UTC (3 h 5 min ago).\nIt waits for one thing:\n",
        "1. payments-api/pod-1#0a0a0a0a: still holds version 1.\n",
        "   Waiting for: instances to release the version (members_released).\n",
        " UTC (2 h 30 min ago).\n   Next: the instance releases the version when its last use ends.\n",
        &format!("   Command: {CUT_OFF}\n"),
    ] {
        assert!(ran.out.contains(part), "{part:?} is not in:\n{}", ran.out);
    }
    let why = rig.run(&["-o", "json", "why", SECRET]).await.exits(0).json();
    assert_eq!(why["waiting"], true);
    assert_eq!(why["blockers"][0]["next"], "the instance releases the version when its last use ends");
    assert_eq!(why["blockers"][0]["command"], CUT_OFF);
}

#[tokio::test]
async fn why_tells_the_last_outcome_when_nothing_waits() {
    let rig = Rig::start().await;
    rig.set(over(Outcome::RolledBack, "version 2 does not log in"));
    let ran = rig.run(&["why", SECRET]).await.exits(0);
    assert!(
        ran.out.starts_with("payments/db: no rotation is in flight; version 1 is current.\nNothing waits.\n"),
        "{}",
        ran.out
    );
    let last =
        "Last: rotation 4: 1 → 2 rolled back after 12 s, version 2 is rejected: version 2 does not log in, ended ";
    assert!(ran.out.contains(last), "{}", ran.out);
    let why = rig.run(&["-o", "json", "why", SECRET]).await.exits(0).json();
    assert_eq!((&why["waiting"], &why["last"]["outcome"]), (&json!(false), &json!("rolled_back")));
}

#[tokio::test]
async fn why_tells_the_findings_about_the_secret() {
    let rig = Rig::start().await;
    let finding = FindingStatus {
        level: Severity::Error,
        subject: "gap payments/db".into(),
        text: "version 4 is in the store and is not taken in".into(),
        fix: "write version 3".into(),
        since: WallTime(1_795_392_000_000),
    };
    rig.set(SecretStatus { findings: vec![finding], ..over(Outcome::Retired, "") });
    let ran = rig.run(&["why", SECRET]).await.exits(0);
    let lines: Vec<&str> = ran.out.lines().collect();
    assert_eq!(lines[1], "Error: version 4 is in the store and is not taken in.");
    assert!(lines[2].starts_with("   Since: "), "{}", ran.out);
    assert_eq!(lines[3..5], ["   Fix: write version 3.", "Nothing else waits."]);
    let why = rig.run(&["-o", "json", "why", SECRET]).await.exits(0).json();
    assert_eq!(
        (&why["findings"][0]["level"], &why["findings"][0]["fix"]),
        (&json!("error"), &json!("write version 3"))
    );
}

#[tokio::test]
async fn what_instances_say_cannot_drive_the_terminal() {
    let rig = Rig::start().await;
    let mut status = draining();
    status.blockers[0].why = "prepare refused of version 2: \x1b]0;owned\x07\n1. fake \u{202e}evil".into();
    rig.set(status);
    for arguments in [["why", SECRET], ["status", SECRET]] {
        let ran = rig.run(&arguments).await.exits(0);
        assert!(ran.out.contains("\\u{1b}]0;owned\\u{7}\\n1. fake \\u{202e}evil"), "{}", ran.out);
        assert!(!ran.out.contains(['\x1b', '\x07', '\u{202e}']), "{:?}", ran.out);
    }
    let ran = rig.run(&["-o", "json", "why", SECRET]).await.exits(0);
    assert!(!ran.out.contains(['\x1b', '\x07', '\u{202e}']), "{:?}", ran.out);
    assert!(ran.json()["blockers"][0]["why"].as_str().unwrap().contains('\u{202e}'), "JSON says the same text");
}

#[tokio::test]
async fn instances_are_listed_and_can_be_narrowed() {
    let rig = Rig::start().await;
    let mut silent = instance("ledger", "l-1", 0xbb, Standing::Silent);
    silent.silent_for_ms = None;
    silent.lease_left_ms = 0;
    silent.last_failure = Some("prepare_refused of version 2: pool is full".into());
    *rig.fake.instances.lock().unwrap() = vec![instance("payments-api", "pod-1", 0x0a, Standing::Live), silent];
    let ran = rig.run(&["instances", SECRET, "--not-on", "2"]).await.exits(0);
    let lines: Vec<&str> = ran.out.lines().collect();
    assert_eq!(
        lines,
        [
            "INSTANCE                     SECRET       VERSION  STAGE     HOLDS  STANDING  HEARD    LEASES END IN  LAST FAILURE",
            "payments-api/pod-1#0a0a0a0a  payments/db  2        switched  1 2    live      3 s ago  27 s           -",
            "ledger/l-1#bbbbbbbb          payments/db  2        switched  1 2    silent    not yet  over           \
             prepare_refused of version 2: pool is full",
        ]
    );
    assert_eq!(*rig.fake.asked_not_on.lock().unwrap(), Version::new(2).ok());
    let json = rig.run(&["instances", "-o", "json"]).await.exits(0).json();
    assert_eq!(json["instances"][0]["incarnation"], "0a".repeat(16));
    assert_eq!(json["instances"][1]["silent_for_ms"], json!(null));
    assert_eq!(*rig.fake.asked_not_on.lock().unwrap(), None);
    rig.fake.instances.lock().unwrap().clear();
    let ran = rig.run(&["instances", SECRET, "--not-on", "2"]).await.exits(0);
    assert_eq!(ran.out, "no instance uses payments/db\n", "no instance is not every instance");
}

#[tokio::test]
async fn the_doctor_fails_on_errors_only() {
    let rig = Rig::start().await;
    let finding = |level: &str, fix: &str| v1::Finding {
        level: level.into(),
        subject: "store".into(),
        text: "etcd 3.5.1 has a known corruption bug".into(),
        fix: fix.into(),
    };
    *rig.fake.findings.lock().unwrap() = vec![finding("warning", "upgrade to 3.5.33")];
    let ran = rig.run(&["doctor"]).await.exits(0);
    assert!(ran.out.contains("ok       operator's key (here)  operator ada, key "), "{}", ran.out);
    assert!(ran.out.ends_with("fix for store: upgrade to 3.5.33\n2 ok, 1 warning, 0 errors\n"), "{}", ran.out);
    *rig.fake.findings.lock().unwrap() = vec![finding("error", "")];
    let ran = rig.run(&["doctor", "-o", "json"]).await.exits(1);
    assert_eq!(
        ran.json()["findings"][1],
        json!({"level": "error", "subject": "store", "text": "etcd 3.5.1 has a known corruption bug", "fix": null})
    );
    assert!(ran.err.contains("the doctor found 1 error"), "{}", ran.err);
}

#[tokio::test]
async fn a_reader_that_has_had_enough_is_no_failure() {
    let rig = Rig::start().await;
    for number in 0..2000 {
        rig.fake.secrets.send_modify(|all| {
            let secret: SecretName = format!("secret-{number}").parse().unwrap();
            all.insert(secret.clone(), SecretStatus { secret, ..draining() });
        });
    }
    let mut child = rig.spawn(&["status", "-o", "json"]);
    drop(child.stdout.take());
    let ran = super::scripted_broadcaster::ended(child).await.exits(0);
    assert!(ran.err.is_empty(), "{}", ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_schedule_plans_is_shown_and_what_is_overdue_too() {
    let rig = Rig::start().await;
    let now = rotacast_clock::wall().0;
    // A little more than a day, so that it still is one when the command shows it.
    for (due, expected) in
        [(now + 25 * 3_600_000 + 30_000, "(in 1 d 1 h)"), (now - 60_000, "has been due by its schedule since")]
    {
        rig.set(SecretStatus { next_rotation_at: Some(WallTime(due)), ..over(Outcome::Retired, "") });
        let ran = rig.run(&["status", SECRET]).await.exits(0);
        let line = ran.out.lines().find(|line| line.starts_with("rotation · none in flight; ")).unwrap_or_default();
        assert!(line.contains(expected), "expected {expected:?}, found {}", ran.out);
        let told = rig.run(&["status", SECRET, "-o", "json"]).await.exits(0).json();
        let at = told["secrets"][0]["next_rotation_at"].as_str().expect("a moment").to_owned();
        assert_eq!(at, WallTime(due).to_string());
    }
    rig.set(over(Outcome::Retired, ""));
    let told = rig.run(&["status", SECRET, "-o", "json"]).await.exits(0).json();
    assert!(told["secrets"][0]["next_rotation_at"].is_null(), "{told}");
}
