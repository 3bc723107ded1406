//! Announces the state on the bus.

use std::time::Duration;

use rotacast_bus::BusError;
use rotacast_clock as clock;
use rotacast_proto::WireMessage as _;
use rotacast_protocol::Revision;
use rotacast_protocol::coordinator::Input;

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

impl Effect {
    pub(super) async fn publish(&self) -> anyhow::Result<Vec<Input>> {
        let Environment { key, cluster, bus, traces, .. } = &self.environment;
        let revision = self.state.revision;
        let id = format!("{}:{}:{revision}", self.secret(), self.state.epoch);
        let envelope = envelope_of(traces, &self.record, self.state.seal(key, cluster, id, clock::wall()));
        match bus.publish_state(self.secret(), revision, &envelope).await {
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
