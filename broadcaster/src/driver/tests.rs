//! The driver over the embedded store and bus, without a listener.

mod absence;
mod checks;
mod doors;
mod doubt;
mod faults;
mod following;
mod given_up;
mod gone;
mod home;
mod isolation;
mod lost;
mod on_record;
mod recordings;
mod scheduled;
mod sealing;
mod stored;
mod takeover;

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures::StreamExt as _;
use rotacast_bus::{EmbeddedBus, InstanceBus as _, LeaderBus as _};
use rotacast_clock as clock;
use rotacast_proto::{InstanceIdentity, SecretValue, SigningKey, WireMessage as _};
use rotacast_protocol::coordinator::{ConditionName, Coordinator, Input, Order, Overlay, Tenure};
use rotacast_protocol::machine::MAX_EVENTS;
use rotacast_protocol::message::{InstanceReport, Registration, SecretReport, SyncReply, SyncRequest};
use rotacast_protocol::policy::{Deadline, OnDeadline, WhenEmpty};
use rotacast_protocol::record::{ProviderId, RecordChange, SecretRecord, Timing};
use rotacast_protocol::schedule::Schedule;
use rotacast_protocol::status::SecretStatus;
use rotacast_protocol::{
    Generation, InstanceKey, LeaseSequence, Nonce, OperatorName, Phase, Policy, ReportSequence, Revision, SecretName,
    Version,
};
use rotacast_provider::{GenerateProvider, Provider};
use rotacast_store::{
    Commit, Committed, EmbeddedStore, Entry, Finding, Key, Leadership, Listing, Prefix, ReadStore, Setback, Store,
    StoreError, StoreEvent, Write,
};
use tokio::sync::{mpsc, oneshot};

use super::secret_task::SecretTask;
use super::turns::Turns;
use super::*;
use crate::audit::{AuditOptions, AuditSigner, OrderProof};
use crate::findings::Topic;
use crate::identities::{Service, Services};
use crate::settings::SecretSettings;

/// A test that waits this long has failed: no step here takes nearly as long.
const PATIENCE: Duration = Duration::from_secs(30);

/// The same settings for every secret.
struct Fixed {
    settings: SecretSettings,
    provider: Arc<dyn Provider>,
}

impl Fixed {
    fn of(policy: Policy, provider: Arc<dyn Provider>) -> Self {
        let settings = SecretSettings { policy: managed(policy, &*provider), schedule: None };
        Self { settings, provider }
    }
}

fn managed(policy: Policy, provider: &dyn Provider) -> Policy {
    Policy { provider: Some(provider.id("test")), ..policy }
}

impl Settings for Fixed {
    fn of(&self, _secret: &SecretName) -> SecretSettings {
        self.settings.clone()
    }

    fn provider(&self, id: &ProviderId) -> Option<Arc<dyn Provider>> {
        self.provider.id("test").is_same_system(id).then(|| Arc::clone(&self.provider))
    }

    fn configured(&self) -> Vec<SecretName> {
        Vec::new()
    }
}

fn name() -> SecretName {
    SecretName::new("payments/db").unwrap()
}

fn version(number: u64) -> Version {
    Version::new(number).unwrap()
}

async fn environment(folder: &Path, policy: Policy) -> (Environment, EmbeddedBus) {
    let cluster = ClusterName::new("test").unwrap();
    let bus = EmbeddedBus::open(&folder.join("bus.db")).await.unwrap();
    let store = EmbeddedStore::open(folder.join("store.db")).await.unwrap();
    let key = SigningKey::generate();
    let anyone = Service { keys: key.public().clone().into(), sealing_key: None, secrets: vec!["*".parse().unwrap()] };
    let services = Services { named: Default::default(), anyone: Some(anyone) };
    let signer = AuditSigner::new(key.clone(), cluster.clone());
    let environment = Environment {
        cluster: cluster.clone(),
        replica: Replica { name: "one".into(), address: None, run: Some(RunId(1)) },
        tree: SecretTree::new(Arc::new(store), Prefix::new("rotacast").unwrap()),
        bus: Arc::new(bus.clone()),
        audit: Arc::new(AuditLog::open(folder.join("audit.jsonl"), AuditOptions::default(), signer).unwrap()),
        key,
        identities: Arc::new(Identities::new(cluster, services)),
        settings: Arc::new(Fixed::of(policy, Arc::new(GenerateProvider::default()))),
        leader_ttl: Duration::from_secs(5),
        metrics: Metrics::default(),
        traces: Traces::off(),
        findings: Findings::default(),
        other_keys: [].into(),
        home: Home::default(),
    };
    (environment, bus)
}

