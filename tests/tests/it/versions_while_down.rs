//! Ten versions are written while no broadcaster runs: all are seen, in order, although the store's history was
//! compacted meanwhile.

use rotacast_tests::programs;
use rotacast_tests::world::{BusKind, Database, Options, StoreKind, World};

/// The last of ten versions after the first.
const LAST: u64 = 11;

async fn ten_versions(store: StoreKind, compact: bool) {
    let Some(mut world) = World::start(programs!(), Options::default().on(store, BusKind::Nats)).await else { return };
    world.broadcaster.start(&world.operator).await;
    world.first_version().await;
    let mut service = world.service("payments-api", "one", &[]);
    service.uses(1).await;
    world.broadcaster.stop().await;

    for version in 2..=LAST {
        world.put_by_hand(version).await;
    }
    if compact {
        let etcd = world.store.etcd();
        let status = etcd.ctl(&["endpoint", "status", "--write-out=json"]).await;
        let status: serde_json::Value = serde_json::from_str(&status).expect("etcdctl writes JSON");
        let revision = status[0]["Status"]["header"]["revision"].as_u64().expect("a status has a revision");
        etcd.ctl(&["compact", "--physical", &revision.to_string()]).await;
    }

    world.broadcaster.start(&world.operator).await;
    let all_over =
        |status: &rotacast_proto::v1::SecretStatus| (status.current == LAST && status.rotation.is_none()).then_some(());
    world.until("the newest version to be current and everything older to be over", all_over).await;
    service.uses(LAST).await;
    // Every old credential was revoked, including those in between that no instance ever used.
    world.until_roles_are(&[Database::login_by_hand(LAST)]).await;
    let trail = world.audit();
    let seen: Vec<u64> = (trail.entries.iter())
        .filter(|entry| entry.action == "version_added")
        .filter_map(|entry| entry.details.get("version")?.as_u64())
        .collect();
    println!("{store:?}: versions seen, in order: {seen:?}");
    assert_eq!(seen, (1..=LAST).collect::<Vec<_>>());
    for version in 1..LAST {
        assert_eq!(trail.about("retired", version).count(), 1, "version {version}");
    }
    let last = service.stop().await;
    assert_eq!(last.queries_failed, 0, "{last:?}");
    world.broadcaster.stop().await;
    let lives = world.observer.roles();
    assert!(lives.iter().all(|life| life.sessions_after_disable.is_empty()), "a session outlived its role: {lives:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_etcd_which_was_compacted_meanwhile() {
    ten_versions(StoreKind::Etcd, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_consul_which_keeps_no_history() {
    ten_versions(StoreKind::Consul, false).await;
}
