//! The spans of a rotation and its phases, made from the record as it changes.

use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry::KeyValue;
use opentelemetry::trace::{SpanId, Status};
use rotacast_proto::Envelope;
use rotacast_protocol::record::{Finished, PhaseEntered, SecretRecord};
use rotacast_protocol::{ClusterName, Generation, Outcome, Phase, RotationId, SecretName, Version, WallTime};

use super::calls::Calls;
use super::spans::{cut, span, time};
use super::{RotationTrace, Traces};

/// How long ago a rotation may have ended for a new leader to send its spans once more: its predecessor may have died
/// before they were out. Collectors keep one of two equal spans.
const MAY_BE_LOST_MS: u64 = 60_000;

/// The rotation in flight.
struct Open {
    trace: RotationTrace,
    generation: Generation,
    phase: Phase,
    /// How many of its phases are over, and sent.
    sent: usize,
}

/// What one secret's task keeps for its traces; nothing while they are off.
pub struct RotationSpans {
    traces: Traces,
    open: Option<Open>,
    calls: Arc<Mutex<Calls>>,
}

impl RotationSpans {
    /// For a task that begins with this record. What its predecessor may not have got out is sent once more.
    #[must_use]
    pub fn new(traces: Traces, record: &SecretRecord, now: WallTime) -> Self {
        let mut spans = Self { traces, open: None, calls: Arc::default() };
        let Some(cluster) = spans.traces.cluster().cloned() else { return spans };
        let recent = |finished: &&Finished| now.0.saturating_sub(finished.ended.0) < MAY_BE_LOST_MS;
        if let Some(finished) = record.history.last().filter(recent) {
            spans.ended(&cluster, &record.secret, finished, 0);
        }
        spans.changed(record);
        spans
    }

    /// Takes in the record as it is after a change.
    pub fn changed(&mut self, record: &SecretRecord) {
        let Some(cluster) = self.traces.cluster().cloned() else { return };
        let secret = &record.secret;
        let mut sent = 0;
        if let Some(before) = self.open.take() {
            if record.rotation.as_ref().is_some_and(|now| now.generation == before.generation) {
                sent = before.sent;
            } else if let Some(ended) = record.history.iter().rev().find(|it| it.generation == before.generation) {
                self.ended(&cluster, secret, ended, before.sent);
            }
        }
        if let Some(rotation) = &record.rotation {
            let trace = RotationTrace::of(&cluster, secret, rotation.generation, rotation.started);
            let sent = self.phases(secret, &trace, &rotation.phases, sent, None);
            self.open = Some(Open { trace, generation: rotation.generation, phase: rotation.phase, sent });
        }
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
        self.open.as_ref().map(|open| open.trace.traceparent(open.phase))
    }

    /// How the last calls of its provider went.
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

    /// Sends every phase that is over, from the `sent`th on: the last one is once the rotation has `ended`. Returns how
    /// many are sent by then.
    fn phases(
        &self,
        secret: &SecretName,
        trace: &RotationTrace,
        phases: &[PhaseEntered],
        sent: usize,
        ended: Option<WallTime>,
    ) -> usize {
        let ends = phases.iter().skip(1).map(|next| next.at).chain(ended);
        let over = phases.iter().zip(ends).skip(sent);
        let mut all = sent;
        for (entered, end) in over {
            let (phase, times) = (entered.phase, (time(entered.at), time(end)));
            let attributes = vec![
                KeyValue::new("rotacast.secret", secret.to_string()),
                KeyValue::new("rotacast.phase", phase.as_str()),
            ];
            self.traces.send(span(trace, trace.phase(phase), trace.root(), phase.as_str(), times, attributes));
            all += 1;
        }
        all
    }

    /// The phases that were not sent yet, and the rotation itself.
    fn ended(&self, cluster: &ClusterName, secret: &SecretName, finished: &Finished, sent: usize) {
        let trace = RotationTrace::of(cluster, secret, finished.generation, finished.started);
        self.phases(secret, &trace, &finished.phases, sent, Some(finished.ended));
        let id = RotationId { secret: secret.clone(), generation: finished.generation };
        let number = |version: Version| i64::try_from(version.get()).unwrap_or(i64::MAX);
        let mut attributes = vec![
            KeyValue::new("rotacast.cluster", cluster.to_string()),
            KeyValue::new("rotacast.secret", secret.to_string()),
            KeyValue::new("rotacast.rotation", id.to_string()),
            KeyValue::new("rotacast.version", number(finished.new)),
            KeyValue::new("rotacast.outcome", finished.outcome.to_string()),
        ];
        attributes.extend(finished.old.map(|old| KeyValue::new("rotacast.old_version", number(old))));
        let times = (time(finished.started), time(finished.ended));
        let mut root = span(&trace, trace.root(), SpanId::INVALID, format!("rotate {secret}"), times, attributes);
        root.status = match finished.outcome {
            Outcome::Retired => Status::Ok,
            Outcome::RolledBack => Status::error(cut(&finished.reason)),
            Outcome::Superseded => Status::Unset,
        };
        self.traces.send(root);
    }
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

/// Lets an instance that acts on this message join the trace of the record's rotation.
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
