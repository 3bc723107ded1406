//! The SDK against a cluster in memory. Time is tokio's, paused: it advances when every task waits.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rotacast_protocol::message::{Failure, FailureKind, Stage};
use rotacast_subscriber::testing::{FakeCluster, TokioClock};
use rotacast_subscriber::{ErrorKind, Hooks, Refusal, SecretHandle, Subscriber, Version};

const SECRET: &str = "payments/db";

/// Often enough that two threads meet within a few instructions of each other.
const ROUNDS: u32 = 2_000;

fn v(number: u64) -> Version {
    Version::new(number).unwrap()
}

fn subscriber(cluster: &FakeCluster) -> Subscriber {
    let builder = cluster.builder("payments-api").clock(Arc::new(TokioClock::new()));
    builder.connect_with(cluster.bus(), cluster.values()).unwrap()
}

async fn opened(cluster: &FakeCluster) -> (Subscriber, SecretHandle) {
    let subscriber = subscriber(cluster);
    let handle = subscriber.secret(SECRET).await.unwrap();
    (subscriber, handle)
}

/// Waits, in virtual time, until the only instance's newest report satisfies a condition.
async fn reported(cluster: &FakeCluster, condition: impl Fn(u64, Stage, &[u64]) -> bool) {
    let mut last = None;
    for _ in 0..2_000 {
        let report = cluster.reports().into_iter().next();
        if let Some(report) = report.as_ref().and_then(|report| report.secrets.values().next()) {
            let held: Vec<u64> = report.held.iter().map(|version| version.get()).collect();
            if report.reached.is_some_and(|(version, stage)| condition(version.get(), stage, &held)) {
                return;
            }
        }
        last = report;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never reported; last: {last:?}");
}

#[tokio::test(start_paused = true)]
async fn three_lines_to_a_secret() {
    let cluster = FakeCluster::new();
    cluster.put(SECRET, "one");
    let (_subscriber, db) = opened(&cluster).await;
    let guard = db.current().unwrap();
    assert_eq!((guard.expose(), guard.version()), (&b"one"[..], v(1)));
}

#[tokio::test(start_paused = true)]
async fn the_registration_is_durable_before_the_lease_and_the_lease_before_the_value() {
    let cluster = FakeCluster::new();
    cluster.put(SECRET, "one");
    cluster.put("other", "two");
    let (subscriber, _db) = opened(&cluster).await;
    let first = |log: &[String], what: &str| log.iter().position(|entry| entry == what).unwrap();
    let log = cluster.log();
    assert!(
        first(&log, "register") < first(&log, "sync") && first(&log, "sync") < first(&log, "read_value"),
        "{log:?}"
    );
    // A secret added later is registered before it is read.
    let before = log.len();
    subscriber.secret("other").await.unwrap();
    let log = &cluster.log()[before..];
    assert!(first(log, "register") < first(log, "read_value"), "{log:?}");
    assert_eq!(cluster.registrations()[0].secrets.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn new_work_moves_to_a_new_version_and_the_old_one_is_held_until_its_last_guard_is_dropped() {
    let cluster = FakeCluster::new();
    cluster.put(SECRET, "one");
    let (_subscriber, db) = opened(&cluster).await;
    let old = db.current().unwrap();
    cluster.put(SECRET, "two");
    assert_eq!(db.wait_for_change(v(1)).await.unwrap(), v(2));
    assert_eq!(db.current().unwrap().expose(), b"two");
    assert_eq!(old.expose(), b"one", "what was begun may be finished");
    reported(&cluster, |version, stage, held| version == 2 && stage == Stage::Switched && held == [1, 2]).await;
    drop(old);
    reported(&cluster, |version, stage, held| version == 2 && stage == Stage::Released && held == [2]).await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_back_is_asked_before_the_store_so_that_a_switch_costs_no_safety() {
    let cluster = FakeCluster::new();
    cluster.put(SECRET, "one");
    let (_subscriber, db) = opened(&cluster).await;
    for version in 2..6 {
        // Syncs fail, and wait longer after each failure. The store answers.
        cluster.set_leader_up(false);
        tokio::time::sleep(Duration::from_secs(60)).await;
        cluster.set_leader_up(true);
        cluster.put(SECRET, format!("version {version}"));
        assert_eq!(db.wait_for_change(v(version - 1)).await.unwrap(), v(version));
        // A self-lease of the store is 10 s, and max_use is 5 s.
        let remaining = db.current().unwrap().remaining();
        assert!(remaining > Duration::from_secs(30), "version {version}: {remaining:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_proposed_version_is_prepared_and_not_handed_out() {
    let cluster = FakeCluster::new();
    cluster.put(SECRET, "one");
    let (_subscriber, db) = opened(&cluster).await;
    cluster.propose(SECRET, "two");
    reported(&cluster, |version, stage, _| version == 2 && stage == Stage::Prepared).await;
    assert_eq!(db.current().unwrap().version(), v(1));
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_nothing_renews_lapses_on_the_clock_and_comes_back() {
    let cluster = FakeCluster::new();
    cluster.put(SECRET, "one");
    let (_subscriber, db) = opened(&cluster).await;
    let guard = db.current().unwrap();
    cluster.set_bus_up(false);
    cluster.set_store_up(false);
    let left = guard.remaining() - Duration::from_secs(5);
    tokio::time::sleep(left - Duration::from_millis(5)).await;
    assert!(!guard.is_lapsed());
    db.current().unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert!(guard.is_lapsed());
    let error = db.current().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Lapsed);
    let text = error.to_string();
    assert!(text.contains("memory cannot be reached") && text.contains(SECRET), "{text}");
    assert!(guard.remaining() > Duration::from_secs(4), "work that was begun has max_use to end");
    cluster.set_store_up(true);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(db.current().unwrap().version(), v(1));
}

#[tokio::test(start_paused = true)]
async fn without_any_broadcaster_it_starts_and_runs_on_reads_of_the_store() {
    let cluster = FakeCluster::new();
    cluster.put(SECRET, "one");
    cluster.set_leader_up(false);
    let (_subscriber, db) = opened(&cluster).await;
    for _ in 0..600 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(db.current().unwrap().version(), v(1));
    }
    // It follows what the store says.
    cluster.set_bus_up(false);
    cluster.put(SECRET, "two");
    db.wait_for_change(v(1)).await.unwrap();
    assert_eq!(db.current().unwrap().expose(), b"two");
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_everything_but_the_lease_stops_no_use_and_what_changed_meanwhile_arrives() {
    let cluster = FakeCluster::new();
    cluster.set_lease(Duration::from_secs(3600));
    cluster.put(SECRET, "one");
    let (_subscriber, db) = opened(&cluster).await;
    cluster.set_bus_up(false);
    cluster.set_store_up(false);
    tokio::time::sleep(Duration::from_secs(1800)).await;
    db.current().unwrap();
    cluster.put(SECRET, "two");
    cluster.set_bus_up(true);
    cluster.set_store_up(true);
    assert_eq!(db.wait_for_change(v(1)).await.unwrap(), v(2));
    reported(&cluster, |version, stage, _| version == 2 && stage == Stage::Released).await;
}

#[tokio::test(start_paused = true)]
async fn with_neither_bus_nor_store_it_says_what_is_missing() {
    let cluster = FakeCluster::new();
    cluster.set_bus_up(false);
    cluster.set_store_up(false);
    let error = subscriber(&cluster).secret(SECRET).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert!(error.to_string().contains("bus memory cannot be reached"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn with_a_bus_but_neither_leader_nor_store_it_names_both() {
    let cluster = FakeCluster::new();
    cluster.set_leader_up(false);
    cluster.set_store_up(false);
    let error = subscriber(&cluster).secret(SECRET).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    let text = error.to_string();
    assert!(
        text.contains("no broadcaster answers on memory") && text.contains("store memory cannot be reached"),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_secret_without_a_version_is_named() {
    let cluster = FakeCluster::new();
    let error = subscriber(&cluster).secret("payments/nothing").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSuchSecret);
    assert!(error.to_string().contains("payments/nothing"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn hooks_run_in_order_and_release_is_reported_after_its_hook() {
    let cluster = FakeCluster::new();
    cluster.put(SECRET, "one");
    let subscriber = subscriber(&cluster);
    let calls = Arc::new(Mutex::new(Vec::new()));
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let record = |name: &'static str| {
        let calls = Arc::clone(&calls);
        move |version: Version| calls.lock().unwrap().push(format!("{name} {version}"))
    };
    let (prepare, switch, release) = (record("prepare"), record("switch"), record("release"));
    let opened = Arc::clone(&gate);
    let hooks = Hooks::new()
        .on_prepare(move |new| {
            prepare(new.version());
            async {}
        })
        .on_switch(move |new| {
            switch(new.version());
            async { Ok::<(), Refusal>(()) }
        })
        .on_release(move |old| {
            release(old.version());
            let opened = Arc::clone(&opened);
            async move { opened.acquire().await.unwrap().forget() }
        });
    let db = subscriber.secret_with(SECRET, hooks).await.unwrap();
    cluster.put(SECRET, "two");
    db.wait_for_change(v(1)).await.unwrap();
    reported(&cluster, |version, stage, held| version == 2 && stage == Stage::Switched && held == [1, 2]).await;
    gate.add_permits(1);
    reported(&cluster, |version, stage, _| version == 2 && stage == Stage::Released).await;
    assert_eq!(*calls.lock().unwrap(), ["prepare 1", "switch 1", "prepare 2", "switch 2", "release 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_reported_without_the_value_and_the_old_version_stays_in_use() {
    let cluster = FakeCluster::new();
    cluster.put(SECRET, "one");
    let (_subscriber, db) = opened(&cluster).await;
    db.on_prepare(|new| async move {
        let value = String::from_utf8_lossy(new.expose()).into_owned();
        Err::<(), _>(Refusal::new(format!("cannot log in with {value}")))
    });
    cluster.propose(SECRET, "c4nary-value");
    let failed = |cluster: &FakeCluster| {
        cluster.reports().first().and_then(|report| report.secrets.values().next()?.failure.clone())
    };
    reported(&cluster, |version, _, _| version == 2 && failed(&cluster).is_some()).await;
    let failure = failed(&cluster).unwrap();
    assert_eq!((failure.kind, failure.version), (FailureKind::PrepareRefused, v(2)));
    assert!(!failure.text.contains("c4nary"), "{}", failure.text);
    assert_eq!(db.current().unwrap().version(), v(1));
}

/// What the only instance reports as failed.
fn failure(cluster: &FakeCluster) -> Option<Failure> {
    cluster.reports().first().and_then(|report| report.secrets.values().next()?.failure.clone())
}

#[tokio::test(start_paused = true)]
async fn a_start_waits_for_a_database_that_is_late() {
    let cluster = FakeCluster::new();
    cluster.put(SECRET, "one");
    let began = tokio::time::Instant::now();
    let hooks = Hooks::new().on_prepare(move |_| async move {
        let up = began.elapsed() >= Duration::from_secs(3);
        if up { Ok(()) } else { Err(Refusal::new("connection refused")) }
    });
    let db = subscriber(&cluster).secret_with(SECRET, hooks).await.unwrap();
    assert_eq!(db.current().unwrap().version(), v(1));
    assert!(began.elapsed() < Duration::from_secs(10), "virtual time: {:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_version_whose_hook_is_not_ready_is_offered_again_when_the_hook_says() {
    let cluster = FakeCluster::new();
    cluster.put(SECRET, "one");
    let (_subscriber, db) = opened(&cluster).await;
    let calls = Arc::new(Mutex::new(Vec::new()));
    let called = Arc::clone(&calls);
    db.on_prepare(move |_| {
        let mut calls = called.lock().unwrap();
        calls.push(tokio::time::Instant::now());
        let ready = calls.len() == 3;
        let pause = Duration::from_secs(2);
        async move { if ready { Ok(()) } else { Err(Refusal::new("the database restarts").retry_after(pause)) } }
    });
    cluster.propose(SECRET, "two");
    reported(&cluster, |version, _, _| version == 2 && failure(&cluster).is_some()).await;
    let told = failure(&cluster).unwrap();
    assert_eq!((told.kind, told.version, told.text.as_str()), (FailureKind::NotReady, v(2), "the database restarts"));
    reported(&cluster, |version, stage, _| version == 2 && stage == Stage::Prepared).await;
    assert_eq!(failure(&cluster), None);
    let calls = calls.lock().unwrap();
    let pauses: Vec<u64> = calls.windows(2).map(|two| (two[1] - two[0]).as_secs()).collect();
    assert_eq!(pauses, [2, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_release_that_takes_long_is_named_and_held_until_it_has_ended_and_is_not_called_twice() {
    let cluster = FakeCluster::new();
    cluster.put(SECRET, "one");
    let subscriber = subscriber(&cluster);
    let (hooks, calls) = slow_release(Duration::from_secs(90));
    let _db = subscriber.secret_with(SECRET, hooks).await.unwrap();
    cluster.put(SECRET, "two");
    reported(&cluster, |_, _, held| held == [1, 2] && failure(&cluster).is_some()).await;
    let told = failure(&cluster).unwrap();
    assert_eq!((told.kind, told.version), (FailureKind::ReleaseFailed, v(1)));
    assert!(told.text.contains("has not ended within 30s"), "{}", told.text);
    reported(&cluster, |version, stage, held| version == 2 && stage == Stage::Released && held == [2]).await;
    assert_eq!(failure(&cluster), None);
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_release_that_panics_is_named_and_called_again() {
    let cluster = FakeCluster::new();
    cluster.put(SECRET, "one");
    let (_subscriber, db) = opened(&cluster).await;
    let calls = Arc::new(AtomicU32::new(0));
    db.on_release(move |_| {
        let call = calls.fetch_add(1, Ordering::SeqCst);
        async move { assert_ne!(call, 0, "no such pool") }
    });
    cluster.put(SECRET, "two");
    reported(&cluster, |_, _, held| held == [1, 2] && failure(&cluster).is_some()).await;
    let told = failure(&cluster).unwrap();
    assert_eq!((told.kind, told.version), (FailureKind::ReleaseFailed, v(1)));
    assert!(told.text.contains("panicked") && told.text.contains("no such pool"), "{}", told.text);
    reported(&cluster, |version, stage, held| version == 2 && stage == Stage::Released && held == [2]).await;
}

#[tokio::test(start_paused = true)]
async fn the_hooks_of_one_user_do_not_replace_those_of_another() {
    let cluster = FakeCluster::new();
    cluster.put(SECRET, "one");
    let subscriber = subscriber(&cluster);
    let hooks = || Hooks::new().on_prepare(|_| async {});
    let db = subscriber.secret_with(SECRET, hooks()).await.unwrap();
    let error = subscriber.secret_with(SECRET, hooks()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("with hooks"), "{error}");
    db.current().unwrap();
    subscriber.secret(SECRET).await.unwrap();
    // No other user is left.
    drop(db);
    subscriber.secret_with(SECRET, hooks()).await.unwrap();
}

#[test]
fn a_start_outside_a_runtime_is_refused_and_does_not_panic() {
    let cluster = FakeCluster::new();
    let error = cluster.subscriber("payments-api").err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("outside a Tokio runtime"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_panics_or_hangs_is_a_failure_and_is_tried_again() {
    let cluster = FakeCluster::new();
    cluster.put(SECRET, "one");
    let (_subscriber, db) = opened(&cluster).await;
    let calls = Arc::new(AtomicU32::new(0));
    db.on_switch(move |_| {
        let call = calls.fetch_add(1, Ordering::SeqCst);
        async move {
            match call {
                0 => panic!("oh no"),
                1 => std::future::pending().await,
                _ => {}
            }
        }
    });
    cluster.put(SECRET, "two");
    let text = |cluster: &FakeCluster| {
        let report = cluster.reports().into_iter().next()?;
        Some(report.secrets.values().next()?.failure.clone()?.text)
    };
    reported(&cluster, |_, _, _| text(&cluster).is_some_and(|text| text.contains("panicked: oh no"))).await;
    assert_eq!(db.current().unwrap().version(), v(1));
    reported(&cluster, |_, _, _| text(&cluster).is_some_and(|text| text.contains("did not end within 30s"))).await;
    reported(&cluster, |version, stage, _| version == 2 && stage == Stage::Released).await;
    assert_eq!(db.current().unwrap().version(), v(2));
}

#[tokio::test(start_paused = true)]
async fn a_rollback_goes_back_and_closes_the_new_version() {
    let cluster = FakeCluster::new();
    cluster.put(SECRET, "one");
    let (_subscriber, db) = opened(&cluster).await;
    cluster.put(SECRET, "two");
    db.wait_for_change(v(1)).await.unwrap();
    cluster.change(SECRET, |state| {
        state.generation = state.generation.next();
        state.current = Some(v(1));
        state.previous = Some(v(2));
    });
    assert_eq!(db.wait_for_change(v(2)).await.unwrap(), v(1));
    reported(&cluster, |version, stage, held| version == 1 && stage == Stage::Released && held == [1]).await;
}

#[tokio::test(start_paused = true)]
async fn a_state_signed_with_another_key_changes_nothing_and_is_counted() {
    use rotacast_proto::{SigningKey, WireMessage as _};
    let cluster = FakeCluster::new();
    cluster.put(SECRET, "one");
    let (subscriber, db) = opened(&cluster).await;
    let mut forged = cluster.state(SECRET).unwrap();
    forged.revision = forged.revision.next();
    forged.generation = forged.generation.next();
    forged.current = Some(v(9));
    let stranger = SigningKey::generate();
    let name = rotacast_protocol::ClusterName::new("test").unwrap();
    cluster.publish_raw(forged.seal(&stranger, &name, "forged", rotacast_protocol::WallTime(0)));
    while subscriber.refused_messages() == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(db.current().unwrap().version(), v(1));
    assert_eq!(cluster.reports()[0].secrets.values().next().unwrap().revision.0, 1);
}

#[tokio::test(start_paused = true)]
async fn failed_logins_are_reported_by_version() {
    let cluster = FakeCluster::new();
    cluster.put(SECRET, "one");
    let (_subscriber, db) = opened(&cluster).await;
    for _ in 0..3 {
        db.report_auth_failure(v(1));
    }
    let count =
        |cluster: &FakeCluster| cluster.reports()[0].secrets.values().next().unwrap().auth_failures.get(&v(1)).copied();
    reported(&cluster, |_, _, _| count(&cluster) == Some(3)).await;
}

#[tokio::test(start_paused = true)]
async fn a_clean_leave_waits_for_guards_runs_the_release_hook_and_is_durable() {
    let cluster = FakeCluster::new();
    cluster.put(SECRET, "one");
    let (subscriber, db) = opened(&cluster).await;
    let closed = Arc::new(AtomicU32::new(0));
    let closing = Arc::clone(&closed);
    db.on_release(move |_| {
        closing.fetch_add(1, Ordering::SeqCst);
        async {}
    });
    let guard = db.current().unwrap();
    let leaving = tokio::spawn({
        let subscriber = subscriber.clone();
        async move { subscriber.leave().await }
    });
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(db.current().unwrap_err().kind(), ErrorKind::Closed);
    assert!(!leaving.is_finished() && !cluster.registrations()[0].left);
    assert_eq!(closed.load(Ordering::SeqCst), 0);
    drop(guard);
    leaving.await.unwrap().unwrap();
    assert!(cluster.registrations()[0].left);
    assert_eq!(closed.load(Ordering::SeqCst), 1);
    assert_eq!(subscriber.secret(SECRET).await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_leave_with_a_guard_that_stays_is_no_leave() {
    let cluster = FakeCluster::new();
    cluster.put(SECRET, "one");
    let (subscriber, db) = opened(&cluster).await;
    let _guard = db.current().unwrap();
    let error = subscriber.leave_within(Duration::from_secs(2)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse);
    assert!(error.to_string().contains("payments/db version 1"), "{error}");
    assert!(!cluster.registrations()[0].left);
}

#[tokio::test(start_paused = true)]
async fn a_leave_that_a_guard_held_up_is_tried_again_by_several_at_once() {
    let cluster = FakeCluster::new();
    cluster.put(SECRET, "one");
    let (subscriber, db) = opened(&cluster).await;
    let guard = db.current().unwrap();
    let bound = Duration::from_secs(2);
    let (first, second) = tokio::join!(subscriber.leave_within(bound), subscriber.leave_within(bound * 2));
    assert_eq!(first.unwrap_err().kind(), ErrorKind::InUse);
    assert_eq!(second.unwrap_err().kind(), ErrorKind::InUse);
    drop(guard);
    let (first, second) = tokio::join!(subscriber.leave(), subscriber.leave());
    first.unwrap();
    second.unwrap();
    assert!(cluster.registrations()[0].left);
}

/// A release hook that takes this long, and how often it was called.
fn slow_release(takes: Duration) -> (Hooks, Arc<AtomicU32>) {
    let calls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    let hooks = Hooks::new().on_release(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(takes)
    });
    (hooks, calls)
}

#[tokio::test(start_paused = true)]
async fn a_leave_waits_for_a_slow_release_and_does_not_call_it_twice() {
    let cluster = FakeCluster::new();
    cluster.put(SECRET, "one");
    let subscriber = subscriber(&cluster);
    let (hooks, calls) = slow_release(Duration::from_secs(60));
    let _db = subscriber.secret_with(SECRET, hooks).await.unwrap();
    let error = subscriber.leave().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(error.to_string().contains("has not ended"), "{error}");
    assert!(!cluster.registrations()[0].left, "its connections are in use");
    subscriber.leave_within(Duration::from_secs(60)).await.unwrap();
    assert!(cluster.registrations()[0].left);
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_leave_calls_a_release_that_failed_again() {
    let cluster = FakeCluster::new();
    cluster.put(SECRET, "one");
    let subscriber = subscriber(&cluster);
    let calls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    let hooks = Hooks::new().on_release(move |_| {
        let call = counted.fetch_add(1, Ordering::SeqCst);
        async move { if call == 0 { Err(Refusal::new("two connections in use")) } else { Ok(()) } }
    });
    let _db = subscriber.secret_with(SECRET, hooks).await.unwrap();
    let error = subscriber.leave().await.unwrap_err();
    assert!(error.to_string().contains("two connections in use"), "{error}");
    subscriber.leave_within(Duration::from_secs(60)).await.unwrap();
    assert!(cluster.registrations()[0].left);
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn a_leave_without_a_bus_says_so_in_time() {
    let cluster = FakeCluster::new();
    cluster.put(SECRET, "one");
    let (subscriber, _db) = opened(&cluster).await;
    cluster.set_bus_up(false);
    let started = tokio::time::Instant::now();
    let error = subscriber.leave_within(Duration::from_secs(7)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert!(error.to_string().contains("bus memory cannot be reached"), "{error}");
    assert!(started.elapsed() <= Duration::from_secs(7), "virtual time");
}

#[tokio::test(start_paused = true)]
async fn a_start_that_fails_after_its_registration_leaves_and_may_be_tried_again() {
    let cluster = FakeCluster::new();
    let subscriber = subscriber(&cluster);
    let first = subscriber.key();
    assert_eq!(subscriber.secret(SECRET).await.unwrap_err().kind(), ErrorKind::NoSuchSecret);
    assert!(cluster.registrations().iter().all(|it| it.key == first && it.left), "{:?}", cluster.registrations());
    assert_eq!(cluster.registrations().len(), 1);
    cluster.put(SECRET, "one");
    let db = subscriber.secret(SECRET).await.unwrap();
    assert_ne!(subscriber.key(), first, "the first incarnation has left for good");
    assert_eq!(db.current().unwrap().expose(), b"one");
    let left: Vec<bool> = cluster.registrations().iter().map(|it| it.left && it.key == first).collect();
    assert_eq!(left.iter().filter(|left| **left).count(), 1);
    assert_eq!(left.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_start_whose_hook_refuses_releases_what_it_was_shown_and_leaves() {
    let cluster = FakeCluster::new();
    cluster.put(SECRET, "one");
    let closed = Arc::new(AtomicU32::new(0));
    let closing = Arc::clone(&closed);
    let hooks = Hooks::new().on_prepare(|_| async { Err(Refusal::new("no such table")) }).on_release(move |_| {
        closing.fetch_add(1, Ordering::SeqCst);
        async {}
    });
    let error = subscriber(&cluster).secret_with(SECRET, hooks).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(cluster.registrations()[0].left);
    assert_eq!(closed.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_cannot_be_opened_does_not_end_the_use_of_another() {
    let cluster = FakeCluster::new();
    cluster.put(SECRET, "one");
    let (subscriber, db) = opened(&cluster).await;
    subscriber.secret("payments/nothing").await.unwrap_err();
    assert!(!cluster.registrations()[0].left);
    db.current().unwrap();
}

#[tokio::test(start_paused = true)]
async fn of_two_that_are_opened_at_once_the_one_that_works_keeps_the_instance() {
    let cluster = FakeCluster::new();
    let subscriber = subscriber(&cluster);
    let (nothing, db) = tokio::join!(subscriber.secret("payments/nothing"), async {
        let late = subscriber.secret(SECRET);
        let put = async {
            tokio::time::sleep(Duration::from_millis(4_900)).await;
            cluster.put(SECRET, "one");
        };
        tokio::join!(late, put).0
    });
    nothing.unwrap_err();
    db.unwrap().current().unwrap();
    assert!(cluster.registrations().iter().all(|it| !it.left));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_that_fail_at_the_same_moment_one_leaves() {
    let cluster = FakeCluster::new();
    for round in 0..ROUNDS {
        let builder = cluster.builder("payments-api").start_timeout(Duration::ZERO);
        let subscriber = builder.connect_with(cluster.bus(), cluster.values()).unwrap();
        let first = subscriber.key();
        let both = Arc::new(tokio::sync::Barrier::new(2));
        let fails = || {
            let (subscriber, both) = (subscriber.clone(), Arc::clone(&both));
            tokio::spawn(async move {
                both.wait().await;
                subscriber.secret(SECRET).await.map(drop).unwrap_err();
            })
        };
        let (one, other) = (fails(), fails());
        one.await.unwrap();
        other.await.unwrap();
        subscriber.secret(SECRET).await.unwrap_err();
        assert_ne!(subscriber.key(), first, "round {round}: it has left, so the next attempt is a new incarnation");
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_that_is_given_up_leaves_in_the_background() {
    let cluster = FakeCluster::new();
    let subscriber = subscriber(&cluster);
    tokio::time::timeout(Duration::from_secs(1), subscriber.secret(SECRET)).await.unwrap_err();
    assert!(!cluster.registrations()[0].left, "it may be asked again");
    drop(subscriber);
    tokio::time::timeout(Duration::from_secs(10), async {
        while !cluster.registrations()[0].left {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_start_that_fails_without_a_bus_says_so_in_time() {
    let cluster = FakeCluster::new();
    let subscriber = subscriber(&cluster);
    let started = tokio::time::Instant::now();
    let away = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        cluster.set_bus_up(false);
        cluster.set_store_up(false);
    };
    let (failed, ()) = tokio::join!(subscriber.secret(SECRET), away);
    failed.unwrap_err();
    assert!(started.elapsed() <= Duration::from_secs(34), "virtual time: {:?}", started.elapsed());
    let error = subscriber.leave_within(Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
    assert!(!cluster.registrations()[0].left, "the bus has not heard of it");
    cluster.set_bus_up(true);
    subscriber.leave().await.unwrap();
    assert!(cluster.registrations()[0].left);
}

#[tokio::test(start_paused = true)]
async fn a_leave_that_no_bus_accepts_is_given_up_in_the_end() {
    let cluster = FakeCluster::new();
    cluster.put(SECRET, "one");
    let (subscriber, _db) = opened(&cluster).await;
    cluster.set_bus_up(false);
    assert_eq!(subscriber.leave().await.unwrap_err().kind(), ErrorKind::Unreachable);
    let error = subscriber.leave_within(Duration::from_secs(600)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
    cluster.set_bus_up(true);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(!cluster.registrations()[0].left);
}

/// Its start fails while the bus answers none of its first registrations.
async fn failed_without_an_answer(cluster: &FakeCluster, unanswered: u32) -> Subscriber {
    cluster.put(SECRET, "one");
    cluster.hang_answers(unanswered);
    let builder = cluster.builder("payments-api").clock(Arc::new(TokioClock::new()));
    let builder = builder.start_timeout(Duration::from_secs(2));
    let subscriber = builder.connect_with(cluster.bus(), cluster.values()).unwrap();
    let started = tokio::time::Instant::now();
    subscriber.secret(SECRET).await.unwrap_err();
    assert!(started.elapsed() <= Duration::from_millis(5_100), "virtual time: {:?}", started.elapsed());
    subscriber
}

#[tokio::test(start_paused = true)]
async fn a_registration_without_an_answer_does_not_keep_the_leave_from_being_sent() {
    let cluster = FakeCluster::new();
    let subscriber = failed_without_an_answer(&cluster, 1).await;
    assert!(cluster.registrations()[0].left);
    subscriber.leave().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_bus_that_answers_nothing_is_unreachable_for_a_leave() {
    let cluster = FakeCluster::new();
    let subscriber = failed_without_an_answer(&cluster, u32::MAX).await;
    let error = subscriber.leave_within(Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
    assert!(cluster.registrations()[0].left, "it was sent");
}

#[tokio::test(start_paused = true)]
async fn a_leave_that_is_cancelled_while_many_calls_wait_is_not_lost() {
    use futures::FutureExt as _;
    let cluster = FakeCluster::new();
    cluster.put(SECRET, "one");
    let (subscriber, db) = opened(&cluster).await;
    // Each is polled once, which gives the driver no turn: their calls fill its queue.
    for _ in 0..32 {
        assert!(subscriber.secret("payments/nothing").now_or_never().is_none());
    }
    assert!(subscriber.leave().now_or_never().is_none());
    drop((subscriber, db));
    tokio::time::timeout(Duration::from_secs(10), async {
        while !cluster.registrations()[0].left {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_registration_is_made_again() {
    let cluster = FakeCluster::new();
    cluster.put(SECRET, "one");
    let (_subscriber, db) = opened(&cluster).await;
    cluster.forget_registrations();
    while cluster.registrations().is_empty() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    db.current().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_secret_added_while_a_registrations_answer_is_lost_is_registered_all_the_same() {
    let cluster = FakeCluster::new();
    cluster.put("a", "one");
    cluster.put("b", "two");
    cluster.lose_answers(1);
    let subscriber = subscriber(&cluster);
    let (a, b) = tokio::join!(subscriber.secret("a"), async {
        while cluster.registrations().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        subscriber.secret("b").await
    });
    a.unwrap();
    b.unwrap();
    assert_eq!(cluster.registrations()[0].secrets.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn when_the_last_handle_is_dropped_the_instance_leaves_and_nothing_goes_on() {
    let cluster = FakeCluster::new();
    cluster.put(SECRET, "one");
    let (subscriber, db) = opened(&cluster).await;
    drop(subscriber);
    db.current().unwrap();
    drop(db);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(cluster.registrations()[0].left);
    let before = cluster.log().len();
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(cluster.log().len(), before);
}

#[tokio::test]
async fn what_is_missing_is_said_before_anything_is_connected() {
    let cluster = FakeCluster::new();
    let error =
        |builder: rotacast_subscriber::Builder| builder.connect_with(cluster.bus(), cluster.values()).err().unwrap();
    let none = error(Subscriber::builder());
    assert_eq!(none.kind(), ErrorKind::Config);
    assert!(none.to_string().contains(".service("), "{none}");
    let bad = error(cluster.builder("Payments API"));
    assert!(bad.to_string().contains("\"Payments API\" is not valid"), "{bad}");
    let nowhere = error(Subscriber::builder().service("a"));
    assert_eq!(nowhere.kind(), ErrorKind::Config);
    assert!(nowhere.to_string().contains(".cluster(") && nowhere.to_string().contains("ROTACAST_CLUSTER"), "{nowhere}");
    let anonymous = error(
        Subscriber::builder().service("a").cluster("c").trust(rotacast_proto::SigningKey::generate().public().clone()),
    );
    assert_eq!(anonymous.kind(), ErrorKind::Identity);
    assert!(anonymous.to_string().contains("rotacast keygen"), "{anonymous}");
    let trusting =
        error(Subscriber::builder().service("a").cluster("c").identity(rotacast_proto::SigningKey::generate()));
    assert!(trusting.to_string().contains("ROTACAST_TRUST"), "{trusting}");
}
