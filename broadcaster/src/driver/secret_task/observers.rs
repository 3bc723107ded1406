//! What follows every change as it is applied: figures, spans and log lines.

use rotacast_clock as clock;
use rotacast_protocol::Now;
use rotacast_protocol::coordinator::{Change, Command, Coordinator};
use rotacast_protocol::machine::Observer;
use rotacast_protocol::record::SecretRecord;
use tracing::Span;

use super::super::Environment;
use super::super::context::LogContext;
use crate::metrics::{Metrics, Stood};
use crate::traces::RotationSpans;

/// The observers of one secret's machine.
pub(super) struct Observers {
    metrics: Metrics,
    pub(super) spans: RotationSpans,
    context: LogContext,
    stood: Option<Stood>,
}

impl Observers {
    pub(super) fn new(environment: &Environment, record: &SecretRecord) -> Self {
        let spans = RotationSpans::new(environment.traces.clone(), record, clock::wall());
        let mut context = LogContext::new(&record.secret);
        context.changed(record, spans.trace());
        Self { metrics: environment.metrics.clone(), spans, context, stood: None }
    }

    /// The span around the whole task.
    pub(super) fn span(&self) -> Span {
        self.context.span()
    }

    /// The span around one effect.
    pub(super) fn effect(&self, command: &Command) -> Span {
        self.context.effect(command)
    }
}

impl Observer for Observers {
    fn before(&mut self, coordinator: &Coordinator, change: &Change) {
        self.stood = self.metrics.rotations().before(coordinator, change);
    }

    fn after(&mut self, coordinator: &Coordinator, change: &Change, now: Now) {
        self.metrics.rotations().after(self.stood.take(), change, coordinator, now.wall);
        if matches!(change, Change::Record(_)) {
            let record = coordinator.record();
            self.spans.changed(record);
            self.context.changed(record, self.spans.trace());
        }
    }
}
