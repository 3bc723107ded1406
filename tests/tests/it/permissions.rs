//! What a login with the printed permissions can not do.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex};

use async_nats::{Client, ConnectOptions, Event, HeaderMap};
use futures::TryStreamExt as _;
use rotacast_proto::{Envelope, Kind, SigningKey};
use rotacast_protocol::{ClusterName, Incarnation, InstanceKey, WallTime};
use rotacast_store::{EtcdOptions, EtcdStore, EtcdUser, Prefix, ReadStore as _, StoreError};
use rotacast_tests::programs;
use rotacast_tests::servers::{Etcd, Scratch, until};
use rotacast_tests::world::{CLUSTER, LIMIT, Options, PREFIX, World, permissions};

/// A client with a service's login, and what the server has refused it.
struct Attacker {
    client: Client,
    refused: Arc<Mutex<Vec<String>>>,
}

impl Attacker {
    async fn with_login(world: &World, user: &str) -> Self {
        let refused = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&refused);
        let options = ConnectOptions::with_user_and_password(user.into(), permissions::password(user))
            .custom_inbox_prefix(format!("rotacast.{CLUSTER}.inbox.{user}"))
            .event_callback(move |event| {
                if let Event::ServerError(problem) = &event {
                    noted.lock().expect("no code panics while it holds this lock").push(problem.to_string());
                }
                std::future::ready(())
            });
        let client = options.connect(world.bus.nats().url()).await.expect("the login is right");
        Self { client, refused }
    }

    /// The server has refused this.
    async fn is_refused(&self, what: &str, subject: &str) {
        let text = format!("{what} to \"{subject}\"");
        until(&format!("a refusal of {text}"), LIMIT, async || {
            let refused = self.refused.lock().expect("no code panics while it holds this lock");
            refused.iter().any(|refusal| refusal.contains(&text)).then_some(())
        })
        .await;
    }

    /// It may not publish there.
    async fn cannot_publish(&self, subject: &str, payload: &'static str) {
        let reply = self.client.new_inbox();
        self.client.publish_with_reply(subject.to_owned(), reply, payload.into()).await.expect("it is connected");
        self.is_refused("Publish", subject).await;
    }

    /// It may not listen there.
    async fn cannot_subscribe(&self, subject: &str) {
        drop(self.client.subscribe(subject.to_owned()).await.expect("it is connected"));
        self.is_refused("Subscription", subject).await;
    }
}

/// How many messages the leader dropped, as `doctor` says.
async fn dropped(world: &World) -> u64 {
    let output = world.cli(&["doctor", "-o", "json"]).await;
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).expect("doctor prints JSON");
    let findings = found["findings"].as_array().expect("a list");
    let finding = findings.iter().find(|finding| finding["subject"] == "messages dropped").expect("it is said");
    finding["text"].as_str().and_then(|text| text.split(' ').next()?.parse().ok()).expect("a number")
}

