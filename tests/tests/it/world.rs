//! The judges of the end-to-end tests see what they must see: a role that is disabled or dropped under a session.

use rotacast_tests::programs;
use rotacast_tests::servers::until;
use rotacast_tests::world::{Database, LIMIT, Options, SessionLog, World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_outlives_its_role_is_seen_twice() {
    let Some(world) = World::start(programs!(), Options::default()).await else { return };
    world.put_by_hand(1).await;
    let session = world.session(1).await;
    let life = || world.observer.roles().into_iter().find(|life| life.name == Database::login_by_hand(1));
    let seen = until("the observer to see the session", LIMIT, async || life().filter(|l| l.sessions.is_some())).await;
    assert!(seen.sessions_after_disable.is_empty(), "{seen:?}");
    assert_eq!((seen.disabled, seen.dropped), (None, None), "{seen:?}");
    assert!(SessionLog::read(&world.database).early_ends().is_empty());

    let superuser = world.database.superuser().await;
    superuser.batch_execute("ALTER ROLE by_hand_1 NOLOGIN").await.expect("a superuser may");
    until("the observer to see it live on", LIMIT, async || life().filter(|l| !l.sessions_after_disable.is_empty()))
        .await;
    let told = || SessionLog::read(&world.database).early_ends();
    until("PostgreSQL to have logged it", LIMIT, async || (!told().is_empty()).then_some(())).await;

    superuser.batch_execute("DROP OWNED BY by_hand_1; DROP ROLE by_hand_1").await.expect("a superuser may");
    let after =
        until("the observer to see the role gone", LIMIT, async || life().filter(|l| l.dropped.is_some())).await;
    let more = async || life().filter(|l| l.sessions_after_disable.len() > after.sessions_after_disable.len());
    until("the observer to see the session of the role that is gone", LIMIT, more).await;
    drop(session);
}
