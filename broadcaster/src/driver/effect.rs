//! Carries out what the core says the world is owed. Every effect is idempotent: a predecessor may have carried it out
//! already, whole or in part.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rotacast_bus::BusError;
use rotacast_clock as clock;
use rotacast_proto::WireMessage as _;
use rotacast_protocol::coordinator::{Command, CommandKind, Coordinator, Evidence, Guard, Input};
use rotacast_protocol::message::SecretState;
use rotacast_protocol::record::{Label, Origin, RecordChange, RetireStep, SecretRecord};
use rotacast_protocol::{Generation, Instant, Now, OperatorName, Revision, SecretName, Version};
use rotacast_provider::{Credential, LiveSessions, ProviderError, Verdict};
use rotacast_store::Published;
use tokio::sync::watch;
use tracing::{debug, error, info, warn};

use super::Environment;
use crate::audit::{AuditError, Entry};
use crate::settings::SecretSettings;
use crate::traces::envelope_of;

/// How long one effect may take before it is given up and tried again: providers have shorter limits of their own.
const EFFECT_TIMEOUT: Duration = Duration::from_secs(60);

/// Before a secret in safe mode leaps again because the bus has a newer state: each leap is one more save. A leap falls short
/// after restorations between hosts whose clocks differ.
const LEAP_PAUSE: Duration = Duration::from_millis(100);

/// How long the look may take whether somebody else has ended a credential: it must not hold up the reading it comes with.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// Versions whose credential was found to have been ended by somebody else: told once in a term. At most those that the
/// record lists.
pub(super) type EndedByOthers = Arc<Mutex<BTreeSet<Version>>>;

/// The reason of a safe mode.
pub(super) fn newer_on_bus(revision: Revision, store: &str) -> String {
    format!(
        "the bus has a newer state than revision {revision} in {store}: the store was restored from a backup, or the \
         secret's keys were deleted in it, or another store was used before"
    )
}

/// How an effect went.
pub(super) struct EffectOutcome {
    pub(super) kind: CommandKind,
    /// What to tell the core, or why it is to be tried again.
    pub(super) result: Result<Vec<Input>, String>,
}

/// One effect with all it needs, detached from the task that owes it.
pub(super) struct Effect {
    environment: Environment,
    settings: SecretSettings,
    command: Command,
    record: SecretRecord,
    state: SecretState,
    guard: Option<Guard>,
    leadership: watch::Receiver<Instant>,
    ended_by_others: EndedByOthers,
}

impl Effect {
    pub(super) fn new(
        environment: &Environment,
        settings: &SecretSettings,
        coordinator: &Coordinator,
        leadership: &watch::Receiver<Instant>,
        command: Command,
        now: Now,
        ended_by_others: &EndedByOthers,
    ) -> Self {
        let guard = match &command.kind {
            CommandKind::Audit { version } => Some(coordinator.guard(*version, now)),
            _ => None,
        };
        Self {
            environment: environment.clone(),
            settings: settings.clone(),
            record: coordinator.record().clone(),
            state: coordinator.record().state(),
            command,
            guard,
            leadership: leadership.clone(),
            ended_by_others: Arc::clone(ended_by_others),
        }
    }

    pub(super) async fn run(self) -> EffectOutcome {
        let kind = self.command.kind.clone();
        let result = match tokio::time::timeout(EFFECT_TIMEOUT, self.carry_out()).await {
            Ok(Ok(inputs)) => Ok(inputs),
            Ok(Err(problem)) => Err(format!("{problem:#}")),
            Err(_) => Err(format!("no answer within {EFFECT_TIMEOUT:?}")),
        };
        EffectOutcome { kind, result }
    }

