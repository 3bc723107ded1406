//! What the machine wants done outside: started, its end taken in.

use std::panic::AssertUnwindSafe;

use futures::FutureExt as _;
use rotacast_clock as clock;
use rotacast_protocol::coordinator::{Command, CommandKind};
use rotacast_protocol::machine::{CommandId, Event, Jitter};
use tracing::{Instrument as _, info, warn};

use super::super::effect::{Effect, EffectOutcome};
use super::{Ended, SecretTask};
use crate::traces::TracedProvider;

impl SecretTask {
    pub(super) fn start(&mut self, id: CommandId, command: Command) {
        let coordinator = self.machine.coordinator();
        let span = self.observers.effect(&command);
        let turn = matches!(command.kind, CommandKind::Publish).then(|| self.turns.publication());
        let record = coordinator.record();
        let made_by = command.kind.version().and_then(|version| record.versions.get(&version)?.provider.as_ref());
        let provider = made_by.and_then(|made_by| self.environment.settings.provider(made_by));
        let provider = provider.map(|provider| TracedProvider::around(provider, &self.observers.spans, record));
        let (now, looked_at) = (clock::now(), &self.looked_at);
        let kind = command.kind.clone();
        let effect = Effect::new(&self.environment, provider, coordinator, &self.leadership, command, now, looked_at);
        let run = async move {
            let _place = match turn {
                Some(turn) => Some(turn.await),
                None => None,
            };
            // A panic in one effect is a bug of ours. It is a failure of this effect, and of nothing else.
            let outcome = AssertUnwindSafe(effect.run()).catch_unwind().await;
            let broke_off = |_| EffectOutcome { kind, result: Err("it broke off, which is a bug: see the log".into()) };
            (id, outcome.unwrap_or_else(broke_off))
        };
        self.effects.spawn(run.instrument(span));
    }

    pub(super) fn effect_ended(
        &mut self,
        outcome: Result<(CommandId, EffectOutcome), tokio::task::JoinError>,
    ) -> Result<(), Ended> {
        // Effects are cut off only when their task ends.
        let (id, EffectOutcome { kind, result }) = outcome.map_err(|_| Ended::Stopped)?;
        self.changed = true;
        match &result {
            Ok(_) => {
                if self.failing.remove(&kind) {
                    info!(secret = %self.secret, command = %kind.name(), "works again");
                }
            }
            Err(problem) => {
                let problem = &problem.problem;
                warn!(secret = %self.secret, command = %kind.name(), problem, "a command failed; it is tried again");
                self.failing.insert(kind);
            }
        }
        let jitter = Jitter::from_permille(rand::random_range(0..=1000));
        self.machine.handle(Event::CommandDone { id, outcome: result, jitter });
        Ok(())
    }
}
