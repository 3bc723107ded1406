//! Versions that no provider can end: each is given up, and its secret goes on.

use rotacast_protocol::Outcome;
use rotacast_protocol::record::{Label, Origin};
use rotacast_protocol::status::BlockerStatus;
use rotacast_provider::{Credential, Evidence, LiveSessions, ProviderError, Trial, Verdict};

use super::lost::{leave, safe_mode};
use super::scheduled::order;
use super::*;
use crate::api::{Action, Control as _, OperatorCommand, Refusal};
use crate::operators::Warrant;

/// A provider that can read values which begin with a brace, and `first`.
struct Reads(GenerateProvider);

impl Reads {
    fn readable(&self, credential: &Credential) -> Result<(), ProviderError> {
        self.accepts(&credential.value).map_err(|problem| ProviderError::Refused {
            provider: self.describe(),
            version: credential.version.get(),
            problem,
        })
    }
}

#[async_trait::async_trait]
impl Provider for Reads {
    fn kind(&self) -> &'static str {
        self.0.kind()
    }

    fn system(&self) -> String {
        self.0.system()
    }

    fn accepts(&self, value: &SecretValue) -> Result<(), String> {
        let reads = value.expose().starts_with(b"{") || value.expose() == b"first";
        reads.then_some(()).ok_or_else(|| "the value is not JSON".into())
    }

    fn test_every(&self) -> Option<Duration> {
        None
    }

    fn draw(&self, secret: &SecretName, version: Version) -> Result<SecretValue, ProviderError> {
        self.0.draw(secret, version)
    }

    async fn create(&self, credential: &Credential) -> Result<(), ProviderError> {
        self.0.create(credential).await
    }

    async fn test(&self, credential: &Credential, _: &[Credential], _: Trial) -> Result<Verdict, ProviderError> {
        Ok(self.accepts(&credential.value).map_or_else(Verdict::Rejected, |()| Verdict::Works))
    }

    async fn usage(&self, credential: &Credential, _: &[Credential]) -> Result<Evidence, ProviderError> {
        self.readable(credential).map(|()| Evidence::None)
    }

    async fn disable(&self, it: &Credential, _: &[Credential], _: LiveSessions) -> Result<(), ProviderError> {
        self.readable(it)
    }

    async fn destroy(&self, it: &Credential, _: &[Credential], _: LiveSessions) -> Result<(), ProviderError> {
        self.readable(it)
    }
}

/// A cluster whose first secret has been in safe mode once, as after a restored backup.
async fn after_safe_mode(folder: &Path, changes: &[RecordChange]) -> (Environment, EmbeddedBus) {
    let policy = faults::hasty();
    let (mut environment, bus) = environment(folder, policy.clone()).await;
    let provider = Arc::new(Reads(GenerateProvider::default()));
    environment.settings = Arc::new(Fixed::of(policy.clone(), provider));
    leave(&environment, &policy, changes).await;
    (environment, bus)
}

fn way_out(blocker: &BlockerStatus) -> bool {
    blocker.command.as_ref().is_some_and(|command| command.starts_with("rotacast abandon"))
}

fn offers_to_abandon(status: &SecretStatus) -> bool {
    status.blockers.iter().any(way_out)
}

fn added(version: Version, origin: Origin) -> RecordChange {
    RecordChange::VersionAdded { version, origin, provider: lost::provider(), at: clock::wall() }
}

fn is_over(status: &SecretStatus) -> bool {
    status.rotation.is_none() && status.guards.is_empty() && status.blockers.is_empty()
}

/// `why` names the way out. After it the secret rotates again.
#[tokio::test(flavor = "multi_thread")]
async fn a_version_whose_value_the_provider_cannot_read_is_given_up_by_the_command_that_why_shows() {
    let folder = tempfile::tempdir().unwrap();
    // In the lost history, instances may have heard of it.
    let changes = [added(version(2), Origin::Watched), safe_mode(), RecordChange::SafeModeLeft];
    let (environment, _bus) = after_safe_mode(folder.path(), &changes).await;
    // Written by a client of the store, since `put` refuses it.
    put(&environment, "no JSON").await;
    let (secrets, stop) = (Secrets::new(10), CancellationToken::new());
    let running = tokio::spawn(Driver::new(environment.clone(), secrets.clone()).run(stop.clone()));
    let stuck = until(&secrets, offers_to_abandon).await;
    let command = stuck.blockers.iter().find(|it| way_out(it)).unwrap().command.clone();
    let expected = "rotacast abandon payments/db 2 --reason 'WHY'";
    assert_eq!(command.as_deref(), Some(expected));
    order(&secrets, Order::abandon(version(2), "no login").unwrap()).await;
    until(&secrets, |status| status.rotation.is_none() && status.guards.is_empty()).await;
    // While version 2 waited, leaving safe mode did not say that version 1 works.
    order(&secrets, Order::LeaveSafeMode).await;
    until(&secrets, is_over).await;
    assert!(environment.tree.read_version(&name(), version(2)).await.unwrap().is_none(), "its value is erased");
    put(&environment, "{}").await;
    until(&secrets, |status| status.current == Some(version(3)) && is_over(status)).await;
    stop.cancel();
    running.await.unwrap();
    let log = std::fs::read_to_string(folder.path().join("audit.jsonl")).unwrap();
    for expected in ["\"action\":\"given_up\"", "\"action\":\"left_alone\"", "alice has given the version up: no login"]
    {
        assert!(log.contains(expected), "no {expected} in {log}");
    }
}

