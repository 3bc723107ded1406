//! Store, bus and broadcaster are away together, at each moment of a rotation: no use fails.
//!
//! The ordinary run shortens leases and outages alike. `tools/test --long` has the leases of the defaults and ten minutes, and
//! outages of each alone.

use std::time::Duration;

use rotacast_proto::v1;
use rotacast_tests::programs;
use rotacast_tests::world::{Action, Options, SECRET, World, usual};

/// What is away.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Away {
    All,
    Store,
    Bus,
    Broadcaster,
}

/// Takes something away for a while.
async fn outage(world: &mut World, away: Away, lasts: Duration) {
    let all = away == Away::All;
    if all || away == Away::Broadcaster {
        world.broadcaster.kill().await;
    }
    if all || away == Away::Bus {
        world.bus.nats_mut().kill().await;
    }
    if all || away == Away::Store {
        world.store.server().kill().await;
    }
    // The outage's length is what is tested.
    tokio::time::sleep(lasts).await;
    if all || away == Away::Store {
        world.store.server().restart().await;
    }
    if all || away == Away::Bus {
        world.bus.nats_mut().restart().await;
    }
    if all || away == Away::Broadcaster {
        world.broadcaster.start(&world.operator).await;
    }
}

async fn until_phase(world: &World, phase: v1::Phase) {
    let what = format!("{phase:?}");
    world.until(&what, |status| status.rotation.as_ref().filter(|rotation| rotation.phase() == phase).map(drop)).await;
}

/// A rotation, with an outage while nothing rotates and in each of its phases.
async fn no_use_fails(options: Options, away: Away, lasts: Duration) {
    let options = options.policy("approval", "true").policy("missed_syncs", "1000000");
    let Some(mut world) = World::start(programs!(), options).await else { return };
    world.broadcaster.start(&world.operator).await;
    world.first_version().await;
    let mut one = world.service("payments-api", "one", &[]);
    let mut two = world.service("ledger", "two", &[]);
    one.uses(1).await;
    two.uses(1).await;
    let went_on = async |one: &mut rotacast_tests::world::Service, when: &str| {
        let before = one.status().expect("it has written one").queries_ok;
        let status = one.until("queries after the outage", |status| status.queries_ok > before + 20).await;
        assert_eq!(status.queries_failed, 0, "{away:?} away {when}: {status:?}");
    };

    outage(&mut world, away, lasts).await;
    went_on(&mut one, "while nothing rotates").await;

    // The activation waits for the approval, then for an instance that stands still, and the retire for a session.
    let session = world.session(1).await;
    world.operator.order(Action::Rotate(v1::Rotate {})).await.expect("the order is taken");
    world
        .until("the approval to be waited for", |status| {
            let waits = status.blockers.iter().any(|it| it.condition == "approval");
            (waits && status.rotation.as_ref()?.phase() == v1::Phase::Preparing).then_some(())
        })
        .await;
    outage(&mut world, away, lasts).await;
    went_on(&mut one, "in preparing").await;

    two.pause();
    let approve = || Action::Approve(v1::Approve {});
    rotacast_tests::servers::until("the approval to be taken", rotacast_tests::world::LIMIT, async || {
        world.operator.order(approve()).await.ok()
    })
    .await;
    until_phase(&world, v1::Phase::Activating).await;
    one.uses(2).await;
    outage(&mut world, away, lasts).await;
    went_on(&mut one, "in activating").await;

    two.resume();
    until_phase(&world, v1::Phase::Draining).await;
    outage(&mut world, away, lasts).await;
    went_on(&mut one, "in draining").await;

    drop(session);
    assert_eq!(world.ended(2).await.outcome, "retired", "{SECRET}");
    let last = one.stop().await;
    assert_eq!(last.queries_failed, 0, "{last:?}");
    two.kill().await;
    world.broadcaster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_outage_fails_a_use_at_any_moment_of_a_rotation() {
    const SHORT: Duration = Duration::from_secs(10);
    no_use_fails(Options::default(), Away::All, SHORT).await;
    for away in usual(&[][..], &[Away::Store, Away::Bus, Away::Broadcaster]) {
        no_use_fails(Options::default(), *away, SHORT).await;
    }
    if usual(false, true) {
        let usual = Options::default().policy("lease_idle", "\"1h\"").policy("lease_rotating", "\"11m\"");
        no_use_fails(usual, Away::All, Duration::from_secs(600)).await;
    }
}
