//! Tests the credential that services use, again and again: one that was changed outside of Rotacast is an alarm before the
//! services notice. It changes nothing: no record, no rotation.

use std::sync::Arc;
use std::time::Duration;

use rotacast_clock as clock;
use rotacast_proto::Level;
use rotacast_protocol::coordinator::{Input, Order};
use rotacast_protocol::record::ProviderId;
use rotacast_protocol::{Instant, OperatorName, RotationNumber, Version};
use rotacast_provider::{Credential, Provider, Trial, Verdict};
use tokio::task::{JoinError, JoinSet};
use tracing::{debug, warn};

use super::SecretTask;
use crate::findings::Topic;

/// A leader's first check of a secret comes within this time: what was found under the leader before is found again by then,
/// and the logins of thousands of secrets do not come at once.
const FIRST_WITHIN: Duration = Duration::from_secs(3600);

/// Pause after a check that came to no verdict, such as of a server that is away.
const TRY_AGAIN: Duration = Duration::from_secs(3600);

/// Longest check, after its turn has come: as long as any call of a provider takes.
const CHECK_TIMEOUT: Duration = Duration::from_secs(60);

/// Who asks the rules whether an order would be taken, which changes nothing.
const FINDING: &str = "finding";

/// The checks of one secret: one at a time.
#[derive(Default)]
pub(super) struct Checks {
    running: JoinSet<Checked>,
    /// What is checked, how often, and when next.
    planned: Option<Plan>,
    /// The rotation that was last seen: the credential is checked when another one begins.
    rotation: Option<RotationNumber>,
    /// What the finding says.
    found: Option<Found>,
}

/// A test that was not passed.
struct Found {
    version: Version,
    level: Level,
    problem: String,
}

#[derive(Clone, Copy)]
struct Plan {
    version: Version,
    every: Duration,
    due: Instant,
}

/// How a check ended. No verdict: it cannot be told.
pub(super) struct Checked {
    version: Version,
    verdict: Option<Verdict>,
}

impl Checks {
    pub(super) fn due(&self) -> Option<Instant> {
        self.planned.filter(|_| self.running.is_empty()).map(|plan| plan.due)
    }

    pub(super) async fn ended(&mut self) -> Option<Result<Checked, JoinError>> {
        self.running.join_next().await
    }

    pub(super) async fn cut_off(&mut self) {
        self.running.shutdown().await;
    }

    fn put_off(&mut self, by: impl FnOnce(Duration) -> Duration) {
        if let Some(plan) = &mut self.planned {
            plan.due = clock::instant() + by(plan.every);
        }
    }
}

impl SecretTask {
    /// Follows the record: which version is checked, and whether now.
    pub(super) fn plan_check(&mut self) {
        let (in_use, rotation) = (self.in_use(), self.machine.coordinator().record().rotation.as_ref());
        let rotation = rotation.map(|rotation| rotation.number);
        let began = rotation.is_some() && rotation != self.checks.rotation;
        self.checks.rotation = rotation;
        let version = in_use.as_ref().map(|(version, ..)| *version);
        let current = self.machine.coordinator().record().current;
        // Safe mode, or a provider that is not there, mends nothing: only that services use another version does.
        match &self.checks.found {
            Some(found) if Some(found.version) != current => self.clear_check(),
            Some(_) => self.raise_check(),
            None => {}
        }
        if self.checks.planned.is_some_and(|plan| Some(plan.version) != version) {
            // What services do not use any more may soon be ended: a login would fail, and stand in the server's log.
            self.checks.running.abort_all();
        }
        let Some((version, _, provider)) = in_use else { return self.checks.planned = None };
        let Some(every) = provider.test_every() else { return self.checks.planned = None };
        let now = clock::instant();
        let due = match self.checks.planned {
            // At the beginning of a term a rotation may have begun long ago.
            Some(plan) if plan.version == version && began => now,
            Some(plan) if plan.version == version && plan.every == every => plan.due,
            // It was tested before it became current.
            Some(plan) if plan.version != version => now + every,
            _ => now + rand::random_range(Duration::ZERO..=every.min(FIRST_WITHIN)),
        };
        self.checks.planned = Some(Plan { version, every, due });
    }

