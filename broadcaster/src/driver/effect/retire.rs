//! Ends a credential, step by step, after its entry in the audit log.

use rotacast_protocol::Version;
use rotacast_protocol::coordinator::Input;
use rotacast_protocol::record::{Origin, RetireStep, Unproven};
use rotacast_provider::{Credential, LiveSessions, ProviderError};
use tracing::info;

use super::super::Environment;
use super::Effect;
use crate::audit::Entry;

impl Effect {
    pub(super) async fn audit(&self, version: Version) -> anyhow::Result<Vec<Input>> {
        let Some(guard) = &self.guard else { return Ok(Vec::new()) };
        let conditions: serde_json::Map<String, serde_json::Value> = guard
            .conditions
            .iter()
            .map(|condition| (condition.name.to_string(), condition.evidence.clone().into()))
            .collect();
        let entry = Entry::new("broadcaster", "retire_intent")
            .secret(self.secret().clone())
            .rotation(self.record.rotation.as_ref().map(|rotation| rotation.number))
            .detail("version", version.get())
            .detail("revision", self.record.revision.0)
            .detail("epoch", self.record.epoch.0)
            .detail("guard", conditions);
        self.environment.audit.append_known(entry).await?;
        Ok(vec![Input::Audited { version, revision: self.record.revision }])
    }

    pub(super) async fn retire(&self, version: Version, step: RetireStep) -> anyhow::Result<Vec<Input>> {
        let done = Ok(vec![Input::StepDone { version, step }]);
        let alone = |why| Ok(vec![Input::LeftAlone { version, step, why }]);
        let Environment { tree, .. } = &self.environment;
        if step == RetireStep::Erase {
            tree.destroy_version(self.secret(), version, self.record.epoch).await?;
            tree.clear_journal(self.secret(), version, self.record.epoch).await?;
            return done;
        }
        let retirement = self.record.retirements.get(&version);
        if let Some(word) = retirement.and_then(|retirement| retirement.given_up.as_ref()) {
            let reason = format!("{} has given the version up: {}", word.by, word.reason);
            self.leave_alone(version, step, Unproven::Abandoned, reason).await?;
            return alone(Unproven::Abandoned);
        }
        let credential = match self.credential(version).await? {
            Some(credential) => credential,
            // Rolled back while it was being made: the credential may exist although its version key does not.
            None => match tree.read_journal(self.secret(), version).await? {
                Some(value) => Credential { secret: self.secret().clone(), version, value },
                None if self.was_never_made(version) => return done,
                None if retirement.is_some_and(|retirement| retirement.unmade) => {
                    let reason = "it was given up before its credential was made, and the store has no value that names one that the lost \
                                  history may have made";
                    self.leave_alone(version, step, Unproven::ValueLost, reason.to_owned()).await?;
                    return alone(Unproven::ValueLost);
                }
                None => {
                    let provider = self.provider(version)?.describe();
                    let problem = "its value is gone from the store, so Rotacast cannot name the credential to revoke: write the \
                                   value back, or revoke the credential by hand and give the version up"
                        .to_owned();
                    return Err(ProviderError::Refused { provider, version: version.get(), problem }.into());
                }
            },
        };
        let others = self.others(version).await?;
        let provider = self.provider(version)?;
        let sessions = if self.overrides_sessions(version) { LiveSessions::End } else { LiveSessions::ByPolicy };
        self.must_lead()?;
        let outcome = match step {
            RetireStep::Disable => provider.disable(&credential, &others, sessions).await,
            RetireStep::Destroy | RetireStep::Erase => provider.destroy(&credential, &others, sessions).await,
        };
        match outcome {
            Ok(()) => done,
            // A rejected value may name a credential of another owner: that one is not ours to end.
            Err(ProviderError::Refused { problem, .. }) if self.is_rejected(version) => {
                self.leave_alone(version, step, Unproven::LeftAlone, problem).await?;
                alone(Unproven::LeftAlone)
            }
            Err(problem) => Err(problem.into()),
        }
    }

    /// A step that ends nothing at the provider is on record.
    async fn leave_alone(
        &self,
        version: Version,
        step: RetireStep,
        why: Unproven,
        reason: String,
    ) -> anyhow::Result<()> {
        info!(secret = %self.secret(), %version, %step, reason, "the version's credential is left alone");
        let entry = Entry::new("broadcaster", "left_alone")
            .secret(self.secret().clone())
            .rotation(self.record.rotation.as_ref().map(|rotation| rotation.number))
            .detail("version", version.get())
            .detail("step", step.as_str())
            .detail("why", why.as_str())
            .detail("reason", reason);
        self.environment.audit.append(entry).await?;
        Ok(())
    }

    /// A value is in the journal before its credential is made: one that is neither there nor in the store has none.
    fn was_never_made(&self, version: Version) -> bool {
        let managed = self.record.versions.get(&version).is_some_and(|version| version.origin == Origin::Managed);
        managed && self.is_rejected(version)
    }

    /// Whether an operator has said that the provider's live sessions are cut off.
    fn overrides_sessions(&self, version: Version) -> bool {
        let retirement = self.record.retirements.get(&version);
        retirement.is_some_and(|retirement| retirement.overrides.iter().any(|word| word.sessions))
    }
}
