//! The spans of a rotation and its phases, made from the record as it changes.

use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry::KeyValue;
use opentelemetry::trace::{SpanId, Status};
use rotacast_proto::Envelope;
use rotacast_protocol::record::{Finished, Rotation, SecretRecord};
use rotacast_protocol::{ClusterName, Outcome, Phase, RotationId, SecretName, Version, WallTime};

use super::calls::Calls;
use super::spans::{cut, span, time};
use super::{RotationTrace, Traces};

/// How long ago a rotation may have ended for a new leader to send its spans once more: its predecessor may have died
/// before they were out. Collectors keep one of two equal spans.
const MAY_BE_LOST_MS: u64 = 60_000;

/// A rotation, and the phases it has entered so far.
struct Open {
    trace: RotationTrace,
    rotation: Rotation,
}

/// What one secret's task keeps for its traces; nothing while they are off.
pub struct RotationSpans {
    traces: Traces,
    open: Option<Box<Open>>,
    calls: Arc<Mutex<Calls>>,
}

impl RotationSpans {
    /// For a task that begins with this record.
    #[must_use]
    pub fn new(traces: Traces, record: &SecretRecord, now: WallTime) -> Self {
        let mut spans = Self { traces, open: None, calls: Arc::default() };
        let Some(cluster) = spans.traces.cluster().cloned() else { return spans };
        let recent = |finished: &&Finished| now.0.saturating_sub(finished.ended.0) < MAY_BE_LOST_MS;
        if let Some(finished) = record.history.last().filter(recent) {
            let trace = RotationTrace::of(&cluster, &record.secret, finished.generation, finished.started);
            spans.ended(&cluster, record, &trace, finished, None);
        }
        spans.open = open(&cluster, record);
        if let Some(open) = &spans.open {
            // What a predecessor may not have got out.
            for (phase, from, to) in phases(&open.rotation).into_iter().filter_map(|(p, f, t)| Some((p, f, t?))) {
                spans.phase(&record.secret, &open.trace, phase, (from, to));
            }
        }
        spans
    }

    /// Takes in the record as it is after one change.
    pub fn changed(&mut self, record: &SecretRecord) {
        let Some(cluster) = self.traces.cluster().cloned() else { return };
        let before = self.open.take();
        self.open = match (&before, &record.rotation) {
            (Some(before), Some(now)) if before.rotation.generation == now.generation => {
                if before.rotation.phase != now.phase {
                    let times = (before.rotation.phase_since, now.phase_since);
                    self.phase(&record.secret, &before.trace, before.rotation.phase, times);
                }
                Some(Box::new(Open { trace: before.trace, rotation: now.clone() }))
            }
            _ => {
                if let Some(before) = &before {
                    let generation = before.rotation.generation;
                    if let Some(finished) = record.history.iter().rev().find(|it| it.generation == generation) {
                        self.ended(&cluster, record, &before.trace, finished, Some(&before.rotation));
                    }
                }
                open(&cluster, record)
            }
        };
        self.calls().forget(record);
    }

    /// The trace of the rotation in flight.
    #[must_use]
    pub fn trace(&self) -> Option<RotationTrace> {
        self.open.as_ref().map(|open| open.trace)
    }

    /// The W3C header of what happens to the rotation now.
    #[must_use]
    pub fn traceparent(&self) -> Option<String> {
        self.open.as_ref().map(|open| open.trace.traceparent(open.rotation.phase))
    }

    /// What the calls of its provider go by.
    pub(super) fn shared_calls(&self) -> Arc<Mutex<Calls>> {
        Arc::clone(&self.calls)
    }

    /// Where its spans go.
    pub(super) fn traces(&self) -> &Traces {
        &self.traces
    }

    fn calls(&self) -> std::sync::MutexGuard<'_, Calls> {
        // Whole after every call on it.
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn phase(&self, secret: &SecretName, trace: &RotationTrace, phase: Phase, (from, to): (WallTime, WallTime)) {
        let attributes = vec![
            KeyValue::new("rotacast.secret", secret.to_string()),
            KeyValue::new("rotacast.phase", phase.to_string()),
        ];
        let times = (time(from), time(to));
        self.traces.send(span(trace, trace.phase(phase), trace.root(), phase.to_string(), times, attributes));
    }

    /// The last phase, and the rotation itself. `open`: as it was before it ended, if this replica saw it.
    fn ended(
        &self,
        cluster: &ClusterName,
        record: &SecretRecord,
        trace: &RotationTrace,
        finished: &Finished,
        open: Option<&Rotation>,
    ) {
        if let Some(rotation) = open {
            self.phase(&record.secret, trace, rotation.phase, (rotation.phase_since, finished.ended));
        }
        let id = RotationId { secret: record.secret.clone(), generation: finished.generation };
        let number = |version: Version| i64::try_from(version.get()).unwrap_or(i64::MAX);
        let mut attributes = vec![
            KeyValue::new("rotacast.cluster", cluster.to_string()),
            KeyValue::new("rotacast.secret", record.secret.to_string()),
            KeyValue::new("rotacast.rotation", id.to_string()),
            KeyValue::new("rotacast.version", number(finished.new)),
            KeyValue::new("rotacast.outcome", finished.outcome.to_string()),
        ];
        attributes.extend(finished.old.map(|old| KeyValue::new("rotacast.old_version", number(old))));
        let times = (time(finished.started), time(finished.ended));
        let mut root =
            span(trace, trace.root(), SpanId::INVALID, format!("rotate {}", record.secret), times, attributes);
        root.status = match finished.outcome {
            Outcome::Retired => Status::Ok,
            Outcome::RolledBack => Status::error(cut(&finished.reason)),
            Outcome::Superseded => Status::Unset,
        };
        self.traces.send(root);
    }
}

fn open(cluster: &ClusterName, record: &SecretRecord) -> Option<Box<Open>> {
    let rotation = record.rotation.clone()?;
    let trace = RotationTrace::of(cluster, &record.secret, rotation.generation, rotation.started);
    Some(Box::new(Open { trace, rotation }))
}

/// The phases that a rotation in flight has entered, with their ends; the last one has none.
fn phases(rotation: &Rotation) -> Vec<(Phase, WallTime, Option<WallTime>)> {
    vec![(rotation.phase, rotation.phase_since, None)]
}

/// Where in which trace work on a version belongs: the rotation in flight, else the last one that the version was part of.
#[must_use]
pub fn place_of(traces: &Traces, record: &SecretRecord, version: Version) -> Option<(RotationTrace, SpanId)> {
    let cluster = traces.cluster()?;
    if let Some(rotation) = &record.rotation {
        let trace = RotationTrace::of(cluster, &record.secret, rotation.generation, rotation.started);
        return Some((trace, trace.phase(rotation.phase)));
    }
    let part = |it: &&Finished| it.new == version || it.old == Some(version);
    let finished = record.history.iter().rev().find(part)?;
    let trace = RotationTrace::of(cluster, &record.secret, finished.generation, finished.started);
    Some((trace, trace.root()))
}

/// Lets whoever acts on this message join the trace of the record's rotation.
#[must_use]
pub fn envelope_of(traces: &Traces, record: &SecretRecord, mut envelope: Envelope) -> Envelope {
    if let (Some(cluster), Some(rotation)) = (traces.cluster(), &record.rotation) {
        let trace = RotationTrace::of(cluster, &record.secret, rotation.generation, rotation.started);
        envelope.traceparent = trace.traceparent(rotation.phase);
    }
    envelope
}

#[cfg(test)]
mod tests;