/// Once nothing of the lost history can be in use any more, a later version is one that no instance has heard of.
#[tokio::test(flavor = "multi_thread")]
async fn long_after_a_restore_a_rejected_value_of_another_owner_is_left_alone_without_an_order() {
    let folder = tempfile::tempdir().unwrap();
    let (environment, _bus) = after_safe_mode(folder.path(), &[safe_mode(), RecordChange::SafeModeLeft]).await;
    let (secrets, stop) = (Secrets::new(10), CancellationToken::new());
    let running = tokio::spawn(Driver::new(environment.clone(), secrets.clone()).run(stop.clone()));
    until(&secrets, |status| status.current == Some(version(1)) && is_over(status)).await;
    // Time decides which of them comes after the wait for the lost history. In the end one does.
    let mut left_alone = false;
    for next in 2..10 {
        put(&environment, "no JSON").await;
        let rejected =
            |status: &SecretStatus| status.version(version(next)).is_some_and(|it| it.label == Label::Rejected);
        let status = until(&secrets, |status| rejected(status) && (is_over(status) || offers_to_abandon(status))).await;
        if is_over(&status) {
            left_alone = true;
            break;
        }
        order(&secrets, Order::abandon(version(next), "no login").unwrap()).await;
        until(&secrets, is_over).await;
    }
    assert!(left_alone, "every rejected version needs an order, for ever after one restore");
    stop.cancel();
    running.await.unwrap();
}

/// The history broke while a version was to be made. The store has no value of it, so there is nothing to revoke.
#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_was_never_made_ends_without_an_operators_word() {
    let folder = tempfile::tempdir().unwrap();
    let at = clock::wall();
    let changes = [
        added(version(2), Origin::Managed),
        RecordChange::RotationStarted { new: version(2), trigger: "ada".into(), provider: lost::provider(), at },
        safe_mode(),
        RecordChange::RollbackStarted { reason: "the store's history broke".into(), at },
        RecordChange::RotationEnded { outcome: Outcome::RolledBack, at },
        RecordChange::SafeModeLeft,
    ];
    let (environment, _bus) = after_safe_mode(folder.path(), &changes).await;
    let (secrets, stop) = (Secrets::new(10), CancellationToken::new());
    let running = tokio::spawn(Driver::new(environment.clone(), secrets.clone()).run(stop.clone()));
    until(&secrets, |status| status.current == Some(version(1)) && is_over(status)).await;
    stop.cancel();
    running.await.unwrap();
    let log = std::fs::read_to_string(folder.path().join("audit.jsonl")).unwrap();
    assert!(log.contains("\"action\":\"left_alone\"") && log.contains("before its credential was made"), "{log}");
    // If the lost history made it, it may be in use.
    let ended =
        log.lines().find(|line| line.contains("\"version\":2") && line.contains("\"action\":\"ended_unproven\""));
    assert!(ended.is_some_and(|line| line.contains("\"why\":\"value_lost\"")), "{log}");
    assert!(!log.contains("\"action\":\"retired\""), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_the_provider_cannot_use_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let (environment, _bus) = after_safe_mode(folder.path(), &[]).await;
    let (secrets, stop) = (Secrets::new(10), CancellationToken::new());
    let driver = Driver::new(environment.clone(), secrets.clone());
    let control = DriverControl::new(environment.clone(), secrets.clone(), driver.role(), stop.clone());
    let running = tokio::spawn(driver.run(stop.clone()));
    until(&secrets, |status| status.current == Some(version(1)) && is_over(status)).await;
    let put = async |secret: &str, value: &str| {
        let action = Action::Put(SecretValue::new(value.as_bytes().to_vec()));
        let command = OperatorCommand {
            secret: secret.parse().unwrap(),
            action,
            proof: OrderProof::Dashboard,
            warrant: Warrant::default(),
        };
        control.command("ada".parse().unwrap(), command).await
    };
    for secret in ["payments/db", "payments/new"] {
        let refused = put(secret, "hunter2").await;
        let Err(Refusal::Invalid(problem)) = refused else { panic!("{refused:?}") };
        assert!(problem.contains("nothing is written") && problem.contains("the value is not JSON"), "{problem}");
        assert!(!problem.contains("hunter2"), "{problem}");
    }
    assert!(environment.tree.read_version(&name(), version(2)).await.unwrap().is_none());
    assert_eq!(put("payments/db", "{}").await.unwrap().version, Some(version(2)));
    stop.cancel();
    running.await.unwrap();
}
