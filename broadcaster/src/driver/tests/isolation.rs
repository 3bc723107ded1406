//! A fault of one secret stays with that secret.

use rotacast_protocol::record::Label;
use rotacast_protocol::status::BlockerStatus;
use rotacast_provider::{Credential, Evidence, LiveSessions, ProviderError, Trial, Verdict};
use rotacast_store::PlainImporter;

use super::super::secret_task::MAILBOX;
use super::faults::{hasty, register, synced};
use super::*;
use crate::api::{Action, Control as _, OperatorCommand};
use crate::broadcaster::import;
use crate::config::SecretPattern;
use crate::findings::Findings;
use crate::operators::Warrant;

fn other() -> SecretName {
    SecretName::new("billing/db").unwrap()
}

async fn put_of(environment: &Environment, secret: &SecretName, value: &str) {
    environment.tree.put_next(secret, SecretValue::new(value.as_bytes().to_vec()), None).await.unwrap();
}

/// The configuration names the secret that will have no record.
struct Named(SecretSettings);

impl Settings for Named {
    fn of(&self, _secret: &SecretName) -> SecretSettings {
        self.0.clone()
    }

    fn provider(&self, _id: &ProviderId) -> Option<Arc<dyn Provider>> {
        Some(Arc::new(GenerateProvider::default()))
    }

