//! Something absent does not count as success: a provider that was removed, a secret without a provider.

use rotacast_proto::Level;
use rotacast_protocol::record::Label;

use super::faults::hasty;
use super::*;
use crate::api::{Action, Control as _, OperatorCommand, Refusal};
use crate::operators::Warrant;

/// Settings whose provider can be removed.
struct Removable {
    fixed: Fixed,
    removed: AtomicBool,
}

impl Settings for Removable {
    fn of(&self, secret: &SecretName) -> SecretSettings {
        let mut settings = self.fixed.of(secret);
        if self.removed.load(Ordering::SeqCst) {
            settings.policy.provider = None;
        }
        settings
    }

    fn provider(&self, id: &ProviderId) -> Option<Arc<dyn Provider>> {
        if self.removed.load(Ordering::SeqCst) {
            return None;
        }
        self.fixed.provider(id)
    }

    fn configured(&self) -> Vec<SecretName> {
        Vec::new()
    }
}

fn command(order: Order) -> OperatorCommand {
    OperatorCommand {
        secret: name(),
        proof: OrderProof::Dashboard,
        warrant: Warrant::default(),
        action: Action::Order(order),
    }
}

fn alice() -> OperatorName {
    OperatorName::new("alice").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_provider_a_version_is_neither_used_up_nor_retired_until_an_operator_gives_it_up() {
    let folder = tempfile::tempdir().unwrap();
    let (mut environment, _bus) = environment(folder.path(), hasty()).await;
    let fixed = Fixed::of(hasty(), Arc::new(GenerateProvider::default()));
    let settings = Arc::new(Removable { fixed, removed: AtomicBool::new(false) });
    environment.settings = settings.clone();
    put(&environment, "first").await;
    let running = Running::start(&environment);
    running.reaches(&name(), 1).await;
    until(&running.secrets, |status| status.rotation.is_none()).await;

    settings.removed.store(true, Ordering::SeqCst);
    running.secrets.get(&name()).unwrap().mail.send(Mail::Reconfigured).await.unwrap_or_else(|_| panic!("ended"));
    put(&environment, "second").await;
    let missing = "its provider test (generate) is not in the configuration";
    let waits = |status: &SecretStatus| {
        status.blockers.iter().any(|it| {
            it.condition == ConditionName::UsageEvidence
                && it.why.contains(missing)
                && it.command.as_ref().is_some_and(|it| it.starts_with("rotacast abandon payments/db 1 "))
        })
    };
    until(&running.secrets, waits).await;
    let finding =
        environment.findings.standing().into_iter().find(|it| it.topic == Topic::Provider).expect("a finding");
    assert!(finding.level == Level::Error && finding.text.contains(missing), "{finding:?}");
    let log = || std::fs::read_to_string(folder.path().join("audit.jsonl")).unwrap();
    assert!(!log().contains("\"action\":\"retired\""), "{}", log());

    let order = Order::abandon(version(1), "it was revoked by hand").unwrap();
    running.control.command(alice(), command(order)).await.unwrap();
    let ended = |status: &SecretStatus| status.version(version(1)).is_some_and(|it| it.label == Label::Unproven);
    until(&running.secrets, |status| ended(status) && status.rotation.is_none()).await;
    assert!(log().contains("\"action\":\"given_up\""), "{}", log());
    assert!(log().contains("\"action\":\"ended_unproven\"") && log().contains("\"outcome\":\"unproven\""), "{}", log());
    assert!(!log().contains("\"action\":\"retired\""), "{}", log());
    hold("no finding", async || running.finding(Topic::Provider).is_none()).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_without_a_provider_is_followed_and_never_rotated_by_order() {
    let folder = tempfile::tempdir().unwrap();
    let (mut environment, _bus) = environment(folder.path(), hasty()).await;
    let mut fixed = Fixed::of(hasty(), Arc::new(GenerateProvider::default()));
    fixed.settings.policy.provider = None;
    environment.settings = Arc::new(fixed);
    put(&environment, "first").await;
    let running = Running::start(&environment);
    running.reaches(&name(), 1).await;
    let refused = running.control.command(alice(), command(Order::Rotate)).await.unwrap_err();
    let Refusal::Conflict { problem, fix } = &refused else { panic!("{refused}") };
    assert!(problem.contains("has no provider") && fix.contains("rotacast put payments/db"), "{refused}");
    put(&environment, "second").await;
    running.reaches(&name(), 2).await;
    let ended = |status: &SecretStatus| status.version(version(1)).is_some_and(|it| it.label == Label::Unproven);
    let status = until(&running.secrets, ended).await;
    assert_eq!(status.provider, "none: only followed");
    running.stop().await;
    let log = std::fs::read_to_string(folder.path().join("audit.jsonl")).unwrap();
    assert!(log.contains("\"why\":\"no_provider\"") && !log.contains("\"action\":\"retired\""), "{log}");
    assert!(log.contains("no provider looks after this version"), "{log}");
}
