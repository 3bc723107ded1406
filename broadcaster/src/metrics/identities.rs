//! Messages that were refused for who signed them.

use std::sync::{Arc, OnceLock};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Registry;

use crate::identities::Identities;

/// Reads the count that [`Identities`] keeps anyway.
#[derive(Clone, Debug, Default)]
pub(super) struct Refused(Arc<OnceLock<Arc<Identities>>>);

impl Refused {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let refused = Self::default();
        registry.register_collector(Box::new(refused.clone()));
        refused
    }

    pub(super) fn of(&self, identities: &Arc<Identities>) {
        // Given once, at the start; a second time changes nothing.
        let _ = self.0.set(Arc::clone(identities));
    }
}

impl Collector for Refused {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let refused = self.0.get().map_or(0, |identities| identities.refused());
        let help = "Messages, or parts of them, that were refused: not signed with the key of the incarnation, not \
                    attested by the service's key, malformed, or about a secret that the service may not use.";
        let metric = encoder.encode_descriptor("messages_refused", help, None, MetricType::Counter)?;
        ConstCounter::new(refused).encode(metric)
    }
}
