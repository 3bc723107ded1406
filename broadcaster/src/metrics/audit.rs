//! The audit log, measured.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::label::{Counters, counter, counters, gauge, histogram, of_calls};
use crate::audit::{AppendObserver, AuditError};

const KINDS: [&str; 7] = ["ahead", "broken", "closed", "disturbed", "doubtful", "io", "too_large"];

/// What is counted of the audit log.
#[derive(Clone, Debug)]
pub(crate) struct AuditCounts {
    appended: Counter,
    failures: Counters<1>,
    seconds: Histogram,
    writable: Gauge,
}

impl AuditCounts {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let counts = Self {
            appended: counter(registry, "audit_entries", "Entries that are durable in the audit log"),
            failures: counters(registry, "audit_failures", "Entries that the audit log did not take", "kind", &KINDS),
            seconds: histogram(
                registry,
                "audit_append_duration_seconds",
                "How long it took until an entry was durable",
                of_calls,
            ),
            writable: gauge(
                registry,
                "audit_writable",
                "Whether the audit log took the last entry (1) or not (0); nothing is retired without it",
            ),
        };
        // It was opened, and locked: what cannot be written does not start.
        counts.writable.set(1);
        counts
    }
}

impl AppendObserver for AuditCounts {
    fn appended(&self, took: Duration, outcome: Result<(), &AuditError>) {
        self.seconds.observe(took.as_secs_f64());
        let kind = match outcome {
            Ok(()) => {
                self.appended.inc();
                self.writable.set(1);
                return;
            }
            Err(AuditError::Io { .. }) => "io",
            Err(AuditError::Disturbed { .. }) => "disturbed",
            Err(AuditError::Doubtful(_)) => "doubtful",
            Err(AuditError::Ahead { .. }) => "ahead",
            Err(AuditError::TooLarge { .. }) => "too_large",
            Err(AuditError::Broken(_) | AuditError::InUse { .. }) => "broken",
            Err(AuditError::Closed) => "closed",
        };
        self.failures.get_or_create(&[("kind", kind)]).inc();
        // That one entry is too large says nothing about the next.
        if kind != "too_large" {
            self.writable.set(0);
        }
    }
}
