//! What is shown, as `-o json` writes it and the dashboard reads it. Documented in `docs/operate/cli.md`; fields are added, never renamed.

#![allow(missing_docs, reason = "the fields are documented in docs/operate/cli.md")]

use rotacast_proto::v1;
use serde::{Serialize, Serializer};

use rotacast_protocol::{Phase, WallTime};

/// A moment: RFC 3339 in JSON.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moment(pub u64);

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&WallTime(self.0))
    }
}

/// On the wire 0 stands for none.
fn some(number: u64) -> Option<u64> {
    (number != 0).then_some(number)
}

fn at(millis: u64) -> Option<Moment> {
    some(millis).map(Moment)
}

#[derive(Serialize)]
pub struct StatusView {
    pub cluster: String,
    /// None: this broadcaster does not lead.
    pub epoch: Option<u64>,
    pub leader: bool,
    pub store: String,
    pub bus: String,
    /// None: an earlier release.
    pub replica: Option<String>,
    /// None: nobody leads, or it is not known.
    pub leading: Option<LeadingView>,
    pub secrets: Vec<SecretView>,
}

/// Who leads.
#[derive(Clone, PartialEq, Serialize)]
pub struct LeadingView {
    pub replica: String,
    pub address: Option<String>,
}

impl From<v1::StatusReply> for StatusView {
    fn from(wire: v1::StatusReply) -> Self {
        Self {
            cluster: wire.cluster,
            epoch: some(wire.epoch),
            leader: wire.leader,
            store: wire.store,
            bus: wire.bus,
            replica: text(wire.replica),
            leading: wire
                .leading
                .map(|leading| LeadingView { replica: leading.replica, address: text(leading.address) }),
            secrets: wire.secrets.into_iter().map(SecretView::from).collect(),
        }
    }
}

#[derive(Clone, PartialEq, Serialize)]
pub struct SecretView {
    pub secret: String,
    pub provider: String,
    pub revision: u64,
    pub generation: u64,
    pub current: Option<u64>,
    pub versions: Vec<VersionView>,
    pub rotation: Option<RotationView>,
    pub services: Vec<ServiceView>,
    pub overlays: Vec<String>,
    pub blockers: Vec<BlockerView>,
    pub guards: Vec<GuardView>,
    pub history: Vec<FinishedView>,
    /// When a broadcaster that does not lead read it in the store; None: the leader's own view.
    pub record_read_at: Option<Moment>,
    /// None: it has no schedule, or a rotation is under way.
    pub next_rotation_at: Option<Moment>,
}

#[derive(Clone, PartialEq, Serialize)]
pub struct VersionView {
    pub version: u64,
    pub label: String,
    pub sealed: bool,
    pub seen_at: Option<Moment>,
}

#[derive(Clone, PartialEq, Serialize)]
pub struct RotationView {
    pub generation: u64,
    pub phase: &'static str,
    pub old: Option<u64>,
    pub new: u64,
    pub started_at: Option<Moment>,
    pub phase_since: Option<Moment>,
    pub trigger: String,
    pub rollback_reason: Option<String>,
    pub phases: Vec<PhaseView>,
}

/// A phase, and when it was entered.
#[derive(Clone, PartialEq, Serialize)]
pub struct PhaseView {
    pub phase: &'static str,
    pub since: Option<Moment>,
}

#[derive(Clone, PartialEq, Serialize)]
pub struct ServiceView {
    pub service: String,
    pub members: u32,
    pub seen: u32,
    pub prepared: u32,
    pub switched: u32,
    pub released: u32,
    pub fenced: u32,
}

#[derive(Clone, PartialEq, Serialize)]
pub struct BlockerView {
    pub condition: String,
    /// None: nobody in particular.
    pub who: Option<String>,
    pub why: String,
    pub since: Option<Moment>,
    pub next: String,
}

#[derive(Clone, PartialEq, Serialize)]
pub struct GuardView {
    pub version: u64,
    pub conditions: Vec<ConditionView>,
}

#[derive(Clone, PartialEq, Serialize)]
pub struct ConditionView {
    pub name: String,
    pub met: bool,
    pub evidence: String,
}

