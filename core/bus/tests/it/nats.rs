//! Faults that only NATS can have: servers that refuse, streams that another client made, several environments on one
//! server.

use std::time::Duration;

use async_nats::jetstream::stream::{Config, RetentionPolicy};
use futures::StreamExt as _;
use rotacast_bus::{
    BusError, BusEvent, InstanceBus as _, LeaderBus, Level, LoginSecret, NatsBus, NatsCredentials, NatsOptions,
    NatsParty, Stray, StreamLimits,
};
use rotacast_proto::{Envelope, Kind, SigningKey};
use rotacast_protocol::{
    ClusterName, Incarnation, InstanceKey, InstanceName, Revision, SecretName, ServiceName, WallTime,
};
use rotacast_test_servers::{Nats, NatsConfig, Scratch, make_certificates, until};

/// A wait that takes longer than this hangs.
const HANG: Duration = Duration::from_secs(60);

async fn with_authorization(authorization: &str) -> Option<Nats> {
    Nats::start_with(NatsConfig { top: &format!("authorization {{ {authorization} }}"), jetstream: "" }).await
}

fn options(server: &Nats, cluster: &str) -> NatsOptions {
    options_at(server.url(), cluster)
}

fn options_at(url: impl Into<String>, cluster: &str) -> NatsOptions {
    NatsOptions::new(url, ClusterName::new(cluster).unwrap(), NatsParty::Broadcaster)
}

fn state(text: &'static str) -> Envelope {
    let (key, cluster) = (SigningKey::generate(), ClusterName::new("dev").unwrap());
    Envelope::sign(&key, Kind::SecretState, &cluster, "db", text, WallTime(0), text.as_bytes().into())
}

async fn failure(options: NatsOptions) -> BusError {
    match NatsBus::connect(options).await {
        Ok(_) => panic!("it connects"),
        Err(problem) => problem,
    }
}

#[tokio::test]
async fn an_absent_server_is_named_with_its_address() {
    let problem = failure(options_at("nats://user:secret@127.0.0.1:1", "dev")).await;
    assert!(matches!(problem, BusError::Unreachable { .. }), "{problem:?}");
    let text = problem.to_string();
    assert!(text.contains("nats://127.0.0.1:1") && !text.contains("secret"), "{text}");
}

#[tokio::test]
async fn wrong_credentials_are_denied_and_right_ones_pass() {
    let Some(server) = with_authorization("user: rotacast, password: right").await else { return };
    for credentials in [NatsCredentials::None, NatsCredentials::UserPassword("rotacast".into(), "wrong".into())] {
        let problem = failure(NatsOptions { credentials, ..options(&server, "dev") }).await;
        assert!(matches!(problem, BusError::Denied { .. }), "{problem:?}");
        assert!(!problem.to_string().contains("wrong"), "{problem}");
    }
    let credentials = NatsCredentials::UserPassword("rotacast".into(), "right".into());
    NatsBus::connect(NatsOptions { credentials, ..options(&server, "dev") }).await.unwrap();
}

#[tokio::test]
async fn a_login_in_the_url_counts() {
    let Some(server) = with_authorization("user: rotacast, password: \"r@ght/one\"").await else { return };
    let with = |login: &str| {
        let url = server.url().replace("nats://", &format!("nats://{login}@"));
        options_at(url, "dev")
    };
    NatsBus::connect(with("rotacast:r%40ght%2Fone")).await.unwrap();
    let problem = failure(with("rotacast:wrong")).await;
    assert!(matches!(problem, BusError::Denied { .. }), "{problem:?}");
    assert!(!problem.to_string().contains("wrong"), "{problem}");
    let Some(server) = with_authorization("token: the-token").await else { return };
    let url = server.url().replace("nats://", "nats://the-token@");
    NatsBus::connect(options_at(url, "dev")).await.unwrap();
}

/// Server and file get the next password. The connection, which ended with the first password, is made again.
#[tokio::test]
async fn a_password_that_is_renewed_in_its_file_is_used() {
    let with = |password: &str| format!("authorization {{ user: rotacast, password: {password} }}");
    let Some(server) = Nats::start_with(NatsConfig { top: &with("first"), jetstream: "" }).await else { return };
    let scratch = Scratch::new("nats-password");
    let file = scratch.path().join("password");
    std::fs::write(&file, "first\n").unwrap();
    let credentials = NatsCredentials::UserPassword("rotacast".into(), LoginSecret::File(file.clone()));
    let bus = NatsBus::connect(NatsOptions { credentials, ..options(&server, "dev") }).await.unwrap();
    let secret = SecretName::new("db").unwrap();
    bus.publish_state(&secret, Revision(1), &state("one")).await.unwrap();
    std::fs::write(&file, "second\n").unwrap();
    server.reload(NatsConfig { top: &with("second"), jetstream: "" });
    // The server refuses the first password from now on.
    let refused = async || {
        let credentials = NatsCredentials::UserPassword("rotacast".into(), "first".into());
        matches!(
            NatsBus::connect(NatsOptions { credentials, ..options(&server, "dev") }).await,
            Err(BusError::Denied { .. })
        )
    };
    until("the first password to be refused", HANG, async || refused().await.then_some(())).await;
    until("the bus to be back", HANG, async || bus.publish_state(&secret, Revision(2), &state("two")).await.ok()).await;
}

