//! The status of broadcasters, secrets and instances, to the wire and from it. On the wire, 0 and an empty text stand for none.

use std::str::FromStr;

use rotacast_protocol::coordinator::StageCounts;
use rotacast_protocol::status::{
    BlockerStatus, BroadcasterStatus, ConditionStatus, FindingCounts, FindingStatus, FinishedStatus, GuardStatus,
    InstanceStatus, Leading, PhaseStatus, RotationStatus, SecretStatus, ServiceStatus, VersionStatus, took_ms,
};
use rotacast_protocol::word::UnknownWord;
use rotacast_protocol::{Epoch, Generation, Phase, Revision, RotationNumber, ServiceName, WallTime};

use super::field::{FieldError, instance_key, or_zero, plain_name, secret_name, version, version_or_none};
use super::report::stage;
use crate::v1;

fn millis(at: Option<WallTime>) -> u64 {
    at.map_or(0, |at| at.0)
}

fn moment(millis: u64) -> Option<WallTime> {
    (millis != 0).then_some(WallTime(millis))
}

fn text(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// One word of a set.
fn word<T: FromStr<Err = UnknownWord>>(field: &str, text: &str) -> Result<T, FieldError> {
    text.parse().map_err(|UnknownWord { noun, found, .. }| {
        FieldError::new(field, format!("{found:?} is no {noun} that this release knows"))
    })
}

/// Every element, with its place in what is said of one that is wrong.
fn each<W, T>(field: &str, wire: Vec<W>, read: impl Fn(W) -> Result<T, FieldError>) -> Result<Vec<T>, FieldError> {
    wire.into_iter()
        .enumerate()
        .map(|(at, it)| read(it).map_err(|error| error.within(format!("{field}[{at}]"))))
        .collect()
}

fn phase(field: &str, number: i32) -> Result<Phase, FieldError> {
    let phase = v1::Phase::try_from(number).ok().and_then(v1::Phase::known);
    phase.ok_or_else(|| FieldError::new(field, format!("{number} is no phase")))
}

impl From<BroadcasterStatus> for v1::StatusReply {
    fn from(status: BroadcasterStatus) -> Self {
        Self {
            cluster: status.cluster,
            epoch: status.epoch.map_or(0, |epoch| epoch.0),
            leader: status.leader,
            store: status.store,
            bus: status.bus,
            secrets: status.secrets.into_iter().map(Into::into).collect(),
            replica: status.replica,
            leading: status
                .leading
                .map(|it| v1::Leader { replica: it.replica, address: it.address.unwrap_or_default() }),
            finding_errors: status.findings.errors,
            finding_warnings: status.findings.warnings,
        }
    }
}

impl TryFrom<v1::StatusReply> for BroadcasterStatus {
    type Error = FieldError;
    fn try_from(wire: v1::StatusReply) -> Result<Self, FieldError> {
        Ok(Self {
            cluster: wire.cluster,
            epoch: (wire.epoch != 0).then_some(Epoch(wire.epoch)),
            leader: wire.leader,
            store: wire.store,
            bus: wire.bus,
            replica: wire.replica,
            leading: wire.leading.map(|it| Leading { replica: it.replica, address: text(it.address) }),
            findings: FindingCounts { errors: wire.finding_errors, warnings: wire.finding_warnings },
            secrets: each("secrets", wire.secrets, SecretStatus::try_from)?,
        })
    }
}

impl From<SecretStatus> for v1::SecretStatus {
    fn from(status: SecretStatus) -> Self {
        Self {
            secret: status.secret.to_string(),
            revision: status.revision.0,
            generation: status.generation.0,
            current: or_zero(status.current),
            versions: status.versions.into_iter().map(Into::into).collect(),
            rotation: status.rotation.map(Into::into),
            services: status.services.into_iter().map(Into::into).collect(),
            overlays: status.overlays.iter().map(ToString::to_string).collect(),
            blockers: status.blockers.into_iter().map(Into::into).collect(),
            guards: status.guards.into_iter().map(Into::into).collect(),
            history: status.history.into_iter().map(Into::into).collect(),
            provider: status.provider,
            record_read_ms: millis(status.record_read_at),
            next_rotation_ms: millis(status.next_rotation_at),
            findings: status.findings.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<v1::SecretStatus> for SecretStatus {
    type Error = FieldError;
    fn try_from(wire: v1::SecretStatus) -> Result<Self, FieldError> {
        let rotation = wire.rotation.map(RotationStatus::try_from).transpose();
        Ok(Self {
            secret: secret_name("secret", wire.secret)?,
            provider: wire.provider,
            revision: Revision(wire.revision),
            generation: Generation(wire.generation),
            current: version_or_none(wire.current),
            versions: each("versions", wire.versions, VersionStatus::try_from)?,
            rotation: rotation.map_err(|error| error.within("rotation"))?,
            services: each("services", wire.services, ServiceStatus::try_from)?,
            overlays: each("overlays", wire.overlays, |it| word("overlay", &it))?,
            blockers: each("blockers", wire.blockers, BlockerStatus::try_from)?,
            guards: each("guards", wire.guards, GuardStatus::try_from)?,
            history: each("history", wire.history, FinishedStatus::try_from)?,
            record_read_at: moment(wire.record_read_ms),
            next_rotation_at: moment(wire.next_rotation_ms),
            findings: each("findings", wire.findings, FindingStatus::try_from)?,
        })
    }
}

impl From<FindingStatus> for v1::StandingFinding {
    fn from(it: FindingStatus) -> Self {
        let FindingStatus { level, subject, text, fix, since } = it;
        Self { level: level.to_string(), subject, text, fix, since_ms: since.0 }
    }
}

impl TryFrom<v1::StandingFinding> for FindingStatus {
    type Error = FieldError;
    fn try_from(wire: v1::StandingFinding) -> Result<Self, FieldError> {
        let v1::StandingFinding { level, subject, text, fix, since_ms } = wire;
        Ok(Self { level: word("level", &level)?, subject, text, fix, since: WallTime(since_ms) })
    }
}

impl From<VersionStatus> for v1::VersionInfo {
    fn from(it: VersionStatus) -> Self {
        Self { version: it.version.get(), label: it.label.to_string(), sealed: it.sealed, seen_ms: it.seen_at.0 }
    }
}

impl TryFrom<v1::VersionInfo> for VersionStatus {
    type Error = FieldError;
    fn try_from(wire: v1::VersionInfo) -> Result<Self, FieldError> {
        Ok(Self {
            version: version("version", wire.version)?,
            label: word("label", &wire.label)?,
            sealed: wire.sealed,
            seen_at: WallTime(wire.seen_ms),
        })
    }
}

impl From<ServiceStatus> for v1::StageCounts {
    fn from(it: ServiceStatus) -> Self {
        let StageCounts { members, seen, prepared, switched, released, fenced } = it.counts;
        Self { service: it.service.to_string(), members, seen, prepared, switched, released, fenced }
    }
}

impl TryFrom<v1::StageCounts> for ServiceStatus {
    type Error = FieldError;
    fn try_from(wire: v1::StageCounts) -> Result<Self, FieldError> {
        let v1::StageCounts { service, members, seen, prepared, switched, released, fenced } = wire;
        Ok(Self {
            service: plain_name("service", service, |name| ServiceName::new(name).ok())?,
            counts: StageCounts { members, seen, prepared, switched, released, fenced },
        })
    }
}

impl From<PhaseStatus> for v1::PhaseEntered {
    fn from(it: PhaseStatus) -> Self {
        Self { phase: v1::Phase::from(it.phase).into(), since_ms: it.since.0 }
    }
}

impl TryFrom<v1::PhaseEntered> for PhaseStatus {
    type Error = FieldError;
    fn try_from(wire: v1::PhaseEntered) -> Result<Self, FieldError> {
        Ok(Self { phase: phase("phase", wire.phase)?, since: WallTime(wire.since_ms) })
    }
}

impl From<RotationStatus> for v1::RotationInfo {
    fn from(it: RotationStatus) -> Self {
        Self {
            number: it.number.0,
            phase: v1::Phase::from(it.phase).into(),
            old: or_zero(it.old),
            new: it.new.get(),
            started_ms: it.started_at.0,
            phase_since_ms: it.phase_since.0,
            trigger: it.trigger,
            rollback_reason: it.rollback_reason.unwrap_or_default(),
            phases: it.phases.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<v1::RotationInfo> for RotationStatus {
    type Error = FieldError;
    fn try_from(wire: v1::RotationInfo) -> Result<Self, FieldError> {
        Ok(Self {
            number: RotationNumber(wire.number),
            phase: phase("phase", wire.phase)?,
            old: version_or_none(wire.old),
            new: version("new", wire.new)?,
            started_at: WallTime(wire.started_ms),
            phase_since: WallTime(wire.phase_since_ms),
            trigger: wire.trigger,
            rollback_reason: text(wire.rollback_reason),
            phases: each("phases", wire.phases, PhaseStatus::try_from)?,
        })
    }
}

impl From<FinishedStatus> for v1::FinishedRotation {
    fn from(it: FinishedStatus) -> Self {
        Self {
            number: it.number.0,
            outcome: it.outcome.to_string(),
            old: or_zero(it.old),
            new: it.new.get(),
            started_ms: it.started_at.0,
            ended_ms: it.ended_at.0,
            reason: it.reason.unwrap_or_default(),
            phases: it.phases.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<v1::FinishedRotation> for FinishedStatus {
    type Error = FieldError;
    fn try_from(wire: v1::FinishedRotation) -> Result<Self, FieldError> {
        let (started_at, ended_at) = (WallTime(wire.started_ms), WallTime(wire.ended_ms));
        Ok(Self {
            number: RotationNumber(wire.number),
            outcome: word("outcome", &wire.outcome)?,
            old: version_or_none(wire.old),
            new: version("new", wire.new)?,
            started_at,
            ended_at,
            took_ms: took_ms(started_at, ended_at),
            reason: text(wire.reason),
            phases: each("phases", wire.phases, PhaseStatus::try_from)?,
        })
    }
}

impl From<BlockerStatus> for v1::Blocker {
    fn from(it: BlockerStatus) -> Self {
        Self {
            condition: it.condition.to_string(),
            who: it.who.unwrap_or_default(),
            why: it.why,
            since_ms: millis(it.since),
            next: it.next,
            command: it.command.unwrap_or_default(),
        }
    }
}

impl TryFrom<v1::Blocker> for BlockerStatus {
    type Error = FieldError;
    fn try_from(wire: v1::Blocker) -> Result<Self, FieldError> {
        Ok(Self {
            condition: word("condition", &wire.condition)?,
            who: text(wire.who),
            why: wire.why,
            since: moment(wire.since_ms),
            next: wire.next,
            command: text(wire.command),
        })
    }
}

impl From<GuardStatus> for v1::Guard {
    fn from(it: GuardStatus) -> Self {
        let condition =
            |it: ConditionStatus| v1::GuardCondition { name: it.name.to_string(), met: it.met, evidence: it.evidence };
        Self { version: it.version.get(), conditions: it.conditions.into_iter().map(condition).collect() }
    }
}

impl TryFrom<v1::Guard> for GuardStatus {
    type Error = FieldError;
    fn try_from(wire: v1::Guard) -> Result<Self, FieldError> {
        let condition = |it: v1::GuardCondition| {
            Ok(ConditionStatus { name: word("name", &it.name)?, met: it.met, evidence: it.evidence })
        };
        Ok(Self {
            version: version("version", wire.version)?,
            conditions: each("conditions", wire.conditions, condition)?,
        })
    }
}

impl From<InstanceStatus> for v1::InstanceInfo {
    fn from(it: InstanceStatus) -> Self {
        Self {
            key: Some((&it.key).into()),
            secret: it.secret.to_string(),
            version: or_zero(it.version),
            stage: it.stage.map_or(v1::Stage::Unspecified, v1::Stage::from).into(),
            held: it.held.iter().map(|version| version.get()).collect(),
            silent_for_ms: it.silent_for_ms,
            standing: it.standing.to_string(),
            last_failure: it.last_failure.unwrap_or_default(),
            lease_left_ms: it.lease_left_ms,
        }
    }
}

impl TryFrom<v1::InstanceInfo> for InstanceStatus {
    type Error = FieldError;
    fn try_from(wire: v1::InstanceInfo) -> Result<Self, FieldError> {
        Ok(Self {
            key: instance_key("key", wire.key)?,
            secret: secret_name("secret", wire.secret)?,
            version: version_or_none(wire.version),
            stage: stage(wire.stage)?,
            held: each("held", wire.held, |number| version("version", number))?,
            standing: word("standing", &wire.standing)?,
            silent_for_ms: wire.silent_for_ms,
            lease_left_ms: wire.lease_left_ms,
            last_failure: text(wire.last_failure),
        })
    }
}
