//! What a store has on its disk and in its snapshots.

use std::path::{Path, PathBuf};
use std::process::Command;

use rotacast_tests::programs;
use rotacast_tests::world::{BusKind, Options, SECRET, StoreKind, StoreServer, World};

use super::{Canary, Hunt, OPAQUE_VALUE, SHORTEST, put};

/// Written straight into the store, so it stays as it is: a search that does not find it is blind.
const BY_HAND: &str = "ROTACAST-canary-written-by-hand-Vp42";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_value_that_rotacast_writes_is_in_etcds_files_and_snapshots() {
    nothing_is_at_rest_in(StoreKind::Etcd, BusKind::Nats).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_value_that_rotacast_writes_is_in_consuls_files_and_snapshots() {
    nothing_is_at_rest_in(StoreKind::Consul, BusKind::Nats).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_value_that_rotacast_writes_is_in_the_embedded_stores_files() {
    nothing_is_at_rest_in(StoreKind::Embedded, BusKind::Embedded).await;
}

async fn nothing_is_at_rest_in(store: StoreKind, bus: BusKind) {
    let Some(mut world) = World::start(programs!(), Options::default().on(store, bus)).await else { return };
    world.broadcaster.start(&world.operator).await;
    put(&world, OPAQUE_VALUE).await;
    // Where services can read the store, it opens values with its own key.
    let mut one = match store {
        StoreKind::Embedded => world.service_over_grpc("payments-api", "one"),
        StoreKind::Etcd | StoreKind::Consul => world.service("payments-api", "one", &[]),
    };
    // Two versions that Rotacast makes: the first one is erased at the end, and stores keep what is erased for a while.
    let mut managed = Vec::new();
    for version in 1..=2 {
        let order = world.cli(&["rotate", SECRET, "--wait", "--timeout", "2m"]).await;
        assert!(order.status.success(), "{order:?}");
        one.uses(version).await;
        let value: serde_json::Value = serde_json::from_str(&world.value(version).await).expect("a credential");
        managed.push(value["password"].as_str().expect("a credential has a password").to_owned());
    }
    let last = one.stop().await;
    assert_eq!(last.queries_failed, 0, "{last:?}");
    world.broadcaster.stop().await;
    world.store.put(3, BY_HAND).await;

    let mut places = vec![match &world.store {
        StoreServer::Embedded(file) => file.parent().expect("a file is in a folder").to_owned(),
        StoreServer::Etcd(etcd) => etcd.scratch().path().join("data"),
        StoreServer::Consul(consul) => consul.scratch().path().join("data"),
    }];
    places.extend(snapshot(&mut world).await);
    let canaries = |hand: bool| match hand {
        true => vec![Canary::new("what was written by hand", BY_HAND)],
        false => {
            assert!(managed.iter().all(|password| password.len() >= SHORTEST));
            let managed = managed.iter().map(|password| Canary::new("a password that Rotacast made", password));
            managed.chain([Canary::new("the opaque value", OPAQUE_VALUE)]).collect()
        }
    };
    for place in &places {
        let mut hunt = Hunt { canaries: canaries(false), ..Hunt::default() };
        hunt.look_into(place, &["audit.jsonl"]);
        println!("{}: {:?}", place.display(), hunt.looked);
        assert_eq!(hunt.found, Vec::<String>::new());
        let mut seeing = Hunt { canaries: canaries(true), ..Hunt::default() };
        seeing.look_into(place, &[]);
        assert!(!seeing.found.is_empty(), "the search of {} is blind", place.display());
    }
    for (key, value) in world.store.all().await {
        assert!(!canaries(false).iter().any(|canary| canary.is_in(&value)), "{key} holds a value in the clear");
    }
}

/// The folder with the store's own snapshot, unpacked; none of the embedded store, whose files are all there is.
async fn snapshot(world: &mut World) -> Option<PathBuf> {
    let folder = world.folder().join("snapshot");
    std::fs::create_dir(&folder).expect("the folder is ours");
    let file = folder.join("snapshot.db");
    let name = file.display().to_string();
    match &world.store {
        StoreServer::Embedded(_) => return None,
        StoreServer::Etcd(etcd) => drop(etcd.ctl(&["snapshot", "save", &name]).await),
        StoreServer::Consul(consul) => {
            consul.ctl(&["snapshot", "save", &name]).await;
            unpack(&file, &folder);
        }
    }
    Some(folder)
}

/// Consul's snapshots are compressed.
fn unpack(file: &Path, folder: &Path) {
    let unpacked = Command::new("tar").arg("-xzf").arg(file).arg("-C").arg(folder).output().expect("tar is there");
    assert!(unpacked.status.success(), "{unpacked:?}");
}
