//! Versions from before the store lost history: what counts as a failed test login, and what does not.

use std::sync::Mutex;

use rotacast_protocol::Phase;
use rotacast_protocol::record::{Doubt, Origin};
use rotacast_provider::{Credential, Evidence, LiveSessions, ProviderError, Trial, Verdict};

use super::lost::{leave, safe_mode};
use super::*;

/// A system whose answers to logins the test sets.
struct Answers {
    inner: GenerateProvider,
    verdict: Mutex<Verdict>,
}

#[async_trait::async_trait]
impl Provider for Answers {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    fn system(&self) -> String {
        "app at 127.0.0.1:5432".into()
    }

    fn accepts(&self, value: &SecretValue) -> Result<(), String> {
        self.inner.accepts(value)
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

    async fn test(&self, _: &Credential, _: &[Credential], _: Trial) -> Result<Verdict, ProviderError> {
        Ok(self.verdict.lock().unwrap().clone())
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

async fn doubt(environment: &Environment) -> Option<Doubt> {
    let record = environment.tree.read_record(&name()).await.unwrap().unwrap();
    SecretRecord::decode(&record.bytes).unwrap().doubt(version(1))
}

/// The database is down for a while, or the administrator reaches another server: neither says anything about the
/// credential.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_fails_for_another_reason_than_the_credential_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let policy = faults::hasty();
    let (mut environment, _bus) = environment(folder.path(), policy.clone()).await;
    let missing = Verdict::Unusable("the login is refused: the database does not exist (3D000)".into());
    let provider = Arc::new(Answers { inner: GenerateProvider::default(), verdict: Mutex::new(missing) });
    environment.settings = Arc::new(Fixed::of(policy.clone(), provider.clone()));
    leave(&environment, &policy, &[safe_mode(), RecordChange::SafeModeLeft]).await;
    let (secrets, stop) = (Secrets::new(10), CancellationToken::new());
    let running = tokio::spawn(Driver::new(environment.clone(), secrets.clone()).run(stop.clone()));
    let told = |status: &SecretStatus| {
        let says = "it cannot be tried whether version 1 still works: the login is refused: the database does not exist (3D000)";
        status.blockers.iter().any(|it| it.why.contains(says))
    };
    until(&secrets, told).await;
    assert_eq!(doubt(&environment).await, Some(Doubt::Untested));
    *provider.verdict.lock().unwrap() = Verdict::Works;
    until(&secrets, |status| status.blockers.is_empty()).await;
    assert_eq!(doubt(&environment).await, None);
    stop.cancel();
    running.await.unwrap();
}

/// A value that no login can be tried with, such as one that names another database, and whose first test came back
/// with the store.
#[tokio::test(flavor = "multi_thread")]
async fn a_first_test_that_fails_ends_the_rotation_although_the_store_lost_history() {
    let folder = tempfile::tempdir().unwrap();
    let policy = faults::hasty();
    let (mut environment, _bus) = environment(folder.path(), policy.clone()).await;
    let missing = Verdict::Unusable("the login is refused: the database does not exist (3D000)".into());
    let provider = Arc::new(Answers { inner: GenerateProvider::default(), verdict: Mutex::new(missing) });
    environment.settings = Arc::new(Fixed::of(policy.clone(), provider.clone()));
    let (at, id) = (clock::wall(), environment.settings.of(&name()).policy.provider);
    let rotation = [
        RecordChange::VersionAdded { version: version(2), origin: Origin::Watched, provider: id.clone(), at },
        RecordChange::RotationStarted { new: version(2), trigger: "store".into(), provider: id, at },
        safe_mode(),
        RecordChange::VersionProved { version: version(1) },
        RecordChange::SafeModeLeft,
    ];
    leave(&environment, &policy, &rotation).await;
    put(&environment, "second").await;
    let (secrets, stop) = (Secrets::new(10), CancellationToken::new());
    let running = tokio::spawn(Driver::new(environment.clone(), secrets.clone()).run(stop.clone()));
    until(&secrets, |status| status.rotation.as_ref().is_none_or(|rotation| rotation.phase == Phase::RollingBack))
        .await;
    let record = environment.tree.read_record(&name()).await.unwrap().unwrap();
    let record = SecretRecord::decode(&record.bytes).unwrap();
    assert_eq!(record.current, Some(version(1)));
    assert!(record.versions[&version(2)].note.contains("3D000"), "{:?}", record.versions[&version(2)]);
    stop.cancel();
    running.await.unwrap();
}
