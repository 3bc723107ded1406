//! What people and tools see of a secret and of the instances that use it: one view, made from the leader's machine or from a
//! record. JSON is its serialization; `rotacast-proto` turns it into protobuf and back; the dashboard's overview shortens it.

use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::coordinator::{Blocker, ConditionName, Coordinator, Guard, Member, Overlay, StageCounts, Standing};
use crate::id::{Epoch, Generation, InstanceKey, Revision, RotationNumber, Version};
use crate::message::Stage;
use crate::name::{InstanceName, SecretName, ServiceName};
use crate::phase::{Outcome, Phase};
use crate::record::{Finished, Label, PhaseEntered, Rotation, SecretRecord};
use crate::time::{Now, WallTime};
use crate::word::words;

words! {
    /// How bad a finding is.
    pub enum Severity("severity") {
        Warning = "warning": "Something will not work, or not as meant.",
        Error = "error": "Something does not work.",
    }
}

/// Most blockers in a status; the conditions' evidence counts the rest.
pub const MAX_BLOCKERS: usize = 100;

/// A moment in JSON: RFC 3339 in UTC.
///
/// # Errors
/// The serializer's.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
pub fn moment<S: Serializer>(at: &WallTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(at)
}

/// A moment that may be unknown: RFC 3339 or null.
///
/// # Errors
/// The serializer's.
#[allow(clippy::ref_option, clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
pub fn moment_or_null<S: Serializer>(at: &Option<WallTime>, serializer: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => moment(at, serializer),
        None => serializer.serialize_none(),
    }
}

/// A broadcaster, and the secrets that were asked for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct BroadcasterStatus {
    /// The cluster's name.
    pub cluster: String,
    /// The term in which this broadcaster leads. `None`: it follows.
    pub epoch: Option<Epoch>,
    /// Whether this broadcaster leads.
    pub leader: bool,
    /// The store, in words.
    pub store: String,
    /// The bus, in words.
    pub bus: String,
    /// This broadcaster's name.
    pub replica: String,
    /// The leader, as the store names it. `None`: no broadcaster leads, or the store does not answer.
    pub leading: Option<Leading>,
    /// The standing findings of this broadcaster.
    pub findings: FindingCounts,
    /// The secrets that were asked for.
    pub secrets: Vec<SecretStatus>,
}

/// How many findings stand: faults that last until they are repaired.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize)]
pub struct FindingCounts {
    /// Something does not work.
    pub errors: u64,
    /// Something will not work, or not as meant.
    pub warnings: u64,
}

/// The broadcaster that leads.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Leading {
    /// Its name.
    pub replica: String,
    /// Its advertised address, `https://host:port`.
    pub address: Option<String>,
}

/// One secret.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct SecretStatus {
    /// Its name.
    pub secret: SecretName,
    /// The provider, in words.
    pub provider: String,
    /// The record's revision.
    pub revision: Revision,
    /// The record's generation: +1 at every rotation start and every rollback.
    pub generation: Generation,
    /// The current version.
    pub current: Option<Version>,
    /// The versions that the record knows, in order.
    pub versions: Vec<VersionStatus>,
    /// The rotation in flight.
    pub rotation: Option<RotationStatus>,
    /// How far each service is. Empty in a follower's view.
    pub services: Vec<ServiceStatus>,
    /// The special states that it is in.
    pub overlays: Vec<Overlay>,
    /// What it waits for, at most [`MAX_BLOCKERS`]. Empty in a follower's view.
    pub blockers: Vec<BlockerStatus>,
    /// The retire guards that are judged now. Empty in a follower's view.
    pub guards: Vec<GuardStatus>,
    /// Rotations that ended, newest first.
    pub history: Vec<FinishedStatus>,
    /// When a follower read the record in the store. `None`: the leader's own view.
    #[serde(serialize_with = "moment_or_null")]
    pub record_read_at: Option<WallTime>,
    /// When the schedule begins the next rotation; in the past if something holds it up. `None`: there is no schedule, or a
    /// rotation is in flight.
    #[serde(serialize_with = "moment_or_null")]
    pub next_rotation_at: Option<WallTime>,
    /// The findings about it that stand.
    pub findings: Vec<FindingStatus>,
}

