//! One fault stays one fault.

use rotacast_provider::{Credential, Evidence, LiveSessions, ProviderError, Verdict};

use super::faults::hasty;
use super::*;
use crate::api::Control as _;
use crate::findings::Topic;

fn other() -> SecretName {
    SecretName::new("billing/db").unwrap()
}

/// A driver that leads, and what asks it.
struct Running {
    environment: Environment,
    secrets: Secrets,
    control: DriverControl,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    fn start(environment: &Environment) -> Self {
        let (secrets, stop) = (Secrets::default(), CancellationToken::new());
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
        hold(&format!("version {version} of {secret}"), || {
            self.secrets.get(secret).is_some_and(|task| task.status.borrow().current.map(Version::get) == Some(version))
        })
        .await;
    }

    fn finding(&self, topic: Topic) -> Option<String> {
        let standing = self.environment.findings.standing();
        standing.into_iter().find(|it| it.topic == topic).map(|it| format!("{}: {}", it.subject, it.text))
    }
}

async fn hold(what: &str, check: impl Fn() -> bool) {
    let waiting = async {
        while !check() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never saw {what}"));
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
        let commit = Commit {
            checks: vec![],
            writes: vec![rotacast_store::Write::Put(key.clone(), SecretValue::new(bytes.to_vec()))],
        };
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
    // A version written meanwhile is taken in afterwards.
    put_of(&environment, &other(), "second").await;

    write(&whole).await;
    running.reaches(&other(), 2).await;
    hold("no finding", || running.finding(Topic::OutOfService).is_none()).await;
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
    hold("no finding", || running.finding(Topic::OutOfService).is_none()).await;
    running.stop().await;
}

/// Panics at the first login.
struct PanicsOnce {
    inner: GenerateProvider,
    armed: AtomicBool,
}

#[async_trait::async_trait]
impl Provider for PanicsOnce {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn draw(&self, secret: &SecretName, version: Version) -> Result<SecretValue, ProviderError> {
        self.inner.draw(secret, version)
    }

    async fn create(&self, credential: &Credential) -> Result<(), ProviderError> {
        self.inner.create(credential).await
    }

    async fn test(&self, credential: &Credential, others: &[Credential]) -> Result<Verdict, ProviderError> {
        assert!(!self.armed.swap(false, Ordering::SeqCst), "a test asks for this panic");
        self.inner.test(credential, others).await
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
    let settings = SecretSettings { policy: hasty(), provider: Arc::new(provider), schedule: None };
    environment.settings = Arc::new(Fixed(settings));
    put(&environment, "first").await;
    let running = Running::start(&environment);
    running.reaches(&name(), 1).await;
    running.stop().await;
}

/// A store that refuses to let anybody run for leader, for a while.
struct Refusing {
    store: EmbeddedStore,
    refuses: AtomicBool,
}

#[async_trait::async_trait]
impl ReadStore for Refusing {
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
        self.store.watch(parent)
    }
}

#[async_trait::async_trait]
impl Store for Refusing {
    async fn commit(&self, commit: Commit) -> Result<Committed, StoreError> {
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
            return Err(StoreError::Denied { endpoint: self.describe(), problem: "who are you".into() });
        }
        self.store.campaign(election, candidate, ttl, cancel).await
    }

    fn setback(&self) -> Option<Setback> {
        self.store.setback()
    }

    async fn examine(&self) -> Vec<Finding> {
        self.store.examine().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_refuses_a_campaign_is_asked_again_until_it_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let (mut environment, _bus) = environment(folder.path(), hasty()).await;
    put(&environment, "first").await;
    let store = EmbeddedStore::open(folder.path().join("store.db")).await.unwrap();
    let store = Arc::new(Refusing { store, refuses: AtomicBool::new(true) });
    environment.tree = SecretTree::new(store.clone(), environment.tree.prefix().clone());
    let running = Running::start(&environment);
    hold("a finding", || running.finding(Topic::Leadership).is_some()).await;
    let finding = running.finding(Topic::Leadership).unwrap();
    assert!(finding.contains("refuses access: who are you"), "{finding}");
    assert!(!running.task.is_finished());
    store.refuses.store(false, Ordering::SeqCst);
    running.reaches(&name(), 1).await;
    assert_eq!(running.finding(Topic::Leadership), None);
    running.stop().await;
}
