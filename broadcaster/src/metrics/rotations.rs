//! What the core decided, counted where it is applied.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use rotacast_protocol::coordinator::{Change, CommandName, Coordinator};
use rotacast_protocol::message::SecretReport;
use rotacast_protocol::record::RecordChange;
use rotacast_protocol::{InstanceKey, LeaseSequence, Outcome, Phase, ReportSequence, Version, WallTime};

use super::label::{Counters, Histograms, counter, counters, histograms, of_long_times};

/// Wall clocks differ between leaders, and are set back: what would be negative is nothing.
fn since(began: WallTime, ended: WallTime) -> f64 {
    Duration::from_millis(ended.0.saturating_sub(began.0)).as_secs_f64()
}

/// Counters of everything the core decided.
#[derive(Clone, Debug)]
pub(crate) struct Rotations {
    started: Counter,
    finished: Counters<1>,
    seconds: Histograms<1>,
    phases: Histograms<1>,
    rollbacks: Counter,
    retired: Counter,
    overrides: Counter,
    leases: Counters<1>,
    auth_failures: Counters<1>,
    command_failures: Counters<1>,
}

/// Where a rotation stood before a change.
#[derive(Clone, Copy)]
pub(crate) struct Stood {
    started: WallTime,
    phase: Phase,
    since: WallTime,
}

impl Rotations {
    pub(super) fn register(registry: &mut Registry) -> Self {
        Self {
            started: counter(registry, "rotations_started", "Rotations that began"),
            finished: counters(registry, "rotations_finished", "Rotations that ended", "outcome", Outcome::NAMES),
            seconds: histograms(
                registry,
                "rotation_duration_seconds",
                "How long rotations took, from the first phase to the end, by the leaders' wall clocks",
                ("outcome", Outcome::NAMES),
                of_long_times,
            ),
            phases: histograms(
                registry,
                "rotation_phase_duration_seconds",
                "How long rotations stayed in a phase, by the leaders' wall clocks",
                ("phase", Phase::NAMES),
                of_long_times,
            ),
            rollbacks: counter(registry, "rollbacks_started", "Rotations that began to roll back"),
            retired: counter(registry, "versions_retired", "Versions whose credential and value are gone"),
            overrides: counter(
                registry,
                "overrides",
                "Overrides: orders that a retire may cut instances or sessions off",
            ),
            leases: counters(
                registry,
                "leases_granted",
                "Usage leases of one secret granted to one instance: the first in this term, or a renewal",
                "kind",
                &["first", "renewal"],
            ),
            auth_failures: counters(
                registry,
                "authentication_failures",
                "Failed logins that instances reported, with the version that is being moved to (or is current while \
                 nothing rotates) or with any other; what was reported before this leader's term is not counted again",
                "version",
                &["new", "old"],
            ),
            command_failures: counters(
                registry,
                "command_failures",
                "Failed attempts at side effects that are outstanding; each is retried",
                "command",
                CommandName::NAMES,
            ),
        }
    }

    /// Before a change is applied: what only the state before it tells.
    pub(crate) fn before(&self, coordinator: &Coordinator, change: &Change) -> Option<Stood> {
        match change {
            Change::ReportFolded { key, sequence, report, .. } => self.folded(coordinator, key, *sequence, report),
            Change::LeaseGranted { key, .. } => {
                let member = coordinator.member_of(key);
                let first = member.is_none_or(|member| member.granted_sequence == LeaseSequence(0));
                self.leases.get_or_create(&[("kind", if first { "first" } else { "renewal" })]).inc();
            }
            Change::Troubled { command, .. } => {
                self.command_failures.get_or_create(&[("command", command.name().as_str())]).inc();
            }
            Change::Record(_) => {
                let rotation = coordinator.record().rotation.as_ref()?;
                return Some(Stood { started: rotation.started, phase: rotation.phase, since: rotation.phase_since });
            }
            _ => {}
        }
        None
    }

    /// After it was applied.
    pub(crate) fn after(&self, stood: Option<Stood>, change: &Change, coordinator: &Coordinator, now: WallTime) {
        let Change::Record(change) = change else { return };
        let counter = match change {
            RecordChange::RotationStarted { .. } => Some(&self.started),
            RecordChange::RollbackStarted { .. } => Some(&self.rollbacks),
            RecordChange::RetireFinished { .. } => Some(&self.retired),
            RecordChange::Overridden { .. } => Some(&self.overrides),
            _ => None,
        };
        if let Some(counter) = counter {
            counter.inc();
        }
        if let RecordChange::RotationEnded { outcome, .. } = change {
            let outcome = [("outcome", outcome.as_str())];
            self.finished.get_or_create(&outcome).inc();
            if let Some(stood) = stood {
                self.seconds.get_or_create(&outcome).observe(since(stood.started, now));
            }
        }
        if let Some(stood) = stood
            && coordinator.record().rotation.as_ref().map(|rotation| rotation.phase) != Some(stood.phase)
        {
            self.phases.get_or_create(&[("phase", stood.phase.as_str())]).observe(since(stood.since, now));
        }
    }

    /// Instances report how often logins have failed since they began. The first report that a leader hears is where it
    /// counts from: an earlier leader has counted what was there before.
    fn folded(&self, coordinator: &Coordinator, key: &InstanceKey, sequence: ReportSequence, report: &SecretReport) {
        if report.auth_failures.is_empty() {
            return;
        }
        let Some(member) = coordinator.member_of(key) else { return };
        let Some(last) = member.report().filter(|_| sequence > member.sequence) else { return };
        for (version, count) in &report.auth_failures {
            let counted = last.auth_failures.get(version).copied().unwrap_or(0);
            let label = if Some(*version) == newest(coordinator) { "new" } else { "old" };
            self.auth_failures.get_or_create(&[("version", label)]).inc_by(count.saturating_sub(counted));
        }
    }
}

/// The version of the rotation in flight, also while that rolls back; the current one otherwise.
pub(crate) fn newest(coordinator: &Coordinator) -> Option<Version> {
    let record = coordinator.record();
    record.rotation.as_ref().map(|rotation| rotation.new).or(record.current)
}
