//! Faults that only Kafka can have: transactions, topics that are recreated or configured wrongly, brokers that end.

use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rotacast_bus::{
    BusError, BusEvent, InstanceBus as _, KafkaBus, KafkaLogin, KafkaOptions, KafkaTopics, LeaderBus as _, Level,
    LoginSecret, SaslMechanism,
};
use rotacast_proto::{Envelope, Kind, SigningKey};
use rotacast_protocol::{
    ClusterName, Incarnation, InstanceKey, InstanceName, Revision, SecretName, ServiceName, WallTime,
};
use rotacast_test_servers::{Kafka, KafkaCluster, KafkaConfig, Scratch, Shared};

/// A wait that takes longer than this hangs.
const HANG: Duration = Duration::from_secs(90);

fn options(broker: String) -> KafkaOptions {
    KafkaOptions::new(vec![broker], ClusterName::new("dev").unwrap())
}

/// A cluster of its own on the broker that several tests share. They do not stop it.
fn on(server: &Shared<Kafka>) -> KafkaOptions {
    KafkaOptions::new(vec![server.broker()], ClusterName::new(server.name()).unwrap())
}

fn db() -> SecretName {
    SecretName::new("db").unwrap()
}

fn life(number: u128) -> InstanceKey {
    InstanceKey::new(ServiceName::new("payments").unwrap(), InstanceName::new("pod").unwrap(), Incarnation(number))
}

fn message(kind: Kind, subject: &str, text: &str) -> Envelope {
    let (key, cluster) = (SigningKey::generate(), ClusterName::new("dev").unwrap());
    Envelope::sign(&key, kind, &cluster, subject, text, WallTime(0), text.as_bytes().to_vec().into())
}

fn state(text: &str) -> Envelope {
    message(Kind::SecretState, "db", text)
}

fn registration(number: u128, text: &str) -> Envelope {
    message(Kind::Registration, &format!("payments/pod/{}", Incarnation(number)), text)
}

async fn failure(options: KafkaOptions) -> BusError {
    match KafkaBus::connect(options).await {
        Ok(_) => panic!("it connects"),
        Err(problem) => problem,
    }
}

/// What the bus says once it reaches the broker.
async fn refusal(options: KafkaOptions) -> BusError {
    let attempts = async {
        loop {
            match failure(options.clone()).await {
                problem if problem.is_transient() => tokio::time::sleep(Duration::from_millis(20)).await,
                problem => return problem,
            }
        }
    };
    tokio::time::timeout(HANG, attempts).await.expect("the broker is never reached")
}

type Events = BoxStream<'static, Result<BusEvent, BusError>>;

async fn next(events: &mut Events) -> BusEvent {
    tokio::time::timeout(HANG, events.next()).await.expect("the subscription hangs").unwrap().unwrap()
}

/// The payloads up to the next `CaughtUp`.
async fn listing(events: &mut Events) -> Vec<String> {
    let mut payloads = Vec::new();
    loop {
        match next(events).await {
            BusEvent::Message(envelope) => payloads.push(String::from_utf8(envelope.payload.to_vec()).unwrap()),
            BusEvent::CaughtUp => return payloads,
            BusEvent::Resync => payloads.clear(),
        }
    }
}

/// Reads until this payload arrives.
async fn until(events: &mut Events, text: &str) {
    while !matches!(next(events).await, BusEvent::Message(envelope) if envelope.payload == text) {}
}

