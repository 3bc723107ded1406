//! How many findings stand.

use std::sync::{Arc, OnceLock};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::findings::Findings;

/// Reads the list that [`Findings`] keeps anyway.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing(Arc<OnceLock<Findings>>);

impl Standing {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let standing = Self::default();
        registry.register_collector(Box::new(standing.clone()));
        standing
    }

    pub(super) fn of(&self, findings: &Findings) {
        // Given once, at the start; a second time changes nothing.
        let _ = self.0.set(findings.clone());
    }
}

impl Collector for Standing {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let findings = self.0.get().cloned().unwrap_or_default();
        let help = "Findings that stand: faults that last until they are repaired. `rotacast doctor` names each.";
        let mut metric = encoder.encode_descriptor("findings", help, None, MetricType::Gauge)?;
        for (topic, count) in findings.counts() {
            let gauge = ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
            gauge.encode(metric.encode_family(&[("topic", topic.as_str())])?)?;
        }
        Ok(())
    }
}
