//! The ids of a rotation's trace, derived so that every replica finds the same ones.

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use rotacast_protocol::{ClusterName, Generation, Phase, SecretName, WallTime};
use sha2::{Digest as _, Sha256};

/// Separate what is hashed here from anything else.
const TRACE_DOMAIN: &[u8] = b"rotacast-trace-1";
const SPAN_DOMAIN: &[u8] = b"rotacast-span-1";

/// One rotation's trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RotationTrace {
    trace: TraceId,
    root: SpanId,
}

impl RotationTrace {
    /// Derived from what the record says of the rotation. The start tells a rotation from one of the same number in a store
    /// that was emptied or restored.
    #[must_use]
    pub fn of(cluster: &ClusterName, secret: &SecretName, generation: Generation, started: WallTime) -> Self {
        let mut hash = Sha256::new();
        hash.update(TRACE_DOMAIN);
        for text in [cluster.as_str(), secret.as_str()] {
            // Behind its length, so that no two pairs of names share an input.
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        }
        hash.update(generation.0.to_be_bytes());
        hash.update(started.0.to_be_bytes());
        let digest: [u8; 32] = hash.finalize().into();
        let (mut trace, mut root) = ([0; 16], [0; 8]);
        trace.copy_from_slice(&digest[..16]);
        root.copy_from_slice(&digest[16..24]);
        Self { trace: TraceId::from_bytes(trace), root: SpanId::from_bytes(root) }
    }

    /// The trace's id.
    #[must_use]
    pub fn trace_id(&self) -> TraceId {
        self.trace
    }

    /// The span of the whole rotation.
    #[must_use]
    pub fn root(&self) -> SpanId {
        self.root
    }

    /// The span of one phase: a rotation enters each at most once.
    #[must_use]
    pub fn phase(&self, phase: Phase) -> SpanId {
        let mut hash = Sha256::new();
        hash.update(SPAN_DOMAIN);
        hash.update(self.trace.to_bytes());
        hash.update(phase.as_str());
        let digest: [u8; 32] = hash.finalize().into();
        let mut id = [0; 8];
        id.copy_from_slice(&digest[..8]);
        SpanId::from_bytes(id)
    }

    pub(super) fn context(&self, span: SpanId) -> SpanContext {
        SpanContext::new(self.trace, span, TraceFlags::SAMPLED, false, TraceState::NONE)
    }

    /// The W3C header of something that happens in a phase.
    #[must_use]
    pub fn traceparent(&self, phase: Phase) -> String {
        format!("00-{}-{}-01", self.trace, self.phase(phase))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(cluster: &str, secret: &str, generation: u64, started: u64) -> RotationTrace {
        let (cluster, secret) = (ClusterName::new(cluster).unwrap(), SecretName::new(secret).unwrap());
        RotationTrace::of(&cluster, &secret, Generation(generation), WallTime(started))
    }

    /// Replicas of two releases must agree while one is rolled out: these values never change.
    #[test]
    fn the_ids_are_these() {
        let trace = of("prod", "payments/db", 7, 1_795_392_000_000);
        assert_eq!(trace.traceparent(Phase::Preparing), "00-bca3e1ed9830a91496ab9097906e35f1-64a550d39c8f2afa-01");
        assert_eq!(trace.root().to_string(), "cf24f1b227bed58d");
    }

    #[test]
    fn whatever_differs_makes_another_trace() {
        let one = of("prod", "payments/db", 7, 1000);
        assert_eq!(one, of("prod", "payments/db", 7, 1000));
        let others = [
            of("stage", "payments/db", 7, 1000),
            of("prod", "payments/dc", 7, 1000),
            of("prod", "payments/db", 8, 1000),
            of("prod", "payments/db", 7, 1001),
            // Where one name ends and the other begins is part of it.
            of("prodp", "ayments/db", 7, 1000),
        ];
        for other in others {
            assert_ne!(one.trace_id(), other.trace_id());
            assert_ne!(one.root(), other.root());
        }
    }

    #[test]
    fn every_phase_has_a_span_of_its_own() {
        let trace = of("prod", "payments/db", 7, 1000);
        let phases = [
            Phase::Verifying,
            Phase::Preparing,
            Phase::Activating,
            Phase::Draining,
            Phase::Retiring,
            Phase::RollingBack,
        ];
        let mut spans: Vec<String> = phases.iter().map(|phase| trace.phase(*phase).to_string()).collect();
        spans.push(trace.root().to_string());
        spans.sort();
        spans.dedup();
        assert_eq!(spans.len(), phases.len() + 1);
    }
}