/// Waits until it holds.
async fn holds(what: &str, check: impl AsyncFn() -> bool) {
    let waiting = async {
        while !check().await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(HANG, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// Repeats a call while a retry may help.
async fn persist<T, F: Future<Output = Result<T, BusError>>>(call: impl Fn() -> F) -> T {
    let attempts = async {
        loop {
            match call().await {
                Ok(done) => return done,
                Err(problem) => assert!(problem.is_transient(), "{problem:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(HANG, attempts).await.expect("the call never succeeds")
}

/// On a busy machine a broker takes longer for a first call than one attempt waits.
async fn connected(options: &KafkaOptions) -> KafkaBus {
    persist(|| KafkaBus::connect(options.clone())).await
}

async fn published(bus: &KafkaBus, revision: u64, text: &'static str) {
    let (secret, state) = (db(), state(text));
    persist(|| bus.publish_state(&secret, Revision(revision), &state)).await;
}

fn admin(broker: &str) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", broker).create().unwrap()
}

/// Another publisher of the same cluster. A test can stop it between two steps.
fn rival(options: &KafkaOptions) -> BaseProducer {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", options.brokers.join(","))
        .set("transactional.id", format!("rotacast.{}", options.cluster))
        .set("partitioner", "murmur2_random")
        .create()
        .unwrap();
    producer.init_transactions(HANG).unwrap();
    producer
}

fn send(producer: &BaseProducer, options: &KafkaOptions, revision: u64, envelope: &Envelope) {
    let topic = format!("rotacast.{}.state", options.cluster);
    let revision = revision.to_string();
    let headers = envelope
        .headers()
        .into_iter()
        .chain([("rotacast-revision", revision)])
        .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(&value) }));
    let record = BaseRecord::to(&topic).key("db").payload(&envelope.payload[..]).headers(headers);
    producer.send(record).map_err(|(problem, _)| problem).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_absent_server_is_named_with_its_address() {
    let problem = failure(options("127.0.0.1:1".into())).await;
    assert!(matches!(problem, BusError::Unreachable { .. }), "{problem:?}");
    let text = problem.to_string();
    assert!(text.contains("127.0.0.1:1") && text.contains("bus.brokers"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s23_what_a_fenced_publisher_left_open_is_never_seen() {
    let Some(server) = Kafka::shared().await else { return };
    let options = on(&server);
    let bus = connected(&options).await;
    published(&bus, 1, "one").await;
    let rival = rival(&options);
    rival.begin_transaction().unwrap();
    send(&rival, &options, 9, &state("never committed"));
    rival.flush(HANG).unwrap();
    // A new reader neither sees the message nor waits for it.
    let reader = connected(&options).await;
    let mut states = reader.watch_states(&[db()]);
    assert_eq!(listing(&mut states).await, ["one"]);
    // The rival has fenced the bus. The bus has the newer revision, so it takes over and fences the rival.
    published(&bus, 2, "two").await;
    let outcome = rival.commit_transaction(HANG);
    assert!(outcome.is_err() && rival.client().fatal_error().is_some(), "{outcome:?}");
    until(&mut states, "two").await;
    let mut newcomer = connected(&options).await.watch_states(&[db()]);
    assert_eq!(listing(&mut newcomer).await, ["two"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deposed_leader_changes_nothing_and_does_not_disturb_its_successor() {
    let Some(server) = Kafka::shared().await else { return };
    let options = on(&server);
    let earlier = connected(&options).await;
    published(&earlier, 5, "five").await;
    let rival = rival(&options);
    rival.begin_transaction().unwrap();
    send(&rival, &options, 6, &state("six"));
    rival.commit_transaction(HANG).unwrap();
    for _ in 0..3 {
        let outcome = earlier.publish_state(&db(), Revision(5), &state("five, late")).await;
        assert!(matches!(outcome, Err(BusError::Fenced { .. })), "{outcome:?}");
    }
    // Those attempts have not fenced the successor.
    rival.begin_transaction().unwrap();
    send(&rival, &options, 7, &state("seven"));
    rival.commit_transaction(HANG).unwrap();
    let mut newcomer = connected(&options).await.watch_states(&[db()]);
    assert_eq!(listing(&mut newcomer).await, ["seven"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_made_anew_with_more_messages_than_before_is_read_anew() {
    let Some(server) = Kafka::shared().await else { return };
    let options = on(&server);
    let (admin, topic) = (admin(&server.broker()), format!("rotacast.{}.registrations", options.cluster));
    let registrations_topic = NewTopic::new(&topic, 1, TopicReplication::Fixed(1)).set("cleanup.policy", "compact");
    admin.create_topics([&registrations_topic], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    let bus = connected(&options).await;
    let (key, entry) = (life(1), registration(1, "before"));
    persist(|| bus.register(&key, &entry)).await;
    let mut registrations = bus.watch_registrations();
    assert_eq!(listing(&mut registrations).await, ["before"]);
    // Other clients write while the bus is not reading: it finds more messages than it has read.
    let writer = connected(&options).await;
    admin.delete_topics(&[&topic], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    tokio::time::timeout(HANG, async {
        while admin.create_topics([&registrations_topic], &AdminOptions::new()).await.unwrap()[0].is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .expect("the topic cannot be made anew");
    for number in 2..=40 {
        persist(|| async { writer.register(&life(number), &registration(number, &number.to_string())).await }).await;
    }
    // The subscription may begin again while the messages are written: what counts is everything since the last
    // `Resync`.
    let mut seen = std::collections::BTreeSet::new();
    let mut resyncs = 0;
    while seen.len() < 39 {
        match next(&mut registrations).await {
            BusEvent::Resync => {
                resyncs += 1;
                seen.clear();
            }
            BusEvent::Message(envelope) => drop(seen.insert(envelope.payload)),
            BusEvent::CaughtUp => {}
        }
    }
    assert!(resyncs > 0 && !seen.iter().any(|payload| payload == "before"), "{resyncs} resyncs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_killed_midway_costs_time_only() {
    let Some(mut server) = Kafka::start().await else { return };
    let bus = connected(&options(server.broker())).await;
    let mut states = bus.watch_states(&[db()]);
    assert!(listing(&mut states).await.is_empty());
    let publishing = {
        let bus = bus.clone();
        tokio::spawn(async move {
            for revision in 1..=60 {
                let state = state(&format!("revision {revision}"));
                let (secret, key, entry) = (db(), life(1), registration(1, &revision.to_string()));
                persist(|| bus.publish_state(&secret, Revision(revision), &state)).await;
                persist(|| bus.register(&key, &entry)).await;
            }
        })
    };
    until(&mut states, "revision 10").await;
    server.kill().await;
    server.restart().await;
    tokio::time::timeout(HANG, publishing).await.expect("publishing hangs").unwrap();
    until(&mut states, "revision 60").await;
    assert_eq!(listing(&mut bus.watch_registrations()).await, ["60"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_brokers_go_on_without_one() {
    let Some(mut cluster) = KafkaCluster::start().await else { return };
    let brokers = cluster.brokers();
    let options = KafkaOptions::new(brokers, ClusterName::new("dev").unwrap());
    let bus = connected(&options).await;
    let findings = bus.examine().await;
    assert!(findings.iter().all(|finding| finding.level == Level::Ok), "{findings:?}");
    published(&bus, 1, "one").await;
    let mut states = bus.watch_states(&[db()]);
    assert_eq!(listing(&mut states).await, ["one"]);
    cluster.node(0).kill().await;
    let (secret, key, two, entry) = (db(), life(1), state("two"), registration(1, "here"));
    persist(|| bus.publish_state(&secret, Revision(2), &two)).await;
    persist(|| bus.register(&key, &entry)).await;
    until(&mut states, "two").await;
    assert_eq!(listing(&mut bus.watch_registrations()).await, ["here"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_denied_by_name_and_the_right_one_passes() {
    let config = KafkaConfig {
        secured: Some("SASL_PLAINTEXT"),
        properties: "listener.name.secured.sasl.enabled.mechanisms=PLAIN\n\
            listener.name.secured.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
            user_rotacast=\"right\";\n",
        ..KafkaConfig::default()
    };
    let Some(server) = Kafka::start_with(config).await else { return };
    let with = |password: &str| KafkaOptions {
        login: Some(KafkaLogin { user: "rotacast".into(), password: password.into(), mechanism: SaslMechanism::Plain }),
        ..options(server.secured())
    };
    let problem = refusal(with("wrong-one")).await;
    assert!(matches!(problem, BusError::Denied { .. }), "{problem:?}");
    let text = problem.to_string();
    assert!(text.contains("bus.password_file") && !text.contains("wrong-one"), "{text}");
    let bus = connected(&with("right")).await;
    published(&bus, 1, "one").await;
}

/// Brokers and file get the next password. The bus, whose clients ended with the first password, connects again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_is_renewed_in_its_file_is_used() {
    let scratch = Scratch::new("kafka-password");
    let (file, users) = (scratch.path().join("password"), scratch.path().join("jaas.conf"));
    let renew = |password: &str| {
        let module = "org.apache.kafka.common.security.plain.PlainLoginModule";
        let login = format!("secured.KafkaServer {{ {module} required user_rotacast=\"{password}\"; }};\n");
        std::fs::write(&users, login).unwrap();
        std::fs::write(&file, format!("{password}\n")).unwrap();
    };
    renew("first");
    let jvm = format!("-Djava.security.auth.login.config={}", users.display());
    let config = KafkaConfig {
        secured: Some("SASL_PLAINTEXT"),
        properties: "listener.name.secured.sasl.enabled.mechanisms=PLAIN\n",
        jvm: &[&jvm],
        ..KafkaConfig::default()
    };
    let Some(mut server) = Kafka::start_with(config).await else { return };
    let login = |password| KafkaLogin { user: "rotacast".into(), password, mechanism: SaslMechanism::Plain };
    let with = |password: LoginSecret| KafkaOptions { login: Some(login(password)), ..options(server.secured()) };
    let (renewed, first) = (with(LoginSecret::File(file.clone())), with("first".into()));
    let bus = connected(&renewed).await;
    published(&bus, 1, "one").await;
    let mut states = bus.watch_states(&[db()]);
    assert_eq!(listing(&mut states).await, ["one"]);
    // Half of a password looks like a password: the brokers refuse it, and the one before stays in use.
    std::fs::write(&file, "fir").unwrap();
    let refused = async || {
        let findings = bus.examine().await;
        findings.iter().any(|finding| finding.text.contains("the renewed login or certificates cannot be used"))
    };
    holds("the half-written password is named", async || refused().await).await;
    // A reader that begins now gets in.
    assert_eq!(listing(&mut bus.watch_registrations()).await, [""; 0]);
    published(&bus, 2, "two").await;
    until(&mut states, "two").await;
    std::fs::write(&file, "first\n").unwrap();
    holds("nothing is said any more", async || !refused().await).await;
    server.stop().await;
    renew("second");
    server.restart().await;
    assert!(matches!(refusal(first).await, BusError::Denied { .. }));
    published(&bus, 3, "three").await;
    let (key, entry) = (life(1), registration(1, "there"));
    persist(|| bus.register(&key, &entry)).await;
}

#[cfg(feature = "kafka-tls")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_and_scram_let_only_the_right_clients_in() {
    use rotacast_bus::KafkaTls;
    use rotacast_test_servers::make_certificates;

    let scratch = Scratch::new("kafka-tls");
    let folder = scratch.path();
    if !make_certificates(folder, &["server", "stranger"]).await {
        return;
    }
    // Kafka needs a key and its certificate in one file.
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    std::fs::write(folder.join("keystore.pem"), read("server.key") + &read("server.pem")).unwrap();
    let properties = format!(
        "listener.name.secured.ssl.keystore.type=PEM\n\
         listener.name.secured.ssl.keystore.location={}\n\
         listener.name.secured.sasl.enabled.mechanisms=SCRAM-SHA-512\n\
         listener.name.secured.scram-sha-512.sasl.jaas.config=\
         org.apache.kafka.common.security.scram.ScramLoginModule required;\n",
        folder.join("keystore.pem").display()
    );
    let config = KafkaConfig {
        properties: &properties,
        secured: Some("SASL_SSL"),
        scram: &[("rotacast", "the-right-one")],
        ..KafkaConfig::default()
    };
    let Some(server) = Kafka::start_with(config).await else { return };
    let with = |password: &str, ca: &str| KafkaOptions {
        login: Some(KafkaLogin {
            user: "rotacast".into(),
            password: password.into(),
            mechanism: SaslMechanism::ScramSha512,
        }),
        tls: Some(KafkaTls { ca: Some(folder.join(ca)), identity: None }),
        ..options(server.secured())
    };
    // A broker that has just started may need longer for its first handshake than a connection waits.
    let mut tries = 0;
    let bus = loop {
        match KafkaBus::connect(with("the-right-one", "ca.pem")).await {
            Ok(bus) => break bus,
            Err(problem) if problem.is_transient() && tries < 10 => tries += 1,
            Err(problem) => panic!("{problem}"),
        }
    };
    published(&bus, 1, "one").await;
    assert_eq!(listing(&mut bus.watch_states(&[db()])).await, ["one"]);

    let problem = refusal(with("the-wrong-one", "ca.pem")).await;
    let text = problem.to_string();
    assert!(matches!(problem, BusError::Denied { .. }), "{problem:?}");
    assert!(text.contains("bus.password_file") && !text.contains("the-wrong-one"), "{text}");
    let problem = refusal(with("the-right-one", "stranger.pem")).await;
    assert!(matches!(problem, BusError::Misconfigured { .. }), "{problem:?}");
    assert!(problem.to_string().contains("bus.tls.ca"), "{problem}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_without_compaction_is_refused_and_weaker_settings_are_reported() {
    let Some(server) = Kafka::shared().await else { return };
    let options = on(&server);
    let admin = admin(&server.broker());
    let topic = format!("rotacast.{}.state", options.cluster);
    let wrong = NewTopic::new(&topic, 1, TopicReplication::Fixed(1)).set("cleanup.policy", "delete");
    admin.create_topics([&wrong], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    let problem = refusal(options.clone()).await;
    assert!(matches!(problem, BusError::Misconfigured { .. }), "{problem:?}");
    let text = problem.to_string();
    assert!(text.contains(&topic) && text.contains("cleanup.policy=compact"), "{text}");

    let mended = AlterConfig::new(ResourceSpecifier::Topic(&topic)).set("cleanup.policy", "compact");
    admin.alter_configs([&mended], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    let bus = connected(&options).await;
    let findings = bus.examine().await;
    // One broker: the only finding is the single replica of the two durable topics.
    let warnings: Vec<_> = findings.iter().filter(|finding| finding.level > Level::Ok).collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings.iter().all(|finding| finding.text.contains("one replica") && !finding.fix.is_empty()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_changes_while_it_is_used_is_found_and_named_by_what_it_refuses() {
    let Some(server) = Kafka::shared().await else { return };
    let options = on(&server);
    let (admin, topic) = (admin(&server.broker()), format!("rotacast.{}.state", options.cluster));
    let bus = connected(&options).await;
    published(&bus, 1, "one").await;
    let set = async |settings: &[(&str, &str)]| {
        let change = AlterConfig::new(ResourceSpecifier::Topic(&topic));
        let change = settings.iter().fold(change, |change, (name, value)| change.set(name, value));
        admin.alter_configs([&change], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    };
    let found = async |text: &str, fix: &str, level| {
        holds(text, async || {
            let findings = bus.examine().await;
            findings.iter().any(|it| it.text.contains(text) && it.fix.contains(fix) && it.level == level)
        })
        .await;
    };
    set(&[("cleanup.policy", "delete")]).await;
    found("the last message of a key is forgotten", "cleanup.policy=compact", Level::Error).await;
    set(&[("cleanup.policy", "compact"), ("max.message.bytes", "2000")]).await;
    found("max.message.bytes is 2000", "max.message.bytes=1048588", Level::Warning).await;

    let large = state(&"x".repeat(4000));
    let refused = async {
        loop {
            match bus.publish_state(&db(), Revision(2), &large).await {
                Err(problem) if problem.is_transient() => tokio::time::sleep(Duration::from_millis(20)).await,
                outcome => return outcome.expect_err("the topic takes no such message"),
            }
        }
    };
    let refused = tokio::time::timeout(HANG, refused).await.expect("it is never refused");
    assert!(matches!(refused, BusError::Misconfigured { .. }), "{refused:?}");
    assert!(refused.to_string().contains("set max.message.bytes of the topic to 1048588"), "{refused}");
    // What fits passes, and so does everything once the setting is as it should be.
    published(&bus, 3, "three").await;
    set(&[("cleanup.policy", "compact"), ("max.message.bytes", "1048588")]).await;
    let secret = db();
    persist(|| bus.publish_state(&secret, Revision(4), &large)).await;
}

/// The certificate of another pair is there before its key.
#[cfg(feature = "kafka-tls")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_pair_counts_once_it_is_whole() {
    use rotacast_bus::KafkaTls;
    use rotacast_test_servers::make_certificates;

    let scratch = Scratch::new("kafka-pair");
    let folder = scratch.path();
    if !make_certificates(folder, &["server", "client", "renewed"]).await {
        return;
    }
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    std::fs::write(folder.join("keystore.pem"), read("server.key") + &read("server.pem")).unwrap();
    let stores = |store: &str, file: &str| {
        let file = folder.join(file);
        format!(
            "listener.name.secured.ssl.{store}.type=PEM\nlistener.name.secured.ssl.{store}.location={}\n",
            file.display()
        )
    };
    let properties = stores("keystore", "keystore.pem")
        + &stores("truststore", "ca.pem")
        + "listener.name.secured.ssl.client.auth=required\n";
    let config = KafkaConfig { properties: &properties, secured: Some("SSL"), ..KafkaConfig::default() };
    let Some(server) = Kafka::start_with(config).await else { return };
    let identity = Some((folder.join("client.pem"), folder.join("client.key")));
    let tls = Some(KafkaTls { ca: Some(folder.join("ca.pem")), identity });
    let bus = connected(&KafkaOptions { tls, ..options(server.secured()) }).await;
    published(&bus, 1, "one").await;
    let refused = async || {
        let findings = bus.examine().await;
        findings.iter().any(|finding| finding.text.contains("the renewed login or certificates cannot be used"))
    };
    std::fs::copy(folder.join("renewed.pem"), folder.join("client.pem")).unwrap();
    holds("the half-written pair is named", async || refused().await).await;
    // A reader that begins now gets in with the pair before.
    assert_eq!(listing(&mut bus.watch_registrations()).await, [""; 0]);
    published(&bus, 2, "two").await;
    std::fs::copy(folder.join("renewed.key"), folder.join("client.key")).unwrap();
    holds("nothing is said any more", async || !refused().await).await;
    published(&bus, 3, "three").await;
    // Another one gets in with the renewed pair.
    assert_eq!(listing(&mut bus.watch_reports()).await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_creates_no_topics() {
    let Some(server) = Kafka::shared().await else { return };
    let options = on(&server);
    let problem = failure(KafkaOptions { topics: KafkaTopics::Use, ..options }).await;
    assert!(matches!(problem, BusError::Unreachable { .. }), "{problem:?}");
    assert!(problem.to_string().contains("start a broadcaster"), "{problem}");
}
