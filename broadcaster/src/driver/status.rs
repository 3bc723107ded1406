//! What people are shown of one secret.

use std::time::Duration;

use rotacast_proto::v1;
use rotacast_protocol::coordinator::{Blocker, Coordinator, Guard, Member, Overlay};
use rotacast_protocol::record::{Finished, PhaseEntered, Rotation, SecretRecord};
use rotacast_protocol::{Now, Version, WallTime};

use crate::metrics::Standings;
use crate::settings::SecretSettings;

/// Blockers listed in a status; the conditions' evidence counts the rest.
const MAX_BLOCKERS: usize = 100;

fn number(version: Option<Version>) -> u64 {
    version.map_or(0, Version::get)
}

/// The whole status as of now.
pub(super) fn of(coordinator: &Coordinator, settings: &SecretSettings, now: Now) -> v1::SecretStatus {
    let record = coordinator.record();
    let services = coordinator.stage_counts(now).into_iter().map(|(service, counts)| v1::StageCounts {
        service: service.to_string(),
        members: counts.members,
        seen: counts.seen,
        prepared: counts.prepared,
        switched: counts.switched,
        released: counts.released,
        fenced: counts.out_of_reach,
    });
    let waiting = record.retirements.iter().filter(|(_, retirement)| retirement.step.is_none());
    v1::SecretStatus {
        services: services.collect(),
        overlays: coordinator.overlays(now).into_iter().map(|overlay| overlay.to_string()).collect(),
        blockers: coordinator.blockers(now).into_iter().take(MAX_BLOCKERS).map(blocker).collect(),
        guards: waiting.map(|(version, _)| guard(coordinator.guard(*version, now))).collect(),
        ..recorded(record, settings)
    }
}

/// What the record alone says, as it was read at `read`.
pub(super) fn of_record(record: &SecretRecord, settings: &SecretSettings, read: WallTime) -> v1::SecretStatus {
    let paused = record.paused.is_some().then_some(Overlay::Paused);
    let safe_mode = match record.safe_mode {
        Some(_) => Some(Overlay::SafeMode),
        None => record.stay.then_some(Overlay::Staying),
    };
    v1::SecretStatus {
        overlays: [paused, safe_mode].into_iter().flatten().map(|overlay| overlay.to_string()).collect(),
        record_read_ms: read.0,
        ..recorded(record, settings)
    }
}

fn recorded(record: &SecretRecord, settings: &SecretSettings) -> v1::SecretStatus {
    let versions = record.versions.iter().map(|(version, info)| v1::VersionInfo {
        version: version.get(),
        label: info.label.to_string(),
        sealed: info.sealed,
        seen_ms: info.seen.0,
    });
    v1::SecretStatus {
        secret: record.secret.to_string(),
        revision: record.revision.0,
        generation: record.generation.0,
        current: number(record.current),
        versions: versions.collect(),
        rotation: record.rotation.as_ref().map(rotation),
        history: record.history.iter().rev().map(finished).collect(),
        provider: settings.provider.describe(),
        next_rotation_ms: settings.schedule.and_then(|schedule| schedule.next(record)).unwrap_or(WallTime(0)).0,
        ..Default::default()
    }
}

fn entered(entered: &PhaseEntered) -> v1::PhaseEntered {
    v1::PhaseEntered { phase: v1::Phase::from(entered.phase).into(), since_ms: entered.at.0 }
}

fn rotation(rotation: &Rotation) -> v1::RotationInfo {
    v1::RotationInfo {
        generation: rotation.generation.0,
        phase: v1::Phase::from(rotation.phase).into(),
        old: number(rotation.old),
        new: rotation.new.get(),
        started_ms: rotation.started.0,
        phase_since_ms: rotation.phase_since.0,
        trigger: rotation.trigger.clone(),
        rollback_reason: rotation.rollback.clone().unwrap_or_default(),
        phases: rotation.phases.iter().map(entered).collect(),
    }
}

fn finished(finished: &Finished) -> v1::FinishedRotation {
    v1::FinishedRotation {
        generation: finished.generation.0,
        outcome: finished.outcome.to_string(),
        old: number(finished.old),
        new: finished.new.get(),
        started_ms: finished.started.0,
        ended_ms: finished.ended.0,
        reason: finished.reason.clone(),
        phases: finished.phases.iter().map(entered).collect(),
    }
}

fn blocker(blocker: Blocker) -> v1::Blocker {
    v1::Blocker {
        condition: blocker.condition.to_string(),
        who: blocker.who,
        why: blocker.why,
        since_ms: blocker.since.unwrap_or(WallTime(0)).0,
        next: blocker.next,
    }
}

fn guard(guard: Guard) -> v1::Guard {
    let conditions = guard.conditions.into_iter().map(|condition| v1::GuardCondition {
        name: condition.name.to_string(),
        met: condition.met,
        evidence: condition.evidence,
    });
    v1::Guard { version: guard.version.get(), conditions: conditions.collect() }
}

/// Who uses the secret; with `not_on`, only those that hold or have reached another version.
pub(super) fn instances(coordinator: &Coordinator, not_on: Option<Version>, now: Now) -> Vec<v1::InstanceInfo> {
    coordinator
        .members()
        .filter(|member| not_on.is_none_or(|version| !is_only_on(member, version)))
        .map(|member| instance(coordinator, member, now))
        .collect()
}

fn is_only_on(member: &Member, version: Version) -> bool {
    member.report().is_some_and(|report| {
        report.reached.is_some_and(|(reached, _)| reached == version) && report.held.iter().all(|held| *held == version)
    })
}

/// How many members stand how.
pub(super) fn standings(coordinator: &Coordinator, now: Now) -> Standings {
    let mut counts = Standings::default();
    for member in coordinator.members() {
        counts.count(coordinator.standing(member, now));
    }
    counts
}

fn instance(coordinator: &Coordinator, member: &Member, now: Now) -> v1::InstanceInfo {
    let report = member.report();
    let reached = report.and_then(|report| report.reached);
    let silent = member.heard().map(|heard| now.instant.since(heard));
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    v1::InstanceInfo {
        key: Some(v1::InstanceKey {
            service: member.key.service.to_string(),
            instance: member.key.instance.to_string(),
            incarnation: member.key.incarnation.0.to_be_bytes().to_vec().into(),
        }),
        secret: coordinator.record().secret.to_string(),
        version: number(reached.map(|(version, _)| version)),
        stage: reached.map_or(v1::Stage::Unspecified, |(_, at)| at.into()).into(),
        held: report.map(|report| report.held.iter().map(|version| version.get()).collect()).unwrap_or_default(),
        silent_for_ms: silent.map(millis),
        standing: coordinator.standing(member, now).to_string(),
        last_failure: report
            .and_then(|report| report.failure.as_ref())
            .map(|failure| format!("{}: version {}: {}", failure.kind.words(), failure.version, failure.text))
            .unwrap_or_default(),
        lease_left_ms: millis(member.leases_over().since(now.instant)),
    }
}
