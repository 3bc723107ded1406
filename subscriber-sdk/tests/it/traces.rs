//! The spans of an instance in a rotation, made by the service's own tracer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry::global;
use opentelemetry::trace::{SpanId, Status, TraceContextExt as _};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use rotacast_subscriber::testing::FakeCluster;
use rotacast_subscriber::{Hooks, Refusal, Version, traceparent};

/// No other test uses it: the tracer provider belongs to the process, and would take their spans too.
const SECRET: &str = "traced/db";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PREPARING: &str = "b7ad6b7169203331";
const ACTIVATING: &str = "00f067aa0ba902b7";

fn header(span: &str) -> String {
    format!("00-{TRACE}-{span}-01")
}

/// One test does everything, because the tracer provider belongs to the process.
#[tokio::test]
async fn an_instances_work_joins_the_rotation_below_the_phase_it_acts_on() {
    let spans = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(spans.clone()).build();
    global::set_tracer_provider(provider.clone());

    let cluster = FakeCluster::new();
    cluster.put(SECRET, "one");
    let rotacast = cluster.subscriber("payments-api").unwrap();
    let seen: Arc<Mutex<BTreeMap<&str, Option<String>>>> = Arc::default();
    let note = |step: &'static str| {
        let seen = Arc::clone(&seen);
        move || {
            let current = opentelemetry::Context::current();
            let id = current.span().span_context().span_id().to_string();
            let header = traceparent().filter(|header| header.contains(&id));
            seen.lock().unwrap().insert(step, header);
        }
    };
    let (prepare, switch, release) = (note("prepare"), note("switch"), note("release"));
    let hooks = Hooks::new()
        .on_prepare(move |new| {
            prepare();
            async move { if new.expose() == b"bad" { Err(Refusal::new("login failed")) } else { Ok(()) } }
        })
        .on_switch(move |_| {
            let switch = switch.clone();
            // After the hook has paused, the context is still the same.
            async move {
                tokio::task::yield_now().await;
                switch();
            }
        })
        .on_release(move |_| {
            release();
            async {}
        });
    let db = rotacast.secret_with(SECRET, hooks).await.unwrap();
    let guard = db.current().unwrap();
    // Nothing has rotated so far.
    assert!(spans.get_finished_spans().unwrap().iter().all(|span| span.span_context.trace_id().to_string() != TRACE));

    cluster.set_traceparent(&header(PREPARING));
    let new = cluster.propose(SECRET, "two");
    until(&spans, |spans| spans.iter().any(|span| is(span, "prepare", new))).await;
    cluster.set_traceparent(&header(ACTIVATING));
    cluster.change(SECRET, |state| {
        state.previous = state.current;
        state.current = Some(new);
        state.pending = None;
    });
    db.wait_for_change(guard.version()).await.unwrap();
    until(&spans, |spans| spans.iter().any(|span| is(span, "switch", new))).await;
    // The old version drains for as long as a guard holds it.
    assert!(!spans.get_finished_spans().unwrap().iter().any(|span| is(span, "drain", Version::FIRST)));
    drop(guard);
    let ended = until(&spans, |spans| spans.iter().any(|span| is(span, "drain", Version::FIRST))).await;

    let find = |name: &str, version| ended.iter().find(|span| is(span, name, version)).unwrap();
    let (load, prepare, switch) = (find("load", new), find("prepare", new), find("switch", new));
    let (drain, release) = (find("drain", Version::FIRST), find("release", Version::FIRST));
    for (span, parent) in [
        (load, PREPARING.to_owned()),
        (prepare, PREPARING.to_owned()),
        (switch, ACTIVATING.to_owned()),
        (drain, ACTIVATING.to_owned()),
        (release, drain.span_context.span_id().to_string()),
    ] {
        assert_eq!(span.span_context.trace_id().to_string(), TRACE, "{}", span.name);
        assert_eq!(span.parent_span_id.to_string(), parent, "{}", span.name);
        assert_eq!(span.status, Status::Unset);
    }
    // The hooks saw the span that they ran in.
    for (name, span) in [("prepare", prepare), ("switch", switch), ("release", release)] {
        let own = format!("00-{TRACE}-{}-01", span.span_context.span_id());
        assert_eq!(seen.lock().unwrap()[name].as_deref(), Some(&*own), "{name}");
    }
    assert_eq!(traceparent(), None, "outside of any hook");

    // A refusal is an error with its reason.
    let bad = cluster.propose(SECRET, "bad");
    let ended = until(&spans, |spans| spans.iter().any(|span| is(span, "prepare", bad))).await;
    let refused = ended.iter().find(|span| is(span, "prepare", bad)).unwrap();
    assert_eq!(refused.status, Status::error("login failed"));

    // Without a context, or with one that cannot be read, the work goes on in a trace of its own.
    for header in ["nonsense", "00-00000000000000000000000000000000-0000000000000000-01"] {
        cluster.set_traceparent(header);
        let next = cluster.put(SECRET, "more");
        let ended = until(&spans, |spans| spans.iter().any(|span| is(span, "switch", next))).await;
        let switch = ended.iter().find(|span| is(span, "switch", next)).unwrap();
        assert_eq!(switch.parent_span_id, SpanId::INVALID);
        assert_ne!(switch.span_context.trace_id().to_string(), TRACE);
    }
}

fn is(span: &SpanData, name: &str, version: Version) -> bool {
    let number = i64::try_from(version.get()).unwrap();
    span.name == format!("rotacast {name}")
        && span.attributes.iter().any(|it| it.key.as_str() == "rotacast.version" && it.value == number.into())
        && span.attributes.iter().any(|it| it.key.as_str() == "rotacast.secret" && it.value == SECRET.into())
}

async fn until(spans: &InMemorySpanExporter, fits: impl Fn(&[SpanData]) -> bool) -> Vec<SpanData> {
    let looking = async {
        loop {
            let ended = spans.get_finished_spans().unwrap();
            if fits(&ended) {
                return ended;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    // A test that waits this long has failed.
    tokio::time::timeout(Duration::from_secs(30), looking).await.expect("the span never ended")
}