#[tokio::test]
async fn an_nkey_passes_and_a_file_that_is_none_is_named() {
    let pair = nkeys::KeyPair::new_user();
    let Some(server) = with_authorization(&format!("users: [{{ nkey: {} }}]", pair.public_key())).await else { return };
    let scratch = Scratch::new("nats-nkey");
    let file = scratch.path().join("seed");
    std::fs::write(&file, pair.seed().unwrap()).unwrap();
    let credentials = NatsCredentials::Nkey(LoginSecret::File(file.clone()));
    NatsBus::connect(NatsOptions { credentials: credentials.clone(), ..options(&server, "dev") }).await.unwrap();
    std::fs::write(&file, "canary").unwrap();
    let problem = failure(NatsOptions { credentials, ..options(&server, "dev") }).await.to_string();
    assert!(problem.contains("no nkey's seed") && !problem.contains("canary"), "{problem}");
    let credentials = NatsCredentials::File(file.clone());
    let problem = failure(NatsOptions { credentials, ..options(&server, "dev") }).await.to_string();
    assert!(problem.contains("it has no USER NKEY SEED") && !problem.contains("canary"), "{problem}");
}

#[tokio::test]
async fn a_token_passes() {
    let Some(server) = with_authorization("token: the-token").await else { return };
    let credentials = NatsCredentials::Token("the-token".into());
    NatsBus::connect(NatsOptions { credentials, ..options(&server, "dev") }).await.unwrap();
}

#[tokio::test]
async fn a_stream_that_cannot_work_is_refused_with_the_reason() {
    let Some(server) = Nats::start().await else { return };
    let context = async_nats::jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let wrong = Config {
        name: "ROTACAST_REGISTRATIONS_DEV".into(),
        subjects: vec!["rotacast.dev.registrations.*.*.*".into()],
        retention: RetentionPolicy::WorkQueue,
        ..Config::default()
    };
    context.create_stream(wrong).await.unwrap();
    let problem = failure(options(&server, "dev")).await;
    assert!(matches!(problem, BusError::Misconfigured { .. }), "{problem:?}");
    let text = problem.to_string();
    assert!(
        text.contains("ROTACAST_REGISTRATIONS_DEV") && text.contains("WorkQueue") && text.contains("Limits"),
        "{text}"
    );
    // Another environment on the same server is not affected.
    NatsBus::connect(options(&server, "staging")).await.unwrap();
}

#[tokio::test]
async fn weaker_settings_are_reported_and_nothing_else() {
    let Some(server) = Nats::start().await else { return };
    let bus = NatsBus::connect(options(&server, "dev")).await.unwrap();
    let findings = bus.examine().await;
    assert!(findings.iter().all(|finding| finding.level < Level::Error), "{findings:?}");
    let warnings: Vec<_> = findings.iter().filter(|finding| finding.level == Level::Warning).collect();
    // One server: the only findings are the single replica of the two durable streams, and disks that sync after the
    // acknowledgement.
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    assert!(warnings.iter().all(|warning| !warning.fix.is_empty()), "{warnings:?}");
    assert!(warnings.iter().any(|warning| warning.text.contains("sync_interval")), "{warnings:?}");

    let context = async_nats::jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let mut config = context.get_stream("ROTACAST_STATE_DEV").await.unwrap().cached_info().config.clone();
    config.max_bytes = -1;
    context.update_stream(config).await.unwrap();
    let findings = bus.examine().await;
    assert!(findings.iter().any(|finding| finding.text.contains("no limit in bytes")), "{findings:?}");
}