    fn configured(&self) -> Vec<SecretName> {
        vec![other()]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_cannot_be_read_takes_its_secret_alone_out_of_service_until_it_is_mended() {
    let folder = tempfile::tempdir().unwrap();
    let (mut environment, _bus) = environment(folder.path(), hasty()).await;
    environment.settings = Arc::new(Named(environment.settings.of(&other())));
    for secret in [&name(), &other()] {
        put_of(&environment, secret, "first").await;
    }
    let running = Running::start(&environment);
    for secret in [&name(), &other()] {
        running.reaches(secret, 1).await;
    }
    running.stop().await;

    let key = environment.tree.prefix().key().child("records").child(other());
    let whole = environment.tree.read_record(&other()).await.unwrap().unwrap().bytes;
    let write = async |bytes: &[u8]| {
        let commit = Commit { checks: vec![], writes: vec![Write::Put(key.clone(), SecretValue::new(bytes.to_vec()))] };
        environment.tree.store().commit(commit).await.unwrap();
    };
    write(&whole[..whole.len() / 2]).await;
    let running = Running::start(&environment);
    put(&environment, "second").await;
    running.reaches(&name(), 2).await;
    assert!(running.secrets.out_of_service(&other()).unwrap().contains("record"));
    assert!(running.finding(Topic::OutOfService).unwrap().starts_with("billing/db: it gets no lease"));
    let told = running.control.doctor().await.findings;
    assert!(told.iter().any(|finding| finding.subject.ends_with("billing/db") && finding.level == "error"), "{told:?}");
    let refused = running.control.status(Some(other())).await.unwrap_err();
    assert!(refused.to_string().contains("out of service"), "{refused}");
    let mut watched = running.control.watch(Some(other()));
    let told = tokio::time::timeout(PATIENCE, watched.next()).await.expect("the watch says nothing").unwrap();
    assert!(told.unwrap_err().to_string().contains("out of service"));
    // A version that was written meanwhile is taken in afterwards.
    put_of(&environment, &other(), "second").await;

    write(&whole).await;
    hold("safe mode", async || {
        let task = running.secrets.get(&other());
        task.is_some_and(|task| task.status.borrow().overlays.contains(&Overlay::SafeMode))
    })
    .await;
    let order = Action::Order(Order::LeaveSafeMode);
    let command =
        OperatorCommand { secret: other(), action: order, proof: OrderProof::Dashboard, warrant: Warrant::default() };
    running.control.command(OperatorName::new("tests").unwrap(), command).await.unwrap();
    running.reaches(&other(), 2).await;
    hold("no finding", async || running.finding(Topic::OutOfService).is_none()).await;
    running.stop().await;
}

/// As `etcdctl put` and `etcdctl del` do it while this leader goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_another_client_overwrites_or_deletes_takes_its_secret_alone_out_of_service() {
    let folder = tempfile::tempdir().unwrap();
    let (environment, _bus) = environment(folder.path(), hasty()).await;
    let records = environment.tree.prefix().key().child("records");
    let record = async |secret: &SecretName| environment.tree.read_record(secret).await.unwrap().unwrap().bytes;
    let running = Running::start(&environment);
    for secret in [&name(), &other()] {
        put_of(&environment, secret, "first").await;
        running.reaches(secret, 1).await;
    }
    let older = record(&other()).await;
    put_of(&environment, &other(), "second").await;
    running.reaches(&other(), 2).await;
    let epoch = running.control.term().await.unwrap();
    let key = records.child(other());
    let put_record = |bytes: Vec<u8>| Write::Put(key.clone(), SecretValue::new(bytes));
    let writes = [
        (put_record(older), None),
        (Write::Delete(key.clone()), None),
        (put_record(b"{}".to_vec()), Some("not a rotation record")),
        (put_record(record(&name()).await), Some("it is the record of payments/db")),
    ];
    for (turn, (write, unreadable)) in (3..).zip(writes) {
        environment.tree.store().commit(Commit { checks: vec![], writes: vec![write] }).await.unwrap();
        // The next change of the record meets what was written.
        put_of(&environment, &other(), &format!("value {turn}")).await;
        if let Some(problem) = unreadable {
            // No record that its secret could begin with.
            let finding = || running.finding(Topic::OutOfService).unwrap_or_default();
            hold(problem, async || finding().starts_with("billing/db: ") && finding().contains(problem)).await;
            let gone = Commit { checks: vec![], writes: vec![Write::Delete(key.clone())] };
            environment.tree.store().commit(gone).await.unwrap();
        }
        hold("safe mode, and why", async || {
            let Some(task) = running.secrets.get(&other()) else { return false };
            let status = task.status.borrow();
            let told = |blocker: &BlockerStatus| blocker.why.contains("another client wrote its record");
            status.overlays.contains(&Overlay::SafeMode) && status.blockers.iter().any(told)
        })
        .await;
        let command = OperatorCommand {
            secret: other(),
            proof: OrderProof::Dashboard,
            warrant: Warrant::default(),
            action: Action::Order(Order::LeaveSafeMode),
        };
        running.control.command(OperatorName::new("tests").unwrap(), command).await.unwrap();
        running.reaches(&other(), turn).await;
        hold("no finding", async || running.finding(Topic::OutOfService).is_none()).await;
    }
    put(&environment, "second").await;
    running.reaches(&name(), 2).await;
    assert_eq!(running.control.term().await.unwrap(), epoch, "the term has ended");
    running.stop().await;
}

/// Panics once, when the settings of a secret are asked for after it was armed.
struct Panicking {
    settings: SecretSettings,
    armed: AtomicBool,
}

impl Settings for Panicking {
    fn of(&self, secret: &SecretName) -> SecretSettings {
        let panics = *secret == other() && self.armed.swap(false, Ordering::SeqCst);
        assert!(!panics, "a test asks for this panic");
        self.settings.clone()
    }

    fn provider(&self, _id: &ProviderId) -> Option<Arc<dyn Provider>> {
        Some(Arc::new(GenerateProvider::default()))
    }