/// A message about an instance of `service`, signed by a stranger.
fn about(service: &str, kind: Kind) -> (HeaderMap, bytes::Bytes) {
    let key = InstanceKey::new(service.parse().unwrap(), "one".parse().unwrap(), Incarnation(7));
    let (signing, cluster) = (SigningKey::generate(), ClusterName::new(CLUSTER).unwrap());
    let envelope = Envelope::sign(&signing, kind, &cluster, key.full_name(), "forged", WallTime(0), "x".into());
    let mut headers = HeaderMap::new();
    for (name, value) in envelope.headers() {
        headers.insert(name, &*value);
    }
    (headers, envelope.payload)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_services_login_reaches_no_other_and_the_leader_stays_whole() {
    let Some(mut world) = World::start(programs!(), Options::default().permissions()).await else { return };
    world.broadcaster.start(&world.operator).await;
    world.first_version().await;
    let mut service = world.service("payments-api", "one", &[]);
    service.uses(1).await;
    let attacker = Attacker::with_login(&world, "ledger").await;

    // Streams and consumers: make, widen, steal, read, change, empty and delete.
    for stream in ["STATE", "REGISTRATIONS", "REPORTS"] {
        let stream = format!("ROTACAST_{stream}_{}", CLUSTER.to_ascii_uppercase());
        for call in [
            format!("CONSUMER.CREATE.{stream}"),
            format!("CONSUMER.CREATE.{stream}.mine"),
            format!("CONSUMER.CREATE.{stream}.mine.rotacast.{CLUSTER}.state.payments.db"),
            format!("CONSUMER.DURABLE.CREATE.{stream}.mine"),
            format!("CONSUMER.MSG.NEXT.{stream}.mine"),
            format!("CONSUMER.DELETE.{stream}.mine"),
            format!("CONSUMER.INFO.{stream}.mine"),
            format!("CONSUMER.LIST.{stream}"),
            format!("CONSUMER.NAMES.{stream}"),
            format!("STREAM.INFO.{stream}"),
            format!("STREAM.CREATE.{stream}"),
            format!("STREAM.UPDATE.{stream}"),
            format!("STREAM.DELETE.{stream}"),
            format!("STREAM.PURGE.{stream}"),
            format!("STREAM.MSG.GET.{stream}"),
            format!("STREAM.MSG.DELETE.{stream}"),
            format!("STREAM.SNAPSHOT.{stream}"),
            format!("DIRECT.GET.{stream}"),
            format!("DIRECT.GET.{stream}.rotacast.{CLUSTER}.state.other.db"),
            format!("DIRECT.GET.{stream}.rotacast.{CLUSTER}.state.payments.db"),
            format!("DIRECT.GET.{stream}.rotacast.{CLUSTER}.registrations.payments-api.one.7"),
        ] {
            attacker.cannot_publish(&format!("$JS.API.{call}"), "{}").await;
        }
    }
    // Others' subjects and inboxes, and a state.
    for subject in [
        "state.payments.db",
        "state.~cluster",
        "registrations.payments-api.one.7",
        "report.payments-api.one.7",
        "sync.payments-api",
        "sync.~broadcaster",
        "read.payments-api.payments.db",
        "read.ledger.other.db",
        "registered.payments-api.one.7",
        "inbox.payments-api.x",
        "inbox.~broadcaster.x",
    ] {
        attacker.cannot_publish(&format!("rotacast.{CLUSTER}.{subject}"), "forged").await;
    }
    attacker.cannot_publish("$JS.FC.ROTACAST_REGISTRATIONS_E2E.x.y", "").await;
    attacker.cannot_publish("$JS.ACK.ROTACAST_REGISTRATIONS_E2E.x.1.1.1.1.0", "").await;
    for subject in [">", "*", "_INBOX.>", "$JS.>", "rotacast.>", "rotacast.*.*.>"] {
        attacker.cannot_subscribe(subject).await;
    }
    for subject in [
        "inbox.>",
        "inbox.*.>",
        "inbox.payments-api.>",
        "inbox.~broadcaster.>",
        "registrations.>",
        "registrations.ledger.>",
        "report.>",
        "sync.*",
        "sync.ledger",
        "read.>",
        "read.ledger.>",
        "registered.>",
        "registered.payments-api.*.*",
        "state.>",
        "state.other.db",
    ] {
        attacker.cannot_subscribe(&format!("rotacast.{CLUSTER}.{subject}")).await;
    }

    // Larger than any registration: the stream does not take it, so the leader has nothing to drop below.
    let large = format!("rotacast.{CLUSTER}.registrations.ledger.large.7");
    attacker.client.publish(large, vec![b'x'; 100_000].into()).await.expect("it is connected");

    // What the server cannot refuse, the leader does.
    assert_eq!(dropped(&world).await, 0);
    let own = format!("rotacast.{CLUSTER}.registrations.ledger.one.7");
    let sync = format!("rotacast.{CLUSTER}.sync.ledger");
    let is_dropped = async |what: &str, count: u64| {
        until(&format!("{what} to be counted"), LIMIT, async || (dropped(&world).await == count).then_some(())).await;
    };
    let (headers, payload) = about("payments-api", Kind::SyncRequest);
    let inbox = attacker.client.new_inbox();
    attacker.client.publish_with_reply_and_headers(sync.clone(), inbox, headers, payload).await.unwrap();
    is_dropped("a Sync for another service", 1).await;
    for reply in ["rotacast.e2e.inbox.~broadcaster.x", "rotacast.e2e.state.payments.db"] {
        let (headers, payload) = about("ledger", Kind::SyncRequest);
        attacker.client.publish_with_reply_and_headers(sync.clone(), reply, headers, payload).await.unwrap();
    }
    is_dropped("Syncs to be answered elsewhere", 3).await;
    let (headers, payload) = about("payments-api", Kind::Registration);
    attacker.client.publish_with_headers(own.clone(), headers, payload).await.unwrap();
    is_dropped("a registration of another service", 4).await;
    attacker.client.publish(own, "no message".into()).await.unwrap();
    is_dropped("what is no message", 5).await;

    // All of it has changed nothing.
    assert_eq!(world.rotate().await.outcome, "retired");
    service.uses(2).await;
    let last = service.stop().await;
    assert_eq!(last.queries_failed, 0, "{last:?}");
}

/// What the stream of these messages holds, by subject.
async fn subjects(world: &World, log: &str) -> Vec<String> {
    let stream = broadcasters(world).await.get_stream(format!("ROTACAST_{log}_E2E")).await.expect("it is there");
    let listed = stream.info_builder().subjects(">").fetch().await.expect("the server answers");
    let listed = listed.map_ok(|(subject, _)| subject).try_collect();
    let mut subjects: Vec<String> = listed.await.expect("the server answers");
    subjects.sort();
    subjects
}

/// JetStream with the broadcasters' login.
async fn broadcasters(world: &World) -> async_nats::jetstream::Context {
    let user = permissions::BROADCASTER;
    let options = ConnectOptions::with_user_and_password(user.into(), permissions::password(user))
        .custom_inbox_prefix(format!("rotacast.{CLUSTER}.inbox.~broadcaster"));
    async_nats::jetstream::new(options.connect(world.bus.nats().url()).await.expect("the login is right"))
}

/// A client may name any subject for a reply, and NATS answers there with rights of its own. So a service is answered by
/// broadcasters alone, which look where the answer goes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_services_login_has_the_server_put_nothing_under_subjects_of_others() {
    let Some(mut world) = World::start(programs!(), Options::default().permissions()).await else { return };
    world.broadcaster.start(&world.operator).await;
    world.first_version().await;
    let mut service = world.service("payments-api", "one", &[]);
    service.uses(1).await;
    let states = subjects(&world, "STATE").await;
    assert_eq!(states, ["rotacast.e2e.state.payments.db", "rotacast.e2e.state.~cluster"]);
    let registrations = subjects(&world, "REGISTRATIONS").await;
    let reports = subjects(&world, "REPORTS").await;
    let attacker = Attacker::with_login(&world, "ledger").await;

    let mut places = states.clone();
    places.extend(registrations.iter().chain(&reports).cloned());
    places.extend((0..10).map(|number| format!("rotacast.e2e.state.random.{number}")));
    places.push("rotacast.e2e.registrations.payments-api.two.7".to_owned());
    places.push("rotacast.e2e.report.payments-api.two.7".to_owned());
    for place in &places {
        for subject in [
            "rotacast.e2e.report.ledger.one.7",
            "rotacast.e2e.registrations.ledger.one.7",
            "rotacast.e2e.sync.ledger",
            "rotacast.e2e.read.ledger.payments.db",
            "rotacast.e2e.registered.ledger.one.7",
            "$JS.API.DIRECT.GET.ROTACAST_STATE_E2E.rotacast.e2e.state.payments.db",
        ] {
            let mut traced = HeaderMap::new();
            traced.insert("Nats-Trace-Dest", place.as_str());
            let client = &attacker.client;
            client.publish_with_reply(subject, place.clone(), "".into()).await.expect("it is connected");
            client.publish_with_reply(subject, place.clone(), "x".into()).await.expect("it is connected");
            client.publish_with_headers(subject, traced, "x".into()).await.expect("it is connected");
        }
    }
    // Everything before it has arrived by then.
    let (headers, payload) = about("ledger", Kind::InstanceReport);
    let last = format!("rotacast.e2e.report.ledger.one.{}", Incarnation(7));
    attacker.client.publish_with_headers(last.clone(), headers, payload).await.expect("it is connected");
    until("the last of it", LIMIT, async || subjects(&world, "REPORTS").await.contains(&last).then_some(())).await;

    assert_eq!(world.rotate().await.outcome, "retired");
    service.uses(2).await;
    assert_eq!(subjects(&world, "STATE").await, states, "nothing under new names");
    let of_others = |subjects: Vec<String>| -> Vec<_> {
        subjects.into_iter().filter(|subject| !subject.contains(".ledger.")).collect()
    };
    assert_eq!(of_others(subjects(&world, "REGISTRATIONS").await), registrations);
    assert_eq!(of_others(subjects(&world, "REPORTS").await), reports);
    let stream = broadcasters(&world).await.get_stream("ROTACAST_STATE_E2E").await.expect("it is there");
    for state in &states {
        let last = stream.get_last_raw_message_by_subject(state).await.expect("it is there");
        assert!(last.headers.get("ce-id").is_some(), "{state} holds {:?}", last.payload);
    }
    let last = service.stop().await;
    assert_eq!(last.queries_failed, 0, "{last:?}");
}