#[derive(Clone, PartialEq, Serialize)]
pub struct FinishedView {
    pub generation: u64,
    pub outcome: String,
    pub old: Option<u64>,
    pub new: u64,
    pub started_at: Option<Moment>,
    pub ended_at: Option<Moment>,
    pub took_ms: Option<u64>,
    pub reason: Option<String>,
    pub phases: Vec<PhaseView>,
}

fn phases(wire: Vec<v1::PhaseEntered>) -> Vec<PhaseView> {
    wire.into_iter().map(|it| PhaseView { phase: phase(it.phase), since: at(it.since_ms) }).collect()
}

fn text(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// A phase as a word.
fn phase(number: i32) -> &'static str {
    v1::Phase::try_from(number).ok().and_then(v1::Phase::known).map_or("unknown", Phase::as_str)
}

impl From<v1::SecretStatus> for SecretView {
    fn from(wire: v1::SecretStatus) -> Self {
        let versions = wire.versions.into_iter().map(|it| VersionView {
            version: it.version,
            label: it.label,
            sealed: it.sealed,
            seen_at: at(it.seen_ms),
        });
        let services = wire.services.into_iter().map(|it| ServiceView {
            service: it.service,
            members: it.members,
            seen: it.seen,
            prepared: it.prepared,
            switched: it.switched,
            released: it.released,
            fenced: it.fenced,
        });
        let blockers = wire.blockers.into_iter().map(|it| BlockerView {
            condition: it.condition,
            who: text(it.who),
            why: it.why,
            since: at(it.since_ms),
            next: it.next,
        });
        Self {
            record_read_at: at(wire.record_read_ms),
            next_rotation_at: at(wire.next_rotation_ms),
            secret: wire.secret,
            provider: wire.provider,
            revision: wire.revision,
            generation: wire.generation,
            current: some(wire.current),
            versions: versions.collect(),
            rotation: wire.rotation.map(RotationView::from),
            services: services.collect(),
            overlays: wire.overlays,
            blockers: blockers.collect(),
            guards: wire.guards.into_iter().map(GuardView::from).collect(),
            history: wire.history.into_iter().map(FinishedView::from).collect(),
        }
    }
}

impl From<v1::RotationInfo> for RotationView {
    fn from(wire: v1::RotationInfo) -> Self {
        Self {
            generation: wire.generation,
            phase: phase(wire.phase),
            old: some(wire.old),
            new: wire.new,
            started_at: at(wire.started_ms),
            phase_since: at(wire.phase_since_ms),
            trigger: wire.trigger,
            rollback_reason: text(wire.rollback_reason),
            phases: phases(wire.phases),
        }
    }
}

impl From<v1::Guard> for GuardView {
    fn from(wire: v1::Guard) -> Self {
        let conditions =
            wire.conditions.into_iter().map(|it| ConditionView { name: it.name, met: it.met, evidence: it.evidence });
        Self { version: wire.version, conditions: conditions.collect() }
    }
}

impl From<v1::FinishedRotation> for FinishedView {
    fn from(wire: v1::FinishedRotation) -> Self {
        Self {
            generation: wire.generation,
            outcome: wire.outcome,
            old: some(wire.old),
            new: wire.new,
            started_at: at(wire.started_ms),
            ended_at: at(wire.ended_ms),
            took_ms: wire.ended_ms.checked_sub(wire.started_ms).filter(|_| wire.started_ms != 0),
            reason: text(wire.reason),
            phases: phases(wire.phases),
        }
    }
}

impl SecretView {
    /// Whether a version is known that has not been rotated to.
    pub fn waiting_version(&self) -> Option<u64> {
        if self.rotation.is_some() {
            return None;
        }
        self.versions.iter().rev().find(|it| it.label == "pending").map(|it| it.version)
    }
}

#[derive(Serialize)]
pub struct InstancesView {
    pub instances: Vec<InstanceView>,
}

