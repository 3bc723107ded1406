//! What the core wants done outside: started, tried again, its outcome taken in.

use std::sync::Arc;
use std::time::Duration;

use rotacast_clock as clock;
use rotacast_protocol::coordinator::{CommandKind, Input};
use rotacast_protocol::{Instant, Version};
use tracing::{Instrument as _, info, warn};

use super::super::effect::{Effect, EffectOutcome};
use super::{Ended, SecretTask};
use crate::settings::SecretSettings;
use crate::traces::TracedProvider;

/// First and longest pause before a failed command is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// Most leaps of one secret in a term because the bus has a newer state. Together they are some fifty days of clock
/// (see `RecordChange::SafeModeEntered`): more than clocks of hosts that sign anything for each other differ.
const MAX_LEAPS: u32 = 64;

/// A retry that waits.
#[derive(Clone, Copy)]
pub(super) struct Retry {
    pub(super) at: Instant,
    pause: Duration,
}

impl SecretTask {
    /// Starts what is owed and not in flight. At most one command per version at a time, so that making a credential
    /// and destroying it never run into each other. That goes for a reading of its usage as well, which logs in with it.
    pub(super) fn start_commands(&mut self) {
        let now = clock::now();
        let owed = self.coordinator.commands(now);
        self.retries.retain(|kind, _| owed.iter().any(|command| command.kind == *kind));
        for command in owed {
            let waits = self.retries.get(&command.kind).is_some_and(|retry| retry.at > now.instant);
            let busy = version_of(&command.kind)
                .is_some_and(|version| self.in_flight.iter().any(|kind| version_of(kind) == Some(version)));
            if waits || busy || self.in_flight.contains(&command.kind) {
                continue;
            }
            self.in_flight.insert(command.kind.clone());
            let span = self.context.effect(&command);
            let published = matches!(command.kind, CommandKind::Publish);
            let provider = Arc::clone(&self.settings.provider);
            let settings = SecretSettings {
                provider: TracedProvider::around(provider, &self.spans, self.coordinator.record()),
                policy: self.settings.policy.clone(),
                schedule: self.settings.schedule,
            };
            let effect = Effect::new(
                &self.environment,
                &settings,
                &self.coordinator,
                &self.leadership,
                command,
                now,
                &self.ended_by_others,
            );
            let turn = published.then(|| self.turns.publication());
            let run = async move {
                let _place = match turn {
                    Some(turn) => Some(turn.await),
                    None => None,
                };
                effect.run().await
            };
            self.effects.spawn(run.instrument(span));
        }
    }

    pub(super) async fn effect_ended(
        &mut self,
        outcome: Result<EffectOutcome, tokio::task::JoinError>,
    ) -> Result<(), Ended> {
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(problem) => {
                // A panic in an effect is a bug of ours; the term ends and the next one owes the effect again.
                return Err(Ended::Deposed(format!("an effect broke off: {problem}")));
            }
        };
        self.in_flight.remove(&outcome.kind);
        match self.believed(outcome.result) {
            Ok(inputs) => {
                if self.retries.remove(&outcome.kind).is_some() {
                    info!(secret = %self.secret, command = ?outcome.kind, "works again");
                }
                for input in inputs {
                    self.input(input).await?;
                }
            }
            Err(problem) => {
                warn!(secret = %self.secret, command = ?outcome.kind, %problem, "a command failed; it is tried again");
                let before = self.retries.get(&outcome.kind).map_or(RETRY.0 / 2, |retry| retry.pause);
                let pause = (before * 2).min(RETRY.1);
                // Half fixed, half random, so that many secrets do not retry in step.
                let jittered = pause / 2 + pause.mul_f64(rand::random::<f64>() / 2.0);
                let at = clock::instant() + jittered;
                self.retries.insert(outcome.kind.clone(), Retry { at, pause });
                self.input(Input::Troubled { command: outcome.kind, problem }).await?;
            }
        }
        Ok(())
    }
}

impl SecretTask {
    /// That the bus has a newer state is believed so often in a term, and no more: what it says is not signed.
    fn believed(&mut self, result: Result<Vec<Input>, String>) -> Result<Vec<Input>, String> {
        let went_back = |inputs: &Vec<Input>| inputs.iter().any(|input| matches!(input, Input::StoreWentBack { .. }));
        if !result.as_ref().is_ok_and(went_back) {
            return result;
        }
        self.leaps += 1;
        if self.leaps > MAX_LEAPS {
            let revision = self.coordinator.record().revision;
            return Err(format!(
                "the bus has a state that is newer than revision {revision}, after {MAX_LEAPS} leaps over what may have been lost: \
                 somebody else writes states of this secret; see who may, and remove the message"
            ));
        }
        result
    }
}

/// Which version a command works on, for those that must not overlap.
fn version_of(kind: &CommandKind) -> Option<Version> {
    match kind {
        CommandKind::Create { version }
        | CommandKind::Test { version }
        | CommandKind::ReadUsage { version }
        | CommandKind::Retire { version, .. } => Some(*version),
        CommandKind::Publish | CommandKind::PassBarrier { .. } | CommandKind::Audit { .. } => None,
    }
}
