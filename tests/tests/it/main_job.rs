//! The main job on real servers: a credential is rotated again and again under services that query all the time, on
//! every pair of a store and a bus.
//!
//! `ROTACAST_E2E_ROTATIONS` sets how many rotations there are where there are many (4 unless set, 40 in `tools/test --long`, at least 4).

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rotacast_proto::v1;
use rotacast_tests::programs;
use rotacast_tests::world::{Action, BusKind, Database, Options, Service, SessionLog, StoreKind, World, usual};

/// How a rotation starts, or ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// `rotate`: Rotacast makes the credential.
    Rotate,
    /// A login that was made by hand. Its version is written with the store's own command line.
    ByHand,
    /// A version that cannot log in, written in the same way.
    Bad,
    /// `rotate`, and rolled back by an operator when every service uses the new version.
    RolledBack,
}

/// One line of the table.
struct Row {
    way: Way,
    ended: v1::FinishedRotation,
    took: Duration,
}

/// Many rotations, on the pair that stands for the others.
fn many() -> Vec<Way> {
    let count = std::env::var("ROTACAST_E2E_ROTATIONS")
        .map_or(usual(4, 40), |text| text.parse().expect("a number of rotations"));
    assert!(count >= 4, "ROTACAST_E2E_ROTATIONS: expected at least 4, found {count}");
    let way = |number: usize| match number {
        _ if number == count / 3 => Way::Bad,
        _ if number == 2 * count / 3 => Way::RolledBack,
        _ if number.is_multiple_of(2) => Way::Rotate,
        _ => Way::ByHand,
    };
    (0..count).map(way).collect()
}

/// Every way once.
fn few() -> Vec<Way> {
    vec![Way::ByHand, Way::Bad, Way::RolledBack, Way::Rotate]
}

macro_rules! pairs {
    ($($name:ident: $store:ident, $bus:ident, $plan:ident;)*) => {
        /// The pairs that have a test.
        const PAIRS: &[(StoreKind, BusKind)] = &[$((StoreKind::$store, BusKind::$bus)),*];

        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                main_job(StoreKind::$store, BusKind::$bus, $plan()).await;
            }
        )*
    };
}

pairs! {
    embedded_and_embedded: Embedded, Embedded, few;
    embedded_and_nats: Embedded, Nats, few;
    embedded_and_kafka: Embedded, Kafka, few;
    etcd_and_embedded: Etcd, Embedded, few;
    etcd_and_nats: Etcd, Nats, many;
    etcd_and_kafka: Etcd, Kafka, few;
    consul_and_embedded: Consul, Embedded, few;
    consul_and_nats: Consul, Nats, few;
    consul_and_kafka: Consul, Kafka, many;
}

#[test]
fn no_pair_is_missing() {
    for store in StoreKind::ALL {
        for bus in BusKind::ALL {
            assert!(PAIRS.contains(&(store, bus)), "{store:?} and {bus:?}");
        }
    }
}

async fn main_job(store: StoreKind, bus: BusKind, plan: Vec<Way>) {
    let Some(world) = World::start(programs!(), Options::default().on(store, bus)).await else { return };
    run(world, &format!("{store:?}, {bus:?}"), plan).await;
}

/// NATS lets every login do what `rotacast permissions nats` prints, and nothing else. Nothing that it refuses is asked of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_and_nats_under_exactly_the_printed_permissions_of_nats() {
    let Some(world) = World::start(programs!(), Options::default().permissions()).await else { return };
    let world = run(world, "etcd, NATS with permissions", few()).await;
    let log = world.bus.nats().log();
    assert!(log.contains("Reloaded: authorization users"), "no permissions were enforced: {log}");
    let refused: Vec<_> = log.lines().filter(|line| line.contains("Violation")).collect();
    assert_eq!(refused, [""; 0]);
}

