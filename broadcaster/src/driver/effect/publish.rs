//! Announces the state on the bus.

use std::time::Duration;

use rotacast_bus::BusError;
use rotacast_clock as clock;
use rotacast_proto::{Envelope, WireMessage as _};
use rotacast_protocol::coordinator::Input;
use rotacast_protocol::{Revision, SecretName};

use super::super::Environment;
use super::Effect;
use crate::traces::envelope_of;

/// Before a secret in safe mode leaps again because the bus has a newer state: each leap is one more save. A leap falls short
/// after restorations between hosts whose clocks differ.
const LEAP_PAUSE: Duration = Duration::from_millis(100);

/// The reason of a safe mode.
pub(in crate::driver) fn newer_on_bus(revision: Revision, store: &str) -> String {
    format!(
        "the bus has a newer state than revision {revision} in {store}: the store was restored from a backup, or the \
         secret's keys were deleted in it, or another store was used before"
    )
}

/// How often in a row another publisher may be overwritten before the publish fails as one that the bus did not take.
const STRANGERS_IN_A_ROW: usize = 8;

/// Publishes a state. Only what a broadcaster of this cluster has signed counts as newer; what another publisher left is
/// overwritten.
pub(in crate::driver) async fn publish_ours(
    environment: &Environment,
    secret: &SecretName,
    revision: Revision,
    state: &Envelope,
) -> Result<(), BusError> {
    let Environment { bus, home, .. } = environment;
    let mut over = None;
    for _ in 0..STRANGERS_IN_A_ROW {
        let outcome = bus.publish_over(secret, revision, state, over.as_ref()).await;
        if !matches!(outcome, Err(BusError::Fenced { .. })) {
            return outcome;
        }
        over = bus.read_state(secret).await?;
        match &over {
            Some(newer) if home.is_newer(environment, newer, revision) => return outcome,
            Some(stranger) => home.met_stranger(environment, secret, stranger),
            // It has gone meanwhile.
            None => {}
        }
    }
    Err(BusError::Unreachable {
        endpoint: bus.describe(),
        problem: format!(
            "another publisher overwrites the state of {secret} all the time; `rotacast doctor` names its key"
        ),
    })
}

impl Effect {
    pub(super) async fn publish(&self) -> anyhow::Result<Vec<Input>> {
        let Environment { key, cluster, traces, .. } = &self.environment;
        let revision = self.state.revision;
        let id = format!("{}:{}:{revision}", self.secret(), self.state.epoch);
        let envelope = envelope_of(traces, &self.record, self.state.seal(key, cluster, id, clock::wall()));
        match publish_ours(&self.environment, self.secret(), revision, &envelope).await {
            Ok(()) => Ok(vec![Input::Published { revision }]),
            // Every state is saved before it is published. So either another broadcaster leads by now, and then what follows from
            // this cannot be saved; or the store has lost what was saved, while no broadcaster was there to notice.
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
}
