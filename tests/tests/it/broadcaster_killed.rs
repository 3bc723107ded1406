//! The broadcaster is killed with SIGKILL at random moments of rotations, and started again.
//!
//! `ROTACAST_E2E_ROTATIONS` sets how many rotations there are (few unless set), `ROTACAST_E2E_SEED` replays a run's moments.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use rotacast_proto::v1;
use rotacast_tests::programs;
use rotacast_tests::world::{Action, Operator, Options, World, number, usual};

/// How long an undisturbed rotation takes, about: the kills fall into all of it.
const SPAN_MS: u64 = 2000;
/// In how many of the rotations the broadcaster is killed.
const KILLS: f64 = 0.6;
/// Longest pause before it is started again. Its predecessor's term blocks it for some seconds more.
const DOWN_MS: u64 = 1000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotations_end_and_no_query_fails_while_the_broadcaster_is_killed_again_and_again() {
    let count = number("ROTACAST_E2E_ROTATIONS").unwrap_or(usual(4, 40));
    let seed = number("ROTACAST_E2E_SEED").unwrap_or_else(rand::random);
    println!("ROTACAST_E2E_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);

    // A new leader waits for the leases its predecessor may have granted, so they are short. Without a leader, services
    // use what they read in the store, which has to outlast the pauses of a busy machine.
    let options = Options::default()
        .leader_ttl("3s")
        .policy("lease_idle", "\"8s\"")
        .policy("lease_rotating", "\"6s\"")
        .policy("self_lease", "\"6s\"");
    let Some(mut world) = World::start(programs!(), options).await else { return };
    world.broadcaster.start(&world.operator).await;
    world.first_version().await;
    let mut services = [
        world.service("payments-api", "one", &[]),
        world.service("payments-api", "two", &[]),
        world.service("ledger", "one", &[]),
    ];
    for service in &mut services {
        service.uses(1).await;
    }

    let start = Instant::now();
    let mut current = 1;
    let mut killed = 0;
    for round in 0..count {
        let version = current + 1;
        let by_hand = random.random_bool(0.5);
        // Always in the first rotation, so that every seed has one.
        let kills = round == 0 || random.random_bool(KILLS);
        let kill_after = Duration::from_millis(random.random_range(0..SPAN_MS));
        let down = Duration::from_millis(random.random_range(0..DOWN_MS));
        let began = Instant::now();
        let ordering = (!by_hand).then(|| tokio::spawn(rotate(world.operator.clone(), version)));
        if by_hand {
            world.put_by_hand(version).await;
        }
        let mut story = String::from("in peace");
        if kills {
            tokio::time::sleep(kill_after).await;
            let status = world.operator.status().await;
            let phase = status.map_or_else(|_| "while it did not answer".into(), |status| at(&status, version));
            world.broadcaster.kill().await;
            killed += 1;
            tokio::time::sleep(down).await;
            world.broadcaster.start(&world.operator).await;
            story = format!("killed after {kill_after:?} ({phase}), down for {down:?}");
        }
        if let Some(ordering) = ordering {
            ordering.await.expect("ordering does not panic");
        }
        let ended = world.ended(version).await;
        assert_eq!((ended.outcome.as_str(), ended.old), ("retired", current), "{ended:?}");
        println!(
            "{round}: version {current} → {version}, {}, {story}, ended after {:.1?}",
            if by_hand { "by hand" } else { "by rotate" },
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
        assert_eq!(status.queries_failed, 0, "{status:?}");
        queries += status.queries_ok;
    }
    world.broadcaster.stop().await;

    // A kill may cut entries off. The next leader records what it finds, so no rotation is missing.
    world.judge_the_end(current, &BTreeSet::new()).await;
    world.judge_the_record(current);
    println!("{count} rotations and {killed} kills in {:.1?}: {queries} queries, 0 failed", start.elapsed());
}

/// Repeats the order until it has been carried out: an order whose answer was lost may have been.
async fn rotate(operator: Operator, version: u64) {
    loop {
        if let Ok(status) = operator.status().await {
            if status.versions.iter().any(|info| info.version >= version) {
                return;
            }
            // After a refusal or a lost answer, the next status shows it.
            drop(operator.order(Action::Rotate(v1::Rotate {})).await);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The state of the rotation to this version.
fn at(status: &v1::SecretStatus, version: u64) -> String {
    match &status.rotation {
        Some(rotation) if rotation.new == version => format!("{:?}", rotation.phase()),
        _ if status.history.iter().any(|ended| ended.new == version) => "ended".into(),
        _ => "not yet begun".into(),
    }
}
