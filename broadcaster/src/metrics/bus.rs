//! The broadcaster's side of a bus, measured.

use std::fmt;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use rotacast_bus::{BusError, BusEvent, LeaderBus, LogFill, Stray, SyncCall};
use rotacast_proto::{Envelope, Finding};
use rotacast_protocol::{InstanceKey, Revision, SecretName};

use super::calls::{Calls, Kind};
use super::label::{Counters, counters};

const CALLS: [&str; 5] = ["publish_state", "read_state", "prune_registration", "read_claim", "publish_claim"];
const WAITS: [&str; 3] = ["watch_registrations", "watch_reports", "serve_sync"];
/// What a broadcaster reads.
const LOGS: [&str; 2] = ["registrations", "reports"];

impl Kind for BusError {
    const ALL: &'static [&'static str] =
        &["unreachable", "no_leader", "denied", "misconfigured", "full", "unknown", "too_large", "fenced"];

    fn kind(&self) -> Option<&'static str> {
        Some(match self {
            BusError::Unreachable { .. } => "unreachable",
            BusError::NoLeader { .. } => "no_leader",
            BusError::Denied { .. } => "denied",
            BusError::Misconfigured { .. } => "misconfigured",
            BusError::Full { .. } => "full",
            BusError::Unknown { .. } => "unknown",
            BusError::TooLarge { .. } => "too_large",
            BusError::Fenced { .. } => "fenced",
            BusError::Cancelled => return None,
        })
    }
}

/// What is counted of a bus.
#[derive(Clone, Debug)]
pub(super) struct BusCounts {
    calls: Calls,
    messages: Counters<1>,
    resyncs: Counters<1>,
    kept: Kept,
}

impl BusCounts {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let kept = Kept::default();
        registry.register_collector(Box::new(kept.clone()));
        Self {
            kept,
            calls: Calls::register::<BusError>(registry, "bus", &CALLS, &WAITS),
            messages: counters(registry, "bus_messages", "Messages that were read from the bus", "log", &LOGS),
            resyncs: counters(
                registry,
                "bus_resyncs",
                "How often a log was read again because continuity was lost",
                "log",
                &LOGS,
            ),
        }
    }

    fn watch(
        &self,
        log: &'static str,
        operation: &'static str,
        events: BoxStream<'static, Result<BusEvent, BusError>>,
    ) -> BoxStream<'static, Result<BusEvent, BusError>> {
        let counts = self.clone();
        let told = move |event: &Result<BusEvent, BusError>| {
            let family = match event {
                Ok(BusEvent::Message(_)) => &counts.messages,
                Ok(BusEvent::Resync) => &counts.resyncs,
                Ok(BusEvent::CaughtUp) => return,
                Err(problem) => return counts.calls.failed(operation, problem),
            };
            family.get_or_create(&[("log", log)]).inc();
        };
        events.inspect(told).boxed()
    }
}

/// The bus inside, with every call and every message counted.
pub(super) struct MeasuredBus {
    inner: Arc<dyn LeaderBus>,
    counts: BusCounts,
}

impl MeasuredBus {
    pub(super) fn new(inner: Arc<dyn LeaderBus>, counts: BusCounts) -> Self {
        // Given once, at the start; a second time changes nothing.
        let _ = counts.kept.0.set(Arc::clone(&inner));
        Self { inner, counts }
    }
}

/// What the bus counts itself.
#[derive(Clone, Default)]
struct Kept(Arc<OnceLock<Arc<dyn LeaderBus>>>);

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kept")
    }
}

impl Collector for Kept {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let (strays, fills) = match self.0.get() {
            Some(bus) => (bus.strays(), bus.fills()),
            None => (Vec::new(), Vec::new()),
        };
        let help = "Messages that were dropped because the login that sent them may not send them, or because they are \
                    none of Rotacast's";
        let mut family = encoder.encode_descriptor("bus_strays", help, None, MetricType::Counter)?;
        for kind in Stray::ALL {
            let count = strays.iter().find(|(stray, _)| *stray == kind).map_or(0, |(_, count)| *count);
            ConstCounter::new(count).encode(family.encode_family(&[("kind", kind.as_str())])?)?;
        }
        let help = "How full a log of the bus is, from 0 to 1, where the bus knows; looked at every 15 seconds";
        let mut family = encoder.encode_descriptor("bus_log_fill", help, None, MetricType::Gauge)?;
        for log in ["states", "registrations", "reports"] {
            let fill = fills.iter().find(|fill| fill.log == log).map_or(0.0, |fill| fill.fill);
            ConstGauge::new(fill).encode(family.encode_family(&[("log", log)])?)?;
        }
        Ok(())
    }
}

#[async_trait]
impl LeaderBus for MeasuredBus {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    async fn publish_over(
        &self,
        secret: &SecretName,
        revision: Revision,
        state: &Envelope,
        over: Option<&Envelope>,
    ) -> Result<(), BusError> {
        self.counts.calls.measure("publish_state", self.inner.publish_over(secret, revision, state, over)).await
    }

    async fn read_state(&self, secret: &SecretName) -> Result<Option<Envelope>, BusError> {
        self.counts.calls.measure("read_state", self.inner.read_state(secret)).await
    }

    async fn read_claim(&self) -> Result<Option<Envelope>, BusError> {
        self.counts.calls.measure("read_claim", self.inner.read_claim()).await
    }

    async fn publish_claim(&self, claim: &Envelope) -> Result<(), BusError> {
        self.counts.calls.measure("publish_claim", self.inner.publish_claim(claim)).await
    }

    fn watch_registrations(&self) -> BoxStream<'static, Result<BusEvent, BusError>> {
        self.counts.watch("registrations", "watch_registrations", self.inner.watch_registrations())
    }

    async fn prune_registration(&self, key: &InstanceKey) -> Result<(), BusError> {
        self.counts.calls.measure("prune_registration", self.inner.prune_registration(key)).await
    }

    fn watch_reports(&self) -> BoxStream<'static, Result<BusEvent, BusError>> {
        self.counts.watch("reports", "watch_reports", self.inner.watch_reports())
    }

    fn serve_sync(&self) -> BoxStream<'static, Result<SyncCall, BusError>> {
        let counts = self.counts.clone();
        let told = move |call: &Result<SyncCall, BusError>| {
            if let Err(problem) = call {
                counts.calls.failed("serve_sync", problem);
            }
        };
        self.inner.serve_sync().inspect(told).boxed()
    }

    fn sweep_registration(&self, key: &InstanceKey) {
        self.inner.sweep_registration(key);
    }

    async fn examine(&self) -> Vec<Finding> {
        self.inner.examine().await
    }

    fn strays(&self) -> Vec<(Stray, u64)> {
        self.inner.strays()
    }

    fn fills(&self) -> Vec<LogFill> {
        self.inner.fills()
    }
}
