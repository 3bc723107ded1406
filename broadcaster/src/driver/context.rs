//! What every line says that a secret's task and its effects log: which secret, rotation, phase and version.

use rotacast_protocol::coordinator::Command;
use rotacast_protocol::record::SecretRecord;
use rotacast_protocol::{Generation, Phase, SecretName};
use tracing::field::Empty;
use tracing::{Span, error_span, info};

use crate::traces::RotationTrace;

/// The span around a secret's task, kept in step with its record.
pub(super) struct LogContext {
    span: Span,
    told: Option<(Generation, Phase)>,
}

impl LogContext {
    /// At the level of an error, so that no filter that lets lines through takes their fields away.
    pub(super) fn new(secret: &SecretName) -> Self {
        let span = error_span!(
            parent: None, "secret", %secret,
            rotation = Empty, phase = Empty, old = Empty, new = Empty, trace_id = Empty
        );
        Self { span, told: None }
    }

    pub(super) fn span(&self) -> Span {
        self.span.clone()
    }

    /// Follows the record, and says when a rotation enters a phase.
    pub(super) fn changed(&mut self, record: &SecretRecord, trace: Option<RotationTrace>) {
        let Some(rotation) = &record.rotation else {
            if let Some((generation, _)) = self.told.take() {
                let ended = record.history.iter().rev().find(|ended| ended.generation == generation);
                if let Some(ended) = ended {
                    info!(parent: &self.span, outcome = %ended.outcome, reason = ended.reason, "the rotation has ended");
                }
                // A field that is empty is none.
                for field in ["rotation", "phase", "old", "new", "trace_id"] {
                    self.span.record(field, "");
                }
            }
            return;
        };
        let now = (rotation.generation, rotation.phase);
        if self.told == Some(now) {
            return;
        }
        self.told = Some(now);
        self.span.record("rotation", format!("{}@{}", record.secret, rotation.number));
        self.span.record("phase", rotation.phase.as_str());
        if let Some(old) = rotation.old {
            self.span.record("old", old.get());
        }
        self.span.record("new", rotation.new.get());
        if let Some(trace) = trace {
            self.span.record("trace_id", trace.trace_id().to_string());
        }
        info!(parent: &self.span, "the rotation is in this phase now");
    }

    /// Around one effect.
    pub(super) fn effect(&self, command: &Command) -> Span {
        let span = error_span!(parent: &self.span, "effect", command = command.kind.name().as_str(), version = Empty);
        if let Some(version) = command.kind.version() {
            span.record("version", version.get());
        }
        span
    }
}