    async fn carry_out(&self) -> anyhow::Result<Vec<Input>> {
        match self.command.kind {
            CommandKind::Publish => self.publish().await,
            CommandKind::Create { version } => self.create(version).await,
            CommandKind::Test { version } => self.test(version).await,
            CommandKind::PassBarrier { version } => self.pass_barrier(version, self.command.revision).await,
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

    fn secret(&self) -> &SecretName {
        &self.record.secret
    }

    async fn publish(&self) -> anyhow::Result<Vec<Input>> {
        let Environment { key, cluster, bus, traces, .. } = &self.environment;
        let revision = self.state.revision;
        let id = format!("{}:{}:{revision}", self.secret(), self.state.epoch);
        let envelope = envelope_of(traces, &self.record, self.state.seal(key, cluster, id, clock::wall()));
        match bus.publish_state(self.secret(), revision, &envelope).await {
            Ok(()) => Ok(vec![Input::Published { revision }]),
            // Every state is saved before it is published. So either somebody else leads by now, and then what follows from
            // this cannot be saved; or the store has lost what was saved, while nobody was there to notice.
            // In safe mode too: it was restored once more, or the last leap was not far enough.
            Err(BusError::Fenced { .. }) => {
                if self.record.safe_mode.is_some() {
                    tokio::time::sleep(LEAP_PAUSE).await;
                }
                let reason = newer_on_bus(revision, &self.environment.tree.store().describe());
                Ok(vec![Input::StoreWentBack { reason }])
            }
            Err(problem) => Err(problem.into()),
        }
    }

    async fn credential(&self, version: Version) -> anyhow::Result<Option<Credential>> {
        let stored = self.environment.tree.read_version(self.secret(), version).await?;
        Ok(stored.map(|stored| Credential { secret: self.secret().clone(), version, value: stored.value }))
    }

    /// The other versions whose credential may still be valid.
    async fn others(&self, version: Version) -> anyhow::Result<Vec<Credential>> {
        let mut others = Vec::new();
        for other in self.record.live_versions().filter(|other| *other != version) {
            others.extend(self.credential(other).await?);
        }
        Ok(others)
    }

    /// The value is durable in the journal before the outside call, so that a lost answer leads to the same credential
    /// again; it gets its version key only once it is valid.
    async fn create(&self, version: Version) -> anyhow::Result<Vec<Input>> {
        let Environment { tree, .. } = &self.environment;
        let epoch = self.record.epoch;
        let provider = &self.settings.provider;
        let journalled = tree.read_journal(self.secret(), version).await?;
        if journalled.is_none() && self.credential(version).await?.is_some() {
            // It was published before an answer was lost, or somebody else has taken the number.
            return Ok(vec![Input::Created { version, origin: Origin::Managed }]);
        }
        let value = match journalled {
            Some(value) => value,
            None => tree.journal(self.secret(), version, provider.draw(self.secret(), version)?, epoch).await?,
        };
        let credential = Credential { secret: self.secret().clone(), version, value };
        self.must_lead()?;
        provider.create(&credential).await?;
        let origin = match tree.publish_journalled(self.secret(), version, epoch).await? {
            Published::Done(_) => Origin::Managed,
            // Nothing was journalled and nothing is stored: begin again.
            Published::Missing => anyhow::bail!("the journal entry of version {version} is gone"),
            Published::Taken => {
                // Somebody wrote this version at the same moment. Theirs stands; ours was never used by anyone.
                warn!(secret = %self.secret(), %version, "somebody else has written this version; using theirs");
                let theirs: Vec<Credential> = self.credential(version).await?.into_iter().collect();
                provider.disable(&credential, &theirs, LiveSessions::ByPolicy).await?;
                provider.destroy(&credential, &theirs, LiveSessions::ByPolicy).await?;
                tree.clear_journal(self.secret(), version, epoch).await?;
                Origin::Watched
            }
        };
        Ok(vec![Input::Created { version, origin }])
    }

    async fn test(&self, version: Version) -> anyhow::Result<Vec<Input>> {
        let Some(credential) = self.credential(version).await? else {
            let reason = "its value is no longer in the store".to_owned();
            return Ok(vec![Input::VerifyFailed { version, reason }]);
        };
        let others = self.others(version).await?;
        Ok(vec![match self.settings.provider.test(&credential, &others).await? {
            Verdict::Works => Input::Verified { version },
            Verdict::Rejected(reason) => Input::VerifyFailed { version, reason },
        }])
    }

    /// Reads the roster up to its end as it stands after the seal, and the versions, linearizably.
    async fn pass_barrier(&self, version: Version, revision: Revision) -> anyhow::Result<Vec<Input>> {
        let Environment { bus, tree, identities, .. } = &self.environment;
        let mut inputs = Vec::new();
        for envelope in bus.read_roster().await? {
            // Whatever does not verify was counted and logged; it speaks for nobody.
            let Ok(registration) = identities.registration(&envelope) else { continue };
            if registration.secrets.contains(self.secret()) {
                inputs.push(if registration.left {
                    Input::Left { key: registration.key }
                } else {
                    Input::Registered { key: registration.key, exclusive: registration.exclusive, live: false }
                });
            }
        }
        for listed in tree.list_versions(self.secret()).await?.into_iter().map(|stamp| stamp.version) {
            if Some(listed) > self.record.last_version {
                inputs.push(Input::VersionSeen { version: listed });
            }
        }
        inputs.push(Input::BarrierPassed { version, revision });
        Ok(inputs)
    }

    async fn read_usage(&self, version: Version) -> anyhow::Result<Vec<Input>> {
        let sent = clock::instant();
        let evidence = match self.credential(version).await? {
            // Nobody can look for the sessions of a credential nobody knows any more.
            None => Evidence::None,
            Some(credential) => match self.settings.provider.usage(&credential, &self.others(version).await?).await {
                Ok(evidence) => {
                    self.look_whether_it_works(&credential).await?;
                    match evidence {
                        rotacast_provider::Evidence::None => Evidence::None,
                        rotacast_provider::Evidence::Sessions(sessions) => {
                            Evidence::Sessions(sessions.into_iter().map(|session| session.description).collect())
                        }
                    }
                }
                // A rejected value that is not this provider's has no sessions of its own.
                Err(ProviderError::Refused { .. }) if self.is_rejected(version) => Evidence::None,
                Err(problem) => return Err(problem.into()),
            },
        };
        Ok(vec![Input::UsageRead { version, sent, evidence }])
    }

    /// The alarm when somebody else has deleted or disabled a credential that services may be using. It worked when it was
    /// announced, and Rotacast disables nothing before [`RetireStep::Disable`]. The retire goes on: it ends what is left.
    async fn look_whether_it_works(&self, credential: &Credential) -> anyhow::Result<()> {
        let version = credential.version;
        let known = self.record.versions.get(&version);
        let announced = known.is_some_and(|known| known.announced && known.label != Label::Rejected);
        let retirement = self.record.retirements.get(&version);
        let ours = retirement.is_some_and(|it| it.step.is_some() || it.overrides.iter().any(|word| word.sessions));
        if !announced || ours || self.told_ended().contains(&version) {
            return Ok(());
        }
        let tested = tokio::time::timeout(LOOK_TIMEOUT, self.settings.provider.test(credential, &[])).await;
        let tested = tested.unwrap_or_else(|_| {
            let provider = self.settings.provider.describe();
            Err(ProviderError::Unreachable { provider, problem: "no answer in time".into() })
        });
        let reason = match tested {
            Ok(Verdict::Works) => return Ok(()),
            Ok(Verdict::Rejected(reason)) => reason,
            // The usage was read; that this login could not be tried holds nothing up.
            Err(problem) => {
                debug!(secret = %self.secret(), %version, %problem, "whether it still works cannot be told");
                return Ok(());
            }
        };
        if self.must_lead().is_err() {
            // It may be what a successor has done.
            return Ok(());
        }
        error!(
            secret = %self.secret(), %version, reason,
            "somebody else has ended this version's credential before its time: services still on it cannot log in"
        );
        let entry = Entry::new("broadcaster", "ended_by_others")
            .secret(self.secret().clone())
            .rotation(self.record.rotation.as_ref().map(|rotation| rotation.generation))
            .detail("version", version.get())
            .detail("reason", reason);
        self.environment.audit.append(entry).await?;
        let mut told = self.told_ended();
        told.retain(|version| self.record.versions.contains_key(version));
        told.insert(version);
        Ok(())
    }

    fn told_ended(&self) -> std::sync::MutexGuard<'_, BTreeSet<Version>> {
        // A set is whole after every call on it.
        self.ended_by_others.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_rejected(&self, version: Version) -> bool {
        self.record.versions.get(&version).is_some_and(|version| version.label == Label::Rejected && !version.announced)
    }

    async fn audit(&self, version: Version) -> anyhow::Result<Vec<Input>> {
        let Some(guard) = &self.guard else { return Ok(Vec::new()) };
        let conditions: serde_json::Map<String, serde_json::Value> = guard
            .conditions
            .iter()
            .map(|condition| (condition.name.to_string(), condition.evidence.clone().into()))
            .collect();
        let entry = Entry::new("broadcaster", "retire_intent")
            .secret(self.secret().clone())
            .rotation(self.record.rotation.as_ref().map(|rotation| rotation.generation))
            .detail("version", version.get())
            .detail("revision", self.record.revision.0)
            .detail("epoch", self.record.epoch.0)
            .detail("guard", conditions);
        self.environment.audit.append(entry).await?;
        Ok(vec![Input::Audited { version, revision: self.record.revision }])
    }

    async fn retire(&self, version: Version, step: RetireStep) -> anyhow::Result<Vec<Input>> {
        let done = Ok(vec![Input::StepDone { version, step }]);
        let Environment { tree, .. } = &self.environment;
        if step == RetireStep::Erase {
            tree.destroy_version(self.secret(), version, self.record.epoch).await?;
            tree.clear_journal(self.secret(), version, self.record.epoch).await?;
            return done;
        }
        let credential = match self.credential(version).await? {
            Some(credential) => credential,
            // Rolled back while it was being made: the credential may exist although its version key does not.
            None => match tree.read_journal(self.secret(), version).await? {
                Some(value) => Credential { secret: self.secret().clone(), version, value },
                None if self.may_skip_the_provider(version) => return done,
                None => anyhow::bail!(
                    "the value of version {version} is gone from the store, so Rotacast cannot name the credential to revoke: \
                     write the value back, or revoke it by hand and say so with `rotacast retire --override --sessions`"
                ),
            },
        };
        let others = self.others(version).await?;
        let provider = &self.settings.provider;
        let sessions = if self.overrides_sessions(version) { LiveSessions::End } else { LiveSessions::ByPolicy };
        self.must_lead()?;
        let outcome = match step {
            RetireStep::Disable => provider.disable(&credential, &others, sessions).await,
            RetireStep::Destroy | RetireStep::Erase => provider.destroy(&credential, &others, sessions).await,
        };
        match outcome {
            Ok(()) => done,
            // A rejected value may name somebody else's credential: that one is not ours to end.
            Err(ProviderError::Refused { problem, .. }) if self.is_rejected(version) => {
                info!(secret = %self.secret(), %version, problem, "a rejected version's credential is left alone");
                let entry = Entry::new("broadcaster", "left_alone")
                    .secret(self.secret().clone())
                    .rotation(self.record.rotation.as_ref().map(|rotation| rotation.generation))
                    .detail("version", version.get())
                    .detail("step", step.as_str())
                    .detail("reason", problem);
                self.environment.audit.append(entry).await?;
                done
            }
            Err(problem) => Err(problem.into()),
        }
    }

    /// A version whose value never reached the store made no credential; one whose sessions an operator has overridden
    /// was revoked by hand. Instances that were cut off say nothing about that.
    fn may_skip_the_provider(&self, version: Version) -> bool {
        self.overrides_sessions(version) || self.is_rejected(version)
    }

    /// Whether an operator has said that the provider's live sessions are cut off.
    fn overrides_sessions(&self, version: Version) -> bool {
        let retirement = self.record.retirements.get(&version);
        retirement.is_some_and(|retirement| retirement.overrides.iter().any(|word| word.sessions))
    }
}

/// Writes a change of the record into the audit log, as part of the rotation that a generation opened, and as the doing
/// of the operator who ordered it, if one did.
pub(super) async fn record(
    environment: &Environment,
    coordinator: &Coordinator,
    rotation: Option<Generation>,
    change: &RecordChange,
    operator: Option<&OperatorName>,
) -> Result<(), AuditError> {
    let record = coordinator.record();
    let entry = match change {
        RecordChange::TermBegan { .. } => Some(taken_over(record)),
        change => entry(change),
    };
    let Some(entry) = entry else { return Ok(()) };
    let entry = entry.secret(record.secret.clone()).rotation(rotation).detail("epoch", record.epoch.0);
    let entry = match operator {
        Some(operator) => entry.by(operator.as_str()),
        None => entry,
    };
    environment.audit.append(entry).await.map(|_| ())
}

/// What a leader found in the record. An entry that its predecessor had no time to write is made up for by this one: it
/// names the rotation in flight and how the last ones ended.
fn taken_over(record: &SecretRecord) -> Entry {
    let ended = record.history.iter().map(|ended| {
        serde_json::json!({
            "rotation": ended.generation.0,
            "outcome": ended.outcome,
            "new": ended.new.get(),
            "ended": ended.ended.to_string(),
        })
    });
    let entry = Entry::new("broadcaster", "taken_over")
        .detail("revision", record.revision.0)
        .detail("current", record.current.map(Version::get))
        .detail("ended", ended.collect::<Vec<_>>());
    match &record.rotation {
        None => entry,
        Some(rotation) => entry
            .detail("phase", rotation.phase.as_str())
            .detail("old", rotation.old.map(Version::get))
            .detail("new", rotation.new.get()),
    }
}

fn entry(change: &RecordChange) -> Option<Entry> {
    let by_us = |action| Entry::new("broadcaster", action);
    Some(match change {
        RecordChange::TermBegan { .. } | RecordChange::TimingSet { .. } | RecordChange::LeaseBoundLowered { .. } => {
            return None;
        }
        RecordChange::VersionAdded { version, origin, .. } => {
            by_us("version_added").detail("version", version.get()).detail("origin", origin.as_str())
        }
        RecordChange::VersionSkipped { version, by, .. } => {
            by_us("version_skipped").detail("version", version.get()).detail("by", by.get())
        }
        RecordChange::RotationStarted { new, trigger, .. } => {
            Entry::new(trigger, "rotation_started").detail("new", new.get())
        }
        RecordChange::CredentialCreated { .. } => by_us("credential_created"),
        RecordChange::PreparingBegan { .. } => by_us("preparing"),
        RecordChange::Approved { by } => Entry::new(by.as_str(), "approved"),
        RecordChange::Excused { instance } => by_us("excused").detail("instance", instance.clone()),
        RecordChange::Activated { .. } => by_us("activated"),
        RecordChange::DrainingBegan { .. } => by_us("draining"),
        RecordChange::RollbackStarted { reason, .. } => by_us("rollback_started").detail("reason", reason.clone()),
        RecordChange::Sealed { version } => by_us("sealed").detail("version", version.get()),
        RecordChange::Overridden { version, word } => Entry::new(word.by.as_str(), "override")
            .detail("version", version.get())
            .detail("reason", word.reason.clone())
            .detail("instances", word.instances.iter().cloned().collect::<Vec<_>>())
            .detail("sessions", word.sessions),
        RecordChange::RetireBegan { version, .. } => by_us("retire_began").detail("version", version.get()),
        RecordChange::RetireAdvanced { version, step } => {
            by_us("retire_advanced").detail("version", version.get()).detail("next", step.as_str())
        }
        RecordChange::RetireFinished { version } => by_us("retired").detail("version", version.get()),
        RecordChange::RotationEnded { outcome, .. } => by_us("rotation_ended").detail("outcome", outcome.as_str()),
        RecordChange::Paused(pause) => Entry::new(pause.by.as_str(), "paused").detail("reason", pause.reason.clone()),
        RecordChange::Resumed => by_us("resumed"),
        RecordChange::SafeModeEntered(mode) => by_us("safe_mode_entered").detail("reason", mode.reason.clone()),
        RecordChange::SafeModeLeft => by_us("safe_mode_left"),
        RecordChange::NumbersLost { last } => by_us("numbers_lost").detail("last", last.get()),
    })
}