/// The whole job; returns the world with all programs stopped.
async fn run(mut world: World, pair: &str, plan: Vec<Way>) -> World {
    world.broadcaster.start(&world.operator).await;
    world.first_version().await;
    let mut services = [
        world.service("payments-api", "one", &[]),
        world.service("payments-api", "two", &[]),
        // It has no access to the store, and asks the broadcaster for values.
        world.service_without_store("ledger", "one", &[]),
    ];
    for service in &mut services {
        service.uses(1).await;
    }

    let mut rows = Vec::new();
    for way in plan {
        let start = Instant::now();
        let ended = rotation(&world, &mut services, way).await;
        println!(
            "{pair}: {way:?}: version {} → {}: {} after {:.1?}",
            ended.old,
            ended.new,
            ended.outcome,
            start.elapsed()
        );
        rows.push(Row { way, ended, took: start.elapsed() });
    }

    let status = world.operator.status().await.expect("the broadcaster answers");
    let mut last = Vec::new();
    for service in &mut services {
        last.push(service.stop().await);
    }
    world.broadcaster.stop().await;

    let never: BTreeSet<u64> = rows.iter().filter(|row| row.way == Way::Bad).map(|row| row.ended.new).collect();
    for status in &last {
        assert_eq!(status.queries_failed, 0, "{status:?}");
        assert!(
            status.by_version.keys().all(|version| !never.contains(version)),
            "used a rejected version: {status:?}"
        );
    }
    let live = role(&rows, status.current);
    check_roles(&world, &rows, &live).await;
    check_audit(&world, &rows).await;
    tell(&world, &rows, last.iter().map(|status| status.queries_ok).sum());
    world
}

/// One rotation from its cause to its end, and what must hold right after it.
async fn rotation(world: &World, services: &mut [Service], way: Way) -> v1::FinishedRotation {
    let version = world.next_version().await;
    let before = world.operator.status().await.expect("the broadcaster answers").current;
    let ended = match way {
        Way::Rotate => world.rotate().await,
        Way::ByHand => {
            world.put_by_hand(version).await;
            world.ended(version).await
        }
        Way::Bad => {
            world.database.make_login(version).await;
            let value = world.database.value(&Database::login_by_hand(version), "not the password");
            world.store.put(version, &value).await;
            let label = |status: &v1::SecretStatus| {
                status.versions.iter().any(|v| v.version == version && v.label == "rejected").then_some(())
            };
            world.until("the version that does not log in to be rejected", label).await;
            world.ended(version).await
        }
        Way::RolledBack => rolled_back(world, services, before).await,
    };
    let status = world.operator.status().await.expect("the broadcaster answers");
    let (outcome, current) = match way {
        Way::Rotate | Way::ByHand => ("retired", version),
        Way::Bad | Way::RolledBack => ("rolled_back", before),
    };
    assert_eq!((ended.outcome.as_str(), ended.old, ended.new), (outcome, before, version), "{way:?}: {status:#?}");
    assert_eq!(status.current, current, "{way:?}: {status:#?}");
    for service in services {
        service.until("new queries with the current version", |status| status.version == Some(current)).await;
        service.uses(current).await;
    }
    ended
}

async fn rolled_back(world: &World, services: &mut [Service], before: u64) -> v1::FinishedRotation {
    // A session of the old credential that no instance reports keeps the rotation before the point of no return.
    let session = world.session(before).await;
    let version = world.operator.order(Action::Rotate(v1::Rotate {})).await.expect("the order is accepted").version;
    for service in services.iter_mut() {
        service.uses(version).await;
    }
    world
        .until("the retire to wait for a session that no service reports", |status| {
            let rotation = status.rotation.as_ref()?;
            let drains = rotation.new == version && rotation.phase() == v1::Phase::Draining;
            let waits = status.blockers.iter().any(|blocker| blocker.condition == "usage_evidence");
            (drains && waits).then_some(())
        })
        .await;
    world.operator.order(Action::RollBack(v1::RollBack {})).await.expect("the order is accepted");
    let ended = world.ended(version).await;
    drop(session);
    for service in services {
        let at = service.uses(before).await.by_version[&before];
        service.until("more queries with the version it went back to", |status| status.by_version[&before] > at).await;
    }
    ended
}

/// The login role of a version.
fn role(rows: &[Row], version: u64) -> String {
    let way = rows.iter().find(|row| row.ended.new == version).map(|row| row.way);
    match way {
        Some(Way::Rotate | Way::RolledBack) => format!("payments_db_v{version}"),
        Some(Way::ByHand | Way::Bad) | None => Database::login_by_hand(version),
    }
}