/// The bus finds while it runs what it would refuse at the start.
#[tokio::test]
async fn a_stream_that_changes_or_goes_while_it_is_used_is_found() {
    let Some(server) = Nats::start().await else { return };
    let bus = NatsBus::connect(options(&server, "dev")).await.unwrap();
    let errors = async || -> Vec<String> {
        let found = bus.examine().await.into_iter().filter(|finding| finding.level == Level::Error);
        found.map(|finding| format!("{} {}", finding.subject, finding.text)).collect()
    };
    assert_eq!(errors().await, [""; 0]);
    let context = async_nats::jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let mut config = context.get_stream("ROTACAST_REGISTRATIONS_DEV").await.unwrap().cached_info().config.clone();
    config.no_ack = false;
    context.update_stream(config).await.unwrap();
    let found = errors().await;
    assert!(matches!(&found[..], [one] if one.contains("ROTACAST_REGISTRATIONS_DEV no_ack is off")), "{found:?}");
    context.delete_stream("ROTACAST_REGISTRATIONS_DEV").await.unwrap();
    let found = errors().await;
    assert!(matches!(&found[..], [one] if one.contains("ROTACAST_REGISTRATIONS_DEV was missing")), "{found:?}");
    assert_eq!(errors().await, [""; 0], "it is made anew");
}

fn smaller(options: NatsOptions) -> NatsOptions {
    let limits = StreamLimits { state_bytes: 1 << 20, registration_bytes: 1 << 20, report_bytes: 1 << 20 };
    NatsOptions { limits, ..options }
}

fn full(problem: &BusError) -> String {
    assert!(matches!(problem, BusError::Full { .. }), "{problem:?}");
    assert!(problem.is_transient(), "room may be made: {problem}");
    problem.to_string()
}