/// A fault that lasts until it is repaired.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct FindingStatus {
    /// How bad it is.
    pub level: Severity,
    /// What it is about, in words.
    pub subject: String,
    /// What is wrong.
    pub text: String,
    /// What to do about it. May be empty.
    pub fix: String,
    /// Since when.
    #[serde(serialize_with = "moment")]
    pub since: WallTime,
}

/// One version.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct VersionStatus {
    /// Its number.
    pub version: Version,
    /// What it is to its secret.
    pub label: Label,
    /// Whether its use may no longer begin.
    pub sealed: bool,
    /// When the record first named it.
    #[serde(serialize_with = "moment")]
    pub seen_at: WallTime,
}

/// The rotation in flight.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct RotationStatus {
    /// Its number, as people call it.
    pub number: RotationNumber,
    /// The phase in force.
    pub phase: Phase,
    /// The version that is replaced. `None`: the new one is the first.
    pub old: Option<Version>,
    /// The version that is moved to.
    pub new: Version,
    /// When it began.
    #[serde(serialize_with = "moment")]
    pub started_at: WallTime,
    /// When the phase in force began.
    #[serde(serialize_with = "moment")]
    pub phase_since: WallTime,
    /// The operator, the store or the schedule that started it.
    pub trigger: String,
    /// Why it is rolled back, if it is.
    pub rollback_reason: Option<String>,
    /// The phases entered so far, in order; the last one is in force.
    pub phases: Vec<PhaseStatus>,
}

/// A phase, and when it was entered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct PhaseStatus {
    /// The phase.
    pub phase: Phase,
    /// When it was entered.
    #[serde(serialize_with = "moment")]
    pub since: WallTime,
}

/// How far one service is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ServiceStatus {
    /// Its name.
    pub service: ServiceName,
    /// How many of its instances have reached each stage.
    #[serde(flatten)]
    pub counts: StageCounts,
}

/// A reason why something waits.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct BlockerStatus {
    /// The condition that is not met.
    pub condition: ConditionName,
    /// The instance, service, session or operator that blocks. `None`: none in particular.
    pub who: Option<String>,
    /// Why.
    pub why: String,
    /// Since when. `None`: since before this leader's term.
    #[serde(serialize_with = "moment_or_null")]
    pub since: Option<WallTime>,
    /// What happens next.
    pub next: String,
    /// What an operator can do about it, as a command to paste.
    pub command: Option<String>,
}

/// The retire guard of one version.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct GuardStatus {
    /// Which version.
    pub version: Version,
    /// All conditions, met or not.
    pub conditions: Vec<ConditionStatus>,
}

/// One condition of a guard.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ConditionStatus {
    /// Its name.
    pub name: ConditionName,
    /// Whether it holds.
    pub met: bool,
    /// What it was judged by.
    pub evidence: String,
}

/// A rotation that ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct FinishedStatus {
    /// Its number, as people call it.
    pub number: RotationNumber,
    /// How it ended.
    pub outcome: Outcome,
    /// The version that was replaced, or was to be.
    pub old: Option<Version>,
    /// The version that was moved to.
    pub new: Version,
    /// When it began.
    #[serde(serialize_with = "moment")]
    pub started_at: WallTime,
    /// When it ended.
    #[serde(serialize_with = "moment")]
    pub ended_at: WallTime,
    /// How long it took, in milliseconds. `None`: the clock was set back meanwhile.
    pub took_ms: Option<u64>,
    /// Why it ended this way.
    pub reason: Option<String>,
    /// The phases it went through, in order.
    pub phases: Vec<PhaseStatus>,
}

impl FinishedStatus {
    /// Whether the old version was given up, and no provider ended its credential. Otherwise such an end needs no reason.
    #[must_use]
    pub fn is_unproven(&self) -> bool {
        self.outcome == Outcome::Retired && self.reason.is_some()
    }

    /// How it ended, as people say it: a version that no provider has ended is not called retired.
    #[must_use]
    pub fn words(&self) -> &'static str {
        if self.is_unproven() { Label::Unproven.words() } else { self.outcome.words() }
    }
}

