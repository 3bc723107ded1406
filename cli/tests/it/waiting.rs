//! Commands that wait and watch.

use rotacast_protocol::record::Label;
use rotacast_protocol::status::SecretStatus;
use rotacast_protocol::{Generation, Outcome, Revision};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::scripted_broadcaster::{Rig, SECRET, draining, ended, finished, over, secret, v, version};

/// Waits until a command has shown the rotation in flight, so that the next change is new to it.
async fn told(err: &mut (impl tokio::io::AsyncBufRead + Unpin)) {
    let mut line = String::new();
    err.read_line(&mut line).await.unwrap();
    assert_eq!(
        line,
        "payments/db  rotation 4: 1 → 2  draining  2 of 3 released  waits for payments-api/pod-1#0a0a0a0a (members released)\n"
    );
}

/// Runs a wait that begins with a rotation in flight, which then ends.
async fn wait_for_end(arguments: &[&str], end: SecretStatus) -> super::scripted_broadcaster::Ran {
    let rig = Rig::start().await;
    rig.set(draining());
    let mut child = rig.spawn(arguments);
    let mut err = BufReader::new(child.stderr.take().unwrap());
    if arguments.contains(&"json") {
        rig.set(end);
    } else {
        told(&mut err).await;
        rig.set(end);
    }
    let mut ran = ended(child).await;
    tokio::io::AsyncReadExt::read_to_string(&mut err, &mut ran.err).await.unwrap();
    ran
}

const RETIRED: &str = "payments/db: rotation 4: 1 → 2 done after 12 s, version 1 is retired\n";
const ROLLED_BACK: &str =
    "error: payments/db: rotation 4: 1 → 2 rolled back after 12 s, version 2 is rejected: logins fail\n";

#[tokio::test]
async fn rotate_waits_for_its_own_rotation() {
    let ran =
        wait_for_end(&["rotate", SECRET, "--wait", "--timeout", "100s"], over(Outcome::Retired, "")).await.exits(0);
    assert_eq!(ran.out, format!("payments/db: rotation 4 to version 2 started\n{RETIRED}"));
    let ran = wait_for_end(&["rotate", SECRET, "--wait"], over(Outcome::RolledBack, "logins fail")).await.exits(6);
    assert_eq!(ran.err, ROLLED_BACK);
    let ran = wait_for_end(&["rotate", SECRET, "--wait", "-o", "json"], over(Outcome::RolledBack, "logins fail"))
        .await
        .exits(6);
    assert_eq!(ran.json()["rotation"]["outcome"], "rolled_back");
    assert_eq!(ran.json()["number"], 4);
    let ran = wait_for_end(&["rotate", SECRET, "--wait"], over(Outcome::Superseded, "")).await.exits(1);
    assert!(ran.err.contains("superseded"), "{}", ran.err);
}

#[tokio::test]
async fn put_waits_for_a_secret_that_is_not_known_yet() {
    let rig = Rig::start().await;
    rig.fake.reply.lock().unwrap().version = rotacast_protocol::Version::new(1).ok();
    let child = {
        let mut command = rig.command(&["put", SECRET, "--wait", "--timeout", "100s"]);
        let mut child = command.spawn().unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut child.stdin.take().unwrap(), b"x").await.unwrap();
        child
    };
    let first = SecretStatus {
        generation: Generation(1),
        current: Some(v(1)),
        versions: vec![version(1, Label::Current, false)],
        history: vec![finished(1, Outcome::Retired, None, 1, "")],
        ..SecretStatus::new(secret())
    };
    rig.set(first);
    let ran = ended(child).await.exits(0);
    assert_eq!(
        ran.out,
        "payments/db: version 1 written, 1 byte\npayments/db: rotation 1: first version 1 is current after 12 s\n"
    );
}

