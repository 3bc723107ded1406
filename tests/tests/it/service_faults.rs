//! Rotations while services are killed, stopped, leaky, or without a broadcaster.
//!
//! Lower bounds of waits are promises and are checked. Nothing here depends on how fast a machine is.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rotacast_clock as clock;
use rotacast_proto::v1;
use rotacast_protocol::Instant as Reading;
use rotacast_tests::programs;
use rotacast_tests::servers::until;
use rotacast_tests::world::{Action, Database, LIMIT, Options, SECRET, Service, SessionLog, World};

/// Long enough that a busy machine shows a silent instance before its lease is over.
const LEASE: Duration = Duration::from_secs(7);
/// How long a use may outlast its checkout, as in [`Options::default`].
const MAX_USE: Duration = Duration::from_secs(1);

/// A leader that stays on a busy machine: what a new leader knows of instances that it has not heard has other tests.
/// Leases that expire while a test waits, and that a busy machine still renews.
fn steady() -> Options {
    Options::default().leader_ttl("10s").policy("lease_idle", "\"8s\"").policy("lease_rotating", "\"7s\"")
}

/// A rotation that drains: `payments-api/one` has switched, and `payments-api/two` goes on with version 1 and says so.
async fn held_up(options: Options) -> Option<(World, Service, Service)> {
    let mut world = World::start(programs!(), options).await?;
    world.broadcaster.start(&world.operator).await;
    world.first_version().await;
    let mut one = world.service("payments-api", "one", &[]);
    let mut two = world.service("payments-api", "two", &["--ignore-reload"]);
    one.uses(1).await;
    two.uses(1).await;
    world.operator.order(Action::Rotate(v1::Rotate {})).await.expect("the order is accepted");
    one.uses(2).await;
    let blocker = blocked(&world, "payments-api/two to hold version 1", |blocker| {
        blocker.who.starts_with("payments-api/two#") && blocker.why == "still holds version 1"
    })
    .await;
    assert_eq!(blocker.condition, "members_released");
    Some((world, one, two))
}

/// Waits for a matching blocker. Any instance that the retire waits for meanwhile is this one.
async fn blocked(world: &World, what: &str, mut fits: impl FnMut(&v1::Blocker) -> bool) -> v1::Blocker {
    world.until(what, |status| status.blockers.iter().find(|blocker| fits(blocker)).cloned()).await
}

/// Kills `two` and waits until `why` says that it is silent, and names no other instance.
async fn killed(world: &World, two: &mut Service) -> v1::Blocker {
    two.kill().await;
    let blocker = blocked(world, "why to name the killed instance", |blocker| {
        blocker.who.starts_with("payments-api/two#") && blocker.why.starts_with("silent for ")
    })
    .await;
    println!("{}: {}; since {}; next: {}", blocker.who, blocker.why, blocker.since_ms, blocker.next);
    assert_eq!(blocker.condition, "members_released");
    assert!(blocker.why.ends_with("held version 1 when last heard"), "{blocker:?}");
    assert!(blocker.since_ms > 0 && blocker.since_ms <= clock::wall().0, "{blocker:?}");
    let status = world.operator.status().await.expect("the broadcaster answers");
    let named: BTreeSet<&str> =
        status.blockers.iter().filter(|it| it.condition == "members_released").map(|it| it.who.as_str()).collect();
    assert!(named.iter().all(|who| *who == blocker.who), "only the killed one holds it up, but: {named:?}");
    let output = world.cli(&["why", SECRET]).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains(&blocker.who), "{output:?}");
    println!("{}", text.trim_end());
    blocker
}

/// When PostgreSQL showed version 1's role without LOGIN, in Unix milliseconds.
fn disabled_at(world: &World) -> u64 {
    let lives = world.observer.roles();
    let name = Database::login_by_hand(1);
    let life = lives.iter().find(|life| life.name == name).expect("version 1 had a role");
    assert_eq!(life.sessions_after_disable, Vec::<String>::new(), "a session outlived its role: {life:?}");
    let ago = Instant::now().duration_since(life.disabled.expect("version 1 is retired"));
    clock::wall().0 - u64::try_from(ago.as_millis()).expect("not for millions of years")
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).expect("not for millions of years")
}