#[derive(Clone, Serialize)]
pub struct InstanceView {
    pub service: String,
    pub instance: String,
    /// 32 hexadecimal digits.
    pub incarnation: String,
    pub secret: String,
    pub version: Option<u64>,
    pub stage: Option<&'static str>,
    pub held: Vec<u64>,
    pub standing: String,
    /// None: never heard in this leader's term.
    pub silent_for_ms: Option<u64>,
    pub lease_left_ms: u64,
    pub last_failure: Option<String>,
}

impl From<v1::InstancesReply> for InstancesView {
    fn from(wire: v1::InstancesReply) -> Self {
        Self { instances: wire.instances.into_iter().map(InstanceView::from).collect() }
    }
}

impl From<v1::InstanceInfo> for InstanceView {
    fn from(wire: v1::InstanceInfo) -> Self {
        let stage = match v1::Stage::try_from(wire.stage) {
            Ok(v1::Stage::Seen) => Some("seen"),
            Ok(v1::Stage::Prepared) => Some("prepared"),
            Ok(v1::Stage::Switched) => Some("switched"),
            Ok(v1::Stage::Released) => Some("released"),
            Ok(v1::Stage::Unspecified) | Err(_) => None,
        };
        let key = wire.key.unwrap_or_default();
        Self {
            service: key.service,
            instance: key.instance,
            incarnation: hex::encode(&key.incarnation),
            secret: wire.secret,
            version: some(wire.version),
            stage,
            held: wire.held,
            standing: wire.standing,
            silent_for_ms: wire.silent_for_ms,
            lease_left_ms: wire.lease_left_ms,
            last_failure: text(wire.last_failure),
        }
    }
}

impl InstanceView {
    /// `service/instance`, and enough of the incarnation to tell lives apart: as blockers name it.
    pub fn name(&self) -> String {
        format!("{}/{}#{}", self.service, self.instance, self.incarnation.get(..8).unwrap_or(&self.incarnation))
    }

    pub fn full_name(&self) -> String {
        format!("{}/{}/{}", self.service, self.instance, self.incarnation)
    }
}

/// What came of an order.
#[derive(Serialize)]
pub struct OrderView {
    pub secret: String,
    pub command: &'static str,
    pub version: Option<u64>,
    pub generation: Option<u64>,
    /// How the rotation ended, if it was waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotation: Option<FinishedView>,
}

/// What came of a wait.
#[derive(Serialize)]
pub struct WaitView {
    pub secret: String,
    #[serde(rename = "for")]
    pub goal: String,
    pub reached: bool,
    pub current: Option<u64>,
    /// The rotation whose end was waited for.
    pub rotation: Option<FinishedView>,
}

#[derive(Serialize)]
pub struct WhyView {
    pub secret: String,
    pub current: Option<u64>,
    pub rotation: Option<RotationView>,
    pub overlays: Vec<String>,
    /// Whether anything waits.
    pub waiting: bool,
    pub blockers: Vec<BlockerView>,
    pub last: Option<FinishedView>,
}

#[derive(Serialize)]
pub struct DoctorView {
    pub findings: Vec<FindingView>,
}

#[derive(Serialize)]
pub struct FindingView {
    pub level: String,
    pub subject: String,
    pub text: String,
    pub fix: Option<String>,
}

impl From<v1::DoctorReply> for DoctorView {
    fn from(wire: v1::DoctorReply) -> Self {
        let findings = wire.findings.into_iter().map(|it| FindingView {
            level: it.level,
            subject: it.subject,
            text: it.text,
            fix: text(it.fix),
        });
        Self { findings: findings.collect() }
    }
}

/// A configuration that can be used.
#[derive(Serialize)]
pub struct ConfigView {
    pub file: String,
    pub cluster: String,
    pub operators: usize,
    pub services: usize,
    pub secrets: usize,
}

/// A failure, on standard error.
#[derive(Serialize)]
pub struct ErrorView<'a> {
    pub error: ErrorBody<'a>,
}

#[derive(Serialize)]
pub struct ErrorBody<'a> {
    pub kind: &'a str,
    pub exit_code: u8,
    pub problem: &'a str,
    pub fix: Option<&'a str>,
}