#[tokio::test]
async fn wait_reaches_misses_or_rolls_back() {
    let ran = wait_for_end(&["wait", SECRET, "--for", "retired"], over(Outcome::Retired, "")).await.exits(0);
    assert_eq!(ran.out, RETIRED);
    let ran =
        wait_for_end(&["wait", SECRET, "--for", "retired"], over(Outcome::RolledBack, "logins fail")).await.exits(6);
    assert_eq!(ran.err, ROLLED_BACK);
    wait_for_end(&["wait", SECRET, "--for", "rolled_back"], over(Outcome::RolledBack, "")).await.exits(0);
    let ran = wait_for_end(&["wait", SECRET, "--for", "rolled_back"], over(Outcome::Retired, "")).await.exits(1);
    assert!(ran.err.contains("rotation 4 ended retired"), "{}", ran.err);
    let ran = wait_for_end(&["wait", SECRET, "--for", "idle"], over(Outcome::RolledBack, "")).await.exits(0);
    assert_eq!(ran.out, "payments/db: idle\n");
    let ran =
        wait_for_end(&["wait", SECRET, "--for", "retired", "-o", "json"], over(Outcome::RolledBack, "")).await.exits(6);
    assert_eq!((&ran.json()["for"], &ran.json()["reached"]), (&json!("retired"), &json!(false)));
}

#[tokio::test]
async fn wait_judges_what_is_there_already() {
    let rig = Rig::start().await;
    rig.set(over(Outcome::Retired, ""));
    for (goal, exit) in [
        ("retired", 0),
        ("rolled_back", 1),
        ("idle", 0),
        ("current=2", 0),
        ("current=1", 1),
        ("current=x", 2),
        ("gone", 2),
    ] {
        rig.run(&["wait", SECRET, "--for", goal, "--timeout", "100s"]).await.exits(exit);
    }
    rig.run(&["wait", SECRET, "--for", "retired", "--rotation", "2"]).await.exits(0);
    rig.run(&["wait", SECRET, "--for", "retired", "--rotation", "1"]).await.exits(1);
    rig.run(&["wait", SECRET, "--for", "idle", "--rotation", "2"]).await.exits(2);
    rig.run(&["wait", "nope", "--for", "idle"]).await.exits(5);
    rig.set(over(Outcome::RolledBack, ""));
    rig.run(&["wait", SECRET, "--for", "current=2"]).await.exits(6);
}

#[tokio::test]
async fn a_wait_whose_time_runs_out_says_so() {
    let rig = Rig::start().await;
    rig.set(draining());
    let ran = rig.run(&["wait", SECRET, "--for", "idle", "--timeout", "300ms"]).await.exits(4);
    assert!(ran.err.contains("waited for payments/db longer than 300 ms"), "{}", ran.err);
    assert!(ran.err.contains("rotacast why payments/db"), "{}", ran.err);
}

#[tokio::test]
async fn a_wait_outlives_the_broadcaster() {
    let mut rig = Rig::start().await;
    rig.set(draining());
    let mut child = rig.spawn(&["wait", SECRET, "--for", "retired"]);
    let mut err = BufReader::new(child.stderr.take().unwrap());
    told(&mut err).await;
    rig.crash();
    let mut line = String::new();
    err.read_line(&mut line).await.unwrap();
    assert_eq!(line, "connection lost; trying again\n");
    rig.set(over(Outcome::Retired, ""));
    rig.serve().await;
    assert_eq!(ended(child).await.exits(0).out, RETIRED);
}

#[tokio::test]
async fn watch_tells_each_change_once() {
    let rig = Rig::start().await;
    rig.set(draining());
    let mut child = rig.spawn(&["watch", SECRET]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = lines.next_line().await.unwrap().unwrap();
    assert!(first.contains(" UTC  payments/db  rotation 4: 1 → 2  draining  2 of 3 released"), "{first}");
    // A change that is not shown, then one that is older than the last, then a new one.
    let mut same = draining();
    same.revision = Revision(same.revision.0 + 1);
    same.blockers[0].why = "still holds version 1, a second later".into();
    rig.set(same);
    rig.set(over(Outcome::Retired, ""));
    let last = lines.next_line().await.unwrap().unwrap();
    assert!(last.ends_with("payments/db  idle  current 2  last: rotation 4 retired"), "{last}");
    child.kill().await.unwrap();
}

#[tokio::test]
async fn watch_as_json_is_one_status_a_line() {
    let rig = Rig::start().await;
    rig.set(draining());
    let mut child = rig.spawn(&["watch", "-o", "json"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first: serde_json::Value = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
    assert_eq!(first["rotation"]["phase"], "draining");
    rig.set(over(Outcome::Retired, ""));
    let next: serde_json::Value = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
    assert_eq!(next["history"][0]["outcome"], "retired");
    child.kill().await.unwrap();
}
