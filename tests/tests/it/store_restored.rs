//! A store that is restored from a backup while a rotation is under way: safe mode, and nothing irreversible until an
//! operator has looked.

use rotacast_proto::v1;
use rotacast_tests::programs;
use rotacast_tests::world::{Action, BusKind, Database, Options, SECRET, Service, StoreKind, World};

fn in_safe_mode(status: &v1::SecretStatus) -> bool {
    status.overlays.iter().any(|overlay| overlay == "safe_mode")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consul_restored_from_a_snapshot_puts_its_secrets_into_safe_mode() {
    let options = Options::default().on(StoreKind::Consul, BusKind::Nats);
    let Some(mut world) = World::start(programs!(), options).await else { return };
    world.broadcaster.start(&world.operator).await;
    world.first_version().await;
    let mut service = world.service("payments-api", "one", &[]);
    service.uses(1).await;
    world.store.consul().ctl(&["snapshot", "save", "backup.snap"]).await;

    // A rotation that a hidden session keeps from retiring version 1.
    let hidden = world.session(1).await;
    world.put_by_hand(2).await;
    service.uses(2).await;
    world
        .until("the retire to wait for the hidden session", |status| {
            status.blockers.iter().any(|blocker| blocker.condition == "usage_evidence").then_some(())
        })
        .await;

    let on_one = service.uses(2).await.by_version[&1];
    world.store.consul().ctl(&["snapshot", "restore", "backup.snap"]).await;
    world.until("safe mode", |status| in_safe_mode(status).then_some(())).await;
    let output = world.cli(&["why", SECRET]).await;
    let why = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{}", why.trim_end());
    assert!(output.status.success() && why.contains("safe mode"), "{output:?}");
    // The record says version 1, which may have ended since: the service stays with what it uses.
    let stays = async |world: &World, service: &mut Service| {
        let leased = |status: &v1::SecretStatus| {
            let services = &status.services;
            (!services.is_empty() && in_safe_mode(status)).then_some(())
        };
        world.until("the service to be heard in safe mode", leased).await;
        let before = service.uses(2).await.by_version[&2];
        service.until("queries with version 2 in safe mode", |status| status.by_version[&2] > before + 100).await;
    };
    stays(&world, &mut service).await;
    // Only safe mode is in the way now. New versions are noted, and not rotated to.
    drop(hidden);
    // The number of the lost version is taken, because an instance uses it.
    world.put_by_hand(3).await;
    world
        .until("version 3 to be seen", |status| {
            status.versions.iter().any(|version| version.version == 3).then_some(())
        })
        .await;
    let refused = world.operator.order(Action::Rotate(v1::Rotate {})).await;
    assert!(refused.is_err(), "a rotation was ordered in safe mode: {refused:?}");

    // The broadcaster is killed in safe mode, and its successor is in it too.
    world.broadcaster.kill().await;
    world.broadcaster.start(&world.operator).await;
    let status = world.until("safe mode after a restart", |status| in_safe_mode(status).then(|| status.clone())).await;
    assert_eq!((status.current, status.rotation.is_none()), (1, true), "{status:#?}");
    let all: Vec<String> = (1..=3).map(Database::login_by_hand).collect();
    let mut roles = world.database.logins().await;
    roles.sort();
    assert_eq!(roles, all, "nothing may be dropped in safe mode");

    stays(&world, &mut service).await;

    // An operator has looked. The service goes straight to the version that waits.
    world.operator.order(Action::LeaveSafeMode(v1::LeaveSafeMode {})).await.expect("the order is accepted");
    world
        .until("version 3 to be current", |status| (status.current == 3 && status.rotation.is_none()).then_some(()))
        .await;
    service.uses(3).await;
    // Version 2 was lost and belongs to no record any more: its role is left to the client that made it.
    world.until_roles_are(&[Database::login_by_hand(2), Database::login_by_hand(3)]).await;
    let trail = world.audit();
    let actions: Vec<&str> = trail.entries.iter().map(|entry| entry.action.as_str()).collect();
    for action in ["safe_mode_entered", "safe_mode_left"] {
        assert_eq!(actions.iter().filter(|it| **it == action).count(), 1, "{action}: {actions:?}");
    }
    let last = service.stop().await;
    assert_eq!(last.queries_failed, 0, "{last:?}");
    let served = last.by_version.keys().copied().collect::<Vec<_>>();
    assert_eq!(served, [1, 2, 3], "{last:?}");
    assert_eq!(last.by_version[&1], on_one, "it went back to version 1: {last:?}");
    world.broadcaster.stop().await;
    let lives = world.observer.roles();
    assert!(lives.iter().all(|life| life.sessions_after_disable.is_empty()), "a session outlived its role: {lives:?}");
}
