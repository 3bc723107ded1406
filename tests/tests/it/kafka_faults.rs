//! Rotations while Kafka is down, or was recreated: they take longer, and end.

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rotacast_proto::v1;
use rotacast_tests::programs;
use rotacast_tests::world::{Action, BusKind, CLUSTER, Options, Service, SessionLog, StoreKind, World};

/// Two services that use version 1. The second switches to another version only once the file exists.
async fn begun(switch_when: Option<&str>) -> Option<(World, [Service; 2])> {
    let options = Options::default().on(StoreKind::Consul, BusKind::Kafka);
    let mut world = World::start(programs!(), options).await?;
    world.broadcaster.start(&world.operator).await;
    world.first_version().await;
    let waits = switch_when.map(|file| format!("--switch-when={}", world.folder().join(file).display()));
    let waits: Vec<&str> = waits.iter().map(String::as_str).collect();
    let mut services = [world.service("payments-api", "one", &[]), world.service("payments-api", "two", &waits)];
    for service in &mut services {
        service.uses(1).await;
    }
    Some((world, services))
}

/// The rotation to version 2 retires version 1, and no query ever failed.
async fn ends_well(mut world: World, services: [Service; 2]) {
    let ended = world.ended(2).await;
    assert_eq!(ended.outcome, "retired", "{ended:?}");
    for mut service in services {
        service.uses(2).await;
        let last = service.stop().await;
        assert_eq!(last.queries_failed, 0, "{last:?}");
    }
    world.broadcaster.stop().await;
    let lives = world.observer.roles();
    assert!(lives.iter().all(|life| life.sessions_after_disable.is_empty()), "a session outlived its role: {lives:?}");
    let log = SessionLog::read(&world.database);
    assert_eq!(log.early_ends(), Vec::<String>::new(), "PostgreSQL logged sessions of disabled roles");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_killed_during_activating_costs_time_only() {
    let Some((mut world, services)) = begun(Some("switch")).await else { return };
    world.operator.order(Action::Rotate(v1::Rotate {})).await.expect("the order is accepted");
    let phase = |status: &v1::SecretStatus| Some(status.rotation.as_ref()?.phase());
    world.until("Activating", |status| (phase(status) == Some(v1::Phase::Activating)).then_some(())).await;
    world.bus.kafka().kill().await;
    let found = world.until("an answer without a broker", |status| Some(phase(status))).await;
    println!("{found:?} when the broker was gone");
    assert_eq!(found, Some(v1::Phase::Activating));
    std::fs::write(world.folder().join("switch"), "").expect("the world's folder can be written");
    world.bus.kafka().restart().await;
    ends_well(world, services).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_deleted_and_made_anew_lead_to_the_same_end() {
    let Some((mut world, services)) = begun(None).await else { return };
    let hidden = world.session(1).await;
    world.operator.order(Action::Rotate(v1::Rotate {})).await.expect("the order is accepted");
    world
        .until("the retire to wait for the hidden session", |status| {
            status.blockers.iter().any(|blocker| blocker.condition == "usage_evidence").then_some(())
        })
        .await;
    let topics = ["state", "registrations", "reports"].map(|kind| format!("rotacast.{CLUSTER}.{kind}"));
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", world.bus.kafka().broker()).create().expect("valid settings");
    for deleted in admin.delete_topics(&names, &AdminOptions::new()).await.expect("the broker answers") {
        deleted.expect("the topic was there");
    }
    drop(hidden);
    ends_well(world, services).await;
}
