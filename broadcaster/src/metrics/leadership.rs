//! Whether this replica leads.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use rotacast_clock as clock;
use rotacast_protocol::Epoch;

use super::label::{Counters, counter, counters, gauge};

/// The leadership as gauges.
#[derive(Clone, Debug)]
pub(crate) struct LeadershipGauges {
    leads: Gauge,
    epoch: Gauge,
    since: Gauge,
    terms: Counter,
    ended: Counters<1>,
    refused: Counter,
}

impl LeadershipGauges {
    pub(super) fn register(registry: &mut Registry) -> Self {
        Self {
            leads: gauge(
                registry,
                "leader",
                "Whether this broadcaster leads and has taken every record over (1) or not (0)",
            ),
            epoch: gauge(registry, "leader_epoch", "The newest term that this broadcaster has won; 0: none yet"),
            since: gauge(
                registry,
                "leader_since_timestamp_seconds",
                "When it began to lead, in seconds since 1970; 0: it does not lead",
            ),
            terms: counter(registry, "leader_terms", "Terms that this broadcaster has won"),
            ended: counters(
                registry,
                "leader_terms_ended",
                "Terms that have ended: in order (given up, or taken by another broadcaster), or with an error",
                "how",
                &["in_order", "error"],
            ),
            refused: counter(
                registry,
                "leader_campaigns_failed",
                "Attempts to run for leader that the store refused or did not answer; each is followed by another",
            ),
        }
    }

    /// The store has refused to let this broadcaster run, or did not answer.
    pub(crate) fn refused(&self) {
        self.refused.inc();
    }

    /// An election was won.
    pub(crate) fn won(&self, epoch: Epoch) {
        self.terms.inc();
        self.epoch.set(i64::try_from(epoch.0).unwrap_or(i64::MAX));
    }

    /// Every record is taken over.
    pub(crate) fn leads(&self) {
        self.leads.set(1);
        self.since.set(i64::try_from(clock::wall().0 / 1000).unwrap_or(i64::MAX));
    }

    /// The term is over.
    pub(crate) fn ended(&self, in_order: bool) {
        self.leads.set(0);
        self.since.set(0);
        self.ended.get_or_create(&[("how", if in_order { "in_order" } else { "error" })]).inc();
    }
}
