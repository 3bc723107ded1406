//! Forged messages, among them those of another instance of the same service, and old ones that are replayed: they change
//! nothing, and are counted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use futures::StreamExt as _;
use prost::Message as _;
use rotacast_bus::{GrpcBus, GrpcOptions, InstanceBus, NatsBus, NatsOptions, NatsParty};
use rotacast_clock as clock;
use rotacast_proto::v1::admin_client::AdminClient;
use rotacast_proto::{Envelope, InstanceIdentity, InstanceMessage, Kind, SigningKey, VerifyingKey, WireMessage, v1};
use rotacast_protocol::message::{InstanceReport, Registration, SecretReport, Stage, SyncReply, SyncRequest};
use rotacast_protocol::{
    ClusterName, Generation, Incarnation, InstanceKey, LeaseSequence, Nonce, ReportSequence, Revision, SecretName,
    Version,
};
use rotacast_tests::programs;
use rotacast_tests::servers::until;
use rotacast_tests::world::{Action, CLUSTER, Database, LIMIT, Options, SECRET, Service, World};

/// Higher than any number of a genuine report: a forged report that was believed would replace all genuine ones.
const BEYOND: ReportSequence = ReportSequence(1 << 40);

struct Forger<'a> {
    world: &'a World,
    bus: NatsBus,
    cluster: ClusterName,
}

impl<'a> Forger<'a> {
    async fn new(world: &'a World) -> Self {
        let cluster = ClusterName::new(CLUSTER).expect("a valid name");
        let party = NatsParty::Service("payments-api".parse().expect("a valid name"));
        let options = NatsOptions::new(world.bus.nats().url(), cluster.clone(), party);
        let bus = NatsBus::connect(options).await.expect("NATS runs");
        Self { world, bus, cluster }
    }

    /// A service's real key.
    fn key(&self, service: &str) -> SigningKey {
        let file = self.world.folder().join(format!("keys/{service}.key"));
        SigningKey::read_file(&file).unwrap_or_else(|error| panic!("{error}"))
    }

    fn seal(&self, key: &SigningKey, message: &impl WireMessage) -> Envelope {
        message.seal(key, &self.cluster, id(), clock::wall())
    }

    /// An instance of `payments-api` of its own, under the name of another: whoever has the service's key can make one.
    fn impostor(&self, name: &str, service_key: &SigningKey) -> InstanceIdentity {
        let service = "payments-api".parse().expect("a valid name");
        InstanceIdentity::draw(self.cluster.clone(), service, name.parse().expect("a valid name"), service_key)
    }

    /// What `doctor` says about messages that were refused, or dropped by the bus.
    async fn refused(&self) -> u64 {
        let output = self.world.cli(&["doctor", "-o", "json"]).await;
        let text = String::from_utf8_lossy(&output.stdout);
        let found: serde_json::Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {output:?}"));
        let findings = found["findings"].as_array().unwrap_or_else(|| panic!("no findings: {text}"));
        let count = |subject: &str| -> u64 {
            let finding = findings.iter().find(|finding| finding["subject"] == subject);
            let finding = finding.unwrap_or_else(|| panic!("nothing about {subject}: {text}"));
            let count = finding["text"].as_str().and_then(|text| text.split(' ').next()?.parse().ok());
            let count = count.unwrap_or_else(|| panic!("no number: {finding}"));
            assert_eq!(finding["level"], if count == 0 { "ok" } else { "warning" }, "{finding}");
            count
        };
        count("messages refused") + count("messages dropped")
    }

