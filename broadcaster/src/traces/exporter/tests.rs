//! The queue before a collector that fails, hangs or is absent.

use std::fmt;
use std::sync::Mutex;

use opentelemetry::trace::SpanId;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use rotacast_protocol::{Generation, SecretName, WallTime};
use tokio::sync::{Semaphore, watch};

use super::*;
use crate::traces::RotationTrace;
use crate::traces::spans::{span, time};

/// A collector that accepts, refuses, or waits for a permit before each batch.
#[derive(Clone)]
struct Fake {
    refuses: Arc<Mutex<bool>>,
    permits: Option<Arc<Semaphore>>,
    batches: watch::Sender<Vec<Result<usize, usize>>>,
}

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fake")
    }
}

impl Fake {
    fn new(permits: Option<Arc<Semaphore>>) -> Self {
        Self { refuses: Arc::default(), permits, batches: watch::Sender::new(Vec::new()) }
    }

    fn refuse(&self, refuses: bool) {
        *self.refuses.lock().unwrap() = refuses;
    }

    /// Waits until so many batches have arrived.
    async fn batches(&self, count: usize) -> Vec<Result<usize, usize>> {
        self.batches.subscribe().wait_for(|batches| batches.len() >= count).await.unwrap().clone()
    }
}

impl SpanExporter for Fake {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        if let Some(permits) = &self.permits {
            permits.acquire().await.unwrap().forget();
        }
        let refuses = *self.refuses.lock().unwrap();
        let count = batch.len();
        self.batches.send_modify(|batches| batches.push(if refuses { Err(count) } else { Ok(count) }));
        if refuses { Err(OTelSdkError::InternalFailure("HTTP 503".into())) } else { Ok(()) }
    }
}

fn cluster() -> ClusterName {
    ClusterName::new("test").unwrap()
}

fn any() -> SpanData {
    let secret = SecretName::new("payments/db").unwrap();
    let trace = RotationTrace::of(&cluster(), &secret, Generation(1), WallTime(1));
    span(&trace, trace.root(), SpanId::INVALID, "any", (time(WallTime(1)), time(WallTime(2))), Vec::new())
}

/// Waits until the counts are as wanted. Paused time advances by itself while no task runs.
async fn counted(traces: &Traces, sent: u64, lost: u64) {
    let counts = traces.counts().unwrap();
    while (counts.sent(), counts.lost()) != (sent, lost) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn spans_go_out_in_batches_with_a_bound() {
    let fake = Fake::new(None);
    let exporting = start_with(fake.clone(), &cluster(), "one");
    let traces = exporting.traces();
    for _ in 0..MAX_BATCH + 1 {
        traces.send(any());
    }
    assert_eq!(fake.batches(2).await, [Ok(MAX_BATCH), Ok(1)]);
    counted(&traces, MAX_BATCH as u64 + 1, 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_collector_that_hangs_costs_spans_and_nothing_else() {
    let permits = Arc::new(Semaphore::new(0));
    let fake = Fake::new(Some(Arc::clone(&permits)));
    let exporting = start_with(fake.clone(), &cluster(), "one");
    let traces = exporting.traces();
    // Never waits although the collector takes nothing: the first span is being sent before the others arrive.
    traces.send(any());
    tokio::time::sleep(LINGER * 2).await;
    for _ in 0..MAX_WAITING + 10 {
        traces.send(any());
    }
    assert_eq!(traces.counts().unwrap().lost(), 10);
    // The batch in flight is given up.
    tokio::time::sleep(EXPORT_TIMEOUT * 2).await;
    counted(&traces, 0, 11).await;
    permits.add_permits(100);
    counted(&traces, MAX_WAITING as u64, 11).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_collector_refuses_is_counted_and_later_spans_go_out() {
    let fake = Fake::new(None);
    fake.refuse(true);
    let exporting = start_with(fake.clone(), &cluster(), "one");
    let traces = exporting.traces();
    traces.send(any());
    fake.batches(1).await;
    counted(&traces, 0, 1).await;
    fake.refuse(false);
    traces.send(any());
    assert_eq!(fake.batches(2).await, [Err(1), Ok(1)]);
    counted(&traces, 1, 1).await;
}

#[tokio::test(start_paused = true)]
async fn the_end_waits_for_the_last_spans_but_not_for_ever() {
    let fake = Fake::new(None);
    let exporting = start_with(fake.clone(), &cluster(), "one");
    let traces = exporting.traces();
    traces.send(any());
    exporting.close(Duration::from_secs(2)).await;
    assert_eq!(traces.counts().unwrap().sent(), 1);

    let never = Fake::new(Some(Arc::new(Semaphore::new(0))));
    let exporting = start_with(never, &cluster(), "one");
    exporting.traces().send(any());
    // Paused time: this ends, or the test hangs.
    exporting.close(Duration::from_secs(2)).await;
}

#[test]
fn headers_are_read_and_a_faulty_line_is_named_without_its_text() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("headers");
    std::fs::write(&file, "authorization: Bearer abc:def\n\nx-team: payments\n").unwrap();
    let headers = read_headers(&file).unwrap();
    assert_eq!(headers["authorization"], "Bearer abc:def");
    assert_eq!(headers.len(), 2);
    std::fs::write(&file, "x-team: payments\nBearer-abcdef\n").unwrap();
    let problem = format!("{:#}", read_headers(&file).unwrap_err());
    assert!(problem.contains(":2: expected") && !problem.contains("abcdef"), "{problem}");
}