async fn campaign(environment: &Environment) -> Leadership {
    environment.tree.campaign("one", environment.leader_ttl, CancellationToken::new()).await.unwrap()
}

/// An instance of a service, whose key is the environment's. Its number makes its own key.
fn instance(environment: &Environment, service: &str, number: u64) -> InstanceIdentity {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&number.to_be_bytes());
    let (service, instance) = (service.parse().unwrap(), format!("pod-{number}").parse().unwrap());
    let signing = SigningKey::from_seed(&seed);
    InstanceIdentity::with_key(signing, environment.cluster.clone(), service, instance, &environment.key)
}

async fn put(environment: &Environment, value: &str) {
    let value = SecretValue::new(value.as_bytes().to_vec());
    environment.tree.put_next(&name(), value, None).await.unwrap();
}

/// Leaves the state of a leader that crashed after it had signed the record, when it did not know of any version yet.
async fn leave_an_empty_record(environment: &Environment, policy: &Policy) {
    let term = campaign(environment).await;
    let mut record = SecretRecord::new(name(), term.epoch, Timing::of(policy));
    record.apply(&RecordChange::TermBegan { epoch: term.epoch });
    environment.tree.save_record(&name(), record.encode(), None, term.epoch).await.unwrap();
    term.resign.cancel();
    term.resigned.await.unwrap();
}