    /// How often a claim to a grant that was never made was refused.
    async fn claims_refused(&self) -> u64 {
        let address = self.world.broadcaster.url().replace("http://", "");
        let (_, text) = rotacast_tests::http::get(&address, "/metrics").await.expect("the broadcaster answers");
        let mut lines = text.lines();
        let line = lines.find_map(|line| line.strip_prefix("rotacast_claims_refused_total{claim=\"lease\"} "));
        line.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("no count: {text}"))
    }

    /// Waits until one more message than `before` was refused. Returns the count.
    async fn one_more(&self, before: u64, what: &str) -> u64 {
        let what = format!("{what} to be counted");
        until(&what, LIMIT, async || Some(self.refused().await).filter(|count| *count > before)).await
    }

    /// The rotation is where it was: the victim holds version 1, and its credential works.
    async fn nothing_has_changed(&self, victim: &InstanceKey, after: &str) {
        let status = self.world.operator.status().await.expect("the broadcaster answers");
        let rotation = status.rotation.as_ref().unwrap_or_else(|| panic!("after {after}: {status:#?}"));
        assert_eq!((rotation.new, rotation.phase()), (2, v1::Phase::Draining), "after {after}");
        let held = status.blockers.iter().any(|it| it.who == victim.to_string() && it.condition == "members_released");
        assert!(held, "after {after}: {:#?}", status.blockers);
        let info = instance(self.world, "payments-api", &victim.instance.to_string()).await;
        assert_eq!(info.held, [1, 2], "after {after}: {info:?}");
        assert!(!["left", "fenced"].contains(&info.standing.as_str()), "after {after}: {info:?}");
        assert!(self.world.database.logins().await.contains(&Database::login_by_hand(1)), "after {after}");
    }
}

fn id() -> String {
    format!("forged:{}", rand::random::<u64>())
}

/// An instance that the test plays, so that the test has its key. It renews its leases until it is dropped.
struct Played {
    identity: std::sync::Arc<InstanceIdentity>,
    /// The newest grant that it has heard of.
    lease: std::sync::Arc<AtomicU64>,
    renewing: tokio::task::JoinHandle<()>,
}