/// The account's limits are checked first: the bus makes no stream when not all of them fit.
#[tokio::test]
async fn an_account_without_room_is_full_before_the_first_stream_is_made() {
    let top = "accounts { SMALL: { jetstream: { max_mem: 8MB, max_file: 100MB }, users: [{ user: u, password: p }] } }";
    let Some(server) = Nats::start_with(NatsConfig { top, jetstream: "" }).await else { return };
    let with = || {
        let credentials = NatsCredentials::UserPassword("u".into(), "p".into());
        NatsOptions { credentials, ..options(&server, "dev") }
    };
    let text = full(&failure(with()).await);
    for part in ["104857600", "ROTACAST_STATE_DEV and ROTACAST_REGISTRATIONS_DEV", "335544320", "[bus.streams]"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let client = async_nats::ConnectOptions::with_user_and_password("u".into(), "p".into());
    let context = async_nats::jetstream::new(client.connect(server.url()).await.unwrap());
    assert_eq!(context.query_account().await.unwrap().streams, 0, "none is made");
    NatsBus::connect(smaller(with())).await.unwrap();
}

/// How much space the server has left shows only when a stream is made. The error names the streams that were made, and
/// the next start makes the others.
#[tokio::test]
async fn a_server_that_runs_full_in_between_names_what_was_made_and_goes_on_later() {
    let Some(server) = Nats::start_with(NatsConfig { top: "", jetstream: "max_file_store: 100MB" }).await else {
        return;
    };
    let text = full(&failure(options(&server, "dev")).await);
    for part in ["made just now: ROTACAST_STATE_DEV", "still missing: ROTACAST_REGISTRATIONS_DEV, ROTACAST_REPORTS_DEV"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let bus = NatsBus::connect(smaller(options(&server, "dev"))).await.unwrap();
    bus.publish_state(&SecretName::new("db").unwrap(), Revision(1), &state("one")).await.unwrap();
    assert!(bus.examine().await.iter().all(|finding| finding.level < Level::Error));
}

/// Publishing retries until the call's time is over. Then the error says why.
#[tokio::test]
async fn a_stream_without_room_is_full_and_not_silent() {
    let Some(server) = Nats::start().await else { return };
    let bus = NatsBus::connect(options(&server, "dev")).await.unwrap();
    let secret = SecretName::new("db").unwrap();
    bus.publish_state(&secret, Revision(1), &state("one")).await.unwrap();
    let context = async_nats::jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let mut stream = context.get_stream("ROTACAST_STATE_DEV").await.unwrap();
    let info = stream.info().await.unwrap();
    let max_bytes = i64::try_from(info.state.bytes).unwrap();
    context.update_stream(Config { max_bytes, ..info.config.clone() }).await.unwrap();
    let text = full(
        &bus.publish_state(&secret, Revision(2), &state("two, which takes more room than what it replaces"))
            .await
            .unwrap_err(),
    );
    assert!(text.contains("maximum bytes exceeded"), "{text}");
}

/// A client fills the stream of registrations. The next instance registers all the same, and is heard of.
#[tokio::test]
async fn a_stream_full_of_registrations_keeps_no_instance_out() {
    let Some(server) = Nats::start().await else { return };
    let bus = NatsBus::connect(smaller(options(&server, "dev"))).await.unwrap();
    let of = |service: &str, number: u128| {
        InstanceKey::new(ServiceName::new(service).unwrap(), InstanceName::new("pod").unwrap(), Incarnation(number))
    };
    let registration = |key: &InstanceKey, bytes: usize| {
        let (signing, cluster) = (SigningKey::generate(), ClusterName::new("dev").unwrap());
        let (id, subject) = (key.incarnation.to_string(), key.full_name());
        Envelope::sign(&signing, Kind::Registration, &cluster, &subject, id, WallTime(0), vec![b'x'; bytes].into())
    };
    // Three times what the stream takes.
    for number in 0..60 {
        let key = of("greedy", number);
        bus.register(&key, &registration(&key, 50_000)).await.unwrap();
    }
    let key = of("payments", 1);
    let newcomer = registration(&key, 100);
    bus.register(&key, &newcomer).await.unwrap();
    let mut registrations = bus.watch_registrations();
    let heard = async { while registrations.next().await.unwrap().unwrap() != BusEvent::Message(newcomer.clone()) {} };
    tokio::time::timeout(HANG, heard).await.expect("the newcomer's registration never arrives");
}

/// The authority, the server's certificate and ours are all replaced: each connection reads its files.
#[tokio::test]
async fn renewed_certificates_count_for_the_next_connection() {
    let scratch = Scratch::new("nats-renewed");
    let folder = scratch.path();
    if !make_certificates(folder, &["server", "client"]).await {
        return;
    }
    let path = |name: &str| folder.join(name);
    let tls = format!(
        "tls {{ cert_file: {:?}, key_file: {:?}, ca_file: {:?}, verify: true }}",
        path("server.pem"),
        path("server.key"),
        path("ca.pem")
    );
    let Some(mut server) = Nats::start_with(NatsConfig { top: &tls, jetstream: "" }).await else { return };
    let options = NatsOptions {
        urls: vec![server.url().replace("nats://", "tls://")],
        ca: Some(path("ca.pem")),
        identity: Some((path("client.pem"), path("client.key"))),
        ..options(&server, "dev")
    };
    let bus = NatsBus::connect(options).await.unwrap();
    let secret = SecretName::new("db").unwrap();
    bus.publish_state(&secret, Revision(1), &state("one")).await.unwrap();
    server.stop().await;
    assert!(make_certificates(folder, &["server", "client"]).await);
    server.restart().await;
    until("the bus to be back", HANG, async || bus.publish_state(&secret, Revision(2), &state("two")).await.ok()).await;
}

#[tokio::test]
async fn two_environments_share_a_server_and_see_nothing_of_each_other() {
    let Some(server) = Nats::start().await else { return };
    let secret = SecretName::new("db").unwrap();
    // One name is a prefix of the other.
    for (cluster, text) in [("eu", "of eu"), ("eu.prod", "of eu.prod")] {
        let bus = NatsBus::connect(options(&server, cluster)).await.unwrap();
        bus.publish_state(&secret, Revision(1), &state(text)).await.unwrap();
    }
    for (cluster, text) in [("eu", "of eu"), ("eu.prod", "of eu.prod")] {
        let bus = NatsBus::connect(options(&server, cluster)).await.unwrap();
        let mut states = bus.watch_states(std::slice::from_ref(&secret));
        let Some(Ok(BusEvent::Message(envelope))) = states.next().await else { panic!("no state") };
        assert_eq!(envelope.payload, text);
        assert_eq!(states.next().await.unwrap().unwrap(), BusEvent::CaughtUp);
    }
}

#[tokio::test]
async fn dropped_watches_leave_no_consumer_behind() {
    let Some(server) = Nats::start().await else { return };
    let bus = NatsBus::connect(options(&server, "dev")).await.unwrap();
    let context = async_nats::jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let stream = context.get_stream("ROTACAST_REGISTRATIONS_DEV").await.unwrap();
    let consumers = async || stream.get_info().await.unwrap().state.consumer_count;
    let mut watches: Vec<_> = (0..20).map(|_| bus.watch_registrations()).collect();
    for watch in &mut watches {
        assert_eq!(watch.next().await.unwrap().unwrap(), BusEvent::CaughtUp);
    }
    assert_eq!(consumers().await, 20);
    drop(watches);
    // The server removes a consumer that has had no listener for a while.
    until("no consumer to be left", HANG, async || (consumers().await == 0).then_some(())).await;
}

/// Half of what a NATS server allows on one stream by default: a watch that retries has two consumers for a moment.
#[tokio::test]
async fn hundreds_of_watches_share_one_connection() {
    let Some(server) = Nats::start().await else { return };
    let bus = NatsBus::connect(options(&server, "dev")).await.unwrap();
    let secret = SecretName::new("db").unwrap();
    let mut watches: Vec<_> = (0..500).map(|_| bus.watch_states(std::slice::from_ref(&secret))).collect();
    for watch in &mut watches {
        assert_eq!(watch.next().await.unwrap().unwrap(), BusEvent::CaughtUp);
    }
    bus.publish_state(&secret, Revision(1), &state("to all")).await.unwrap();
    for watch in &mut watches {
        let Some(Ok(BusEvent::Message(envelope))) = watch.next().await else { panic!("no state") };
        assert_eq!(envelope.payload, "to all");
    }
}

#[tokio::test]
async fn a_silent_reader_notices_that_its_stream_was_recreated_by_others() {
    let Some(server) = Nats::start().await else { return };
    let secret = SecretName::new("db").unwrap();
    let writer = NatsBus::connect(options(&server, "dev")).await.unwrap();
    writer.publish_state(&secret, Revision(1), &state("before")).await.unwrap();
    // A connection that does nothing else: only missing heartbeats show that the server is gone.
    let heartbeat = Duration::from_millis(200);
    let reader = NatsBus::connect(NatsOptions { heartbeat, ..options(&server, "dev") }).await.unwrap();
    let mut states = reader.watch_states(std::slice::from_ref(&secret));
    let Some(Ok(BusEvent::Message(envelope))) = states.next().await else { panic!("no state") };
    assert_eq!(envelope.payload, "before");
    assert_eq!(states.next().await.unwrap().unwrap(), BusEvent::CaughtUp);

    let context = async_nats::jetstream::new(async_nats::connect(server.url()).await.unwrap());
    context.delete_stream("ROTACAST_STATE_DEV").await.unwrap();
    writer.publish_state(&secret, Revision(2), &state("after")).await.unwrap();
    let next = tokio::time::timeout(HANG, states.next()).await.expect("the reader never notices");
    assert_eq!(next.unwrap().unwrap(), BusEvent::Resync);
    let Some(Ok(BusEvent::Message(envelope))) = states.next().await else { panic!("no state") };
    assert_eq!(envelope.payload, "after");
    assert_eq!(states.next().await.unwrap().unwrap(), BusEvent::CaughtUp);
}

/// Headers that are commands to the server: any client that may publish to a subject may send them.
#[tokio::test]
async fn s56_headers_that_remove_expire_or_suppress_messages_have_no_effect() {
    let Some(server) = Nats::start().await else { return };
    let bus = NatsBus::connect(options(&server, "dev")).await.unwrap();
    let client = async_nats::connect(server.url()).await.unwrap();
    let context = async_nats::jetstream::new(client);
    let secrets = ["db", "cache"].map(|name| SecretName::new(name).unwrap());
    bus.publish_state(&secrets[0], Revision(1), &state("first")).await.unwrap();
    let publish = async |header: &str, value: &str| {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert(header, value);
        let sent = context.publish_with_headers("rotacast.dev.state.other", headers, "x".into()).await.unwrap();
        sent.await
    };
    // These remove everything else in the stream, or everything older of a subject, or end the message after a second.
    for (header, value) in [("Nats-Rollup", "all"), ("Nats-Rollup", "sub"), ("Nats-TTL", "1s")] {
        let refused = publish(header, value).await;
        assert!(refused.is_err(), "{header}: {value} was taken");
    }
    // The id of the leader's next message, used before it: the server would take the leader's message for a duplicate.
    let next = state("second");
    publish("Nats-Msg-Id", &next.id).await.unwrap();
    bus.publish_state(&secrets[0], Revision(2), &next).await.unwrap();
    let other = Envelope { id: next.id.clone(), ..state("of the cache") };
    bus.publish_state(&secrets[1], Revision(1), &other).await.unwrap();
    let mut states = bus.watch_states(&secrets);
    let mut texts = Vec::new();
    while let BusEvent::Message(envelope) = states.next().await.unwrap().unwrap() {
        texts.push(envelope.payload);
    }
    texts.sort();
    assert_eq!(texts, ["of the cache", "second"]);
}

fn stray(bus: &NatsBus, kind: Stray) -> u64 {
    bus.strays().into_iter().find(|(stray, _)| *stray == kind).unwrap().1
}

/// Any client that may make a consumer, or send a request, can name the leader's inbox. The leader reads on, and what it
/// reads is its own consumer's.
#[tokio::test]
async fn what_others_have_delivered_into_a_readers_inbox_is_dropped_and_counted() {
    let Some(server) = Nats::start().await else { return };
    let heartbeat = Duration::from_millis(200);
    let bus = NatsBus::connect(NatsOptions { heartbeat, ..options(&server, "dev") }).await.unwrap();
    bus.publish_state(&SecretName::new("db").unwrap(), Revision(1), &state("x")).await.unwrap();
    let mut registrations = bus.watch_registrations();
    assert_eq!(registrations.next().await.unwrap().unwrap(), BusEvent::CaughtUp);

    let client = async_nats::connect(server.url()).await.unwrap();
    let context = async_nats::jetstream::new(client.clone());
    let stream = context.get_stream("ROTACAST_REGISTRATIONS_DEV").await.unwrap();
    let consumer = stream.consumers().next().await.unwrap().unwrap();
    let inbox = consumer.config.deliver_subject.clone().unwrap();
    // Its own consumer, with flow control and heartbeats, and numbers that begin at 1 as the leader's.
    let theirs = async_nats::jetstream::consumer::push::Config {
        deliver_subject: inbox.clone(),
        idle_heartbeat: Duration::from_millis(100),
        flow_control: true,
        ..Default::default()
    };
    context.get_stream("ROTACAST_STATE_DEV").await.unwrap().create_consumer(theirs).await.unwrap();
    let forged = "$JS.ACK.ROTACAST_REGISTRATIONS_DEV.another.1.1.1.1.0";
    client.publish_with_reply(inbox.clone(), forged, "forged".into()).await.unwrap();
    client.publish(inbox.clone(), "plain".into()).await.unwrap();
    // The answers to these requests are a state, and a status.
    for subject in ["rotacast.dev.state.db", "rotacast.dev.state.absent"] {
        let subject = format!("$JS.API.DIRECT.GET.ROTACAST_STATE_DEV.{subject}");
        client.publish_with_reply(subject, inbox.clone(), "".into()).await.unwrap();
    }
    until("all of it to be counted", HANG, async || (stray(&bus, Stray::Delivery) >= 6).then_some(())).await;

    let key = InstanceKey::new("payments".parse().unwrap(), "pod".parse().unwrap(), Incarnation(1));
    let (signing, cluster) = (SigningKey::generate(), ClusterName::new("dev").unwrap());
    let registration =
        Envelope::sign(&signing, Kind::Registration, &cluster, key.full_name(), "id", WallTime(0), "here".into());
    bus.register(&key, &registration).await.unwrap();
    let next = tokio::time::timeout(HANG, registrations.next()).await.expect("the reader is deaf");
    assert_eq!(next.unwrap().unwrap(), BusEvent::Message(registration), "it reads on, without beginning anew");
}

/// The subject says which login sent a Sync.
#[tokio::test]
async fn a_sync_for_another_service_or_with_another_inbox_is_refused_and_counted() {
    let Some(server) = Nats::start().await else { return };
    let leader = NatsBus::connect(options(&server, "dev")).await.unwrap();
    let mut calls = leader.serve_sync();
    let of = |service: &str| NatsParty::Service(service.parse().unwrap());
    let ledger = NatsBus::connect(NatsOptions { party: of("ledger"), ..options(&server, "dev") }).await.unwrap();
    let request = |service: &str| {
        let key = InstanceKey::new(service.parse().unwrap(), "pod".parse().unwrap(), Incarnation(1));
        let (signing, cluster) = (SigningKey::generate(), ClusterName::new("dev").unwrap());
        Envelope::sign(&signing, Kind::SyncRequest, &cluster, key.full_name(), "id", WallTime(0), "x".into())
    };
    // Of a service of its own, to be answered in the leader's inbox, in another service's, or by a call of JetStream's.
    let client = async_nats::connect(server.url()).await.unwrap();
    let places = [
        "rotacast.dev.inbox.~broadcaster.x.1",
        "rotacast.dev.inbox.mailer.x.1",
        "$JS.API.STREAM.PURGE.ROTACAST_STATE_DEV",
    ];
    let signed = request("ledger");
    let serve = async {
        let call = calls.next().await.unwrap().unwrap();
        assert_eq!(call.request, signed, "the only one that arrives");
        call.reply.send(signed.clone());
        futures::future::pending::<()>().await;
    };
    let ask = async {
        // Once the leader listens.
        let foreign = async || ledger.sync(&request("payments"), Duration::from_millis(300)).await;
        until("a Sync for another service to be counted", HANG, async || {
            assert!(matches!(foreign().await, Err(BusError::NoLeader { .. })));
            (stray(&leader, Stray::Sync) > 0).then_some(())
        })
        .await;
        let mut headers = async_nats::HeaderMap::new();
        for (name, value) in signed.headers() {
            headers.insert(name, &*value);
        }
        for place in places {
            let (headers, payload) = (headers.clone(), signed.payload.clone());
            client.publish_with_reply_and_headers("rotacast.dev.sync.ledger", place, headers, payload).await.unwrap();
        }
        until("foreign places to be counted", HANG, async || (stray(&leader, Stray::ReplyTo) == 3).then_some(())).await;
        ledger.sync(&signed, HANG).await.unwrap();
    };
    tokio::select! {
        () = serve => unreachable!("it never ends"),
        () = ask => {}
    }
}

/// A service asks broadcasters for states, who look where the answer goes.
#[tokio::test]
async fn a_state_is_read_into_the_askers_own_inbox_and_nowhere_else() {
    let Some(server) = Nats::start().await else { return };
    let follower = NatsBus::connect(options(&server, "dev")).await.unwrap();
    let secret = SecretName::new("payments/db").unwrap();
    let stored = state("one");
    follower.publish_state(&secret, Revision(1), &stored).await.unwrap();
    let client = async_nats::connect(server.url()).await.unwrap();
    let mut others = client.subscribe("rotacast.dev.state.>").await.unwrap();
    for place in ["rotacast.dev.state.payments.db", "rotacast.dev.state.new", "rotacast.dev.inbox.mailer.x"] {
        client.publish_with_reply("rotacast.dev.read.ledger.payments.db", place, "".into()).await.unwrap();
    }
    until("foreign places to be counted", HANG, async || (stray(&follower, Stray::ReplyTo) == 3).then_some(())).await;
    let party = NatsParty::Service("ledger".parse().unwrap());
    let ledger = NatsBus::connect(NatsOptions { party, ..options(&server, "dev") }).await.unwrap();
    let mut states = ledger.watch_states(&[secret]);
    assert_eq!(states.next().await.unwrap().unwrap(), BusEvent::Message(stored));
    assert_eq!(states.next().await.unwrap().unwrap(), BusEvent::CaughtUp);
    // What would have been delivered there came before the answer.
    client.publish("rotacast.dev.state.last", "".into()).await.unwrap();
    assert_eq!(others.next().await.unwrap().subject.as_str(), "rotacast.dev.state.last");
}

/// Every pod of a service may watch the service's inbox. What arrives there first need not be the answer.
#[tokio::test]
async fn what_arrives_in_place_of_an_answer_is_skipped_and_counted() {
    let Some(server) = Nats::start().await else { return };
    let leader = NatsBus::connect(options(&server, "dev")).await.unwrap();
    let key = |instance: &str| {
        InstanceKey::new("ledger".parse().unwrap(), instance.parse().unwrap(), Incarnation(1)).full_name()
    };
    let message = |about: &str, kind: Kind| {
        let (signing, cluster) = (SigningKey::generate(), ClusterName::new("dev").unwrap());
        Envelope::sign(&signing, kind, &cluster, about, "id", WallTime(0), "x".into())
    };
    let client = async_nats::connect(server.url()).await.unwrap();
    let mut requests = client.subscribe("rotacast.dev.sync.*").await.unwrap();
    // The server knows of the subscription once what is published behind it has arrived.
    client.publish("rotacast.dev.sync.ledger", "first".into()).await.unwrap();
    requests.next().await.unwrap();
    let (of_another, answer) = (message(&key("another"), Kind::SyncReply), message(&key("pod"), Kind::SyncReply));
    let serve = async {
        let way_back = requests.next().await.unwrap().reply.unwrap();
        client.publish(way_back.clone(), r#"{"stream":"ROTACAST_REPORTS_DEV","seq":7}"#.into()).await.unwrap();
        for reply in [&of_another, &answer] {
            let mut headers = async_nats::HeaderMap::new();
            for (name, value) in reply.headers() {
                headers.insert(name, &*value);
            }
            client.publish_with_headers(way_back.clone(), headers, reply.payload.clone()).await.unwrap();
        }
    };
    let request = message(&key("pod"), Kind::SyncRequest);
    let (answered, ()) = tokio::join!(leader.sync(&request, HANG), serve);
    assert_eq!(answered.unwrap(), answer);
    assert_eq!(stray(&leader, Stray::Reply), 2);
}

/// What no leader would accept, and what is about another instance than its subject's, makes room again.
#[tokio::test]
async fn what_is_no_registration_is_removed_from_the_stream() {
    let Some(server) = Nats::start().await else { return };
    let bus = NatsBus::connect(options(&server, "dev")).await.unwrap();
    let key = |number| InstanceKey::new("ledger".parse().unwrap(), "pod".parse().unwrap(), Incarnation(number));
    let registration = |number| {
        let (signing, cluster) = (SigningKey::generate(), ClusterName::new("dev").unwrap());
        let subject = key(number).full_name();
        Envelope::sign(&signing, Kind::Registration, &cluster, &subject, "id", WallTime(0), "x".into())
    };
    let client = async_nats::connect(server.url()).await.unwrap();
    let context = async_nats::jetstream::new(client.clone());
    for number in 0..300 {
        let subject = format!("rotacast.dev.registrations.ledger.pod.junk-{number}");
        client.publish(subject, vec![b'x'; 10_000].into()).await.unwrap();
    }
    let stream = context.get_stream("ROTACAST_REGISTRATIONS_DEV").await.unwrap();
    let left = async || stream.get_info().await.unwrap().state.messages;
    until("all of it to be stored", HANG, async || (left().await == 300).then_some(())).await;
    bus.register(&key(7), &registration(8)).await.unwrap();
    let good = registration(1);
    bus.register(&key(1), &good).await.unwrap();
    let mut registrations = bus.watch_registrations();
    assert_eq!(registrations.next().await.unwrap().unwrap(), BusEvent::Message(good), "nothing else arrives");
    assert_eq!(registrations.next().await.unwrap().unwrap(), BusEvent::CaughtUp);
    assert_eq!((stray(&bus, Stray::Unreadable), stray(&bus, Stray::Subject)), (300, 1));
    until("the rest to be gone", HANG, async || (left().await == 1).then_some(())).await;
    // Its signature is wrong, which only the leader can tell.
    bus.sweep_registration(&key(1));
    until("all to be gone", HANG, async || (left().await == 0).then_some(())).await;
}

/// The leader finds out that a registration is none that it accepts while the instance sends a good one.
#[tokio::test]
async fn what_was_published_after_the_rubbish_stays() {
    let Some(server) = Nats::start().await else { return };
    let bus = NatsBus::connect(options(&server, "dev")).await.unwrap();
    let key = |number| InstanceKey::new("ledger".parse().unwrap(), "pod".parse().unwrap(), Incarnation(number));
    let registration = |number, text: &'static str| {
        let (signing, cluster) = (SigningKey::generate(), ClusterName::new("dev").unwrap());
        let subject = key(number).full_name();
        Envelope::sign(&signing, Kind::Registration, &cluster, &subject, text, WallTime(0), text.into())
    };
    for number in [1, 2] {
        bus.register(&key(number), &registration(number, "bad")).await.unwrap();
    }
    let mut registrations = bus.watch_registrations();
    while registrations.next().await.unwrap().unwrap() != BusEvent::CaughtUp {}
    drop(registrations);
    let good = registration(1, "good");
    bus.register(&key(1), &good).await.unwrap();
    // In this order they are swept.
    bus.sweep_registration(&key(1));
    bus.sweep_registration(&key(2));
    let context = async_nats::jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let stream = context.get_stream("ROTACAST_REGISTRATIONS_DEV").await.unwrap();
    let left = async || stream.get_info().await.unwrap().state.messages;
    until("the second to be gone", HANG, async || (left().await <= 1).then_some(())).await;
    let mut registrations = bus.watch_registrations();
    assert_eq!(registrations.next().await.unwrap().unwrap(), BusEvent::Message(good));
}

#[tokio::test]
async fn a_stream_that_is_nearly_full_is_found_and_measured() {
    let Some(server) = Nats::start().await else { return };
    let bus = NatsBus::connect(smaller(options(&server, "dev"))).await.unwrap();
    let nearly_full = async || {
        let found = bus.examine().await.into_iter().find(|finding| finding.text.contains("full"));
        found.map(|finding| (finding.level, finding.subject))
    };
    assert_eq!(nearly_full().await, None);
    for number in 0..20 {
        let key = InstanceKey::new("greedy".parse().unwrap(), "pod".parse().unwrap(), Incarnation(number));
        let (signing, cluster) = (SigningKey::generate(), ClusterName::new("dev").unwrap());
        let payload = vec![b'x'; 50_000].into();
        let large = Envelope::sign(&signing, Kind::Registration, &cluster, key.full_name(), "id", WallTime(0), payload);
        bus.register(&key, &large).await.unwrap();
    }
    assert_eq!(nearly_full().await, Some((Level::Warning, "stream ROTACAST_REGISTRATIONS_DEV".into())));
    let fills = bus.fills();
    assert!(fills.iter().all(|fill| (fill.log == "registrations") == (fill.fill > 0.9)), "{fills:?}");
}
