//! Connections, requests in flight, and what was turned away.

use std::sync::{Arc, OnceLock};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::connections::{Connections, Door, Ended};

/// Reads what [`Connections`] counts anyway.
#[derive(Clone, Debug, Default)]
pub(super) struct Open(Arc<OnceLock<Connections>>);

impl Open {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let open = Self::default();
        registry.register_collector(Box::new(open.clone()));
        open
    }

    pub(super) fn of(&self, connections: &Connections) {
        // Given once, at the start; a second time changes nothing.
        let _ = self.0.set(connections.clone());
    }

    pub(super) fn get(&self) -> Option<&Connections> {
        self.0.get()
    }
}

fn gauge(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    (label, series): (&str, &[(&str, usize)]),
) -> Result<(), std::fmt::Error> {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (value, count) in series {
        let gauge = ConstGauge::new(i64::try_from(*count).unwrap_or(i64::MAX));
        gauge.encode(metric.encode_family(&[(label, *value)])?)?;
    }
    Ok(())
}

fn counter(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    (label, series): (&str, &[(&str, u64)]),
) -> Result<(), std::fmt::Error> {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (value, count) in series {
        ConstCounter::new(*count).encode(metric.encode_family(&[(label, *value)])?)?;
    }
    Ok(())
}

fn single(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    count: Result<usize, u64>,
) -> Result<(), std::fmt::Error> {
    match count {
        Ok(now) => ConstGauge::new(i64::try_from(now).unwrap_or(i64::MAX)).encode(encoder.encode_descriptor(
            name,
            help,
            None,
            MetricType::Gauge,
        )?),
        Err(so_far) => {
            ConstCounter::new(so_far).encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)
        }
    }
}

impl Collector for Open {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let left_out = "Log lines that were left out because a peer caused too many of one kind.";
        single(&mut encoder, "log_lines_left_out", left_out, Err(rotacast_log_limit::left_out()))?;
        let Some(connections) = self.0.get() else { return Ok(()) };
        let counts = connections.counts();
        gauge(
            &mut encoder,
            "connections",
            "Open connections: proved by a first request, or not yet.",
            ("state", &[("proved", counts.proved), ("unproved", counts.unproved)]),
        )?;
        let most = "Most connections at once; one peer address may have a part of them.";
        single(&mut encoder, "connections_max", most, Ok(counts.caps.total))?;
        let files = "How many files this process may have open.";
        single(&mut encoder, "open_files_max", files, Ok(connections.open_files()))?;
        counter(
            &mut encoder,
            "connections_ended",
            "Connections that ended or were refused, by how.",
            ("how", &Ended::ALL.map(|how| (how.as_str(), connections.ended(how)))),
        )?;
        let errors = "Connections that this machine could not accept, such as for want of a file descriptor.";
        single(&mut encoder, "accept_errors", errors, Err(connections.accept_errors()))?;
        let doors = Door::ALL.map(|door| (door.as_str(), connections.calls(door)));
        gauge(
            &mut encoder,
            "calls_in_flight",
            "Requests in flight, open watches and event streams included, by who asks.",
            ("door", &doors.map(|(door, counts)| (door, counts.in_flight))),
        )?;
        gauge(
            &mut encoder,
            "calls_in_flight_max",
            "Most requests in flight at once, by who asks.",
            ("door", &doors.map(|(door, counts)| (door, counts.caps.total))),
        )?;
        counter(
            &mut encoder,
            "calls_refused",
            "Requests that were refused because too many were in flight, by who asks.",
            ("door", &doors.map(|(door, counts)| (door, counts.refused))),
        )
    }
}
