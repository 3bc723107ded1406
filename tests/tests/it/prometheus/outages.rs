//! What the metrics show while a server is down.

use rotacast_tests::servers::until;
use rotacast_tests::world::{LIMIT, Options, World};
use rotacast_tests::{http, programs};

use super::rig::value;

/// A series, and the value that it must have.
type Wanted = (&'static str, fn(f64) -> bool);

/// Waits until every series is as wanted.
async fn shows(world: &World, wanted: &[Wanted]) {
    let url = world.broadcaster.url();
    let address = url.strip_prefix("http://").expect("it listens without TLS");
    for (series, fits) in wanted {
        let looked = async || {
            let (_, text) = http::get(address, "/metrics").await.ok()?;
            value(&text, series).is_some_and(fits).then_some(())
        };
        until(series, LIMIT, looked).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_away_shows_and_its_return_too() {
    let Some(mut world) = World::start(programs!(), Options::default()).await else { return };
    world.broadcaster.start(&world.operator).await;
    world.first_version().await;
    let mut service = world.service("payments-api", "one", &[]);
    service.uses(1).await;
    shows(
        &world,
        &[
            ("rotacast_leader", |leads| leads == 1.0),
            ("rotacast_store_answers", |answers| answers == 1.0),
            ("rotacast_instances{standing=\"live\"}", |live| live == 1.0),
        ],
    )
    .await;

    world.store.server().kill().await;
    shows(
        &world,
        &[
            ("rotacast_store_answers", |answers| answers == 0.0),
            ("rotacast_store_errors_total{operation=\"get\",kind=\"unreachable\"}", |failed| failed >= 1.0),
            ("rotacast_leader", |leads| leads == 0.0),
            // A broadcaster that does not lead knows no instance.
            ("rotacast_secrets", |secrets| secrets == 0.0),
            ("rotacast_instances{standing=\"live\"}", |live| live == 0.0),
        ],
    )
    .await;

    world.store.server().restart().await;
    shows(
        &world,
        &[
            ("rotacast_store_answers", |answers| answers == 1.0),
            ("rotacast_leader", |leads| leads == 1.0),
            ("rotacast_leader_terms_total", |terms| terms >= 2.0),
            ("rotacast_secrets", |secrets| secrets == 1.0),
        ],
    )
    .await;
    shows(&world, &[("rotacast_instances{standing=\"live\"}", |live| live == 1.0)]).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_that_is_away_and_an_instance_that_is_silent_show() {
    let Some(mut world) = World::start(programs!(), Options::default()).await else { return };
    world.broadcaster.start(&world.operator).await;
    world.first_version().await;
    let mut service = world.service("payments-api", "one", &[]);
    service.uses(1).await;
    service.kill().await;
    shows(
        &world,
        &[
            ("rotacast_bus_answers", |answers| answers == 1.0),
            ("rotacast_instances{standing=\"live\"}", |live| live == 0.0),
        ],
    )
    .await;
    // Its lease has expired, so it is waited for no longer.
    shows(&world, &[("rotacast_instances{standing=\"fenced\"}", |fenced| fenced == 1.0)]).await;

    world.bus.nats_mut().kill().await;
    shows(&world, &[("rotacast_bus_answers", |answers| answers == 0.0)]).await;
    world.put_by_hand(2).await;
    shows(
        &world,
        &[("rotacast_bus_errors_total{operation=\"publish_state\",kind=\"unreachable\"}", |failed| failed >= 2.0)],
    )
    .await;
    world.bus.nats_mut().restart().await;
    shows(&world, &[("rotacast_bus_answers", |answers| answers == 1.0)]).await;
}
