//! Faults that only Kafka can have: transactions, topics that are recreated or configured wrongly, brokers that end.

use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use rotacast_bus::{
    BusError, BusEvent, InstanceBus as _, KafkaBus, KafkaLogin, KafkaOptions, KafkaTopics, LeaderBus as _, Level,
    LoginSecret, SaslMechanism,
};
use rotacast_proto::{Envelope, Kind, SigningKey};
use rotacast_protocol::{
    ClusterName, Incarnation, InstanceKey, InstanceName, Revision, SecretName, ServiceName, WallTime,
};
use rotacast_test_servers::{Kafka, KafkaCluster, KafkaConfig, Scratch, Shared};

use crate::fixtures::acls::{self, Operation, Resource};

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

/// The offset of the first record that compaction has left.
async fn first_offset(broker: &str, topic: &'static str) -> i64 {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker).set("group.id", "first").set("enable.partition.eof", "true");
    let first = move || {
        let consumer: BaseConsumer = config.create().unwrap();
        let mut all = TopicPartitionList::new();
        all.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
        consumer.assign(&all).unwrap();
        let first = consumer.poll(HANG).expect("the topic cannot be read").unwrap();
        first.offset()
    };
    tokio::task::spawn_blocking(first).await.unwrap()
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
async fn a_broker_that_announces_an_address_where_nothing_listens_is_named_with_it() {
    let config = KafkaConfig { secured: Some("PLAINTEXT"), announced: Some(1), ..KafkaConfig::default() };
    let Some(server) = Kafka::start_with(config).await else { return };
    holds("the announced address is named", async || {
        let text = failure(options(server.secured())).await.to_string();
        text.contains("127.0.0.1:1/1") && text.contains("refused") && text.contains("advertised.listeners")
    })
    .await;
    // A running bus that finds the same says the same.
    drop(connected(&options(server.broker())).await);
    let bus = connected(&KafkaOptions { topics: KafkaTopics::Use, ..options(server.secured()) }).await;
    let findings = bus.examine().await;
    assert!(findings.iter().any(|finding| finding.text.contains("advertised.listeners")), "{findings:?}");
    let problem = bus.publish_state(&db(), Revision(1), &state("one")).await.unwrap_err().to_string();
    assert!(problem.contains("advertised.listeners"), "{problem}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_gets_more_partitions_is_followed_into_them() {
    let Some(server) = Kafka::shared().await else { return };
    let options = on(&server);
    let (admin, bus) = (admin(&server.broker()), connected(&options).await);
    let secrets: Vec<_> = (0..12).map(|number| SecretName::new(format!("db{number}")).unwrap()).collect();
    let publish = async |revision: u64, text: &str| {
        for secret in &secrets {
            let state = message(Kind::SecretState, secret.as_str(), text);
            persist(|| bus.publish_state(secret, Revision(revision), &state)).await;
        }
    };
    publish(1, "one").await;
    let mut registrations = bus.watch_registrations();
    assert_eq!(listing(&mut registrations).await, [""; 0]);
    for kind in ["state", "registrations"] {
        let topic = format!("rotacast.{}.{kind}", options.cluster);
        let more = NewPartitions::new(&topic, 6);
        admin.create_partitions([&more], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    }
    // Some keys move, and leave their old messages behind.
    publish(2, "two").await;
    let newcomer = connected(&options).await;
    let mut states = newcomer.watch_states(&secrets);
    assert_eq!(listing(&mut states).await, ["two"; 12]);
    for secret in &secrets {
        let old = bus.publish_state(secret, Revision(1), &message(Kind::SecretState, secret.as_str(), "old")).await;
        assert!(matches!(old, Err(BusError::Fenced { .. })), "{old:?}");
    }
    for number in 1..=12 {
        persist(|| async { newcomer.register(&life(number), &registration(number, &number.to_string())).await }).await;
    }
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 12 {
        if let BusEvent::Message(envelope) = next(&mut registrations).await {
            seen.insert(envelope.payload);
        }
    }
    holds("the partitions are a finding", async || {
        let findings = bus.examine().await;
        findings
            .iter()
            .filter(|it| it.text.contains("has 6 partitions and had 3") && it.fix.contains("delete it"))
            .count()
            == 2
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_broker_refuses_while_it_is_used_is_named_and_goes_on_once_it_is_allowed() {
    let config =
        KafkaConfig { secured: Some("SASL_PLAINTEXT"), properties: acls::AUTHORIZER, ..KafkaConfig::default() };
    let Some(server) = Kafka::start_with(config).await else { return };
    let broker = server.broker();
    acls::allow_all(&broker).await;
    let login = KafkaLogin { user: "rotacast".into(), password: "right".into(), mechanism: SaslMechanism::Plain };
    let options = KafkaOptions { login: Some(login), ..options(server.secured()) };
    let bus = connected(&options).await;
    published(&bus, 1, "one").await;
    let found = async |subject: &str| {
        let findings = bus.examine().await;
        findings.iter().any(|it| {
            it.subject == subject && it.level == Level::Error && it.text.contains("uthorization") && !it.fix.is_empty()
        })
    };

    // Reading.
    let (resource, topic) = (Resource::Topic, "rotacast.dev.registrations");
    let reader = format!("reader of {topic}");
    let (key, entry) = (life(1), registration(1, "before"));
    persist(|| bus.register(&key, &entry)).await;
    let mut registrations = bus.watch_registrations();
    assert_eq!(listing(&mut registrations).await, ["before"]);
    acls::deny(&broker, resource, topic, Operation::Read).await;
    let ends = async |mut events: Events| {
        let last = async {
            loop {
                match events.next().await {
                    Some(Ok(_)) => {}
                    Some(Err(problem)) => return problem,
                    None => panic!("it ends without a word"),
                }
            }
        };
        tokio::time::timeout(HANG, last).await.expect("a refused subscription hangs")
    };
    for events in [registrations, bus.watch_registrations(), bus.watch_registrations()] {
        let problem = ends(events).await;
        assert!(matches!(problem, BusError::Denied { .. }), "{problem:?}");
        assert!(problem.to_string().contains("uthorization"), "{problem}");
    }
    assert!(found(&reader).await);
    acls::deny_no_more(&broker, resource, topic, Operation::Read).await;
    holds("it is read again", async || {
        let mut registrations = bus.watch_registrations();
        let first = tokio::time::timeout(HANG, registrations.next()).await.expect("the subscription hangs");
        matches!(first, Some(Ok(_)))
    })
    .await;
    let entry = registration(1, "there");
    persist(|| bus.register(&key, &entry)).await;
    until(&mut bus.watch_registrations(), "there").await;
    assert!(!found(&reader).await);

    // Publishing.
    let refused = async |bus: &KafkaBus, revision| {
        holds("the broker's refusal is named", async || {
            let outcome = bus.publish_state(&db(), Revision(revision), &state("refused")).await;
            outcome.is_err_and(|problem| problem.to_string().contains("uthorization"))
        })
        .await;
    };
    let topic = "rotacast.dev.state";
    let publishing = format!("publishing to {topic}");
    acls::deny(&broker, resource, topic, Operation::Write).await;
    refused(&bus, 2).await;
    assert!(found(&publishing).await);
    acls::deny_no_more(&broker, resource, topic, Operation::Write).await;
    holds("it is published", async || bus.publish_state(&db(), Revision(3), &state("three")).await.is_ok()).await;
    assert!(!found(&publishing).await);

    // Taking over, as the next leader does.
    let (resource, id) = (Resource::TransactionalId, "rotacast.dev");
    acls::deny(&broker, resource, id, Operation::Write).await;
    let next = connected(&options).await;
    refused(&next, 4).await;
    assert!(next.examine().await.iter().any(|it| it.subject == publishing && it.level == Level::Error));
    acls::deny_no_more(&broker, resource, id, Operation::Write).await;
    holds("it is taken over", async || next.publish_state(&db(), Revision(5), &state("five")).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_another_program_left_open_is_named_with_the_command_that_ends_it() {
    let Some(server) = Kafka::shared().await else { return };
    let options = on(&server);
    let bus = connected(&options).await;
    published(&bus, 1, "one").await;
    let stranger = rival(&KafkaOptions { cluster: ClusterName::new("stranger").unwrap(), ..options.clone() });
    stranger.begin_transaction().unwrap();
    send(&stranger, &options, 1, &state("a stranger's"));
    stranger.flush(HANG).unwrap();
    let abort = "abort --topic rotacast.";
    holds("it is named", async || {
        let outcome = bus.publish_state(&db(), Revision(2), &state("two")).await;
        outcome.is_err_and(|problem| problem.to_string().contains(abort))
    })
    .await;
    let findings = bus.examine().await;
    assert!(findings.iter().any(|it| it.level == Level::Error && it.text.contains(abort)), "{findings:?}");
    stranger.abort_transaction(HANG).unwrap();
    published(&bus, 3, "three").await;
    let findings = bus.examine().await;
    assert!(!findings.iter().any(|it| it.text.contains(abort)), "{findings:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compaction_is_not_another_log() {
    let config = KafkaConfig { properties: "log.cleaner.backoff.ms=100\n", ..KafkaConfig::default() };
    let Some(server) = Kafka::start_with(config).await else { return };
    let options = options(server.broker());
    let (admin, topic) = (admin(&server.broker()), "rotacast.dev.state");
    let eager = NewTopic::new(topic, 1, TopicReplication::Fixed(1))
        .set("cleanup.policy", "compact")
        .set("segment.ms", "500")
        .set("min.cleanable.dirty.ratio", "0.001");
    admin.create_topics([&eager], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    let bus = connected(&options).await;
    published(&bus, 0, "0").await;
    let mut states = bus.watch_states(&[db()]);
    assert_eq!(listing(&mut states).await, ["0"]);
    // Each state is compacted away before the next: the known record is gone at every look.
    for (revision, text) in (1..).zip(["1", "2", "3", "4", "5", "6", "7", "8", "9", "10"]) {
        let before = first_offset(&server.broker(), topic).await;
        holds("the log is compacted", async || {
            published(&bus, revision, text).await;
            first_offset(&server.broker(), topic).await > before
        })
        .await;
        loop {
            match next(&mut states).await {
                BusEvent::Message(envelope) if envelope.payload == text => break,
                event => assert_ne!(event, BusEvent::Resync),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn why_a_broker_does_not_answer_is_told_by_each_call() {
    let Some(mut server) = Kafka::start().await else { return };
    let bus = connected(&options(server.broker())).await;
    published(&bus, 1, "one").await;
    let (key, entry) = (life(1), registration(1, "here"));
    persist(|| bus.register(&key, &entry)).await;
    server.kill().await;
    for _ in 0..2 {
        let (two, secret) = (state("two"), db());
        let (published, read, registered) = tokio::join!(
            bus.publish_state(&secret, Revision(2), &two),
            bus.read_state(&secret),
            bus.register(&key, &entry)
        );
        for (call, outcome) in [("publish", published), ("read", read.map(drop)), ("register", registered)] {
            let problem = outcome.expect_err("the broker is away").to_string();
            assert!(problem.contains("refused"), "{call}: {problem}");
        }
    }
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
    let (bus, stays) = (connected(&renewed).await, connected(&first).await);
    published(&bus, 1, "one").await;
    let (another, state_of_another) =
        (SecretName::new("another").unwrap(), message(Kind::SecretState, "another", "one"));
    persist(|| stays.publish_state(&another, Revision(1), &state_of_another)).await;
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
    // One whose password stays what it was says so as well.
    holds("a refused login is named", async || {
        let outcome = stays.publish_state(&another, Revision(2), &state_of_another).await;
        matches!(&outcome, Err(BusError::Denied { problem, .. }) if problem.contains("bus.password_file"))
    })
    .await;
    // What it had refused, the broker may go on to refuse until the new password is taken up.
    let three = state("three");
    holds("the renewed password counts", async || bus.publish_state(&db(), Revision(3), &three).await.is_ok()).await;
    let (key, entry) = (life(1), registration(1, "there"));
    holds("it counts for all", async || bus.register(&key, &entry).await.is_ok()).await;
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
    let reports = format!("rotacast.{}.reports", options.cluster);
    let soon = AlterConfig::new(ResourceSpecifier::Topic(&reports));
    let soon = soon.set("cleanup.policy", "compact,delete").set("retention.ms", "2000");
    admin.alter_configs([&soon], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    found("retention.ms is 2000", "retention.ms=3600000", Level::Warning).await;
    found("max.message.bytes is 2000", "max.message.bytes=1048588", Level::Error).await;

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
