//! Several broadcasters in `--server`: the leader is found, and an order is never given twice.

use std::sync::atomic::Ordering;

use rotacast_broadcaster::api::Refusal;
use rotacast_proto::SigningKey;
use rotacast_protocol::WallTime;
use rotacast_protocol::status::{Leading, SecretStatus};
use tokio::sync::oneshot;

use super::scripted_broadcaster::{Rig, SECRET, draining, ended};

/// So many broadcasters that accept one operator. The first one leads.
async fn some<const COUNT: usize>() -> [Rig; COUNT] {
    let key = SigningKey::generate();
    let mut rigs = Vec::new();
    for at in 0..COUNT {
        let rig = Rig::start_with(key.clone()).await;
        rig.set(draining());
        if at > 0 {
            follow(&rig, &rigs[0]);
        }
        rigs.push(rig);
    }
    rigs.try_into().unwrap_or_else(|_| unreachable!("as many as were started"))
}

fn follow(follower: &Rig, leader: &Rig) {
    let leader = Leading { replica: "b-2".into(), address: Some(format!("http://{}", leader.address)) };
    *follower.fake.follows.lock().unwrap() = Some(leader);
}

/// A port on which no process listens for as long as this lives.
fn unused_port() -> (tokio::net::TcpSocket, String) {
    let taken = tokio::net::TcpSocket::new_v4().unwrap();
    taken.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    (taken, address)
}

#[tokio::test]
async fn the_leader_is_found_wherever_it_stands() {
    let [leader, one, two] = some().await;
    let (_taken, unused) = unused_port();
    let mut given = 0;
    for servers in [
        [&leader.address, &one.address, &two.address],
        [&one.address, &leader.address, &unused],
        [&unused, &two.address, &leader.address],
    ] {
        let joined = servers.map(String::as_str).join(",");
        leader.run(&["pause", SECRET, "--reason", "x", "--server", &joined]).await.exits(0);
        let mut repeated = vec!["resume", SECRET];
        for server in servers {
            repeated.extend(["--server", server]);
        }
        leader.run(&repeated).await.exits(0);
        given += 2;
        assert_eq!((leader.orders().len(), one.orders().len(), two.orders().len()), (given, 0, 0), "{joined}");
        let status = leader.run(&["status", "-o", "json", "--server", &joined]).await.exits(0).json();
        assert_eq!((&status["leader"], &status["replica"]), (&true.into(), &"b-1".into()));
        leader.run(&["why", SECRET, "--server", &joined]).await.exits(0);
    }
}

#[tokio::test]
async fn an_order_goes_on_to_the_broadcaster_that_has_taken_over_meanwhile() {
    let [old, new] = some().await;
    new.fake.took_over.store(true, Ordering::Relaxed);
    *old.fake.refusal.lock().unwrap() = Some(Refusal::NotLeader { problem: "b-2 leads".into() });
    let servers = format!("{},{}", old.address, new.address);
    old.run(&["rotate", SECRET, "--server", &servers]).await.exits(0);
    assert_eq!((old.orders().len(), new.orders().len()), (0, 1));
}

#[tokio::test]
async fn an_order_that_may_have_been_taken_is_not_given_again() {
    let [mut old, new] = some().await;
    new.fake.took_over.store(true, Ordering::Relaxed);
    let servers = format!("{},{}", old.address, new.address);

    let unknown = Refusal::Unavailable { problem: "etcd is gone".into(), fix: "look".into() };
    *old.fake.refusal.lock().unwrap() = Some(unknown);
    let ran = old.run(&["rotate", SECRET, "--server", &servers]).await.exits(3);
    assert!(ran.err.contains("etcd is gone"), "{}", ran.err);

    // It ends after it got the order and before it answers.
    let (told, taken) = oneshot::channel();
    *old.fake.swallowed.lock().unwrap() = Some(told);
    let running = old.spawn(&["rotate", SECRET, "--server", &servers]);
    taken.await.unwrap();
    old.crash();
    let ran = ended(running).await.exits(3);
    assert!(ran.err.contains("the order may have taken effect"), "{}", ran.err);

    // No other refusal is tried elsewhere either.
    old.serve().await;
    *old.fake.refusal.lock().unwrap() = Some(Refusal::Conflict { problem: "not now".into(), fix: String::new() });
    old.run(&["rotate", SECRET, "--server", &servers]).await.exits(1);
    assert!(old.orders().is_empty() && new.orders().is_empty());
}

#[tokio::test]
async fn where_no_broadcaster_leads_an_order_is_refused_as_not_given() {
    let [leader, follower] = some().await;
    follow(&leader, &follower);
    let servers = format!("{},{}", leader.address, follower.address);
    let ran = leader.run(&["rotate", SECRET, "--server", &servers]).await.exits(3);
    assert!(ran.err.contains("none of the 2 broadcasters") && ran.err.contains("nothing was done"), "{}", ran.err);
    assert!(leader.orders().is_empty() && follower.orders().is_empty());
}

#[tokio::test]
async fn a_follower_alone_names_the_leader_and_what_to_do() {
    let [leader, follower] = some().await;
    let at = format!("http://{}", leader.address);
    for arguments in [&["resume", SECRET][..], &["why", SECRET]] {
        let ran = follower.run(arguments).await.exits(3);
        assert!(ran.err.contains(&format!("b-2 leads, at {at}")), "{}", ran.err);
        assert!(ran.err.contains("fix: name the broadcaster that leads with --server"), "{}", ran.err);
    }
    let read = Some(WallTime(rotacast_clock::wall().0 - 5 * 60_000 - 30_000));
    follower.set(SecretStatus { record_read_at: read, blockers: vec![], services: vec![], ..draining() });
    for arguments in [&["status"][..], &["status", SECRET]] {
        let ran = follower.run(arguments).await.exits(0);
        assert!(ran.out.contains("from the store's records, read 5 min "), "{}", ran.out);
        assert!(!ran.out.contains("no instances"), "{}", ran.out);
    }
    let ran = follower.run(&["status"]).await.exits(0);
    assert!(ran.out.contains(&format!("not leading: b-2 does, at {at}")), "{}", ran.out);
    let status = follower.run(&["status", "-o", "json"]).await.exits(0).json();
    assert_eq!(status["leading"], serde_json::json!({"replica": "b-2", "address": at}));
    assert!(status["secrets"][0]["record_read_at"].is_string(), "{status}");
}

#[tokio::test]
async fn several_that_are_not_there_are_all_named() {
    let [rig] = some().await;
    let ((_one, one), (_two, two)) = (unused_port(), unused_port());
    let ran = rig.run(&["status", "--server", &format!("{one},{two}")]).await.exits(3);
    assert!(ran.err.contains(&one) && ran.err.contains(&two), "{}", ran.err);
    rig.run(&["status", "--server", ","]).await.exits(2);
}

#[tokio::test]
async fn a_value_is_sent_to_none_of_several_if_others_could_read_along_with_one() {
    let [leader, follower] = some().await;
    let port = follower.address.rsplit(':').next().unwrap();
    let servers = format!("{},http://0.0.0.0:{port}", leader.address);
    let ran = leader.run_with(&["put", SECRET, "--server", &servers], b"canary").await.exits(2);
    assert!(ran.err.contains("a value is not sent over plain HTTP to http://0.0.0.0"), "{}", ran.err);
    assert!(leader.orders().is_empty());
}