/// A folder with a configuration on this etcd and a service that may use these secrets; and `etcdctl`, which gives each new
/// user the password `only-for-tests`, where the real one asks for it.
fn folder_on(etcd: &Etcd, secrets: &str) -> Scratch {
    let folder = Scratch::new("printed");
    let key = SigningKey::from_seed(&[7; 32]).public().to_text();
    let config = format!(
        "cluster = \"{CLUSTER}\"\n[store]\nkind = \"etcd\"\nendpoints = [\"{}\"]\nprefix = \"{PREFIX}\"\n\
         [services.payments-api]\nkeys = [\"{key}\"]\nsecrets = [{secrets}]\n",
        etcd.endpoint()
    );
    std::fs::write(folder.path().join("rotacast.toml"), config).expect("the scratch folder is ours");
    let program = "#!/bin/sh\nPATH=$OTHERS\n[ \"$1 $2\" != \"user add\" ] || set -- user add \"$3:only-for-tests\"\n\
                   exec \"${ROTACAST_ETCDCTL:-etcdctl}\" \"$@\"\n";
    let file = folder.path().join("etcdctl");
    std::fs::write(&file, program).expect("the scratch folder is ours");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o700)).expect("it is ours");
    folder
}

/// Runs what is printed for etcd.
async fn run_printed(etcd: &Etcd, folder: &Scratch) {
    let script = permissions::printed(&programs!(), &folder.path().join("rotacast.toml"), "etcd").await;
    let others = std::env::var("PATH").unwrap_or_default();
    let mut command = tokio::process::Command::new("sh");
    command.args(["-c", &script]).env("ETCDCTL_ENDPOINTS", etcd.endpoint());
    command.env("PATH", format!("{}:{others}", folder.path().display())).env("OTHERS", others);
    let output = command.output().await.expect("every system has sh");
    assert!(output.status.success(), "{}{script}", String::from_utf8_lossy(&output.stderr));
}