/// No other process was disturbed, and the old role ended after its last session.
async fn undisturbed(world: &World, mut one: Service) {
    let last = one.stop().await;
    assert_eq!(last.queries_failed, 0, "{last:?}");
    assert_eq!(SessionLog::read(&world.database).early_ends(), Vec::<String>::new());
    assert_eq!(world.database.logins().await, ["payments_db_v2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_service_is_waited_for_until_its_lease_has_expired_on_every_clock() {
    let Some((world, one, mut two)) = held_up(steady()).await else { return };
    let blocker = killed(&world, &mut two).await;
    assert!(blocker.next.starts_with("the instance is fenced in "), "{blocker:?}");
    let ended = world.ended(2).await;
    assert_eq!(ended.outcome, "retired");
    let disabled = disabled_at(&world);
    let over = blocker.since_ms + millis(LEASE + MAX_USE);
    assert!(disabled >= over, "disabled {} ms before the lease of the killed one was over", over - disabled);
    println!(
        "disabled {} ms after the killed one was last heard; its lease was {LEASE:?}",
        disabled - blocker.since_ms
    );
    undisturbed(&world, one).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_hold_a_killed_service_is_waited_for_until_an_operator_names_it() {
    let options = steady().policy("when_unreachable", "\"hold\"");
    let Some((world, one, mut two)) = held_up(options).await else { return };
    let blocker = killed(&world, &mut two).await;
    assert_eq!(
        blocker.next,
        "the policy says `hold`: the retire waits until the instance releases the version or leaves, or an operator says \
         that it is gone"
    );

    // Long after every lease that it might have had, nothing has changed.
    let info = until("the killed one to be silent for long", LIMIT, async || {
        let instances = world.operator.instances().await.ok()?;
        instances.into_iter().find(|it| it.silent_for_ms.is_some_and(|silent| silent > 10_000))
    })
    .await;
    let key = info.key.expect("an instance has a key");
    assert_eq!((key.service.as_str(), key.instance.as_str()), ("payments-api", "two"));
    let still = blocked(&world, "why to still name it", |it| it.who == blocker.who).await;
    assert_eq!(still.next, blocker.next);
    assert_eq!(world.database.logins().await.len(), 2, "version 1 was retired under `hold`");

    let output = world
        .cli(&[
            "retire",
            SECRET,
            "--version",
            "1",
            "--override",
            "--instance",
            "payments-api/two",
            "--reason",
            "its machine is gone",
            "--yes",
        ])
        .await;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(world.ended(2).await.outcome, "retired");
    let trail = world.audit();
    let [word] = trail.about("override", 1).collect::<Vec<_>>()[..] else {
        panic!("expected one override in {trail:?}")
    };
    assert_eq!(word.actor, "ada");
    assert_eq!(word.details["reason"], "its machine is gone");
    let [cut] = word.details["instances"].as_array().expect("a list").as_slice() else { panic!("{word:?}") };
    assert!(cut.as_str().is_some_and(|cut| cut.starts_with("payments-api/two/")), "{word:?}");
    let intent = trail.about("retire_intent", 1).next().expect("the intent is on record");
    assert!(word.sequence < intent.sequence);
    undisturbed(&world, one).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_service_is_presumed_dead_after_the_policys_time() {
    const SILENCE: Duration = Duration::from_secs(6);
    let options = steady().policy("when_unreachable", "{ presume_dead_after = \"6s\" }");
    let Some((world, one, mut two)) = held_up(options).await else { return };
    let blocker = killed(&world, &mut two).await;
    assert!(blocker.next.starts_with("the instance is presumed dead in "), "{blocker:?}");
    assert_eq!(world.ended(2).await.outcome, "retired");
    let disabled = disabled_at(&world);
    let over = blocker.since_ms + millis(SILENCE);
    assert!(disabled >= over, "disabled {} ms too early", over - disabled);
    println!("disabled {} ms after the killed one was last heard", disabled - blocker.since_ms);
    undisturbed(&world, one).await;
}

/// A frozen process keeps its connections, so the provider's evidence holds the retire back even when its lease is
/// over: an operator cuts those sessions off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_stopped_for_longer_than_its_lease_never_hands_out_the_old_version_again() {
    let options = steady().provider("on_live_sessions", "{ terminate_after = \"1s\" }");
    let Some(mut world) = World::start(programs!(), options).await else { return };
    world.broadcaster.start(&world.operator).await;
    world.first_version().await;
    let mut one = world.service("payments-api", "one", &[]);
    let mut two = world.service("payments-api", "two", &[]);
    one.uses(1).await;
    two.uses(1).await;

    two.pause();
    let stopped = clock::instant();
    world.operator.order(Action::Rotate(v1::Rotate {})).await.expect("the order is accepted");
    one.uses(2).await;
    let session =
        blocked(&world, "the frozen one's sessions to hold up the retire", |it| it.condition == "usage_evidence").await;
    println!("{}: {}; next: {}", session.who, session.why, session.next);
    // The sessions are read while its lease still runs. Then only they hold the retire back.
    let fenced = |status: &v1::SecretStatus| status.blockers.iter().all(|it| it.condition != "members_released");
    world.until("the frozen one's lease to be over", |status| fenced(status).then_some(())).await;
    let order = v1::Override { version: 1, instances: Vec::new(), sessions: true };
    world.operator.order(Action::Override(order)).await.expect("the order is accepted");
    assert_eq!(world.ended(2).await.outcome, "retired");

    two.resume();
    two.uses(2).await;
    let status = two.until("only the new version", |status| status.oldest_held == Some(2)).await;
    let last = status.last_checkout[&1];
    assert!(
        last <= stopped.as_nanos(),
        "version 1 was handed out {:?} after the process had been stopped: {status:?}",
        Reading::from_nanos(last).since(stopped)
    );
    println!(
        "version 1 was last handed out {:?} before the stop; failed queries of the frozen one: {:?}",
        stopped.since(Reading::from_nanos(last)),
        status.errors
    );
    let last = one.stop().await;
    assert_eq!(last.queries_failed, 0, "{last:?}");
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_no_report_mentions_holds_the_retire_back_by_its_process_id() {
    let Some(mut world) = World::start(programs!(), steady()).await else { return };
    world.broadcaster.start(&world.operator).await;
    world.first_version().await;
    let mut one = world.service("payments-api", "one", &[]);
    let mut leaky = world.service("ledger", "one", &["--leak"]);
    one.uses(1).await;
    leaky.uses(1).await;
    world.operator.order(Action::Rotate(v1::Rotate {})).await.expect("the order is accepted");
    leaky.until("a release as far as it knows", |status| status.oldest_held == Some(2)).await;

    // Every instance says that version 1 is released. PostgreSQL still has sessions of it.
    let session = world
        .until("why to name the one session that is left", |status| {
            let named: Vec<_> = status.blockers.iter().filter(|it| it.condition == "usage_evidence").collect();
            let released = status.blockers.iter().all(|it| it.condition != "members_released");
            match named.as_slice() {
                [session] if released => Some((*session).clone()),
                _ => None,
            }
        })
        .await;
    println!("{}: {}; next: {}", session.who, session.why, session.next);
    let process: i32 = session
        .who
        .strip_prefix("pid ")
        .and_then(|rest| rest.split(',').next()?.parse().ok())
        .unwrap_or_else(|| panic!("expected a process id: {session:?}"));
    let instances = world.operator.instances().await.expect("the broadcaster answers");
    assert!(instances.iter().all(|it| it.held == [2]), "{instances:?}");
    assert!(world.database.logins().await.contains(&Database::login_by_hand(1)));
    let trail = world.audit();
    assert!(trail.about("retire_intent", 1).next().is_none(), "{:?}", trail.entries);

    let end = "SELECT usename::text, application_name, pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1";
    let row = world.database.superuser().await.query_one(end, &[&process]).await.expect("there is such a session");
    let (user, application) = (row.get::<_, String>(0), row.get::<_, String>(1));
    assert_eq!((user, application.as_str()), (Database::login_by_hand(1), "pool-service"));
    assert_eq!(world.ended(2).await.outcome, "retired");
    disabled_at(&world);
    let last = leaky.stop().await;
    assert_eq!(last.queries_failed, 0, "{last:?}");
    undisturbed(&world, one).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_broadcaster_services_work_on_by_store_reads_and_the_rotation_resumes() {
    // Four times the longest lease.
    const AWAY: Duration = Duration::from_secs(12);
    let Some(mut world) = World::start(programs!(), Options::default()).await else { return };
    world.broadcaster.start(&world.operator).await;
    world.first_version().await;
    let mut services = [world.service("payments-api", "one", &[]), world.service("ledger", "one", &[])];
    for service in &mut services {
        service.uses(1).await;
    }
    // No instance reports this session: it keeps the rotation from ending before the broadcaster is killed.
    let hidden = world.session(1).await;
    world.operator.order(Action::Rotate(v1::Rotate {})).await.expect("the order is accepted");
    for service in &mut services {
        service.uses(2).await;
    }
    blocked(&world, "the hidden session to hold up the retire", |it| it.condition == "usage_evidence").await;

    world.broadcaster.kill().await;
    let late = (clock::instant() + AWAY).as_nanos();
    for service in &mut services {
        let what = "checkouts long after every lease is over";
        let status = service.until(what, |status| status.last_checkout.get(&2).is_some_and(|at| *at > late)).await;
        assert_eq!(status.queries_failed, 0, "{status:?}");
    }
    // A service that starts meanwhile works too.
    let mut newcomer = world.service("mailer", "one", &[]);
    newcomer.uses(2).await;

    world.broadcaster.start(&world.operator).await;
    drop(hidden);
    let ended = world.ended(2).await;
    assert_eq!((ended.outcome.as_str(), ended.old), ("retired", 1));
    for service in services.iter_mut().chain([&mut newcomer]) {
        let last = service.stop().await;
        assert_eq!(last.queries_failed, 0, "{last:?}");
        assert!(last.version == Some(2), "{last:?}");
        println!("{}: {} queries, 0 failed", service.name(), last.queries_ok);
    }
    disabled_at(&world);
    assert_eq!(SessionLog::read(&world.database).early_ends(), Vec::<String>::new());
}
