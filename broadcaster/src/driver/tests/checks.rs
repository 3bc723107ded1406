//! A credential that services use is tested again. A failure is a finding and changes nothing.

use std::sync::Mutex;

use rotacast_proto::Level;
use rotacast_provider::postgres::{Endpoint, OnLiveSessions, PostgresProvider, PostgresSettings};
use rotacast_provider::{Credential, Evidence, LiveSessions, ProviderError, Trial, Verdict};
use rotacast_test_servers::Postgres;

use super::faults::hasty;
use super::*;
use crate::api::{Action, Control as _, OperatorCommand};
use crate::operators::Warrant;

/// Answers the tests of credentials in use with what the test sets.
struct Answers {
    inner: GenerateProvider,
    every: Duration,
    known: Mutex<Result<Verdict, ()>>,
    /// The version of each test.
    asked: Mutex<Vec<u64>>,
}

impl Answers {
    fn every(every: Duration) -> Arc<Self> {
        let known = Mutex::new(Ok(Verdict::Works));
        Arc::new(Self { inner: GenerateProvider::default(), every, known, asked: Mutex::default() })
    }

    fn answer(&self, known: Result<Verdict, ()>) {
        *self.known.lock().unwrap() = known;
    }

    fn asked(&self) -> Vec<u64> {
        self.asked.lock().unwrap().clone()
    }

    /// Waits for two more tests: the first of them may have begun before.
    async fn asked_again(&self) {
        let before = self.asked().len();
        hold("asked again", async || self.asked().len() >= before + 2).await;
    }
}

#[async_trait::async_trait]
impl Provider for Answers {
    fn kind(&self) -> &'static str {
        "answers"
    }

    fn system(&self) -> String {
        self.inner.system()
    }

    fn accepts(&self, _: &SecretValue) -> Result<(), String> {
        Ok(())
    }

    fn test_every(&self) -> Option<Duration> {
        Some(self.every)
    }

    fn draw(&self, secret: &SecretName, version: Version) -> Result<SecretValue, ProviderError> {
        self.inner.draw(secret, version)
    }

    async fn create(&self, credential: &Credential) -> Result<(), ProviderError> {
        self.inner.create(credential).await
    }

    async fn test(&self, it: &Credential, others: &[Credential], trial: Trial) -> Result<Verdict, ProviderError> {
        if trial == Trial::New {
            return self.inner.test(it, others, trial).await;
        }
        self.asked.lock().unwrap().push(it.version.get());
        let away = |()| ProviderError::Unreachable { provider: "answers".into(), problem: "it is away".into() };
        self.known.lock().unwrap().clone().map_err(away)
    }

    async fn usage(&self, it: &Credential, others: &[Credential]) -> Result<Evidence, ProviderError> {
        self.inner.usage(it, others).await
    }

    async fn disable(&self, it: &Credential, others: &[Credential], live: LiveSessions) -> Result<(), ProviderError> {
        self.inner.disable(it, others, live).await
    }

    async fn destroy(&self, it: &Credential, others: &[Credential], live: LiveSessions) -> Result<(), ProviderError> {
        self.inner.destroy(it, others, live).await
    }
}

async fn running(folder: &Path, provider: Arc<dyn Provider>, value: &str) -> Running {
    let (mut environment, _bus) = environment(folder, hasty()).await;
    environment.settings = Arc::new(Fixed::of(hasty(), provider));
    put(&environment, value).await;
    let running = Running::start(&environment);
    running.reaches(&name(), 1).await;
    until(&running.secrets, |status| status.rotation.is_none()).await;
    running
}

fn audited(folder: &Path) -> usize {
    std::fs::read_to_string(folder.join("audit.jsonl")).unwrap().lines().count()
}

