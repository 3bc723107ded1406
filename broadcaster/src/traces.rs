//! Traces: one for each rotation, a span for each phase and for each call of a provider, sent by OTLP over HTTP.
//!
//! Ids are derived from the record ([`RotationTrace`]), so every replica joins the same trace and nothing is stored for it.
//! Nothing here can hold a rotation up: spans go into a queue with a bound, and what does not fit or cannot be delivered is
//! counted, and told once.

mod calls;
mod client;
mod exporter;
mod ids;
mod provider;
mod rotations;
mod spans;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry_sdk::trace::SpanData;
use rotacast_protocol::ClusterName;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

pub(crate) use exporter::check;
pub use exporter::{EXPORT_TIMEOUT, LINGER, MAX_BATCH, MAX_WAITING, start};
pub use ids::RotationTrace;
pub use provider::TracedProvider;
pub use rotations::{RotationSpans, envelope_of, place_of};

/// Where spans go; cheap to clone. By default nowhere.
#[derive(Clone, Default)]
pub struct Traces(Option<Arc<Inner>>);

struct Inner {
    cluster: ClusterName,
    queue: mpsc::Sender<SpanData>,
    counts: Arc<Counts>,
}

/// What has become of the spans so far.
#[derive(Default, Debug)]
pub struct Counts {
    sent: AtomicU64,
    lost: AtomicU64,
}

impl Counts {
    /// Taken by the collector.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Lost: the queue was full, or the collector did not take them.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Traces {
    /// No traces, at no cost.
    #[must_use]
    pub fn off() -> Self {
        Self(None)
    }

    fn new(cluster: ClusterName, queue: mpsc::Sender<SpanData>, counts: Arc<Counts>) -> Self {
        Self(Some(Arc::new(Inner { cluster, queue, counts })))
    }

    /// Whether spans are sent anywhere.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// What has become of the spans; none while traces are off.
    #[must_use]
    pub fn counts(&self) -> Option<&Counts> {
        self.0.as_ref().map(|inner| &*inner.counts)
    }

    fn cluster(&self) -> Option<&ClusterName> {
        self.0.as_ref().map(|inner| &inner.cluster)
    }

    /// Never waits: a span that finds the queue full is lost, and counted.
    fn send(&self, span: SpanData) {
        if let Some(inner) = &self.0
            && inner.queue.try_send(span).is_err()
        {
            inner.counts.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The task that sends spans.
pub struct Exporting {
    traces: Traces,
    task: JoinHandle<()>,
    stop: tokio_util::sync::CancellationToken,
}

impl Exporting {
    /// What hands spans to it.
    #[must_use]
    pub fn traces(&self) -> Traces {
        self.traces.clone()
    }

    /// Sends what waits, for at most `limit`, and ends.
    pub async fn close(self, limit: Duration) {
        self.stop.cancel();
        // Beyond the limit the rest is lost: a collector that is gone must not keep a broadcaster from ending.
        if tokio::time::timeout(limit, self.task).await.is_err() {
            tracing::warn!("the collector of traces did not take the last spans in time");
        }
    }
}
