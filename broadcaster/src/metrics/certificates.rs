//! Until when our own certificates are valid.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::certificates::Expiries;

/// Reads the list that [`Expiries`] keeps anyway.
#[derive(Debug)]
struct Ends(Expiries);

pub(super) fn register(registry: &mut Registry) -> Expiries {
    let expiries = Expiries::default();
    registry.register_collector(Box::new(Ends(expiries.clone())));
    expiries
}

impl Collector for Ends {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let help =
            "When a certificate of the broadcaster ends, in seconds since 1970, by the setting that names its file.";
        let mut metric =
            encoder.encode_descriptor("certificate_expires_timestamp_seconds", help, None, MetricType::Gauge)?;
        for (what, until) in self.0.known() {
            let gauge = ConstGauge::new(i64::try_from(until.0 / 1000).unwrap_or(i64::MAX));
            gauge.encode(metric.encode_family(&[("certificate", what.as_str())])?)?;
        }
        Ok(())
    }
}
