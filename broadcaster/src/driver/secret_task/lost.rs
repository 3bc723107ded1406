//! Numbers of a history that the store has lost.

use std::collections::BTreeSet;

use rotacast_protocol::Version;
use tracing::warn;

use super::SecretTask;

impl SecretTask {
    /// A client may write a number that instances know from a history that the store has lost. It is not taken in.
    pub(super) fn warn_of_taken(&self, version: Version) {
        let record = self.machine.coordinator().record();
        let newest = record.versions.keys().next_back().copied();
        if let Some(last) = record.last_version.filter(|last| newest < Some(version) && version <= *last) {
            let secret = &self.secret;
            warn!(
                %secret, %version, %last,
                "not taken in: instances use another version of this number, which the store has lost; write the value \
                 again above the last number, as `rotacast put` does"
            );
        }
    }

    /// Numbers of a history that the store has lost must be no gap for the versions that follow.
    pub(super) async fn note_lost(&self, numbers: BTreeSet<Version>) {
        let epoch = self.machine.coordinator().tenure().epoch;
        match self.environment.tree.note_lost(&self.secret, &numbers, epoch).await {
            Ok(()) => {
                let secret = &self.secret;
                let (first, last) = (numbers.first(), numbers.last());
                warn!(%secret, ?first, ?last, "numbers that instances use were lost with the store's history: they are taken");
            }
            // The next version that waits behind them brings it up again.
            Err(problem) => warn!(secret = %self.secret, %problem, "cannot note that numbers are taken"),
        }
    }
}
