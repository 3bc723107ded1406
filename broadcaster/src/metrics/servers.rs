//! Whether store and bus answer: looked at every now and then, since nothing may be asked of them for hours, and an
//! election that waits for its turn keeps its failures to itself.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use rotacast_bus::LeaderBus;
use rotacast_proto::{Finding, Level};
use rotacast_store::SecretTree;
use tokio_util::sync::CancellationToken;

use super::label::gauge;

/// How often is looked: a few reads a minute are nothing to a store, and an alert waits for a minute anyway.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// For one look at the bus, which asks for the settings of every log; a call ends by itself after half of it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether they answered at the last look.
#[derive(Clone, Debug)]
pub(crate) struct Servers {
    store: Gauge,
    bus: Gauge,
}

impl Servers {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let servers = Self {
            store: gauge(
                registry,
                "store_answers",
                "Whether the store answered the last linearizable read (1) or not (0); checked every 15 seconds",
            ),
            bus: gauge(
                registry,
                "bus_answers",
                "Whether the bus answered the last check and its set-up can work (1) or not (0); checked every 15 seconds",
            ),
        };
        // Both were reached before anything is shown.
        servers.store.set(1);
        servers.bus.set(1);
        servers
    }

    /// Looks until `ended`.
    pub(crate) async fn look(self, tree: SecretTree, bus: Arc<dyn LeaderBus>, ended: CancellationToken) {
        let looking = async {
            tokio::join!(
                async {
                    loop {
                        // Through the measured store, so that what went wrong is counted by its kind.
                        self.store.set(i64::from(tree.leader().await.is_ok()));
                        tokio::time::sleep(LOOK_EVERY).await;
                    }
                },
                async {
                    loop {
                        let findings = tokio::time::timeout(PATIENCE, bus.examine()).await;
                        self.bus.set(i64::from(findings.is_ok_and(|findings| is_sound(&findings))));
                        tokio::time::sleep(LOOK_EVERY).await;
                    }
                },
            )
        };
        tokio::select! {
            _ = looking => {}
            () = ended.cancelled() => {}
        }
    }
}

fn is_sound(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.level != Level::Error)
}
