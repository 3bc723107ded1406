//! Labels, and families that show all of their series from the start.
//!
//! Label values are `&'static str`, so that nothing that comes in can make a new series. Every series exists from the start,
//! at zero: an increase from "absent" to 1 is none to Prometheus, and an alert would miss the first failure.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Names and values.
pub(super) type Labels<const N: usize> = [(&'static str, &'static str); N];
pub(super) type Counters<const N: usize> = Family<Labels<N>, Counter>;
pub(super) type Histograms<const N: usize> = Family<Labels<N>, Histogram>;

/// For calls to servers: from a tenth of a millisecond to more than any call may take, but for providers, which may wait for
/// sessions.
pub(super) const CALL_SECONDS: [f64; 14] =
    [0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 5.0, 30.0];

/// For what goes on between people and services: from a second to weeks.
pub(super) const LONG_SECONDS: [f64; 14] = [
    1.0,
    5.0,
    15.0,
    60.0,
    300.0,
    900.0,
    3600.0,
    10_800.0,
    21_600.0,
    43_200.0,
    86_400.0,
    259_200.0,
    604_800.0,
    2_592_000.0,
];

pub(super) fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let counter = Counter::default();
    registry.register(name, help, counter.clone());
    counter
}

pub(super) fn gauge(registry: &mut Registry, name: &str, help: &str) -> Gauge {
    let gauge = Gauge::default();
    registry.register(name, help, gauge.clone());
    gauge
}

/// A gauge that is always 1 and carries a label.
pub(super) fn gauge_of_one(registry: &mut Registry, name: &str, help: &str, label: &'static str, value: &'static str) {
    let family = Family::<Labels<1>, ConstOne>::default();
    drop(family.get_or_create(&[(label, value)]));
    registry.register(name, help, family);
}

/// See [`gauge_of_one`].
#[derive(Debug)]
struct ConstOne(ConstGauge<u64>);

impl Default for ConstOne {
    fn default() -> Self {
        Self(ConstGauge::new(1))
    }
}

impl prometheus_client::encoding::EncodeMetric for ConstOne {
    fn encode(&self, encoder: prometheus_client::encoding::MetricEncoder) -> Result<(), std::fmt::Error> {
        self.0.encode(encoder)
    }

    fn metric_type(&self) -> prometheus_client::metrics::MetricType {
        prometheus_client::metrics::MetricType::Gauge
    }
}

impl prometheus_client::metrics::TypedMetric for ConstOne {
    const TYPE: prometheus_client::metrics::MetricType = prometheus_client::metrics::MetricType::Gauge;
}

/// Counters by one label.
pub(super) fn counters(
    registry: &mut Registry,
    name: &str,
    help: &str,
    label: &'static str,
    values: &[&'static str],
) -> Counters<1> {
    let family = Counters::default();
    for value in values {
        drop(family.get_or_create(&[(label, *value)]));
    }
    registry.register(name, help, family.clone());
    family
}

/// Counters by two labels, every value of one with every value of the other.
pub(super) fn counters_by_two(
    registry: &mut Registry,
    name: &str,
    help: &str,
    (first, firsts): (&'static str, &[&'static str]),
    (second, seconds): (&'static str, &[&'static str]),
) -> Counters<2> {
    let family = Counters::default();
    for one in firsts {
        for two in seconds {
            drop(family.get_or_create(&[(first, *one), (second, *two)]));
        }
    }
    registry.register(name, help, family.clone());
    family
}

/// Histograms by one label.
pub(super) fn histograms(
    registry: &mut Registry,
    name: &str,
    help: &str,
    (label, values): (&'static str, &[&'static str]),
    buckets: fn() -> Histogram,
) -> Histograms<1> {
    let family = Histograms::new_with_constructor(buckets);
    for value in values {
        drop(family.get_or_create(&[(label, *value)]));
    }
    registry.register(name, help, family.clone());
    family
}

pub(super) fn histogram(registry: &mut Registry, name: &str, help: &str, buckets: fn() -> Histogram) -> Histogram {
    let histogram = buckets();
    registry.register(name, help, histogram.clone());
    histogram
}

pub(super) fn of_calls() -> Histogram {
    Histogram::new(CALL_SECONDS)
}

pub(super) fn of_long_times() -> Histogram {
    Histogram::new(LONG_SECONDS)
}
