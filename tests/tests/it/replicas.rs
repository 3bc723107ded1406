//! Three broadcasters on one store, whose leader is lost again and again: by SIGKILL and SIGTERM in turn.
//!
//! `ROTACAST_E2E_REPLICA_ROTATIONS` sets how many rotations there are, one loss of the leader in each (few unless set);
//! `ROTACAST_E2E_SEED` replays a run's moments.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use rotacast_proto::v1;
use rotacast_tests::programs;
use rotacast_tests::servers::until;
use rotacast_tests::world::{
    BusKind, Commands, LIMIT, Operator, Options, PREFIX, SECRET, StoreKind, World, number, usual,
};
use serde_json::json;

const REPLICAS: usize = 3;
/// How long an undisturbed rotation takes, about: the losses fall into all of it.
const SPAN_MS: u64 = 2000;
/// For a new leader after a kill: Consul may let two of its shortest sessions and one lock delay pass, 30 s.
const TAKEOVER: Duration = Duration::from_secs(90);
/// For a new leader after a clean end, less than [`LONG_TTL`]: a broadcaster that waits for the term to run out fails
/// the test.
const HANDOVER: Duration = Duration::from_secs(45);
const LONG_TTL: &str = "60s";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_query_fails_while_leaders_come_and_go_on_etcd_and_nats() {
    leaders_come_and_go(Options::default().on(StoreKind::Etcd, BusKind::Nats).leader_ttl("3s"), usual(2, 20)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_query_fails_while_leaders_come_and_go_on_consul_and_kafka() {
    leaders_come_and_go(Options::default().on(StoreKind::Consul, BusKind::Kafka), usual(2, 10)).await;
}

async fn leaders_come_and_go(options: Options, rotations: u64) {
    let count = number("ROTACAST_E2E_REPLICA_ROTATIONS").unwrap_or(rotations);
    let seed = number("ROTACAST_E2E_SEED").unwrap_or_else(rand::random);
    println!("ROTACAST_E2E_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    // As when a single broadcaster is killed: a new leader waits for leases that its predecessor may have granted.
    let options = options
        .replicas(REPLICAS)
        .policy("lease_idle", "\"8s\"")
        .policy("lease_rotating", "\"6s\"")
        .policy("self_lease", "\"6s\"");
    let Some(mut world) = World::start(programs!(), options).await else { return };
    for which in 0..REPLICAS {
        world.replica(which).spawn();
    }
    let mut leader = leads(&world.operator, None, TAKEOVER).await;
    world.first_version().await;
    let mut services = [
        world.service("payments-api", "one", &[]),
        world.service("ledger", "one", &[]),
        // It reaches only the broadcasters: a follower's Fetch keeps it going without a leader.
        world.service_over_grpc("mailer", "one"),
    ];
    for service in &mut services {
        service.uses(1).await;
    }

    let start = Instant::now();
    let (mut after_kill, mut after_stop) = (Vec::new(), Vec::new());
    let mut current = 1;
    for round in 0..count {
        let version = current + 1;
        let began = Instant::now();
        let by_hand = random.random_bool(0.5);
        let lose_after = Duration::from_millis(random.random_range(0..SPAN_MS));
        let kill = round % 2 == 0;
        if by_hand {
            world.put_by_hand(version).await;
        }
        let ordering = (!by_hand).then(|| tokio::spawn(rotate(world.commands(), world.operator.clone(), version)));
        tokio::time::sleep(lose_after).await;
        let (operator, lost) = (world.operator.clone(), leader);
        let replica = world.replica(lost);
        let at = Instant::now();
        let ending = async { if kill { replica.kill().await } else { replica.stop().await } };
        let waiting = async { (leads(&operator, Some(lost), TAKEOVER).await, at.elapsed()) };
        let ((), (next, without)) = tokio::join!(ending, waiting);
        replica.spawn();
        leader = next;
        if kill {
            after_kill.push(without)
        } else {
            after_stop.push(without)
        }
        if let Some(ordering) = ordering {
            ordering.await.expect("ordering does not panic");
        }
        let ended = world.ended(version).await;
        assert_eq!((ended.outcome.as_str(), ended.old), ("retired", current), "{ended:?}");
        println!(
            "{round}: version {current} → {version}, {}, {} after {lose_after:?}, {without:.1?} without a leader, ended \
             after {:.1?}",
            if by_hand { "by hand" } else { "by rotate" },
            if kill { "SIGKILL" } else { "SIGTERM" },
            began.elapsed()
        );
        for service in &mut services {
            service.uses(version).await;
        }
        current = version;
    }

    let mut queries = 0;
    for service in &mut services {
        let status = service.stop().await;
        assert_eq!(status.queries_failed, 0, "{}: {status:?}", service.name());
        queries += status.queries_ok;
    }
    for which in 0..REPLICAS {
        world.replica(which).stop().await;
    }
    world.judge_the_end(current, &BTreeSet::new()).await;
    world.judge_the_record(current);
    println!("{count} rotations in {:.1?}: {queries} queries, 0 failed", start.elapsed());
    println!("without a leader after SIGKILL: {}", spread(&mut after_kill));
    println!("without a leader after SIGTERM: {}", spread(&mut after_stop));
}

/// The replica that leads, once one other than `but` does.
async fn leads(operator: &Operator, but: Option<usize>, limit: Duration) -> usize {
    let replicas: Vec<(usize, Operator)> =
        operator.each().enumerate().filter(|(which, _)| Some(*which) != but).collect();
    until("a replica to lead", limit, async || {
        for (which, replica) in &replicas {
            if replica.broadcaster().await.is_ok_and(|status| status.leader) {
                return Some(*which);
            }
        }
        None
    })
    .await
}

/// Repeats the order on the command line, at all replicas, until it has been carried out: one whose answer was lost may
/// have been.
async fn rotate(commands: Commands, operator: Operator, version: u64) {
    loop {
        if let Ok(status) = operator.status().await {
            if status.versions.iter().any(|info| info.version >= version) {
                return;
            }
            // After a refusal or a lost answer, the next status shows it.
            drop(commands.run(&["rotate", SECRET]).await);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Least, median and greatest.
fn spread(times: &mut [Duration]) -> String {
    times.sort();
    match (times.first(), times.get(times.len() / 2), times.last()) {
        (Some(least), Some(median), Some(greatest)) => {
            format!("{} times, min {least:.2?}, median {median:.2?}, max {greatest:.2?}", times.len())
        }
        _ => "never".into(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_stops_cleanly_hands_over_at_once_on_etcd() {
    hands_over(Options::default().on(StoreKind::Etcd, BusKind::Nats)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_stops_cleanly_hands_over_at_once_on_consul() {
    hands_over(Options::default().on(StoreKind::Consul, BusKind::Nats)).await;
}

/// Its term, and in Consul the lock delay too, would last longer than the successor may take.
async fn hands_over(options: Options) {
    let Some(mut world) = World::start(programs!(), options.replicas(2).leader_ttl(LONG_TTL)).await else { return };
    world.broadcaster.start(&world.operator.at(0)).await;
    world.first_version().await;
    world.replica(1).spawn();
    let follower = world.operator.at(1);
    let status = until("the follower to answer", LIMIT, async || follower.broadcaster().await.ok()).await;
    assert!(!status.leader, "{status:?}");

    // A follower says who leads, and what the record says. It refuses orders.
    let leading = status.leading.expect("the store names the leader");
    assert_eq!((leading.replica.as_str(), leading.address), (world.broadcaster.name(), world.broadcaster.url()));
    let secret = follower.status().await.expect("a follower reads the record");
    assert_eq!(secret.current, 1);
    assert!(secret.record_read_ms > 0, "{secret:?}");
    let url = world.replica(1).url();
    let alone = world.commands().at(url.clone());
    let refused = alone.run(&["rotate", SECRET]).await;
    assert_eq!(refused.status.code(), Some(3));
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(told.contains(&world.broadcaster.url()), "{told}");
    // The follower is asked first: the leader is found all the same.
    let both = world.commands().at(format!("{url},{}", world.broadcaster.url()));
    let paused = both.run(&["pause", SECRET, "--reason", "a look"]).await;
    assert!(paused.status.success(), "{}", String::from_utf8_lossy(&paused.stderr));
    let paused = follower.status().await.expect("a follower reads the record");
    assert_eq!(paused.overlays, ["paused"]);

    let operator = world.operator.clone();
    let (_, ()) = tokio::join!(leads(&operator, Some(0), HANDOVER), world.broadcaster.stop());
    let resumed = both.run(&["resume", SECRET]).await;
    assert!(resumed.status.success(), "{}", String::from_utf8_lossy(&resumed.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_are_replaced_one_after_the_other_in_a_rotation_and_keep_what_a_later_release_has_written() {
    // Long enough for the pause to come before the retire.
    let options = Options::default().replicas(REPLICAS).leader_ttl("3s").policy("min_overlap", "\"8s\"");
    let Some(mut world) = World::start(programs!(), options).await else { return };
    for which in 0..REPLICAS {
        world.replica(which).spawn();
    }
    leads(&world.operator, None, TAKEOVER).await;
    world.first_version().await;
    let mut services = [world.service("payments-api", "one", &[]), world.service_over_grpc("mailer", "one")];
    for service in &mut services {
        service.uses(1).await;
    }
    let commands = world.commands();
    let order = async |arguments: &[&str]| {
        let ran = commands.run(arguments).await;
        assert!(ran.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
    };
    order(&["rotate", SECRET]).await;
    let draining = |status: &v1::SecretStatus| {
        status.rotation.as_ref().is_some_and(|rotation| rotation.phase() == v1::Phase::Draining).then_some(())
    };
    world.until("the rotation to drain", draining).await;
    order(&["pause", SECRET, "--reason", "an upgrade"]).await;

    // The field that a leader of a later release would write beside those that this one knows.
    let key = format!("{PREFIX}/records/{SECRET}");
    let mut record = read_record(&world, &key).await;
    record["later_release"] = json!({ "why": "not known yet", "since": 7 });
    for version in ["1", "2"] {
        record["versions"][version]["later_release"] = json!(version);
    }
    world.store.etcd().ctl(&["put", &key, &record.to_string()]).await;

    // The followers first, the leader last, each once.
    let leader = leads(&world.operator, None, TAKEOVER).await;
    for which in (0..REPLICAS).filter(|which| *which != leader).chain([leader]) {
        let at = world.operator.at(which);
        let replica = world.replica(which);
        replica.stop().await;
        replica.spawn();
        until("the new one to answer", LIMIT, async || at.broadcaster().await.ok()).await;
    }
    leads(&world.operator, None, TAKEOVER).await;
    world.until("the rotation to drain still", draining).await;
    until("the pause to be lifted", LIMIT, async || {
        commands.run(&["resume", SECRET]).await.status.success().then_some(())
    })
    .await;
    let ended = world.ended(2).await;
    assert_eq!(ended.outcome, "retired", "{ended:?}");
    for service in &mut services {
        service.uses(2).await;
        let status = service.stop().await;
        assert_eq!(status.queries_failed, 0, "{}: {status:?}", service.name());
    }
    let after = read_record(&world, &key).await;
    assert_eq!(after["later_release"], record["later_release"], "{after:#}");
    for version in ["1", "2"] {
        assert_eq!(after["versions"][version]["later_release"], version, "{after:#}");
    }
    for which in 0..REPLICAS {
        world.replica(which).stop().await;
    }
    world.judge_the_end(2, &BTreeSet::new()).await;
    world.judge_the_record(2);
}

async fn read_record(world: &World, key: &str) -> serde_json::Value {
    let text = world.store.etcd().ctl(&["get", "--print-value-only", key]).await;
    serde_json::from_str(&text).expect("records are JSON")
}