/// After a change of the configuration the output is run again, on users that are in use.
#[tokio::test]
async fn what_is_printed_for_etcd_runs_again_and_takes_what_is_granted_no_more() {
    let Some(etcd) = Etcd::start().await else { return };
    let first = folder_on(&etcd, "\"payments/db\", \"mail/*\"");
    run_printed(&etcd, &first).await;
    run_printed(&etcd, &first).await;
    run_printed(&etcd, &folder_on(&etcd, "\"payments/db\"")).await;
    let user = etcd.ctl(&["user", "get", "payments-api"]).await;
    let roles: Vec<_> = user.lines().filter_map(|line| line.strip_prefix("Roles: ")).collect();
    let [role] = roles[..] else { panic!("expected one role, found {user}") };
    let rights = etcd.ctl(&["role", "get", role]).await;
    assert!(rights.contains("payments/db") && !rights.contains("mail"), "{rights}");

    etcd.ctl(&["put", &format!("{PREFIX}/versions/payments/db/1"), "mine"]).await;
    etcd.ctl(&["put", &format!("{PREFIX}/versions/mail/db/1"), "another's"]).await;
    for arguments in [&["user", "add", "root:root"][..], &["user", "grant-role", "root", "root"], &["auth", "enable"]] {
        etcd.ctl(arguments).await;
    }
    let user = EtcdUser { name: "payments-api".into(), password: "only-for-tests".to_owned().into() };
    let login = EtcdOptions { endpoints: vec![etcd.endpoint()], user: Some(user), ..EtcdOptions::default() };
    let store = EtcdStore::new(login).expect("the options are whole");
    let prefix = Prefix::new(PREFIX).expect("a valid prefix");
    let key = |name: &str| prefix.key().child("versions").child(name).child("db").child("1");
    let read = store.get(&key("payments")).await.expect("it may read it");
    assert_eq!(read.expect("it is there").value.expose(), b"mine");
    let refused = store.get(&key("mail")).await.map(drop);
    assert!(matches!(refused, Err(StoreError::Denied { .. })), "{refused:?}");
}