/// By PostgreSQL's own view, every old role is gone, and was there until its last session had ended. A role that
/// Rotacast never logged in with is left to the client that wrote the version.
async fn check_roles(world: &World, rows: &[Row], live: &str) {
    let stays =
        |name: &str| name == live || rows.iter().any(|row| row.way == Way::Bad && role(rows, row.ended.new) == name);
    let left = world.database.logins().await;
    assert!(left.iter().all(|name| stays(name)), "the login roles left in PostgreSQL: {left:?}");
    let lives = world.observer.roles();
    for life in &lives {
        assert_eq!(life.sessions_after_disable, Vec::<String>::new(), "a session outlived its role: {life:?}");
        assert_eq!(life.dropped.is_none(), stays(&life.name), "{life:?}");
    }
    let log = SessionLog::read(&world.database);
    assert_eq!(log.early_ends(), Vec::<String>::new(), "PostgreSQL logged sessions of disabled roles");
    for row in rows {
        let name = role(rows, row.ended.new);
        assert!(lives.iter().any(|life| life.name == name), "PostgreSQL never had {name}: {lives:?}");
        let logins = log.logins(&name);
        assert_eq!(logins == 0, row.way == Way::Bad, "{name} logged in {logins} times");
        assert_eq!(log.is_gone(&name), !stays(&name), "{name}");
    }
}

/// Every rotation is in the audit log, and the log verifies.
async fn check_audit(world: &World, rows: &[Row]) {
    let trail = world.audit();
    for row in rows {
        let (new, old) = (row.ended.new, row.ended.old);
        let started: Vec<_> = trail.about("rotation_started", new).collect();
        let [started] = started.as_slice() else { panic!("version {new}: expected one start, found {started:?}") };
        let mine = |action: &str| {
            trail.entries.iter().filter(|e| e.rotation == started.rotation && e.action == action).count()
        };
        assert_eq!(mine("activated") == 0, row.way == Way::Bad, "version {new}: {:?}", row.way);
        assert_eq!(mine("rotation_ended"), 1, "version {new}: {:?}", row.way);
        let gone = if row.ended.outcome == "retired" { old } else { new };
        let intent = trail.about("retire_intent", gone).map(|entry| entry.sequence).min();
        let end = if row.way == Way::Bad { "ended_unproven" } else { "retired" };
        let retired = trail.about(end, gone).map(|entry| entry.sequence).min();
        assert!(intent.is_some() && intent < retired, "version {gone}: intent {intent:?}, {end} {retired:?}");
    }
    let file = world.audit_file();
    let output = world.cli(&["audit", "verify", "--file", &file.display().to_string()]).await;
    assert!(output.status.success(), "audit verify: {output:?}");
    println!("{}", String::from_utf8_lossy(&output.stdout).trim_end());
}

fn tell(world: &World, rows: &[Row], queries: u64) {
    println!(
        "\n  way         versions    ended        took    credential gone   sessions  disabled after its last session"
    );
    let lives = world.observer.roles();
    for row in rows {
        let gone = role(rows, if row.ended.outcome == "retired" { row.ended.old } else { row.ended.new });
        let life = lives.iter().find(|life| life.name == gone).expect("checked above");
        let margin = life.sessions.zip(life.disabled).map(|((_, last), disabled)| disabled.duration_since(last));
        println!(
            "  {:<11} {:>3} → {:<3}  {:<12} {:>5.1?}  {:<16} {:>9}  {}",
            format!("{:?}", row.way),
            row.ended.old,
            row.ended.new,
            row.ended.outcome,
            row.took,
            gone,
            life.most_sessions,
            margin.map_or("never had one".into(), |margin| format!("{margin:.1?}")),
        );
    }
    let total: Duration = rows.iter().map(|row| row.took).sum();
    println!(
        "{} rotations in {total:.1?}, {queries} queries, 0 failed; PostgreSQL looked at {} times",
        rows.len(),
        world.observer.readings()
    );
}