impl Drop for Played {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

impl Played {
    /// It registers, says that it holds versions 1 and 2, and gets leases for them.
    async fn start(forger: &Forger<'_>, name: &str, broadcaster: VerifyingKey) -> Self {
        let identity = std::sync::Arc::new(forger.impostor(name, &forger.key("payments-api")));
        let (bus, cluster, own) = (forger.bus.clone(), forger.cluster.clone(), std::sync::Arc::clone(&identity));
        let newest = std::sync::Arc::new(AtomicU64::new(0));
        let heard = std::sync::Arc::clone(&newest);
        let renewing = tokio::spawn(async move {
            let (mut known, mut lease, mut echo) = ((Generation(0), Revision(0)), LeaseSequence(0), None);
            for sequence in 1.. {
                let part = SecretReport {
                    generation: known.0,
                    revision: known.1,
                    reached: Some((version(2), Stage::Switched)),
                    held: BTreeSet::from([version(1), version(2)]),
                    lease,
                    failure: None,
                    auth_failures: BTreeMap::new(),
                };
                let secrets = BTreeMap::from([(secret(), part)]);
                let report = InstanceReport { key: own.key().clone(), sequence: ReportSequence(sequence), secrets };
                let request = own.seal(&SyncRequest { nonce: Nonce(sequence), echo, report }, id(), clock::wall());
                let reply = bus
                    .sync(&request, Duration::from_secs(2))
                    .await
                    .ok()
                    .and_then(|reply| SyncReply::open(&reply, &cluster, |_, _| Some(&broadcaster)).ok());
                if reply.as_ref().is_some_and(|reply| reply.unregistered) {
                    let secrets = BTreeSet::from([secret()]);
                    let key = own.key().clone();
                    let registration = Registration { key: key.clone(), exclusive: false, secrets, left: false };
                    // It asks again if NATS did not take it.
                    drop(bus.register(&key, &own.seal(&registration, id(), clock::wall())).await);
                }
                echo = reply.as_ref().and_then(|reply| reply.challenge).or(echo);
                if reply.as_ref().is_some_and(|reply| reply.unproven) {
                    continue;
                }
                for grant in reply.into_iter().flat_map(|reply| reply.secrets.into_values()) {
                    lease = grant.sequence;
                    heard.store(lease.0, Ordering::SeqCst);
                    known = grant.state.map_or(known, |state| (state.generation, state.revision));
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        });
        Self { identity, lease: newest, renewing }
    }

    fn key(&self) -> &InstanceKey {
        self.identity.key()
    }

    fn seal(&self, message: &impl InstanceMessage) -> Envelope {
        self.identity.seal(message, id(), clock::wall())
    }
}

fn version(number: u64) -> Version {
    Version::new(number).expect("not zero")
}

fn secret() -> SecretName {
    SecretName::new(SECRET).expect("a valid name")
}

async fn instance(world: &World, service: &str, instance: &str) -> v1::InstanceInfo {
    until(&format!("{service}/{instance} to be listed"), LIMIT, async || {
        let all = world.operator.instances().await.ok()?;
        all.into_iter().rev().find(|info| {
            let key = info.key.as_ref().expect("an instance has a key");
            key.service == service && key.instance == instance && info.standing != "left"
        })
    })
    .await
}

fn key_of(info: &v1::InstanceInfo) -> InstanceKey {
    let key = info.key.as_ref().expect("an instance has a key");
    let incarnation: [u8; 16] = key.incarnation.as_ref().try_into().expect("128 bits");
    InstanceKey::new(
        key.service.parse().expect("a valid name"),
        key.instance.parse().expect("a valid name"),
        Incarnation(u128::from_be_bytes(incarnation)),
    )
}

/// What would release version 1 if it were believed.
fn released(key: &InstanceKey, status: &v1::SecretStatus, sequence: ReportSequence) -> InstanceReport {
    let version = version(2);
    let report = SecretReport {
        generation: Generation(status.generation),
        revision: Revision(status.revision),
        reached: Some((version, Stage::Released)),
        held: BTreeSet::from([version]),
        lease: LeaseSequence(u64::MAX),
        failure: None,
        auth_failures: BTreeMap::new(),
    };
    let secrets = BTreeMap::from([(secret(), report)]);
    InstanceReport { key: key.clone(), sequence, secrets }
}

/// A rotation that drains: `payments-api/one` has switched, and `payments-api/two` goes on with version 1 and says so.
async fn draining() -> Option<(World, Service, Service)> {
    // Long leases, so that no process is fenced or deposed because the machine is busy.
    let options = Options::default().leader_ttl("10s");
    let options = options.policy("lease_idle", "\"12s\"").policy("lease_rotating", "\"10s\"");
    let mut world = World::start(programs!(), options).await?;
    world.broadcaster.start(&world.operator).await;
    world.first_version().await;
    let mut one = world.service("payments-api", "one", &[]);
    let mut two = world.service("payments-api", "two", &["--ignore-reload"]);
    one.uses(1).await;
    two.uses(1).await;
    world.operator.order(Action::Rotate(v1::Rotate {})).await.expect("the order is accepted");
    one.uses(2).await;
    until("the rotation to drain", LIMIT, async || {
        let status = world.operator.status().await.ok()?;
        let drains = status.rotation.is_some_and(|rotation| rotation.phase() == v1::Phase::Draining);
        (drains && instance(&world, "payments-api", "two").await.held == [1, 2]).then_some(())
    })
    .await;
    Some((world, one, two))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s53_forged_messages_change_nothing_and_are_counted() {
    let Some((mut world, mut one, mut two)) = draining().await else { return };
    let forger = Forger::new(&world).await;
    let broadcaster = world.broadcaster_key();
    let played = Played::start(&forger, "three", broadcaster.clone()).await;
    let victim = played.key().clone();
    until("the victim to hold up the retire", LIMIT, async || {
        let status = world.operator.status().await.ok()?;
        status.blockers.iter().any(|it| it.who == victim.to_string()).then_some(())
    })
    .await;
    let status = world.operator.status().await.expect("the broadcaster answers");
    let (payments, ledger, stranger) = (forger.key("payments-api"), forger.key("ledger"), SigningKey::generate());
    // What any pod of the service can be, and whom it pretends to be.
    let impostor = forger.impostor("three", &payments);
    let report = released(&victim, &status, BEYOND);
    let sealed_by = |identity: &InstanceIdentity, report: &InstanceReport| identity.seal(report, id(), clock::wall());
    let genuine = played.seal(&report);

    let service = "ledger".parse().expect("a valid name");
    let other = InstanceKey::new(service, victim.instance.clone(), victim.incarnation);
    let mut changed = genuine.clone();
    let mut bytes = changed.payload.to_vec();
    *bytes.last_mut().expect("not empty") ^= 1;
    changed.payload = bytes.into();
    let staging = ClusterName::new("staging").expect("a valid name");
    let reports = [
        ("a report signed with an unknown key", forger.seal(&stranger, &report)),
        ("a report signed with the service's key", forger.seal(&payments, &report)),
        ("a report of another instance of the service", sealed_by(&impostor, &report)),
        (
            "the same, put under its own name",
            Envelope { subject: impostor.key().full_name(), ..sealed_by(&impostor, &report) },
        ),
        (
            "the same, with the victim's key and attestation",
            Envelope {
                key_id: genuine.key_id.clone(),
                attestation: genuine.attestation.clone(),
                ..sealed_by(&impostor, &report)
            },
        ),
        (
            "a report of an instance that another service's key attests",
            sealed_by(&forger.impostor("three", &ledger), &released(&victim, &status, BEYOND)),
        ),
        ("an instance that another service's key attests, about itself", {
            let attested = forger.impostor("three", &ledger);
            sealed_by(&attested, &released(attested.key(), &status, BEYOND))
        }),
        ("the victim's report about an instance of another service", played.seal(&released(&other, &status, BEYOND))),
        ("a report of the victim's in another cluster", Envelope { source: staging.to_string(), ..genuine.clone() }),
        ("a report without an attestation", Envelope { attestation: String::new(), ..genuine.clone() }),
        ("a report changed after it was signed", changed),
        (
            "a report with a signature of nothing but zeros",
            Envelope { signature: vec![0; 64].into(), ..genuine.clone() },
        ),
        ("a report under another type", Envelope { kind: Kind::SyncRequest.as_str().into(), ..genuine.clone() }),
    ];
    let mut count = forger.refused().await;
    assert_eq!(count, 0, "something was refused before anything was forged");
    for (what, envelope) in &reports {
        forger.bus.report(&victim, envelope).await.expect("NATS takes anything");
        let now = forger.one_more(count, what).await;
        assert_eq!(now, count + 1, "{what}");
        count = now;
        forger.nothing_has_changed(&victim, what).await;
    }

    // What is no message of the contract is dropped by the bus.
    let unsigned = Envelope { signature: Bytes::new(), ..genuine.clone() };
    forger.bus.report(&victim, &unsigned).await.expect("NATS takes anything");
    count = forger.one_more(count, "a report without a signature").await;
    forger.nothing_has_changed(&victim, "a report without a signature").await;

    let request = SyncRequest { nonce: Nonce(7), echo: None, report: report.clone() };
    let asked = forger.bus.sync(&impostor.seal(&request, id(), clock::wall()), Duration::from_secs(2)).await;
    assert!(asked.is_err(), "a forged Sync was answered");
    count = forger.one_more(count, "a Sync of another instance of the service").await;
    forger.nothing_has_changed(&victim, "a forged Sync").await;

    // The gateway refuses it, so it does not reach the bus.
    let options = GrpcOptions { url: world.broadcaster.url(), ..GrpcOptions::default() };
    let gateway = GrpcBus::connect(options).await.expect("the broadcaster listens");
    let told = gateway.report(&victim, &sealed_by(&impostor, &report)).await;
    println!("the gateway to a forged report: {told:?}");
    count = forger.one_more(count, "a forged report at the gateway").await;
    forger.nothing_has_changed(&victim, "a forged report at the gateway").await;

    // It takes the place of the victim's among the registrations, and is removed.
    let leave = Registration { key: victim.clone(), exclusive: false, secrets: BTreeSet::from([secret()]), left: true };
    let leave = impostor.seal(&leave, id(), clock::wall());
    forger.bus.register(&victim, &leave).await.expect("NATS takes anything");
    count = forger.one_more(count, "a leave of another instance of the service").await;
    forger.nothing_has_changed(&victim, "a forged leave").await;

    // An order in the operator's name, signed with a service's key.
    let told = order(&world, &payments, &victim).await;
    assert!(
        matches!(told.code(), tonic::Code::Unauthenticated | tonic::Code::PermissionDenied),
        "a forged order was not refused for who signed it: {told:?}"
    );
    forger.nothing_has_changed(&victim, "a forged order").await;
    println!("{count} messages refused");
    drop(forger);

    // The next leader finds the victim in the roster, no registration of it, and no valid report.
    world.broadcaster.kill().await;
    world.broadcaster.start(&world.operator).await;
    let forger = Forger::new(&world).await;
    until("the next leader to wait for the same instance", LIMIT, async || {
        let status = world.operator.status().await.ok()?;
        status.blockers.iter().any(|it| it.who == victim.to_string() && it.why == "still holds version 1").then_some(())
    })
    .await;
    forger.nothing_has_changed(&victim, "a takeover").await;

    // The same report, signed by the victim's own key, is believed: only the signature stopped the others. From now on the
    // victim renews nothing.
    let status = world.operator.status().await.expect("the broadcaster answers");
    let mut believed = released(&victim, &status, BEYOND);
    let claimed = played.seal(&believed);
    believed.sequence = believed.sequence.next();
    let refused = forger.claims_refused().await;
    forger.bus.report(&victim, &claimed).await.expect("NATS runs");
    until("the claim of a grant that was never made to be counted", LIMIT, async || {
        (forger.claims_refused().await > refused).then_some(())
    })
    .await;
    forger.nothing_has_changed(&victim, "its own claim").await;
    played.renewing.abort();
    let lease = LeaseSequence(played.lease.load(Ordering::SeqCst));
    believed.secrets.values_mut().for_each(|part| part.lease = lease);
    let believed = played.seal(&believed);
    drop(played);
    forger.bus.report(&victim, &believed).await.expect("NATS runs");
    two.kill().await;
    world
        .until("the genuine report to be believed, and PostgreSQL to be asked", |status| {
            let who = victim.to_string();
            let evidence = status.blockers.iter().any(|it| it.condition == "usage_evidence");
            (evidence && status.blockers.iter().all(|it| it.who != who)).then_some(())
        })
        .await;
    assert!(world.database.logins().await.contains(&Database::login_by_hand(1)));
    assert_eq!(world.ended(2).await.outcome, "retired");
    let last = one.stop().await;
    assert_eq!(last.queries_failed, 0, "{last:?}");
}

/// An override of every instance and session, in the operator's name.
async fn order(world: &World, key: &SigningKey, victim: &InstanceKey) -> tonic::Status {
    let instance = v1::InstanceKey {
        service: victim.service.to_string(),
        instance: victim.instance.to_string(),
        incarnation: victim.incarnation.0.to_be_bytes().to_vec().into(),
    };
    let command = v1::OperatorCommand {
        operator: "ada".into(),
        secret: SECRET.into(),
        reason: "forged".into(),
        nonce: rand::random(),
        issued_ms: clock::wall().0,
        epoch: 1,
        emergency: false,
        action: Some(Action::Override(v1::Override { version: 1, instances: vec![instance], sessions: true })),
    };
    let cluster = ClusterName::new(CLUSTER).expect("a valid name");
    let payload = command.encode_to_vec().into();
    let envelope = Envelope::sign(key, Kind::OperatorCommand, &cluster, SECRET, "forged", clock::wall(), payload);
    let mut client = AdminClient::connect(world.broadcaster.url()).await.expect("the broadcaster listens");
    client.command(v1::Envelope::from(envelope)).await.expect_err("a forged order is refused")
}

/// A message as it went over NATS.
#[derive(Clone, Debug)]
struct Recorded {
    subject: String,
    headers: HeaderMap,
    payload: Bytes,
}

/// Every message of the cluster that NATS carried until `stop`, as an eavesdropper has them.
fn record(
    subscriber: async_nats::Subscriber,
) -> (tokio::task::JoinHandle<Vec<Recorded>>, tokio::sync::oneshot::Sender<()>) {
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let recording = tokio::spawn(async move {
        let mut messages = Vec::new();
        let mut subscriber = subscriber.take_until(stopped);
        while let Some(message) = subscriber.next().await {
            // Without the header that would make NATS itself refuse the second copy.
            let mut headers = HeaderMap::new();
            for (name, values) in message.headers.unwrap_or_default().iter() {
                let text: &str = name.as_ref();
                if !text.starts_with("Nats-") {
                    values.iter().for_each(|value| headers.append(name.clone(), value.clone()));
                }
            }
            messages.push(Recorded { subject: message.subject.to_string(), headers, payload: message.payload });
        }
        messages
    });
    (recording, stop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s53_replaying_every_message_changes_nothing() {
    let Some(mut world) = World::start(programs!(), Options::default().leader_ttl("10s")).await else { return };
    let client = async_nats::connect(world.bus.nats().url()).await.expect("NATS runs");
    let subscriber = client.subscribe(format!("rotacast.{CLUSTER}.>")).await.expect("NATS lets every client listen");
    let (recording, stop) = record(subscriber);
    world.broadcaster.start(&world.operator).await;
    world.first_version().await;
    let mut one = world.service("payments-api", "one", &[]);
    let mut early = world.service("ledger", "one", &[]);
    one.uses(1).await;
    early.uses(1).await;
    // An earlier incarnation of the same name leaves, and another one starts: the log has its leave and its releases,
    // too.
    early.stop().await;
    assert_eq!(world.rotate().await.outcome, "retired");
    let mut ledger = world.service("ledger", "one", &[]);
    ledger.uses(2).await;
    one.uses(2).await;
    stop.send(()).expect("it is still recording");
    let messages = recording.await.expect("recording does not panic");
    let of = |part: &str| messages.iter().filter(|message| message.subject.contains(part)).count();
    let (states, reports, registrations) = (of(".state."), of(".report."), of(".registrations."));
    println!(
        "recorded {states} states, {reports} reports, {registrations} registrations and leaves, {} Syncs",
        of(".sync")
    );
    assert!(
        states > 3 && reports > 3 && registrations > 2 && of(".sync") > 3,
        "too little was recorded to prove anything"
    );

    // A rotation that cannot go on yet because of a session that no instance reports.
    let hidden = world.session(2).await;
    world.operator.order(Action::Rotate(v1::Rotate {})).await.expect("the order is accepted");
    one.uses(3).await;
    ledger.uses(3).await;
    let blocked = |status: &v1::SecretStatus| {
        let evidence = status.blockers.iter().any(|it| it.condition == "usage_evidence");
        (evidence && status.blockers.iter().all(|it| it.condition != "members_released")).then(|| status.clone())
    };
    let before = world.until("only a hidden session to hold up the retire", blocked).await;

    // Twice: backwards, then in order. Each publish is flushed, so that NATS has it before the next check.
    for message in messages.iter().rev().chain(&messages) {
        let Recorded { subject, headers, payload } = message.clone();
        client.publish_with_headers(subject, headers, payload).await.expect("NATS takes anything");
    }
    client.flush().await.expect("NATS runs");
    // A forged message behind them in the same stream: once it is counted, all reports before it were read.
    let forger = Forger::new(&world).await;
    let victim = key_of(&instance(&world, "payments-api", "one").await);
    let before_count = forger.refused().await;
    let marker = forger.seal(&SigningKey::generate(), &released(&victim, &before, BEYOND));
    forger.bus.report(&victim, &marker).await.expect("NATS takes anything");
    forger.one_more(before_count, "the marker").await;

    let after = world.until("the same status", blocked).await;
    assert_eq!(after.generation, before.generation);
    assert_eq!((after.current, after.rotation.as_ref().map(|it| it.new)), (3, Some(3)), "{after:#?}");
    let all = world.operator.instances().await.expect("the broadcaster answers");
    let live: Vec<_> = all.iter().filter(|info| info.standing != "left").collect();
    assert_eq!(live.len(), 2, "{all:?}");
    assert!(live.iter().all(|info| info.version == 3 && info.held == [3]), "{all:?}");

    drop(hidden);
    assert_eq!(world.ended(3).await.outcome, "retired");
    // Whatever old state the services received again, they keep their version and go on.
    for service in [&mut one, &mut ledger] {
        let at = service.uses(3).await.by_version[&3];
        let last = service.until("more queries", |status| status.by_version[&3] > at + 20).await;
        assert_eq!(last.version, Some(3), "{last:?}");
        let last = service.stop().await;
        assert_eq!(last.queries_failed, 0, "{last:?}");
    }
    assert_eq!(world.database.logins().await, ["payments_db_v3"]);
}