/// Waits until the status is as wanted.
async fn until(secrets: &Secrets, wanted: impl Fn(&SecretStatus) -> bool) -> SecretStatus {
    let mut last = None;
    let attempts = async {
        loop {
            if let Some(task) = secrets.get(&name()) {
                let (reply, answer) = oneshot::channel();
                let _ = task.mail.send(Mail::Question(Question::Status(reply))).await;
                if let Ok(status) = answer.await {
                    if wanted(&status) {
                        return status;
                    }
                    last = Some(status);
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let found = tokio::time::timeout(PATIENCE, attempts).await;
    found.unwrap_or_else(|_| panic!("the status never became what is wanted: {last:#?}"))
}

/// A driver that leads, and the handle that asks it.
struct Running {
    environment: Environment,
    secrets: Secrets,
    control: DriverControl,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    fn start(environment: &Environment) -> Self {
        Self::start_with_room_for(environment, 10)
    }

    fn start_with_room_for(environment: &Environment, limit: usize) -> Self {
        let (secrets, stop) = (Secrets::new(limit), CancellationToken::new());
        let driver = Driver::new(environment.clone(), secrets.clone());
        let control = DriverControl::new(environment.clone(), secrets.clone(), driver.role(), stop.clone());
        let task = tokio::spawn(driver.run(stop.clone()));
        Self { environment: environment.clone(), secrets, control, stop, task }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }

    async fn reaches(&self, secret: &SecretName, version: u64) {
        hold(&format!("version {version} of {secret}"), async || {
            self.secrets.get(secret).is_some_and(|task| task.status.borrow().current.map(Version::get) == Some(version))
        })
        .await;
    }

    fn finding(&self, topic: Topic) -> Option<String> {
        let standing = self.environment.findings.standing();
        standing.into_iter().find(|it| it.topic == topic).map(|it| format!("{}: {}", it.subject, it.text))
    }
}

/// Waits until the condition holds.
async fn hold(what: &str, check: impl AsyncFn() -> bool) {
    let waiting = async {
        while !check().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE * 4, waiting).await.unwrap_or_else(|_| panic!("never {what}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_seen_while_a_renewal_is_late_is_not_forgotten() {
    is_not_forgotten_while_a_renewal_is_late(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_machine_has_no_room_while_a_renewal_is_late_goes_on_afterwards() {
    is_not_forgotten_while_a_renewal_is_late(MAX_EVENTS + 1).await;
}

async fn is_not_forgotten_while_a_renewal_is_late(times: usize) {
    let folder = tempfile::tempdir().unwrap();
    let (environment, _bus) = environment(folder.path(), Policy::default()).await;
    let settings = environment.settings.of(&name());
    let term = campaign(&environment).await;
    // As after a suspension: the last renewal that the task knows of has expired.
    let late = clock::instant();
    let (renewals, leadership) = watch::channel(late);
    let tenure = Tenure { epoch: term.epoch, since: clock::now(), valid_until: late };
    let record = SecretRecord::new(name(), term.epoch, Timing::of(&settings.policy));
    let coordinator = Coordinator::take_over(record, settings.policy.clone(), tenure);
    let (mail, mailbox) = mpsc::channel(times);
    let (told, status) = watch::channel(Arc::new(SecretStatus::new(name())));
    let (secrets, stop) = (Secrets::new(10), CancellationToken::new());
    let turns = Turns::default();
    let task = SecretTask::new(
        environment,
        settings,
        coordinator,
        None,
        mailbox,
        leadership,
        None,
        turns.clone(),
        told,
        secrets.clone(),
        stop.clone(),
    );
    let running = tokio::spawn(task.run(turns.beginning()));
    for _ in 0..times {
        mail.send(Mail::Input(Box::new(Input::VersionSeen { version: version(1) }))).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    renewals.send_replace(clock::instant() + PATIENCE * 2);
    secrets.insert(name(), TaskHandle { mail, status });
    until(&secrets, |status| status.versions.iter().any(|known| known.version == version(1))).await;
    stop.cancel();
    running.await.unwrap();
}

/// No instance is heard and no command runs: time alone changes the status that listeners, metrics and the doctor read.
#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_passes_is_shown_although_nothing_else_happens() {
    let folder = tempfile::tempdir().unwrap();
    let deadline = Deadline { after: Duration::from_secs(2), then: OnDeadline::Hold };
    let policy = Policy { deadlines: [(Phase::Preparing, deadline)].into(), ..Policy::default() };
    let (environment, _bus) = environment(folder.path(), policy).await;
    put(&environment, "first").await;
    let (secrets, stop) = (Secrets::new(10), CancellationToken::new());
    let running = tokio::spawn(Driver::new(environment.clone(), secrets.clone()).run(stop.clone()));
    until(&secrets, |status| status.current == Some(version(1)) && status.rotation.is_none()).await;
    put(&environment, "second").await;
    // The status that the task has published. A question would be answered as of now.
    let mut shown = secrets.get(&name()).expect("known by now").status;
    let stuck = shown.wait_for(|status| status.overlays.contains(&Overlay::Stuck));
    tokio::time::timeout(PATIENCE, stuck).await.expect("never shown as stuck").unwrap();
    stop.cancel();
    running.await.unwrap();
}

/// A store that fails in ways that the caller's own calls do not show.
struct Faulty {
    store: EmbeddedStore,
    /// It refuses campaigns and watches.
    refuses: AtomicBool,
    /// How many watches it has refused.
    watches: AtomicUsize,
    /// It went back once, and a call that belongs to no watch found that.
    went_back: bool,
    /// The next campaign finds that the store went back.
    found_by_a_campaign: AtomicBool,
    /// Writes to this key wait.
    stalled: watch::Sender<Option<Key>>,
    /// Writes to this key are refused.
    forbidden: Mutex<Option<Key>>,
}

impl Faulty {
    fn around(store: EmbeddedStore) -> Self {
        Self {
            store,
            refuses: AtomicBool::new(false),
            watches: AtomicUsize::new(0),
            went_back: false,
            found_by_a_campaign: AtomicBool::new(false),
            stalled: watch::Sender::new(None),
            forbidden: Mutex::new(None),
        }
    }

    async fn refusing(folder: &Path) -> Arc<Self> {
        let store = EmbeddedStore::open(folder.join("store.db")).await.unwrap();
        Arc::new(Self { refuses: AtomicBool::new(true), ..Self::around(store) })
    }

    fn refusal(&self) -> StoreError {
        StoreError::Denied { endpoint: self.describe(), problem: "who are you".into() }
    }
}

#[async_trait::async_trait]
impl ReadStore for Faulty {
    fn describe(&self) -> String {
        self.store.describe()
    }

    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.store.get(key).await
    }

    async fn list(&self, parent: &Key) -> Result<Listing, StoreError> {
        self.store.list(parent).await
    }

    fn watch(&self, parent: &Key) -> futures::stream::BoxStream<'static, Result<StoreEvent, StoreError>> {
        if self.refuses.load(Ordering::SeqCst) {
            self.watches.fetch_add(1, Ordering::SeqCst);
            return futures::stream::iter([Err(self.refusal())]).boxed();
        }
        self.store.watch(parent)
    }
}

#[async_trait::async_trait]
impl Store for Faulty {
    async fn commit(&self, commit: Commit) -> Result<Committed, StoreError> {
        let writes = |key: &Key| {
            let mut keys = commit.writes.iter().map(|(Write::Put(written, _) | Write::Delete(written))| written);
            keys.any(|written| written == key)
        };
        let mut stalled = self.stalled.subscribe();
        stalled.wait_for(|stalled| !stalled.as_ref().is_some_and(writes)).await.expect("its sender is here");
        if self.forbidden.lock().unwrap().as_ref().is_some_and(writes) {
            return Err(self.refusal());
        }
        self.store.commit(commit).await
    }

    async fn campaign(
        &self,
        election: &Key,
        candidate: &str,
        ttl: Duration,
        cancel: CancellationToken,
    ) -> Result<Leadership, StoreError> {
        if self.refuses.load(Ordering::SeqCst) {
            return Err(self.refusal());
        }
        if self.found_by_a_campaign.swap(false, Ordering::SeqCst) {
            return Err(StoreError::WentBackwards { endpoint: self.describe(), problem: "restored".into() });
        }
        self.store.campaign(election, candidate, ttl, cancel).await
    }

    fn setback(&self) -> Option<Setback> {
        self.went_back.then(|| Setback { count: 1, problem: "restored from a backup".into() })
    }

    async fn examine(&self) -> Vec<Finding> {
        self.store.examine().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setback_that_no_watch_reported_puts_every_secret_into_safe_mode_once() {
    safe_mode_after_a_setback(false).await;
}

/// The candidate does not give up: otherwise no broadcaster could report the fault.
#[tokio::test(flavor = "multi_thread")]
async fn a_setback_that_a_campaign_finds_puts_every_secret_into_safe_mode_too() {
    safe_mode_after_a_setback(true).await;
}

async fn safe_mode_after_a_setback(found_by_a_campaign: bool) {
    let folder = tempfile::tempdir().unwrap();
    let (mut environment, _bus) = environment(folder.path(), Policy::default()).await;
    put(&environment, "first").await;
    let (secrets, stop) = (Secrets::new(10), CancellationToken::new());
    let running = tokio::spawn(Driver::new(environment.clone(), secrets.clone()).run(stop.clone()));
    until(&secrets, |status| status.current == Some(version(1))).await;
    stop.cancel();
    running.await.unwrap();

    let store = EmbeddedStore::open(folder.path().join("store.db")).await.unwrap();
    let store = Faulty { went_back: true, found_by_a_campaign: found_by_a_campaign.into(), ..Faulty::around(store) };
    environment.tree = SecretTree::new(Arc::new(store), Prefix::new("rotacast").unwrap());
    let (secrets, stop) = (Secrets::new(10), CancellationToken::new());
    let running = tokio::spawn(Driver::new(environment.clone(), secrets.clone()).run(stop.clone()));
    let in_safe_mode = |status: &SecretStatus| status.overlays.contains(&Overlay::SafeMode);
    until(&secrets, in_safe_mode).await;
    stop.cancel();
    running.await.unwrap();
    let record = environment.tree.read_record(&name()).await.unwrap().unwrap();
    let record = SecretRecord::decode(&record.bytes).unwrap();
    assert!(record.safe_mode.unwrap().reason.contains("restored from a backup"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_restored_while_no_broadcaster_led_is_found_out_by_what_the_bus_knows() {
    let folder = tempfile::tempdir().unwrap();
    let policy = Policy { when_empty: WhenEmpty::Proceed, ..Policy::default() };
    let (mut environment, bus) = environment(folder.path(), policy).await;
    put(&environment, "first").await;
    let lead_until = async |environment: &Environment, wanted: &dyn Fn(&SecretStatus) -> bool| {
        let (secrets, stop) = (Secrets::new(10), CancellationToken::new());
        let running = tokio::spawn(Driver::new(environment.clone(), secrets.clone()).run(stop.clone()));
        until(&secrets, wanted).await;
        stop.cancel();
        running.await.unwrap();
    };
    lead_until(&environment, &|status| status.current == Some(version(1))).await;
    put(&environment, "second").await;
    lead_until(&environment, &|status| status.rotation.is_some()).await;

    // The backup is from before all of it, and nothing in the store shows that.
    let backup = EmbeddedStore::open(folder.path().join("backup.db")).await.unwrap();
    environment.tree = SecretTree::new(Arc::new(backup), Prefix::new("rotacast").unwrap());
    put(&environment, "first").await;
    let in_safe_mode = |status: &SecretStatus| status.overlays.contains(&Overlay::SafeMode);
    lead_until(&environment, &in_safe_mode).await;
    let record = environment.tree.read_record(&name()).await.unwrap().unwrap();
    let record = SecretRecord::decode(&record.bytes).unwrap();
    let reason = record.safe_mode.unwrap().reason;
    assert!(reason.contains("the bus has a newer state") && reason.contains("backup"), "{reason}");
    // From here on instances follow the store.
    let revision = environment.tree.read_record(&name()).await.unwrap().unwrap().bytes;
    let revision = SecretRecord::decode(&revision).unwrap().revision;
    let mut states = bus.watch_states(&[name()]);
    let published = async {
        while let Some(event) = states.next().await {
            if let Ok(rotacast_bus::BusEvent::Message(state)) = event
                && state.id.rsplit(':').next().unwrap().parse::<u64>().unwrap() >= revision.0
            {
                return;
            }
        }
        panic!("the states ended");
    };
    let (stop, secrets) = (CancellationToken::new(), Secrets::new(10));
    let running = tokio::spawn(Driver::new(environment.clone(), secrets).run(stop.clone()));
    tokio::time::timeout(PATIENCE, published).await.unwrap();
    stop.cancel();
    running.await.unwrap();
}

/// Even if the backup lacks a single change: what the new term adds must not hide it.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_store_that_lacks_one_change_is_found_out_before_another_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let policy = Policy { when_empty: WhenEmpty::Proceed, ..Policy::default() };
    let (mut environment, bus) = environment(folder.path(), policy).await;
    put(&environment, "first").await;
    let (secrets, stop) = (Secrets::new(10), CancellationToken::new());
    let running = tokio::spawn(Driver::new(environment.clone(), secrets.clone()).run(stop.clone()));
    until(&secrets, |status| status.current == Some(version(1)) && status.rotation.is_none()).await;
    stop.cancel();
    running.await.unwrap();
    let bytes = environment.tree.read_record(&name()).await.unwrap().unwrap().bytes;
    let record = SecretRecord::decode(&bytes).unwrap();
    // One more change is saved and published before the backup is restored.
    let mut lost = record.clone();
    lost.apply(&RecordChange::Resumed);
    lost.revision = Revision(record.revision.0 + 1);
    let state = lost.state().seal(&environment.key, &environment.cluster, "lost", clock::wall());
    bus.publish_state(&name(), lost.revision, &state).await.unwrap();

    let (secrets, stop) = (Secrets::new(10), CancellationToken::new());
    environment.replica.name = "two".into();
    let running = tokio::spawn(Driver::new(environment.clone(), secrets.clone()).run(stop.clone()));
    until(&secrets, |status| status.overlays.contains(&Overlay::SafeMode)).await;
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_leader_judges_as_soon_as_it_has_read_the_roster() {
    let folder = tempfile::tempdir().unwrap();
    // So long that the test would notice a wait for two of them.
    let policy = Policy { sync_rotating: PATIENCE * 2, sync_idle: PATIENCE * 2, ..Policy::default() };
    let (environment, bus) = environment(folder.path(), policy).await;
    let instance = instance(&environment, "payments", 1);
    let key = instance.key().clone();
    let registration = Registration { key: key.clone(), exclusive: true, secrets: [name()].into(), left: false };
    bus.register(&key, &instance.seal(&registration, "1", clock::wall())).await.unwrap();
    let lead_until = async |wanted: &dyn Fn(&SecretStatus) -> bool| {
        let (secrets, stop) = (Secrets::new(10), CancellationToken::new());
        let running = tokio::spawn(Driver::new(environment.clone(), secrets.clone()).run(stop.clone()));
        let status = until(&secrets, wanted).await;
        stop.cancel();
        running.await.unwrap();
        status
    };
    put(&environment, "first").await;
    lead_until(&|status| status.current == Some(version(1)) && status.rotation.is_none()).await;
    put(&environment, "second").await;
    let status = lead_until(&|status| {
        let preparing = status.rotation.as_ref().is_some_and(|it| it.phase == Phase::Preparing);
        preparing && status.blockers.iter().all(|blocker| blocker.condition != ConditionName::RosterRead)
    })
    .await;
    assert!(status.services.iter().any(|service| service.counts.members == 1), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_from_before_rotacast_stay_alone_after_a_crash_at_the_first_sight_of_a_secret() {
    let folder = tempfile::tempdir().unwrap();
    let policy = Policy::default();
    let (environment, _bus) = environment(folder.path(), policy.clone()).await;
    for value in ["first", "second", "third"] {
        put(&environment, value).await;
    }
    leave_an_empty_record(&environment, &policy).await;
    let (secrets, stop) = (Secrets::new(10), CancellationToken::new());
    let running = tokio::spawn(Driver::new(environment, secrets.clone()).run(stop.clone()));
    let status = until(&secrets, |status| status.current.is_some()).await;
    let numbers: Vec<Version> = status.versions.iter().map(|known| known.version).collect();
    assert_eq!((status.current, numbers), (Some(version(3)), vec![version(3)]));
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_orders_is_on_record_as_theirs() {
    let folder = tempfile::tempdir().unwrap();
    let (environment, _bus) = environment(folder.path(), Policy::default()).await;
    put(&environment, "first").await;
    let (secrets, stop) = (Secrets::new(10), CancellationToken::new());
    let running = tokio::spawn(Driver::new(environment.clone(), secrets.clone()).run(stop.clone()));
    until(&secrets, |status| status.current.is_some() && status.rotation.is_none()).await;
    let task = secrets.get(&name()).unwrap();
    for order in [Order::pause("a look").unwrap(), Order::Resume, Order::Rotate] {
        let (reply, answer) = oneshot::channel();
        let by = OperatorName::new("ada").unwrap();
        assert!(task.mail.send(Mail::Operator { by, order, reply }).await.is_ok());
        answer.await.unwrap().unwrap();
    }
    stop.cancel();
    running.await.unwrap();
    let log = std::fs::read_to_string(folder.path().join("audit.jsonl")).unwrap();
    for action in ["paused", "resumed", "rotation_started"] {
        let line = log.lines().rev().find(|line| line.contains(&format!("\"action\":\"{action}\""))).unwrap();
        assert!(line.contains("\"actor\":\"ada\""), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_cannot_answer_costs_the_others_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (environment, bus) = environment(folder.path(), Policy::default()).await;
    put(&environment, "first").await;
    let (secrets, stop) = (Secrets::new(10), CancellationToken::new());
    let running = tokio::spawn(Driver::new(environment.clone(), secrets.clone()).run(stop.clone()));
    until(&secrets, |status| status.current.is_some() && status.rotation.is_none()).await;
    // A task that does not read its mailbox, as while its record cannot be saved.
    let (mail, _unread) = mpsc::channel(16);
    let mut held = Vec::new();
    for number in 0..3 {
        let (sender, status) = watch::channel(Arc::new(SecretStatus::new(name())));
        held.push(sender);
        secrets.insert(format!("stuck/{number}").parse().unwrap(), TaskHandle { mail: mail.clone(), status });
    }
    let instance = instance(&environment, "payments", 1);
    let key = instance.key().clone();
    let names: Vec<SecretName> = secrets.all().into_iter().map(|(name, _)| name).collect();
    let registration =
        Registration { key: key.clone(), exclusive: true, secrets: names.iter().cloned().collect(), left: false };
    bus.register(&key, &instance.seal(&registration, "1", clock::wall())).await.unwrap();
    until(&secrets, |status| status.services.iter().any(|service| service.counts.members == 1)).await;
    let report = SecretReport {
        generation: Generation(0),
        revision: Revision(0),
        reached: None,
        held: Default::default(),
        lease: LeaseSequence(0),
        failure: None,
        auth_failures: Default::default(),
    };
    let secrets_said = names.into_iter().map(|name| (name, report.clone())).collect();
    let report = InstanceReport { key, sequence: ReportSequence(1), secrets: secrets_said };
    let ask = async |echo| {
        let request = SyncRequest { nonce: Nonce(7), echo, report: report.clone() };
        let envelope = instance.seal(&request, "2", clock::wall());
        // As long as the SDK waits.
        let reply = bus.sync(&envelope, Duration::from_secs(2)).await.expect("no answer in time");
        SyncReply::open(&reply, &environment.cluster, |_, _| Some(environment.key.public())).unwrap()
    };
    let first = ask(None).await;
    let reply = ask(first.challenge).await;
    assert!(reply.secrets.contains_key(&name()), "{reply:?}");
    stop.cancel();
    running.await.unwrap();
}