/// An instance that uses a secret.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct InstanceStatus {
    /// Which instance.
    #[serde(flatten, serialize_with = "key_fields")]
    pub key: InstanceKey,
    /// The secret.
    pub secret: SecretName,
    /// The version it moves to or has arrived at.
    pub version: Option<Version>,
    /// How far it is with that version.
    pub stage: Option<Stage>,
    /// The versions it holds.
    pub held: Vec<Version>,
    /// How it stands.
    pub standing: Standing,
    /// Milliseconds since it was last heard. `None`: not heard in this leader's term.
    pub silent_for_ms: Option<u64>,
    /// Milliseconds until its last lease ends, at most.
    pub lease_left_ms: u64,
    /// Its last failure, in words.
    pub last_failure: Option<String>,
}

fn key_fields<S: Serializer>(key: &InstanceKey, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Fields<'a> {
        service: &'a ServiceName,
        instance: &'a InstanceName,
        /// 32 hexadecimal digits.
        incarnation: String,
    }
    Fields { service: &key.service, instance: &key.instance, incarnation: key.incarnation.to_string() }
        .serialize(serializer)
}

/// What the configuration says of a secret, and its record does not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Configured {
    /// The provider, in words.
    pub provider: String,
    /// When the schedule begins the next rotation.
    pub next_rotation_at: Option<WallTime>,
}

impl SecretStatus {
    /// A secret that has no version yet.
    #[must_use]
    pub fn new(secret: SecretName) -> Self {
        Self {
            secret,
            provider: String::new(),
            revision: Revision(0),
            generation: Generation(0),
            current: None,
            versions: Vec::new(),
            rotation: None,
            services: Vec::new(),
            overlays: Vec::new(),
            blockers: Vec::new(),
            guards: Vec::new(),
            history: Vec::new(),
            record_read_at: None,
            next_rotation_at: None,
            findings: Vec::new(),
        }
    }

    /// What the leader knows.
    #[must_use]
    pub fn of(coordinator: &Coordinator, configured: Configured, now: Now) -> Self {
        let record = coordinator.record();
        let services = coordinator.stage_counts(now).into_iter();
        let leaving = record.retirements.iter().filter(|(_, retirement)| retirement.step.is_none());
        Self {
            services: services.map(|(service, counts)| ServiceStatus { service, counts }).collect(),
            overlays: coordinator.overlays(now),
            blockers: coordinator.blockers(now).into_iter().take(MAX_BLOCKERS).map(BlockerStatus::from).collect(),
            guards: leaving.map(|(version, _)| coordinator.guard(*version, now).into()).collect(),
            ..Self::recorded(record, configured)
        }
    }

    /// What the record alone says, read at `read`.
    #[must_use]
    pub fn of_record(record: &SecretRecord, configured: Configured, read: WallTime) -> Self {
        let paused = record.paused.is_some().then_some(Overlay::Paused);
        let safe_mode = match record.safe_mode {
            Some(_) => Some(Overlay::SafeMode),
            None => record.stay.then_some(Overlay::Staying),
        };
        Self {
            overlays: paused.into_iter().chain(safe_mode).collect(),
            record_read_at: Some(read),
            ..Self::recorded(record, configured)
        }
    }

    fn recorded(record: &SecretRecord, configured: Configured) -> Self {
        let versions = record.versions.iter().map(|(version, info)| VersionStatus {
            version: *version,
            label: info.label,
            sealed: info.sealed,
            seen_at: info.seen,
        });
        Self {
            provider: configured.provider,
            revision: record.revision,
            generation: record.generation,
            current: record.current,
            versions: versions.collect(),
            rotation: record.rotation.as_ref().map(RotationStatus::from),
            history: record.history.iter().rev().map(FinishedStatus::from).collect(),
            next_rotation_at: configured.next_rotation_at,
            ..Self::new(record.secret.clone())
        }
    }

    /// One version, if the record knows it.
    #[must_use]
    pub fn version(&self, version: Version) -> Option<&VersionStatus> {
        self.versions.iter().find(|it| it.version == version)
    }

    /// The newest version that waits for its rotation to begin.
    #[must_use]
    pub fn waiting_version(&self) -> Option<Version> {
        if self.rotation.is_some() {
            return None;
        }
        self.versions.iter().rev().find(|it| it.label == Label::Pending).map(|it| it.version)
    }