    /// The version that services use, and its provider. None while it is doubted, which the protocol itself settles.
    fn in_use(&self) -> Option<(Version, ProviderId, Arc<dyn Provider>)> {
        let record = self.machine.coordinator().record();
        let version = record.current.filter(|_| record.safe_mode.is_none())?;
        let known = record.versions.get(&version).filter(|known| known.doubt.is_none())?;
        let id = known.provider.clone()?;
        let provider = self.environment.settings.provider(&id)?;
        Some((version, id, provider))
    }

    pub(super) fn check_if_due(&mut self) {
        if self.checks.due().is_none_or(|due| due > clock::instant()) {
            return;
        }
        let Some((version, id, provider)) = self.in_use() else { return self.checks.planned = None };
        let (tree, secret, turn) = (self.environment.tree.clone(), self.secret.clone(), self.turns.check(&id));
        let check = async move {
            let _place = turn.await;
            let tested = tokio::time::timeout(CHECK_TIMEOUT, async {
                let Some(stored) = tree.read_version(&secret, version).await? else { return Ok(None) };
                let credential = Credential { secret: secret.clone(), version, value: stored.value };
                anyhow::Ok(Some(provider.test(&credential, &[], Trial::Known).await?))
            });
            let verdict = match tested.await {
                Ok(Ok(verdict)) => verdict,
                Ok(Err(problem)) => {
                    debug!(%secret, %version, %problem, "whether the credential in use works cannot be told");
                    None
                }
                Err(_) => {
                    debug!(%secret, %version, "no answer in time whether the credential in use works");
                    None
                }
            };
            Checked { version, verdict }
        };
        self.checks.running.spawn(check);
    }

    pub(super) fn check_ended(&mut self, checked: Result<Checked, JoinError>) {
        let (version, verdict) = match checked {
            Ok(Checked { version, verdict: Some(verdict) }) => (version, verdict),
            Ok(Checked { verdict: None, .. }) => return self.checks.put_off(|every| every.min(TRY_AGAIN)),
            Err(cut_off) if cut_off.is_cancelled() => return,
            Err(problem) => {
                warn!(secret = %self.secret, %problem, "a check of the credential in use broke off, which is a bug");
                return self.checks.put_off(|every| every.min(TRY_AGAIN));
            }
        };
        self.checks.put_off(|every| every);
        // What has changed meanwhile: this leader's own doing, or a successor's.
        let leads = clock::instant() < *self.leadership.borrow();
        if !leads || self.in_use().is_none_or(|(current, ..)| current != version) {
            return;
        }
        match verdict {
            Verdict::Works => self.clear_check(),
            Verdict::Rejected(reason) => {
                let what = "does not work any more";
                let so = "it was changed or ended outside of Rotacast, and services that connect anew are refused";
                self.found(version, Level::Error, format!("{what}: {reason}; {so}"));
            }
            Verdict::Unusable(reason) => {
                self.found(version, Level::Warning, format!("does not pass its test any more: {reason}"));
            }
        }
    }

    fn found(&mut self, version: Version, level: Level, problem: String) {
        self.checks.found = Some(Found { version, level, problem });
        self.raise_check();
    }

    fn raise_check(&self) {
        let Some(Found { version, level, problem }) = &self.checks.found else { return };
        let text = format!("version {version}, which services use, {problem}");
        let again = match (self.in_use(), &self.machine.coordinator().record().safe_mode) {
            (Some(_), _) => "it is tested again within the provider's test_every",
            (None, Some(_)) => "it is tested again once safe mode is left",
            (None, None) => "it is tested again once its provider can test it",
        };
        let fix = match level {
            Level::Error => format!("{}; or change it back: {again}", self.way_to_another()),
            _ => format!("repair what it names: {again}"),
        };
        self.environment.findings.raise(Topic::Credential, self.secret.as_str(), *level, text, &fix);
    }

    /// How services get another credential, as things are.
    pub(super) fn way_to_another(&self) -> String {
        let by = OperatorName::new(FINDING).expect("a valid name");
        let rotate = Input::Operator { by, order: Order::Rotate };
        match self.machine.coordinator().decide(clock::now(), rotate) {
            Ok(_) => format!("`rotacast rotate {}` makes a new credential", self.secret),
            Err(refused) => format!("no rotation can be ordered now: {refused}"),
        }
    }

    fn clear_check(&mut self) {
        if self.checks.found.take().is_some() {
            self.environment.findings.clear(Topic::Credential, self.secret.as_str());
        }
    }
}
