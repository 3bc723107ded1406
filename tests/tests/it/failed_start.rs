//! A start that registers and then fails withdraws its registration: no rotation waits for it.

use std::time::Duration;

use rotacast_subscriber::{ErrorKind, Hooks, Refusal};
use rotacast_tests::programs;
use rotacast_tests::world::{BusKind, Options, SECRET, StoreKind, World};

/// How long the failed start tries.
const START: Duration = Duration::from_secs(5);

async fn failed_start(bus: BusKind) {
    // A rotation that waited for the lease of the failed start would not end within the test.
    let options = Options::default().on(StoreKind::Etcd, bus);
    let options = options.policy("lease_idle", "\"1h\"").policy("lease_rotating", "\"1h\"");
    let Some(mut world) = World::start(programs!(), options).await else { return };
    world.broadcaster.start(&world.operator).await;
    world.first_version().await;
    let mut one = world.service("payments-api", "one", &[]);
    one.uses(1).await;

    let (builder, url) = world.subscriber("ledger", "fails");
    let subscriber = builder.start_timeout(START).connect(&url).await.unwrap();
    let refuses = Hooks::new().on_prepare(|_| async { Err(Refusal::new("its schema is not there")) });
    let failed = subscriber.secret_with(SECRET, refuses).await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Refused, "{failed}");

    for instance in world.operator.instances().await.unwrap() {
        println!("{bus:?}: {:?} is {}", instance.key, instance.standing);
    }
    let ended = world.rotate().await;
    assert_eq!((ended.new, ended.outcome.as_str()), (2, "retired"), "{ended:?}");
    let last = one.stop().await;
    assert_eq!(last.queries_failed, 0, "{last:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_nats() {
    failed_start(BusKind::Nats).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_kafka() {
    failed_start(BusKind::Kafka).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_broadcasters_own() {
    failed_start(BusKind::Embedded).await;
}