    /// The number of the newest rotation; 0: none is known.
    #[must_use]
    pub fn newest_rotation(&self) -> RotationNumber {
        let in_flight = self.rotation.as_ref().map(|it| it.number);
        in_flight.or(self.history.first().map(|it| it.number)).unwrap_or_default()
    }

    /// Its instances, over all services.
    #[must_use]
    pub fn members(&self) -> u32 {
        self.services.iter().map(|it| it.counts.members).sum()
    }

    /// The stage that the phase in force waits for, and how many instances have reached it. `None`: no instance is waited for.
    #[must_use]
    pub fn progress(&self) -> Option<(Stage, u32)> {
        let stage = self.rotation.as_ref()?.phase.stage()?;
        Some((stage, self.services.iter().map(|it| it.counts.reached(stage)).sum()))
    }
}

impl From<&PhaseEntered> for PhaseStatus {
    fn from(entered: &PhaseEntered) -> Self {
        Self { phase: entered.phase, since: entered.at }
    }
}

impl From<&Rotation> for RotationStatus {
    fn from(rotation: &Rotation) -> Self {
        Self {
            number: rotation.number,
            phase: rotation.phase,
            old: rotation.old,
            new: rotation.new,
            started_at: rotation.started,
            phase_since: rotation.phase_since,
            trigger: rotation.trigger.clone(),
            rollback_reason: rotation.rollback.clone(),
            phases: rotation.phases.iter().map(PhaseStatus::from).collect(),
        }
    }
}

impl From<&Finished> for FinishedStatus {
    fn from(finished: &Finished) -> Self {
        Self {
            number: finished.number,
            outcome: finished.outcome,
            old: finished.old,
            new: finished.new,
            started_at: finished.started,
            ended_at: finished.ended,
            took_ms: took_ms(finished.started, finished.ended),
            reason: Some(finished.reason.clone()).filter(|reason| !reason.is_empty()),
            phases: finished.phases.iter().map(PhaseStatus::from).collect(),
        }
    }
}

/// Milliseconds between two moments. `None`: the clock was set back meanwhile.
#[must_use]
pub fn took_ms(started: WallTime, ended: WallTime) -> Option<u64> {
    ended.0.checked_sub(started.0)
}

impl From<Blocker> for BlockerStatus {
    fn from(blocker: Blocker) -> Self {
        Self {
            condition: blocker.condition,
            who: Some(blocker.who).filter(|who| !who.is_empty()),
            why: blocker.why,
            since: blocker.since,
            next: blocker.next,
            command: blocker.command,
        }
    }
}

impl From<Guard> for GuardStatus {
    fn from(guard: Guard) -> Self {
        let conditions = guard.conditions.into_iter();
        let conditions = conditions.map(|it| ConditionStatus { name: it.name, met: it.met, evidence: it.evidence });
        Self { version: guard.version, conditions: conditions.collect() }
    }
}

impl InstanceStatus {
    /// The instances that use a secret; with `not_on`, only those that hold or have reached another version.
    #[must_use]
    pub fn all(coordinator: &Coordinator, not_on: Option<Version>, now: Now) -> Vec<Self> {
        let all = coordinator.members().map(|member| Self::of(coordinator, member, now));
        all.filter(|it| not_on.is_none_or(|version| !it.is_only_on(version))).collect()
    }

    fn of(coordinator: &Coordinator, member: &Member, now: Now) -> Self {
        let report = member.report();
        let reached = report.and_then(|report| report.reached);
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self {
            key: member.key.clone(),
            secret: coordinator.record().secret.clone(),
            version: reached.map(|(version, _)| version),
            stage: reached.map(|(_, stage)| stage),
            held: report.map(|report| report.held.iter().copied().collect()).unwrap_or_default(),
            standing: coordinator.standing(member, now),
            silent_for_ms: member.heard().map(|heard| millis(now.instant.since(heard))),
            lease_left_ms: millis(member.leases_over().since(now.instant)),
            last_failure: report
                .and_then(|report| report.failure.as_ref())
                .map(|it| format!("{}: version {}: {}", it.kind.words(), it.version, it.text)),
        }
    }

    /// Whether this is the only version that it holds or has reached.
    #[must_use]
    pub fn is_only_on(&self, version: Version) -> bool {
        self.version == Some(version) && self.held.iter().all(|held| *held == version)
    }
}
