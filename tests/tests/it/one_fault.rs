//! A fault stays where it is: services notice neither a store that refuses every call for a while, nor what is broken
//! about another secret, nor credentials of the broadcaster that are renewed, nor a full bus.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use rotacast_proto::{SecretValue, v1};
use rotacast_store::{Commit, EtcdOptions, EtcdStore, Key, Store as _, Write};
use rotacast_tests::programs;
use rotacast_tests::servers::{make_certificates, until};
use rotacast_tests::world::{Action, BusKind, CLUSTER, LIMIT, Options, StoreKind, TLS, World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_notice_neither_a_store_that_refuses_every_call_nor_a_broken_record_of_another_secret() {
    // Longer than the refusals take on a slow machine: services work with leases that were granted before.
    let options = Options::default().on(StoreKind::Etcd, BusKind::Nats).policy("lease_idle", "\"5m\"");
    let Some(mut world) = World::start(programs!(), options).await else { return };
    world.broadcaster.start(&world.operator).await;
    world.first_version().await;
    let mut service = world.service("payments-api", "one", &[]);
    service.uses(1).await;

    let etcd = world.store.etcd();
    // Another secret's record is overwritten with an older copy, while this leader goes on.
    let beside = "rotacast/records/beside/db";
    let record = async || etcd.ctl(&["get", "--print-value-only", beside]).await.trim().to_owned();
    etcd.ctl(&["put", "rotacast/versions/beside/db/1", "first"]).await;
    let has = async |version: &str| {
        until("a version of the other secret to be on record", LIMIT, async || {
            record().await.contains(&format!("\"last_version\":{version}")).then_some(())
        })
        .await;
    };
    has("1").await;
    let older = record().await;
    etcd.ctl(&["put", "rotacast/versions/beside/db/2", "second"]).await;
    has("2").await;
    let epoch = world.operator.broadcaster().await.unwrap().epoch;
    etcd.ctl(&["put", beside, &older]).await;
    etcd.ctl(&["put", "rotacast/versions/beside/db/3", "third"]).await;
    until("the overwritten record to be named", LIMIT, async || {
        let told = String::from_utf8(world.cli(&["doctor"]).await.stdout).unwrap();
        told.contains("another client has overwritten its record").then_some(())
    })
    .await;
    let now = world.operator.broadcaster().await.unwrap().epoch;
    assert_eq!(now, epoch, "the term has ended");

    // The next term reads a record that was cut in half, and keys that are no text among versions and records.
    etcd.ctl(&["put", "rotacast/records/broken/db", r#"{"format":1,"secret":"bro"#]).await;
    for key in [&b"rotacast/records/z\xff"[..], b"rotacast/versions/z\xff/1"] {
        etcd.ctl(&[OsStr::new("put"), OsStr::from_bytes(key), OsStr::new("x")]).await;
    }
    // Rotacast has no user there.
    for command in [&["user", "add", "root:root-pw"][..], &["user", "grant-role", "root", "root"], &["auth", "enable"]]
    {
        etcd.ctl(command).await;
    }
    until("the broadcaster to lead no more, and to say why", LIMIT, async || {
        let leads = world.operator.broadcaster().await.is_ok_and(|status| status.leader);
        (!leads && world.broadcaster.log().contains("cannot run for leader")).then_some(())
    })
    .await;
    world.broadcaster.assert_runs();
    etcd.ctl(&["--user=root:root-pw", "auth", "disable"]).await;
    world.broadcaster.leads(&world.operator).await;
    let second = world.next_version().await;
    world.operator.order(Action::Rotate(v1::Rotate {})).await.expect("the broadcaster leads");
    service.uses(second).await;
    let doctor = world.cli(&["doctor"]).await;
    let told = String::from_utf8(doctor.stdout).unwrap();
    for named in
        ["out of service broken/db", r"strange key rotacast/records/z\xff", r"strange key rotacast/versions/z\xff/1"]
    {
        assert!(told.contains(named), "{named} is not in:\n{told}");
    }
    let order = world.cli(&["rotate", "broken/db"]).await;
    let refused = String::from_utf8(order.stderr).unwrap();
    assert!(!order.status.success() && refused.contains("broken/db is out of service: its record"), "{refused}");

    let last = service.stop().await;
    assert_eq!(last.queries_failed, 0, "{last:?}");
    world.broadcaster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_notice_neither_renewed_credentials_of_the_broadcaster_nor_a_full_bus() {
    let options = Options::default().on(StoreKind::Etcd, BusKind::Nats).policy("lease_idle", "\"5m\"").bus_tls();
    let Some(mut world) = World::start(programs!(), options).await else { return };
    let config = std::fs::read_to_string(world.broadcaster.config()).unwrap();
    let config = config.replace("[store]\n", "[store]\nuser = \"rotacast\"\npassword_file = \"etcd-password\"\n");
    std::fs::write(world.broadcaster.config(), config).unwrap();
    world.put_by_hand(1).await;
    let etcd = world.store.etcd();
    for command in [&["user", "add", "root:root-pw"][..], &["user", "grant-role", "root", "root"], &["auth", "enable"]]
    {
        etcd.ctl(command).await;
    }
    let folder = world.folder().to_owned();
    let give_password = async |password: &str| {
        etcd.ctl(&["--user=root:root-pw", "user", "add", &format!("rotacast:{password}")]).await;
        etcd.ctl(&["--user=root:root-pw", "user", "grant-role", "rotacast", "root"]).await;
        std::fs::write(folder.join("etcd-password"), password).unwrap();
    };
    give_password("first").await;
    world.broadcaster.start(&world.operator).await;
    world.until("version 1 to be current", |status| (status.current == 1).then_some(())).await;
    let mut service = world.service_without_store("payments-api", "one", &[]);
    service.uses(1).await;
    let rotates = async || {
        until("an order to rotate to be taken", LIMIT, async || {
            world.operator.order(Action::Rotate(v1::Rotate {})).await.ok()
        })
        .await;
    };

    etcd.ctl(&["--user=root:root-pw", "user", "delete", "rotacast"]).await;
    give_password("second").await;
    rotates().await;
    service.uses(2).await;
    world.broadcaster.assert_runs();

    assert!(make_certificates(&folder.join(TLS), &["server", "client"]).await);
    world.bus.nats_mut().stop().await;
    world.bus.nats_mut().restart().await;
    rotates().await;
    service.uses(3).await;
    world.broadcaster.assert_runs();

    let client = async_nats::connect(world.bus.nats().url()).await.unwrap();
    let context = async_nats::jetstream::new(client);
    let mut states = context.get_stream(format!("ROTACAST_STATE_{}", CLUSTER.to_uppercase())).await.unwrap();
    let info = states.info().await.unwrap().clone();
    let room = info.config.max_bytes;
    let give = async |bytes: i64| {
        let config = async_nats::jetstream::stream::Config { max_bytes: bytes, ..info.config.clone() };
        context.update_stream(config).await.unwrap();
    };
    give(i64::try_from(info.state.bytes).unwrap()).await;
    rotates().await;
    until("the full bus to be named", LIMIT, async || {
        let why = world.cli(&["why", "payments/db"]).await;
        let doctor = world.cli(&["doctor"]).await;
        let told = String::from_utf8([why.stdout, doctor.stdout].concat()).unwrap();
        told.contains("maximum bytes exceeded").then_some(())
    })
    .await;
    give(room).await;
    service.uses(4).await;
    world.broadcaster.assert_runs();

    let last = service.stop().await;
    assert_eq!(last.queries_failed, 0, "{last:?}");
    world.broadcaster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_do_not_notice_a_store_without_room_and_rotations_go_on_once_it_has_some() {
    const QUOTA: u64 = 8 << 20;
    let options =
        Options::default().on(StoreKind::Etcd, BusKind::Nats).policy("lease_idle", "\"5m\"").small_etcd(QUOTA);
    let Some(mut world) = World::start(programs!(), options).await else { return };
    world.broadcaster.start(&world.operator).await;
    world.first_version().await;
    let mut service = world.service("payments-api", "one", &[]);
    service.uses(1).await;

    let etcd = world.store.etcd();
    let filler = EtcdStore::new(EtcdOptions { endpoints: vec![etcd.endpoint()], ..EtcdOptions::default() }).unwrap();
    let fill = |at: u64| {
        let value = SecretValue::new(vec![7; 200 * 1024]);
        Commit { checks: vec![], writes: vec![Write::Put(Key::new(format!("fill/{at}")), value)] }
    };
    let mut at = 0;
    let full = loop {
        assert!(at < 100, "the quota is {QUOTA} bytes");
        at += 1;
        if let Err(problem) = filler.commit(fill(at)).await {
            break problem;
        }
    };
    assert!(full.to_string().contains("NOSPACE"), "{full}");
    // Taken or not: the record cannot be written.
    drop(tokio::time::timeout(LIMIT, world.operator.order(Action::Rotate(v1::Rotate {}))).await);
    until("the full store to be named", LIMIT, async || {
        let told = String::from_utf8(world.cli(&["doctor"]).await.stdout).unwrap();
        (told.contains("NOSPACE") && told.contains("etcdctl alarm disarm")).then_some(())
    })
    .await;
    world.broadcaster.assert_runs();
    assert_eq!(service.status().map(|status| status.queries_failed), Some(0));

    etcd.ctl(&["del", "--prefix", "fill/"]).await;
    etcd.compact().await;
    etcd.ctl(&["defrag"]).await;
    etcd.ctl(&["alarm", "disarm"]).await;
    until("an order to rotate to be taken", LIMIT, async || {
        let rotated =
            world.operator.status().await.is_ok_and(|status| status.current == 2 || status.rotation.is_some());
        (rotated || world.operator.order(Action::Rotate(v1::Rotate {})).await.is_ok()).then_some(())
    })
    .await;
    service.uses(2).await;
    world.broadcaster.assert_runs();
    let last = service.stop().await;
    assert_eq!(last.queries_failed, 0, "{last:?}");
    world.broadcaster.stop().await;
}
