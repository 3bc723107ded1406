//! A new leader takes over its predecessor's secrets.

use std::collections::BTreeMap;

use rotacast_protocol::message::Stage;
use rotacast_protocol::{Challenge, Epoch};
use rotacast_store::conformance::Counting;

use super::super::turns::PLACES;
use super::faults::register;
use super::*;

/// Many times as many as may write at once.
const MANY: usize = 6 * PLACES;

fn nth(number: usize) -> SecretName {
    SecretName::new(format!("app/secret-{number:04}")).unwrap()
}

async fn epochs(environment: &Environment) -> BTreeMap<SecretName, Epoch> {
    let records = environment.tree.load_records().await.unwrap();
    let epoch = |bytes: &[u8]| SecretRecord::decode(bytes).unwrap().epoch;
    records.entries.into_iter().map(|entry| (entry.secret, epoch(&entry.bytes))).collect()
}

/// A term with many secrets begins without a flood: few saves at once, one for each record that was there, no reads of
/// each, and first for the secrets that a caller waits for.
#[tokio::test(flavor = "multi_thread")]
async fn a_takeover_saves_every_record_once_few_at_a_time_and_rotating_secrets_first() {
    let folder = tempfile::tempdir().unwrap();
    let (mut environment, _bus) = environment(folder.path(), Policy::default()).await;
    for secret in (0..MANY).map(nth).chain([name()]) {
        environment.tree.put_next(&secret, SecretValue::new(b"first".to_vec()), None).await.unwrap();
    }
    let store = Arc::clone(environment.tree.store());
    let counting = Arc::new(Counting::new(Arc::clone(&store)));
    environment.tree = SecretTree::new(counting.clone(), environment.tree.prefix().clone());
    let (secrets, stop) = (Secrets::new(1_000), CancellationToken::new());
    let running = tokio::spawn(Driver::new(environment.clone(), secrets.clone()).run(stop.clone()));
    hold("taken up", async || {
        let all = secrets.all();
        all.len() == MANY + 1 && all.iter().all(|(_, task)| task.status.borrow().current == Some(version(1)))
    })
    .await;
    // Its name is the last one in order.
    put(&environment, "second").await;
    until(&secrets, |status| status.rotation.is_some()).await;
    stop.cancel();
    running.await.unwrap();
    // Each was saved several times until its first version.
    let most = counting.most_under_way();
    assert!((2..=PLACES).contains(&most), "{most} commits at once, expected 2 to {PLACES}");
    let before = epochs(&environment).await;
    assert_eq!(before.len(), MANY + 1);

    // The reads of this test itself do not count.
    let uncounted = environment.clone();
    let counting = Arc::new(Counting::new(store));
    environment.tree = SecretTree::new(counting.clone(), environment.tree.prefix().clone());
    let (secrets, stop) = (Secrets::new(1_000), CancellationToken::new());
    let running = tokio::spawn(Driver::new(environment.clone(), secrets.clone()).run(stop.clone()));
    let folder = environment.tree.prefix().key().child("records");
    hold("taken over", async || {
        let records: Vec<Key> = counting.written();
        (0..MANY).map(nth).all(|secret| records.contains(&folder.child(secret)))
    })
    .await;
    hold("every epoch is the new one", async || {
        epochs(&uncounted).await.iter().all(|(secret, epoch)| *epoch > before[secret])
    })
    .await;
    stop.cancel();
    running.await.unwrap();

    let written = counting.written();
    for secret in (0..MANY).map(nth) {
        let saves = written.iter().filter(|key| **key == folder.child(&secret)).count();
        assert_eq!(saves, 1, "of {secret}");
    }
    assert!(counting.keys_read() < PLACES, "{} keys read one by one", counting.keys_read());
    let most = counting.most_under_way();
    assert!((2..=PLACES).contains(&most), "{most} commits at once, expected 2 to {PLACES}");
    let at = written.iter().position(|key| *key == folder.child(name())).unwrap();
    assert!(at < PLACES, "the rotating secret's record was written as number {at}");
}