    fn configured(&self) -> Vec<SecretName> {
        Vec::new()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_panics_begins_anew_and_the_others_do_not_notice() {
    let folder = tempfile::tempdir().unwrap();
    let (mut environment, _bus) = environment(folder.path(), hasty()).await;
    let settings = Arc::new(Panicking { settings: environment.settings.of(&name()), armed: AtomicBool::new(false) });
    environment.settings = settings.clone();
    for secret in [&name(), &other()] {
        put_of(&environment, secret, "first").await;
    }
    let running = Running::start(&environment);
    for secret in [&name(), &other()] {
        running.reaches(secret, 1).await;
    }
    let epoch = running.control.term().await.unwrap();
    let before = running.secrets.get(&other()).unwrap();
    settings.armed.store(true, Ordering::SeqCst);
    assert!(before.mail.send(Mail::Reconfigured).await.is_ok());
    before.mail.closed().await;
    put_of(&environment, &other(), "second").await;
    running.reaches(&other(), 2).await;
    put(&environment, "second").await;
    running.reaches(&name(), 2).await;
    assert_eq!(running.control.term().await.unwrap(), epoch, "the term has ended");
    hold("no finding", async || running.finding(Topic::OutOfService).is_none()).await;
    running.stop().await;
}

/// Panics whenever the settings of one secret are asked for.
struct Broken(SecretSettings);

impl Settings for Broken {
    fn of(&self, secret: &SecretName) -> SecretSettings {
        assert_ne!(*secret, other(), "a test asks for this panic");
        self.0.clone()
    }

    fn provider(&self, _id: &ProviderId) -> Option<Arc<dyn Provider>> {
        Some(Arc::new(GenerateProvider::default()))
    }

    fn configured(&self) -> Vec<SecretName> {
        vec![other()]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_cannot_begin_takes_its_secret_alone_out_of_service() {
    let folder = tempfile::tempdir().unwrap();
    let (mut environment, _bus) = environment(folder.path(), hasty()).await;
    environment.settings = Arc::new(Broken(environment.settings.of(&name())));
    put(&environment, "first").await;
    let running = Running::start(&environment);
    running.reaches(&name(), 1).await;
    assert!(running.finding(Topic::OutOfService).unwrap().contains("cannot begin"));
    assert!(running.secrets.out_of_service(&other()).is_some());
    running.stop().await;
}

/// Panics at the first login.
struct PanicsOnce {
    inner: GenerateProvider,
    armed: AtomicBool,
}

#[async_trait::async_trait]
impl Provider for PanicsOnce {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    fn system(&self) -> String {
        self.inner.system()
    }

    fn accepts(&self, _: &SecretValue) -> Result<(), String> {
        Ok(())
    }

    fn test_every(&self) -> Option<Duration> {
        None
    }

    fn draw(&self, secret: &SecretName, version: Version) -> Result<SecretValue, ProviderError> {
        self.inner.draw(secret, version)
    }

    async fn create(&self, credential: &Credential) -> Result<(), ProviderError> {
        self.inner.create(credential).await
    }

    async fn test(
        &self,
        credential: &Credential,
        others: &[Credential],
        trial: Trial,
    ) -> Result<Verdict, ProviderError> {
        assert!(!self.armed.swap(false, Ordering::SeqCst), "a test asks for this panic");
        self.inner.test(credential, others, trial).await
    }

    async fn usage(&self, credential: &Credential, others: &[Credential]) -> Result<Evidence, ProviderError> {
        self.inner.usage(credential, others).await
    }

    async fn disable(
        &self,
        credential: &Credential,
        others: &[Credential],
        sessions: LiveSessions,
    ) -> Result<(), ProviderError> {
        self.inner.disable(credential, others, sessions).await
    }

    async fn destroy(
        &self,
        credential: &Credential,
        others: &[Credential],
        sessions: LiveSessions,
    ) -> Result<(), ProviderError> {
        self.inner.destroy(credential, others, sessions).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_effect_that_panics_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let (mut environment, _bus) = environment(folder.path(), hasty()).await;
    let provider = PanicsOnce { inner: GenerateProvider::default(), armed: AtomicBool::new(true) };
    environment.settings = Arc::new(Fixed::of(hasty(), Arc::new(provider)));
    put(&environment, "first").await;
    let running = Running::start(&environment);
    running.reaches(&name(), 1).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_refuses_a_campaign_is_asked_again_until_it_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let (mut environment, _bus) = environment(folder.path(), hasty()).await;
    put(&environment, "first").await;
    let store = Faulty::refusing(folder.path()).await;
    environment.tree = SecretTree::new(store.clone(), environment.tree.prefix().clone());
    let running = Running::start(&environment);
    hold("a finding", async || running.finding(Topic::Leadership).is_some()).await;
    let finding = running.finding(Topic::Leadership).unwrap();
    assert!(finding.contains("refuses access: who are you"), "{finding}");
    assert!(!running.task.is_finished());
    store.refuses.store(false, Ordering::SeqCst);
    running.reaches(&name(), 1).await;
    assert_eq!(running.finding(Topic::Leadership), None);
    running.stop().await;
}

/// The aborted task's grants and the time of its seals are forgotten with it.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_panic_nothing_is_retired_before_the_longest_lease_is_over() {
    const LEASE: Duration = Duration::from_secs(1);
    let folder = tempfile::tempdir().unwrap();
    let policy = Policy { lease_idle: LEASE, lease_rotating: LEASE, ..hasty() };
    let (mut environment, bus) = environment(folder.path(), policy).await;
    let settings = Arc::new(Panicking { settings: environment.settings.of(&name()), armed: AtomicBool::new(false) });
    environment.settings = settings.clone();
    put_of(&environment, &other(), "first").await;
    let running = Running::start(&environment);
    running.reaches(&other(), 1).await;
    // The task that breaks off may have granted it a lease.
    register(&bus, &instance(&environment, "payments-api", 1), &[other()]).await;
    hold("the instance is known", async || {
        let status = running.secrets.get(&other()).unwrap().status;
        status.borrow().services.iter().any(|service| service.counts.members == 1)
    })
    .await;
    let led = clock::instant();
    // Leases from the begin of the term have expired. Only those of the aborted task have not.
    hold("the lease to pass", async || clock::instant().since(led) > LEASE * 2).await;
    let broke_off = clock::instant();
    settings.armed.store(true, Ordering::SeqCst);
    assert!(running.secrets.get(&other()).unwrap().mail.send(Mail::Reconfigured).await.is_ok());
    put_of(&environment, &other(), "second").await;
    running.reaches(&other(), 2).await;
    let retired = |status: &SecretStatus| status.version(version(1)).is_some_and(|it| it.label == Label::Retired);
    hold("version 1 retired", async || {
        running.secrets.get(&other()).is_some_and(|task| retired(&task.status.borrow()))
    })
    .await;
    let waited = clock::instant().since(broke_off);
    assert!(waited >= LEASE, "a lease of {LEASE:?} may have been granted; version 1 has ended after {waited:?}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_whose_campaign_was_refused_once_is_well_when_another_leads() {
    let folder = tempfile::tempdir().unwrap();
    let (mut environment, _bus) = environment(folder.path(), hasty()).await;
    let both = EmbeddedStore::open(folder.path().join("store.db")).await.unwrap();
    environment.tree = SecretTree::new(Arc::new(both.clone()), environment.tree.prefix().clone());
    put(&environment, "first").await;
    let leader = Running::start(&environment);
    leader.reaches(&name(), 1).await;
    // The embedded store keeps no leader's key. Other stores do.
    let key = environment.tree.prefix().key().child("leader");
    let writes = vec![Write::Put(key, SecretValue::new(b"one".to_vec()))];
    both.commit(Commit { checks: vec![], writes }).await.unwrap();
    environment.replica.name = "two".into();
    environment.findings = Findings::default();
    let store = Arc::new(Faulty { refuses: AtomicBool::new(true), ..Faulty::around(both) });
    environment.tree = SecretTree::new(store.clone(), environment.tree.prefix().clone());
    let follower = Running::start(&environment);
    hold("a finding", async || follower.finding(Topic::Leadership).is_some()).await;
    store.refuses.store(false, Ordering::SeqCst);
    hold("no finding", async || follower.finding(Topic::Leadership).is_none()).await;
    follower.stop().await;
    leader.stop().await;
}

async fn all(running: &Running) -> Vec<(SecretName, Option<Version>)> {
    let status = tokio::time::timeout(PATIENCE, running.control.status(None)).await.expect("it hangs");
    status.unwrap().secrets.into_iter().map(|it| (it.secret, it.current)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_whose_task_does_not_answer_hides_no_other_from_the_status() {
    let folder = tempfile::tempdir().unwrap();
    let (environment, _bus) = environment(folder.path(), hasty()).await;
    put(&environment, "first").await;
    let running = Running::start(&environment);
    running.reaches(&name(), 1).await;
    // A task that does not read its mailbox, as while its record cannot be saved, and one that has just ended.
    let (mail, unread) = mpsc::channel(1);
    let (_sender, status) = watch::channel(Arc::new(SecretStatus::new(other())));
    running.secrets.insert(other(), TaskHandle { mail, status });
    let expected = [(other(), None), (name(), Some(version(1)))];
    assert_eq!(all(&running).await, expected);
    // A list of secrets without instances says so.
    let asked = tokio::time::timeout(PATIENCE, running.control.instances(None, None)).await.expect("it hangs");
    assert_eq!(asked.unwrap().unanswered, [other()]);
    drop(unread);
    assert_eq!(all(&running).await, expected);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_replica_found_while_it_followed_is_looked_at_anew_when_it_leads() {
    let folder = tempfile::tempdir().unwrap();
    let (environment, _bus) = environment(folder.path(), hasty()).await;
    put(&environment, "first").await;
    let (findings, text) = (&environment.findings, "its record cannot be read".to_owned());
    findings.raise(Topic::OutOfService, name().as_str(), Level::Error, text, "mend it");
    let running = Running::start(&environment);
    running.reaches(&name(), 1).await;
    assert_eq!(running.finding(Topic::OutOfService), None);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_ends_again_and_again_is_one_finding_which_goes_with_the_leadership() {
    let folder = tempfile::tempdir().unwrap();
    let store = Faulty::refusing(folder.path()).await;
    let tree = SecretTree::new(store.clone(), Prefix::new("rotacast").unwrap());
    let importer = PlainImporter::new(tree, Prefix::new("plain").unwrap()).unwrap();
    let (findings, stop) = (Findings::default(), CancellationToken::new());
    let (leads, role) = watch::channel(Role::Leader { epoch: Epoch(1) });
    let importing = tokio::spawn(import(importer, findings.clone(), Metrics::default(), role, stop.clone()));
    let since = || findings.standing().first().map(|finding| finding.since);
    hold("a finding", async || since().is_some()).await;
    let first = since();
    hold("further attempts", async || store.watches.load(Ordering::SeqCst) > 2 && since().is_some()).await;
    assert_eq!(since(), first);
    leads.send_replace(Role::Follower);
    hold("no finding", async || since().is_none()).await;
    stop.cancel();
    importing.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_import_refuses_is_found_and_counted_until_the_source_is_corrected() {
    let folder = tempfile::tempdir().unwrap();
    let (environment, _bus) = environment(folder.path(), hasty()).await;
    let source = Prefix::new("plain").unwrap();
    let importer = PlainImporter::new(environment.tree.clone(), source.clone()).unwrap();
    let (findings, metrics) = (environment.findings.clone(), environment.metrics.clone());
    let (_leads, role) = watch::channel(Role::Leader { epoch: Epoch(1) });
    let stop = CancellationToken::new();
    let importing = tokio::spawn(import(importer, findings.clone(), metrics.clone(), role, stop.clone()));
    let write = async |name: &str, value: Option<Vec<u8>>| {
        let key = source.key().child(name);
        let write = match value {
            Some(value) => Write::Put(key, SecretValue::new(value)),
            None => Write::Delete(key),
        };
        environment.tree.store().commit(Commit { checks: vec![], writes: vec![write] }).await.unwrap();
    };
    let found = |name: &str| {
        let subject = source.key().child(name).to_string();
        findings.standing().into_iter().find(|it| it.topic == Topic::Import && it.subject == subject).map(|it| it.text)
    };
    for (name, value, told) in [
        ("Payments", b"v1".to_vec(), "is not valid"),
        ("a b", b"v1".to_vec(), "is not valid"),
        ("empty", Vec::new(), "it is empty"),
    ] {
        write(name, Some(value)).await;
        hold(name, async || found(name).is_some_and(|text| text.contains(told))).await;
    }
    // The value is written back to an older one, and deleted.
    for value in ["v1", "v2", "v1"] {
        write("back", Some(value.into())).await;
        let versions = async || environment.tree.list_versions(&"back".parse().unwrap()).await.unwrap().len();
        hold(value, async || found("back").is_some() || versions().await == usize::from(value == "v2") + 1).await;
    }
    hold("the value that came back", async || found("back").is_some_and(|text| text.contains("again"))).await;
    write("gone", Some(b"v1".to_vec())).await;
    let imported = async || !environment.tree.list_versions(&"gone".parse().unwrap()).await.unwrap().is_empty();
    hold("it is imported", imported).await;
    write("gone", None).await;
    hold("the key that is gone", async || found("gone").is_some_and(|text| text.contains("gone"))).await;

    let refused = || metrics.render().lines().any(|line| line == "rotacast_imports_total{outcome=\"refused\"} 4");
    hold("each is counted", async || refused()).await;
    for name in ["empty", "back", "gone"] {
        write(name, Some(format!("{name} v3").into_bytes())).await;
    }
    for name in ["Payments", "a b"] {
        write(name, None).await;
    }
    hold("all is well", async || findings.standing().is_empty()).await;
    stop.cancel();
    importing.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_many_broken_records_and_without_room_for_one_more_the_others_rotate() {
    let (count, broken) = if std::env::var_os("ROTACAST_LONG").is_some() { (10_000, 1_000) } else { (40, 4) };
    let folder = tempfile::tempdir().unwrap();
    let (environment, _bus) = environment(folder.path(), hasty()).await;
    let secrets: Vec<SecretName> =
        (0..count).map(|number| SecretName::new(format!("team/secret-{number:05}")).unwrap()).collect();
    let whole: Vec<&SecretName> = secrets.iter().skip(broken).collect();
    for secret in &secrets {
        put_of(&environment, secret, "first").await;
    }
    for secret in &secrets[..broken] {
        let key = environment.tree.prefix().key().child("records").child(secret);
        let writes = vec![Write::Put(key, SecretValue::new(b"{\"format\":1,".to_vec()))];
        environment.tree.store().commit(Commit { checks: vec![], writes }).await.unwrap();
    }
    let running = Running::start_with_room_for(&environment, count);
    for secret in &whole {
        running.reaches(secret, 1).await;
    }
    // One more version: an operator's is refused before anything is written, another program's is left out by name.
    let command = OperatorCommand {
        secret: name(),
        action: Action::Put(SecretValue::new(b"first".to_vec())),
        proof: OrderProof::CoversValue,
        warrant: Warrant::default(),
    };
    let refused = running.control.command(OperatorName::new("tests").unwrap(), command).await.unwrap_err();
    assert!(refused.to_string().contains("at most"), "{refused}");
    assert_eq!(environment.tree.list_versions(&name()).await.unwrap().len(), 0);
    put_of(&environment, &name(), "first").await;
    hold("a finding", async || running.finding(Topic::Limit).is_some_and(|it| it.starts_with(name().as_str()))).await;
    assert!(running.secrets.get(&name()).is_none());

    for secret in &whole {
        put_of(&environment, secret, "second").await;
    }
    for secret in &whole {
        running.reaches(secret, 2).await;
    }
    assert_eq!(running.secrets.all().len(), count - broken);
    let out = secrets[..broken].iter().filter(|secret| running.secrets.out_of_service(secret).is_some());
    assert_eq!(out.count(), broken);
    running.stop().await;
}

/// The configuration names one secret that is there, and one that is not.
struct Patterned(SecretSettings);

impl Settings for Patterned {
    fn of(&self, _secret: &SecretName) -> SecretSettings {
        self.0.clone()
    }

    fn provider(&self, _id: &ProviderId) -> Option<Arc<dyn Provider>> {
        Some(Arc::new(GenerateProvider::default()))
    }

    fn configured(&self) -> Vec<SecretName> {
        Vec::new()
    }

    fn patterns(&self) -> Vec<(String, SecretPattern)> {
        let beginning = format!("{}*", name().as_str().split('/').next().unwrap());
        [("[secrets]", &*beginning), ("[services.api]", "paymants/*")]
            .map(|(place, pattern)| (place.to_owned(), pattern.parse().unwrap()))
            .to_vec()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pattern_without_a_secret_is_a_finding_until_there_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let (mut environment, _bus) = environment(folder.path(), hasty()).await;
    environment.settings = Arc::new(Patterned(environment.settings.of(&name())));
    put(&environment, "first").await;
    let running = Running::start(&environment);
    running.reaches(&name(), 1).await;
    hold("a finding", async || running.finding(Topic::Pattern).is_some()).await;
    let told = running.finding(Topic::Pattern).unwrap();
    assert!(told.starts_with("[services.api] paymants/*: no secret has such a name"), "{told}");
    assert_eq!(environment.findings.standing().len(), 1, "the other pattern matches");
    put_of(&environment, &"paymants/db".parse().unwrap(), "first").await;
    hold("no finding", async || running.finding(Topic::Pattern).is_none()).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_finding_about_a_strange_key_goes_with_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let (environment, _bus) = environment(folder.path(), hasty()).await;
    put(&environment, "first").await;
    let key = |place: &str| environment.tree.prefix().key().child(place).child("Not A Name");
    let commit = async |writes| {
        environment.tree.store().commit(Commit { checks: vec![], writes }).await.unwrap();
    };
    // One that the listing of records finds, and one that the watch of versions finds.
    let keys = [key("records"), key("versions")];
    let value = || SecretValue::new(b"x".to_vec());
    commit(keys.iter().map(|key| Write::Put(key.clone(), value())).collect()).await;
    let running = Running::start(&environment);
    let strange =
        || environment.findings.counts().into_iter().find(|(topic, _)| *topic == Topic::StrangeKey).unwrap().1;
    hold("both are found", async || strange() == 2).await;
    for (key, left) in keys.into_iter().zip([1, 0]) {
        commit(vec![Write::Delete(key)]).await;
        hold("its finding goes", async || strange() == left).await;
    }
    running.stop().await;
}

/// Its record cannot be written, and more instances register than its mailbox holds.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_takes_nothing_in_holds_up_no_other_and_misses_nothing() {
    const INSTANCES: u64 = MAILBOX as u64 * 3;
    let folder = tempfile::tempdir().unwrap();
    let (mut environment, bus) = environment(folder.path(), hasty()).await;
    let store = EmbeddedStore::open(folder.path().join("store.db")).await.unwrap();
    let store = Arc::new(Faulty::around(store));
    environment.tree = SecretTree::new(store.clone(), Prefix::new("rotacast").unwrap());
    for secret in [&name(), &other()] {
        put_of(&environment, secret, "first").await;
    }
    let running = Running::start(&environment);
    for secret in [&name(), &other()] {
        running.reaches(secret, 1).await;
    }
    let record = environment.tree.prefix().key().child("records").child(other());
    store.stalled.send_replace(Some(record));
    put_of(&environment, &other(), "second").await;
    for number in 1..=INSTANCES {
        register(&bus, &instance(&environment, "payments-api", number), &[other()]).await;
    }
    put(&environment, "second").await;
    running.reaches(&name(), 2).await;
    // Registrations that come after the mailbox is full are taken in for the other secrets.
    let both = instance(&environment, "billing-api", INSTANCES + 1);
    register(&bus, &both, &[other(), name()]).await;
    let instances = async |secret: &SecretName| {
        let task = running.secrets.get(secret)?;
        task.ask(|reply| Question::Instances { not_on: None, reply }).await
    };
    hold("the instance is known", async || instances(&name()).await.is_some_and(|known| known.len() == 1)).await;
    hold("a finding", async || running.finding(Topic::Unresponsive).is_some()).await;
    // In the order of names the full one comes first.
    let reply = synced(&environment, &bus, &both, &[other(), name()], 1).await.unwrap();
    assert_eq!(reply.secrets.keys().collect::<Vec<_>>(), [&name()]);

    store.stalled.send_replace(None);
    let all = INSTANCES as usize + 1;
    hold("all are known", async || instances(&other()).await.is_some_and(|known| known.len() == all)).await;
    hold("no finding", async || running.finding(Topic::Unresponsive).is_none()).await;
    running.stop().await;
}

/// The broadcaster's login has lost the right to one record.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_cannot_be_saved_is_a_finding_and_its_status_is_told_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let (mut environment, _bus) = environment(folder.path(), hasty()).await;
    let store = EmbeddedStore::open(folder.path().join("store.db")).await.unwrap();
    let store = Arc::new(Faulty::around(store));
    environment.tree = SecretTree::new(store.clone(), Prefix::new("rotacast").unwrap());
    put(&environment, "first").await;
    let running = Running::start(&environment);
    running.reaches(&name(), 1).await;
    let record = environment.tree.prefix().key().child("records").child(name());
    *store.forbidden.lock().unwrap() = Some(record);
    put(&environment, "second").await;
    let told = || running.finding(Topic::Unresponsive).is_some_and(|text| text.contains("who are you"));
    hold("a finding with the store's words", async || told()).await;
    let status = running.control.status(Some(name())).await.unwrap();
    let [status] = status.secrets.as_slice() else { panic!("one secret was asked for") };
    assert!(status.findings.iter().any(|it| it.text.contains("cannot be saved")), "{:?}", status.findings);

    *store.forbidden.lock().unwrap() = None;
    running.reaches(&name(), 2).await;
    hold("no finding", async || running.finding(Topic::Unresponsive).is_none()).await;
    running.stop().await;
}

/// A tenth of the records cannot be read: the other secrets rotate. `tools/test --long`: 1,000 of 10,001.
#[tokio::test(flavor = "multi_thread")]
async fn secrets_whose_records_are_whole_rotate_beside_many_that_are_not() {
    let broken = if std::env::var_os("ROTACAST_LONG").is_some() { 1000 } else { 30 };
    let all: Vec<SecretName> = (0..=broken * 10).map(|number| format!("team-{number}/db").parse().unwrap()).collect();
    let folder = tempfile::tempdir().unwrap();
    let (environment, _bus) = environment(folder.path(), hasty()).await;
    for secret in &all {
        put_of(&environment, secret, "first").await;
    }
    // One after the other, so that each has the whole timeout.
    let reach = async |running: &Running, secrets: &[SecretName], version: u64| {
        for secret in secrets {
            running.reaches(secret, version).await;
        }
    };
    let running = Running::start_with_room_for(&environment, all.len());
    reach(&running, &all, 1).await;
    running.stop().await;

    let (damaged, whole) = all.split_at(broken);
    for secret in damaged {
        let key = environment.tree.prefix().key().child("records").child(secret);
        let half = environment.tree.read_record(secret).await.unwrap().unwrap().bytes;
        let half = SecretValue::new(half[..half.len() / 2].to_vec());
        let commit = Commit { checks: vec![], writes: vec![Write::Put(key, half)] };
        environment.tree.store().commit(commit).await.unwrap();
    }
    let running = Running::start_with_room_for(&environment, all.len());
    for secret in &all {
        put_of(&environment, secret, "second").await;
    }
    reach(&running, whole, 2).await;
    let out = all.iter().filter(|secret| running.secrets.out_of_service(secret).is_some());
    assert_eq!(out.count(), broken);
    let told = environment.findings.counts().into_iter().find(|(topic, _)| *topic == Topic::OutOfService).unwrap().1;
    assert_eq!(told, broken as u64);
    running.stop().await;
}