fn rotate() -> OperatorCommand {
    OperatorCommand {
        secret: name(),
        proof: OrderProof::Dashboard,
        warrant: Warrant::default(),
        action: Action::Order(Order::Rotate),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_that_fails_is_a_finding_until_it_works_again_and_silence_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let provider = Answers::every(Duration::from_millis(20));
    let running = running(folder.path(), provider.clone(), "first").await;
    let found = || running.finding(Topic::Credential);

    provider.answer(Err(()));
    provider.asked_again().await;
    assert_eq!(found(), None, "a server that is away is no verdict");
    provider.answer(Ok(Verdict::Rejected("28P01".into())));
    hold("a finding", async || found().is_some_and(|text| text.contains("version 1") && text.contains("28P01"))).await;
    provider.answer(Err(()));
    provider.asked_again().await;
    assert!(found().is_some(), "a server that is away mends nothing");
    // A fault of the database says nothing about the credential.
    provider.answer(Ok(Verdict::Unusable("3D000".into())));
    let warns = |it: &crate::findings::Standing| it.level == Level::Warning && it.text.contains("3D000");
    hold("a warning", async || running.environment.findings.standing().iter().any(warns)).await;
    provider.answer(Ok(Verdict::Works));
    hold("no finding", async || found().is_none()).await;

    // The finding is about the version that services use, and ends with it.
    provider.answer(Ok(Verdict::Rejected("28P01".into())));
    hold("a finding", async || found().is_some()).await;
    let by = || OperatorName::new("alice").unwrap();
    provider.answer(Err(()));
    running.control.command(by(), rotate()).await.unwrap();
    running.reaches(&name(), 2).await;
    hold("no finding", async || found().is_none()).await;
    hold("the new one is tested", async || provider.asked().last() == Some(&2)).await;
    running.stop().await;
}

/// The same, but for whether versions of the secret are made.
struct Changing {
    fixed: Fixed,
    makes: AtomicBool,
}

impl Settings for Changing {
    fn of(&self, secret: &SecretName) -> SecretSettings {
        let mut settings = self.fixed.of(secret);
        if !self.makes.load(Ordering::SeqCst) {
            settings.policy.provider = None;
        }
        settings
    }

    fn provider(&self, id: &ProviderId) -> Option<Arc<dyn Provider>> {
        self.fixed.provider(id)
    }

    fn configured(&self) -> Vec<SecretName> {
        Vec::new()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finding_stays_until_the_credential_works_and_its_fix_is_what_would_work() {
    let folder = tempfile::tempdir().unwrap();
    let provider = Answers::every(Duration::from_millis(20));
    let (mut environment, _bus) = environment(folder.path(), hasty()).await;
    let fixed = Fixed::of(hasty(), provider.clone());
    let settings = Arc::new(Changing { fixed, makes: AtomicBool::new(true) });
    environment.settings = settings.clone();
    put(&environment, "first").await;
    let running = Running::start(&environment);
    running.reaches(&name(), 1).await;
    let found = || environment.findings.standing().into_iter().find(|it| it.topic == Topic::Credential);
    let fix = async |wanted: &str| {
        let fix = || found().map(|it| it.fix).unwrap_or_default();
        hold(wanted, async || fix().contains(wanted)).await;
        fix()
    };
    provider.answer(Ok(Verdict::Rejected("28P01".into())));
    fix("`rotacast rotate payments/db` makes a new credential").await;
    let since = found().unwrap().since;
    let task = running.secrets.get(&name()).unwrap();
    settings.makes.store(false, Ordering::SeqCst);
    assert!(task.mail.send(Mail::Reconfigured).await.is_ok());
    let other_writer = fix("write the new value to its source or with `rotacast put payments/db`").await;
    assert!(!other_writer.contains("rotacast rotate"), "{other_writer}");
    settings.makes.store(true, Ordering::SeqCst);
    assert!(task.mail.send(Mail::Reconfigured).await.is_ok());
    fix("`rotacast rotate payments/db` makes a new credential").await;

    let went_back = Input::StoreWentBack { reason: "restored".into() };
    assert!(task.mail.send(Mail::Input(Box::new(went_back))).await.is_ok());
    let in_safe_mode = fix("`rotacast leave-safe-mode payments/db --reason 'WHY'`").await;
    assert!(!in_safe_mode.contains("rotacast rotate"), "{in_safe_mode}");
    assert_eq!(found().unwrap().since, since, "it has been cleared in between");
    let leave = OperatorCommand {
        secret: name(),
        proof: OrderProof::Dashboard,
        warrant: Warrant::default(),
        action: Action::Order(Order::LeaveSafeMode),
    };
    provider.answer(Ok(Verdict::Works));
    running.control.command(OperatorName::new("alice").unwrap(), leave).await.unwrap();
    hold("no finding", async || found().is_none()).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_is_tested_when_its_rotation_begins() {
    let folder = tempfile::tempdir().unwrap();
    let provider = Answers::every(Duration::from_secs(24 * 3600));
    let running = running(folder.path(), provider.clone(), "first").await;
    provider.answer(Ok(Verdict::Rejected("28P01".into())));
    running.control.command(OperatorName::new("alice").unwrap(), rotate()).await.unwrap();
    hold("tested", async || provider.asked().first() == Some(&1)).await;
    running.reaches(&name(), 2).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_was_changed_in_postgresql_is_a_finding_and_no_more() {
    let Some(server) = Postgres::start().await else { return };
    let superuser = server.admin("postgres").await;
    let theirs = "CREATE ROLE app_owner NOLOGIN; CREATE ROLE theirs LOGIN PASSWORD 'right-4711' IN ROLE app_owner";
    superuser.batch_execute(theirs).await.unwrap();
    let settings = PostgresSettings {
        cluster: "test".into(),
        admin: server.admin_url("postgres").into(),
        group_role: "app_owner".into(),
        role_name: PostgresSettings::ROLE_NAME.into(),
        database: "postgres".into(),
        endpoint: Endpoint { host: "127.0.0.1".into(), port: server.port() },
        also_at: Vec::new(),
        on_live_sessions: OnLiveSessions::Wait,
        max_connections: PostgresSettings::MAX_CONNECTIONS,
        settle: PostgresSettings::SETTLE,
        test_every: Duration::from_millis(200),
        in_the_clear: false,
    };
    let value = format!(
        r#"{{"host":"127.0.0.1","port":{},"username":"theirs","password":"right-4711","dbname":"postgres"}}"#,
        server.port()
    );
    let folder = tempfile::tempdir().unwrap();
    let running = running(folder.path(), Arc::new(PostgresProvider::new(settings).unwrap()), &value).await;
    let (before, entries) = (until(&running.secrets, |_| true).await, audited(folder.path()));

    superuser.batch_execute("ALTER ROLE theirs PASSWORD 'changed-4711'").await.unwrap();
    hold("a finding", async || running.finding(Topic::Credential).is_some()).await;
    let standing = running.environment.findings.standing();
    let finding = standing.iter().find(|it| it.topic == Topic::Credential).unwrap();
    assert_eq!((&*finding.subject, finding.level), ("payments/db", Level::Error));
    assert!(finding.text.contains("28P01") && finding.fix.contains("rotacast rotate payments/db"), "{finding:?}");
    assert!(!finding.text.contains("4711"), "{finding:?}");
    let after = until(&running.secrets, |_| true).await;
    assert_eq!((after.revision, after.versions, after.rotation), (before.revision, before.versions, None));
    assert_eq!(audited(folder.path()), entries);

    superuser.batch_execute("ALTER ROLE theirs PASSWORD 'right-4711'").await.unwrap();
    hold("no finding", async || running.finding(Topic::Credential).is_none()).await;
    running.stop().await;
}
