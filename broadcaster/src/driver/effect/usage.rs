//! Asks the provider for the sessions of a credential, and whether it still works.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rotacast_clock as clock;
use rotacast_protocol::Version;
use rotacast_protocol::coordinator::{Evidence, Input};
use rotacast_protocol::record::Label;
use rotacast_provider::{Credential, ProviderError, Trial, Verdict};
use tracing::{debug, error};

use super::Effect;
use crate::audit::Entry;

/// How long it may take to check whether a credential was ended outside of Rotacast: the check must not hold up the reading
/// that it comes with.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// Versions whose credential is not tried again in a term: it was ended outside of Rotacast, which is reported once, or
/// cannot be used as things are. Each try would be one more failed login, as often as the usage is read. At most those that
/// the record lists.
pub(in crate::driver) type LookedAt = Arc<Mutex<BTreeSet<Version>>>;

impl Effect {
    pub(super) async fn read_usage(&self, version: Version) -> anyhow::Result<Vec<Input>> {
        let sent = clock::instant();
        let Some(provider) = &self.provider else {
            let evidence = Evidence::Unavailable(self.missing_provider(version));
            return Ok(vec![Input::UsageRead { version, sent, evidence }]);
        };
        let evidence = match self.credential(version).await? {
            // It was rolled back before any instance knew of it, or before it was made.
            None if self.is_rejected(version) || self.is_unmade(version) => Evidence::None,
            None => {
                Evidence::Unavailable("its value is gone from the store, so its sessions cannot be looked for".into())
            }
            Some(credential) => match provider.usage(&credential, &self.others(version).await?).await {
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
                Err(problem @ ProviderError::Refused { .. }) => Evidence::Unavailable(problem.to_string()),
                Err(problem) => return Err(problem.into()),
            },
        };
        Ok(vec![Input::UsageRead { version, sent, evidence }])
    }

    /// The alarm when a credential that services may be using was deleted or disabled outside of Rotacast. It worked when it was
    /// announced, and Rotacast disables nothing before [`RetireStep::Disable`]. The retire goes on: it ends what is left.
    async fn look_whether_it_works(&self, credential: &Credential) -> anyhow::Result<()> {
        let version = credential.version;
        let known = self.record.versions.get(&version);
        let announced = known.is_some_and(|known| known.announced && known.label != Label::Rejected);
        let retirement = self.record.retirements.get(&version);
        let ours = retirement.is_some_and(|it| it.step.is_some() || it.overrides.iter().any(|word| word.sessions));
        if !announced || ours || self.looked_at().contains(&version) {
            return Ok(());
        }
        let provider = self.provider(version)?;
        let tested = tokio::time::timeout(LOOK_TIMEOUT, provider.test(credential, &[], Trial::Known)).await;
        let tested = tested.unwrap_or_else(|_| {
            let provider = provider.describe();
            Err(ProviderError::Unreachable { provider, problem: "no answer in time".into() })
        });
        let reason = match tested {
            Ok(Verdict::Works) => return Ok(()),
            Ok(Verdict::Rejected(reason)) => reason,
            Ok(Verdict::Unusable(problem)) => {
                debug!(secret = %self.secret(), %version, problem, "whether it still works cannot be told");
                self.note_looked_at(version);
                return Ok(());
            }
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
            "this version's credential was ended outside of Rotacast before its time: services still on it cannot log in"
        );
        let entry = Entry::new("broadcaster", "ended_by_others")
            .secret(self.secret().clone())
            .rotation(self.record.rotation.as_ref().map(|rotation| rotation.number))
            .detail("version", version.get())
            .detail("reason", reason);
        self.environment.audit.append(entry).await?;
        self.note_looked_at(version);
        Ok(())
    }

    fn note_looked_at(&self, version: Version) {
        let mut looked_at = self.looked_at();
        looked_at.retain(|version| self.record.versions.contains_key(version));
        looked_at.insert(version);
    }

    fn looked_at(&self) -> std::sync::MutexGuard<'_, BTreeSet<Version>> {
        // A set is whole after every call on it.
        self.looked_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
