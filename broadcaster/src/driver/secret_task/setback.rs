//! Notices a store that has lost what it had.

use std::time::Duration;

use rotacast_bus::BusError;
use rotacast_clock as clock;
use rotacast_proto::WireMessage as _;
use rotacast_protocol::Revision;

use super::super::Environment;
use super::super::effect::{newer_on_bus, publish_ours};
use super::SecretTask;
use crate::traces::envelope_of;

/// How long a new leader waits for the bus to say whether it knows more than the store: leases are granted after it.
const LOOK_AT_BUS: Duration = Duration::from_secs(1);

impl SecretTask {
    /// Whether the bus has a newer state than the record as it was loaded: then the store has lost what it had. Asked by
    /// publishing that record's state once more, before this term adds to it and hides the difference. A bus that does not
    /// answer is not waited for: every later publish asks again, if less sharply.
    pub(super) async fn bus_knows_more(&self) -> Option<String> {
        let record = self.machine.coordinator().record();
        if record.revision == Revision(0) {
            return None;
        }
        let Environment { key, cluster, tree, traces, .. } = &self.environment;
        let id = format!("{}:{}:{}", self.secret, record.epoch, record.revision);
        let state = envelope_of(traces, record, record.state().seal(key, cluster, id, clock::wall()));
        let asked = publish_ours(&self.environment, &self.secret, record.revision, &state);
        match tokio::time::timeout(LOOK_AT_BUS, asked).await {
            Ok(Err(BusError::Fenced { .. })) => Some(newer_on_bus(record.revision, &tree.store().describe())),
            _ => None,
        }
    }
}
