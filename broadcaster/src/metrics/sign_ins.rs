//! Sign-ins, and requests that show a token or a signature.

use std::sync::{Arc, OnceLock};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Registry;

use crate::sign_ins::SignIns;

/// Reads the counts that [`SignIns`] keeps anyway.
#[derive(Clone, Debug, Default)]
pub(super) struct SignInCounts(Arc<OnceLock<SignIns>>);

impl SignInCounts {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let counts = Self::default();
        registry.register_collector(Box::new(counts.clone()));
        counts
    }

    pub(super) fn of(&self, sign_ins: &SignIns) {
        // Given once, at the start; a second time changes nothing.
        let _ = self.0.set(sign_ins.clone());
    }
}

impl Collector for SignInCounts {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let sign_ins = self.0.get().cloned().unwrap_or_default();
        let help =
            "Sign-ins, requests with a token, and signed orders, by whether the configuration knows what they show.";
        let mut metric = encoder.encode_descriptor("sign_ins", help, None, MetricType::Counter)?;
        for (outcome, count) in sign_ins.counts() {
            ConstCounter::new(count).encode(metric.encode_family(&[("outcome", outcome.as_str())])?)?;
        }
        Ok(())
    }
}