/// An instance that follows a rotation as the test says.
struct Follows<'a> {
    environment: &'a Environment,
    bus: &'a EmbeddedBus,
    identity: InstanceIdentity,
    sequence: u64,
    echo: Option<Challenge>,
    /// What it has acted on, and the newest grant that it has.
    known: (Generation, Revision, LeaseSequence),
}

impl Follows<'_> {
    /// Says where it stands until the leader answers with a grant. Returns for how long it may use each version.
    async fn says(&mut self, reached: u64, stage: Stage, held: &[u64]) -> BTreeMap<Version, Duration> {
        let grant = tokio::time::timeout(PATIENCE, async {
            loop {
                if let Some(grant) = self.say(reached, stage, held).await {
                    return grant;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        grant.await.expect("no leader grants anything")
    }

    async fn say(&mut self, reached: u64, stage: Stage, held: &[u64]) -> Option<BTreeMap<Version, Duration>> {
        self.sequence += 1;
        let (generation, revision, lease) = self.known;
        let part = SecretReport {
            generation,
            revision,
            reached: Some((version(reached), stage)),
            held: held.iter().copied().map(version).collect(),
            lease,
            failure: None,
            auth_failures: Default::default(),
        };
        let (key, sequence) = (self.identity.key().clone(), ReportSequence(self.sequence));
        let report = InstanceReport { key, sequence, secrets: [(name(), part)].into() };
        let request = SyncRequest { nonce: Nonce(self.sequence), echo: self.echo, report };
        let envelope = self.identity.seal(&request, self.sequence.to_string(), clock::wall());
        let reply = self.bus.sync(&envelope, Duration::from_secs(2)).await.ok()?;
        let own = self.environment.key.public();
        let mut reply = SyncReply::open(&reply, &self.environment.cluster, |_, _| Some(own)).unwrap();
        self.echo = reply.challenge;
        let grant = reply.secrets.remove(&name()).filter(|_| !reply.unregistered)?;
        self.known.2 = grant.sequence;
        if let Some(state) = grant.state {
            (self.known.0, self.known.1) = (state.generation, state.revision);
            // It acts on the state first.
            return None;
        }
        Some(grant.leases)
    }
}

/// A successor knows from the roster who may have a lease of an hour. Once they have let go, it waits for none.
#[tokio::test(flavor = "multi_thread")]
async fn a_takeover_in_mid_rotation_costs_no_lease_once_every_instance_has_released() {
    let folder = tempfile::tempdir().unwrap();
    let brief =
        Policy { self_lease: Duration::from_millis(200), max_use: Duration::from_millis(100), ..Policy::default() };
    let (environment, bus) = environment(folder.path(), brief.clone()).await;
    put(&environment, "first").await;
    let running = Running::start(&environment);
    running.reaches(&name(), 1).await;
    let identity = instance(&environment, "payments", 1);
    register(&bus, &identity, &[name()]).await;
    let known = (Generation(0), Revision(0), LeaseSequence(0));
    let mut follows = Follows { environment: &environment, bus: &bus, identity, sequence: 0, echo: None, known };
    let leases = follows.says(1, Stage::Released, &[1]).await;
    assert_eq!(leases, BTreeMap::from([(version(1), brief.lease_idle)]));
    put(&environment, "second").await;
    for (phase, stage) in [(Phase::Preparing, Stage::Prepared), (Phase::Activating, Stage::Switched)] {
        until(&running.secrets, |status| status.rotation.as_ref().is_some_and(|it| it.phase == phase)).await;
        follows.says(2, stage, &[1, 2]).await;
    }
    until(&running.secrets, |status| status.rotation.as_ref().is_some_and(|it| it.phase == Phase::Draining)).await;
    running.stop().await;

    let running = Running::start(&environment);
    until(&running.secrets, |status| status.blockers.iter().any(|it| it.condition == ConditionName::MembersReleased))
        .await;
    follows.says(2, Stage::Released, &[2]).await;
    // Far less than the hour that the first leader granted.
    until(&running.secrets, |status| status.rotation.is_none()).await;
    running.stop().await;
}
