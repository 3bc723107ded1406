//! Carries out what the machine wants done. Every effect is idempotent: a predecessor may have carried it out
//! already, whole or in part.

mod create;
mod publish;
mod retire;
mod usage;

use std::sync::Arc;
use std::time::Duration;

use rotacast_clock as clock;
use rotacast_proto::SecretValue;
use rotacast_protocol::coordinator::{Command, CommandKind, Coordinator, Cure, Failed, Guard, Input};
use rotacast_protocol::message::SecretState;
use rotacast_protocol::record::{Label, ProviderId, SecretRecord};
use rotacast_protocol::{Instant, Now, SecretName, Version};
use rotacast_provider::{Credential, Provider, ProviderError};
use tokio::sync::watch;

pub(super) use self::publish::{newer_on_bus, publish_ours};
pub(super) use self::usage::LookedAt;
use super::Environment;

/// How long one effect may take before it is given up and tried again: providers have shorter limits of their own.
const EFFECT_TIMEOUT: Duration = Duration::from_secs(60);

/// How an effect went.
pub(super) struct EffectOutcome {
    pub(super) kind: CommandKind,
    /// What to tell the core, or why it is to be tried again.
    pub(super) result: Result<Vec<Input>, Failed>,
}

/// What is missing, and how it comes back.
pub(super) fn missing(id: &ProviderId) -> String {
    let name = &id.name;
    format!(
        "its provider {id} is not in the configuration: put [providers.{name}] back, under this name or as the only section of \
         that system. If the system has a new address, keep a section with the old one beside it until the version has ended"
    )
}

/// No provider can be asked, and trying again does not help: what is missing.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct MissingProvider(String);

/// One effect with all it needs, detached from the task that owes it.
pub(super) struct Effect {
    environment: Environment,
    provider: Option<Arc<dyn Provider>>,
    command: Command,
    record: SecretRecord,
    state: SecretState,
    guard: Option<Guard>,
    leadership: watch::Receiver<Instant>,
    looked_at: LookedAt,
}

impl Effect {
    pub(super) fn new(
        environment: &Environment,
        provider: Option<Arc<dyn Provider>>,
        coordinator: &Coordinator,
        leadership: &watch::Receiver<Instant>,
        command: Command,
        now: Now,
        looked_at: &LookedAt,
    ) -> Self {
        let guard = match &command.kind {
            CommandKind::Audit { version } => Some(coordinator.guard(*version, now)),
            _ => None,
        };
        Self {
            environment: environment.clone(),
            provider,
            record: coordinator.record().clone(),
            state: coordinator.record().state(),
            command,
            guard,
            leadership: leadership.clone(),
            looked_at: Arc::clone(looked_at),
        }
    }

    pub(super) async fn run(self) -> EffectOutcome {
        let kind = self.command.kind.clone();
        let result = match tokio::time::timeout(EFFECT_TIMEOUT, self.carry_out()).await {
            Ok(Ok(inputs)) => Ok(inputs),
            Ok(Err(problem)) => {
                let cure = match problem.downcast_ref() {
                    Some(ProviderError::Refused { .. }) => Cure::Operator,
                    None if problem.is::<MissingProvider>() => Cure::Operator,
                    Some(ProviderError::InUse { .. }) => Cure::SessionsEnd,
                    Some(
                        ProviderError::Unreachable { .. }
                        | ProviderError::OwnFile { .. }
                        | ProviderError::Denied { .. }
                        | ProviderError::Unfinished { .. },
                    )
                    | None => Cure::Time,
                };
                Err(Failed { problem: format!("{problem:#}"), cure })
            }
            Err(_) => Err(format!("no answer within {EFFECT_TIMEOUT:?}").into()),
        };
        EffectOutcome { kind, result }
    }

    async fn carry_out(&self) -> anyhow::Result<Vec<Input>> {
        match self.command.kind {
            CommandKind::Publish => self.publish().await,
            CommandKind::Create { version } => self.create(version).await,
            CommandKind::Test { version } => self.test(version).await,
            CommandKind::ReadUsage { version } => self.read_usage(version).await,
            CommandKind::Audit { version } => self.audit(version).await,
            CommandKind::Retire { version, step } => self.retire(version, step).await,
        }
    }

    /// Checked right before the provider is asked to change something: a leader that was stopped for a while must not
    /// make a credential again that its successor has retired since.
    fn must_lead(&self) -> anyhow::Result<()> {
        let leads = clock::instant() < *self.leadership.borrow();
        anyhow::ensure!(leads, "this broadcaster's leadership has not been renewed");
        Ok(())
    }

    fn is_rejected(&self, version: Version) -> bool {
        self.record.versions.get(&version).is_some_and(|version| version.label == Label::Rejected && !version.announced)
    }

    /// Whether the version was rolled back before its credential was made.
    fn is_unmade(&self, version: Version) -> bool {
        self.record.retirements.get(&version).is_some_and(|retirement| retirement.unmade)
    }

    /// The provider of the version that this is about.
    fn provider(&self, version: Version) -> anyhow::Result<&dyn Provider> {
        self.provider.as_deref().ok_or_else(|| MissingProvider(self.missing_provider(version)).into())
    }

    /// Whether no provider looks after a version, so that none is missing.
    fn is_only_followed(&self, version: Version) -> bool {
        self.record.versions.get(&version).is_none_or(|version| version.provider.is_none())
    }

    fn missing_provider(&self, version: Version) -> String {
        let id = self.record.versions.get(&version).and_then(|version| version.provider.as_ref());
        match id {
            Some(id) => missing(id),
            None => format!("no provider looks after version {version}"),
        }
    }

    fn secret(&self) -> &SecretName {
        &self.record.secret
    }

    async fn credential(&self, version: Version) -> anyhow::Result<Option<Credential>> {
        let stored = self.environment.tree.read_version(self.secret(), version).await?;
        Ok(stored.map(|stored| Credential { secret: self.secret().clone(), version, value: stored.value }))
    }

    /// The other versions whose credential may still be valid. One whose value is gone has an empty one.
    async fn others(&self, version: Version) -> anyhow::Result<Vec<Credential>> {
        let mut others = Vec::new();
        for other in self.record.live_versions().filter(|other| *other != version) {
            let (secret, value) = (self.secret().clone(), SecretValue::new(Vec::new()));
            others.push(self.credential(other).await?.unwrap_or(Credential { secret, version: other, value }));
        }
        Ok(others)
    }
}
