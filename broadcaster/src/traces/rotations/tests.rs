//! Spans made from changes of a record.

use std::sync::Arc;

use opentelemetry_sdk::trace::SpanData;
use rotacast_protocol::Epoch;
use rotacast_protocol::record::{Origin, RecordChange, Timing};
use tokio::sync::mpsc;

use super::*;
use crate::traces::{Counts, MAX_WAITING};

fn traces() -> (Traces, mpsc::Receiver<SpanData>) {
    let (queue, sent) = mpsc::channel(MAX_WAITING);
    (Traces::new(ClusterName::new("test").unwrap(), queue, Arc::new(Counts::default())), sent)
}

fn version(number: u64) -> Version {
    Version::new(number).unwrap()
}

fn all(sent: &mut mpsc::Receiver<SpanData>) -> Vec<SpanData> {
    std::iter::from_fn(|| sent.try_recv().ok()).collect()
}

fn names(spans: &[SpanData]) -> Vec<&str> {
    spans.iter().map(|span| &*span.name).collect()
}

/// A secret whose second version replaces the first: changes a second apart.
fn story() -> (SecretRecord, Vec<RecordChange>) {
    let at = |second: u64| WallTime(second * 1000);
    let timing = Timing::of(&rotacast_protocol::Policy::default());
    let mut record = SecretRecord::new(SecretName::new("payments/db").unwrap(), Epoch(1), timing);
    record.apply(&RecordChange::VersionAdded {
        version: version(1),
        origin: Origin::Watched,
        provider: None,
        at: at(1),
    });
    record.current = Some(version(1));
    let changes = vec![
        RecordChange::VersionAdded { version: version(2), origin: Origin::Watched, provider: None, at: at(2) },
        RecordChange::RotationStarted { new: version(2), trigger: "store".into(), provider: None, at: at(3) },
        RecordChange::PreparingBegan { at: at(4) },
        RecordChange::Activated { at: at(5) },
        RecordChange::DrainingBegan { at: at(6) },
        RecordChange::Sealed { version: version(1) },
        RecordChange::RetireBegan { version: version(1), at: at(7) },
        RecordChange::RetireFinished { version: version(1) },
        RecordChange::RotationEnded { outcome: Outcome::Retired, at: at(8) },
    ];
    (record, changes)
}

#[test]
fn a_phase_is_sent_when_it_ends_and_the_rotation_at_its_end() {
    let (traces, mut sent) = traces();
    let (mut record, changes) = story();
    let mut spans = RotationSpans::new(traces, &record, WallTime(0));
    let mut told = Vec::new();
    for change in &changes {
        record.apply(change);
        spans.changed(&record);
        told.push(all(&mut sent));
    }
    let by_change: Vec<Vec<&str>> = told.iter().map(|spans| names(spans)).collect();
    let (verifying, preparing, activating) = (vec!["verifying"], vec!["preparing"], vec!["activating"]);
    let last = vec!["retiring", "rotate payments/db"];
    assert_eq!(by_change, [vec![], vec![], verifying, preparing, activating, vec![], vec!["draining"], vec![], last]);
    let root = told[8].last().unwrap();
    for span in told.iter().flatten() {
        assert_eq!(span.span_context.trace_id(), root.span_context.trace_id());
        let parent = if span.name.starts_with("rotate") { SpanId::INVALID } else { root.span_context.span_id() };
        assert_eq!(span.parent_span_id, parent, "{}", span.name);
    }
    assert_eq!((root.start_time, root.end_time), (time(WallTime(3000)), time(WallTime(8000))));
    assert_eq!(root.status, Status::Ok);
    assert_eq!((told[3][0].start_time, told[3][0].end_time), (time(WallTime(4000)), time(WallTime(5000))));
}

#[test]
fn a_successor_goes_on_with_the_same_trace() {
    let (first, mut from_first) = traces();
    let (second, mut from_second) = traces();
    let (mut record, changes) = story();
    let mut spans = RotationSpans::new(first, &record, WallTime(0));
    for change in &changes[..4] {
        record.apply(change);
        spans.changed(&record);
    }
    let before = spans.traceparent().unwrap();
    let mut spans = RotationSpans::new(second, &record, WallTime(5500));
    assert_eq!(spans.traceparent().unwrap(), before);
    for change in &changes[4..] {
        record.apply(change);
        spans.changed(&record);
    }
    let (first, second) = (all(&mut from_first), all(&mut from_second));
    assert_eq!(names(&first), ["verifying", "preparing"]);
    let whole = ["verifying", "preparing", "activating", "draining", "retiring", "rotate payments/db"];
    assert_eq!(names(&second), whole);
    // Both have sent the same bytes.
    assert_eq!(second[..2], first);

    // A third leader that takes over right after the end sends everything once more.
    let (third, mut from_third) = traces();
    drop(RotationSpans::new(third.clone(), &record, WallTime(9000)));
    assert_eq!(all(&mut from_third), second);
    // Long after the end a new leader sends nothing.
    drop(RotationSpans::new(third, &record, WallTime(8000 + MAY_BE_LOST_MS)));
    assert_eq!(all(&mut from_third), []);
}

#[test]
fn a_rollback_is_an_error_with_its_reason_and_keeps_the_trace() {
    let (traces, mut sent) = traces();
    let (mut record, changes) = story();
    let mut spans = RotationSpans::new(traces, &record, WallTime(0));
    let back = RecordChange::RollbackStarted { reason: "ada does not like it".into(), at: WallTime(6000) };
    let end = RecordChange::RotationEnded { outcome: Outcome::RolledBack, at: WallTime(7000) };
    for change in changes[..4].iter().chain([&back, &RecordChange::RetireFinished { version: version(2) }, &end]) {
        record.apply(change);
        spans.changed(&record);
    }
    let told = all(&mut sent);
    assert_eq!(names(&told), ["verifying", "preparing", "activating", "rolling_back", "rotate payments/db"]);
    assert_eq!(told[4].status, Status::error("ada does not like it"));
    assert!(told.iter().all(|span| span.span_context.trace_id() == told[0].span_context.trace_id()));
}

#[test]
fn without_a_collector_nothing_is_made_and_messages_carry_nothing() {
    let (mut record, changes) = story();
    let mut spans = RotationSpans::new(Traces::off(), &record, WallTime(0));
    for change in &changes[..4] {
        record.apply(change);
        spans.changed(&record);
    }
    assert_eq!(spans.traceparent(), None);
    assert!(place_of(&Traces::off(), &record, version(2)).is_none());
}

#[test]
fn calls_after_the_end_of_a_rotation_belong_to_it_all_the_same() {
    let (traces, _sent) = traces();
    let (mut record, changes) = story();
    changes.iter().take(7).for_each(|change| record.apply(change));
    let (trace, parent) = place_of(&traces, &record, version(1)).unwrap();
    assert_eq!(parent, trace.phase(Phase::Retiring));
    changes.iter().skip(7).for_each(|change| record.apply(change));
    assert_eq!(place_of(&traces, &record, version(1)), Some((trace, trace.root())));
    assert_eq!(place_of(&traces, &record, version(9)), None);
}
