//! What is shown, as `-o json` writes it. Documented in `docs/cli.md`; fields are added, never renamed.

use rotacast_proto::v1;
use serde::{Serialize, Serializer};

use rotacast_protocol::WallTime;

/// A moment: RFC 3339 in JSON.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Moment(pub(super) u64);

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
pub(super) struct StatusView {
    pub(super) cluster: String,
    /// None: this broadcaster does not lead.
    pub(super) epoch: Option<u64>,
    pub(super) leader: bool,
    pub(super) store: String,
    pub(super) bus: String,
    /// None: an earlier release.
    pub(super) replica: Option<String>,
    /// None: nobody leads, or it is not known.
    pub(super) leading: Option<LeadingView>,
    pub(super) secrets: Vec<SecretView>,
}

/// Who leads.
#[derive(Serialize)]
pub(super) struct LeadingView {
    pub(super) replica: String,
    pub(super) address: Option<String>,
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
pub(super) struct SecretView {
    pub(super) secret: String,
    pub(super) provider: String,
    pub(super) revision: u64,
    pub(super) generation: u64,
    pub(super) current: Option<u64>,
    pub(super) versions: Vec<VersionView>,
    pub(super) rotation: Option<RotationView>,
    pub(super) services: Vec<ServiceView>,
    pub(super) overlays: Vec<String>,
    pub(super) blockers: Vec<BlockerView>,
    pub(super) guards: Vec<GuardView>,
    pub(super) history: Vec<FinishedView>,
    /// When a broadcaster that does not lead read it in the store; None: the leader's own view.
    pub(super) record_read_at: Option<Moment>,
}

#[derive(Clone, PartialEq, Serialize)]
pub(super) struct VersionView {
    pub(super) version: u64,
    pub(super) label: String,
    pub(super) sealed: bool,
    pub(super) seen_at: Option<Moment>,
}

#[derive(Clone, PartialEq, Serialize)]
pub(super) struct RotationView {
    pub(super) generation: u64,
    pub(super) phase: &'static str,
    pub(super) old: Option<u64>,
    pub(super) new: u64,
    pub(super) started_at: Option<Moment>,
    pub(super) phase_since: Option<Moment>,
    pub(super) trigger: String,
    pub(super) rollback_reason: Option<String>,
}

#[derive(Clone, PartialEq, Serialize)]
pub(super) struct ServiceView {
    pub(super) service: String,
    pub(super) members: u32,
    pub(super) seen: u32,
    pub(super) prepared: u32,
    pub(super) switched: u32,
    pub(super) released: u32,
    pub(super) fenced: u32,
}

#[derive(Clone, PartialEq, Serialize)]
pub(super) struct BlockerView {
    pub(super) condition: String,
    /// None: nobody in particular.
    pub(super) who: Option<String>,
    pub(super) why: String,
    pub(super) since: Option<Moment>,
    pub(super) next: String,
}

#[derive(Clone, PartialEq, Serialize)]
pub(super) struct GuardView {
    pub(super) version: u64,
    pub(super) conditions: Vec<ConditionView>,
}

#[derive(Clone, PartialEq, Serialize)]
pub(super) struct ConditionView {
    pub(super) name: String,
    pub(super) met: bool,
    pub(super) evidence: String,
}

#[derive(Clone, PartialEq, Serialize)]
pub(super) struct FinishedView {
    pub(super) generation: u64,
    pub(super) outcome: String,
    pub(super) old: Option<u64>,
    pub(super) new: u64,
    pub(super) started_at: Option<Moment>,
    pub(super) ended_at: Option<Moment>,
    pub(super) took_ms: Option<u64>,
    pub(super) reason: Option<String>,
}

fn text(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// A phase as a word.
fn phase(number: i32) -> &'static str {
    match v1::Phase::try_from(number) {
        Ok(v1::Phase::Verifying) => "verifying",
        Ok(v1::Phase::Preparing) => "preparing",
        Ok(v1::Phase::Activating) => "activating",
        Ok(v1::Phase::Draining) => "draining",
        Ok(v1::Phase::Retiring) => "retiring",
        Ok(v1::Phase::RollingBack) => "rolling_back",
        Ok(v1::Phase::Unspecified) | Err(_) => "unknown",
    }
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
        }
    }
}

impl SecretView {
    /// Whether a version is known that has not been rotated to.
    pub(super) fn waiting_version(&self) -> Option<u64> {
        if self.rotation.is_some() {
            return None;
        }
        self.versions.iter().rev().find(|it| it.label == "pending").map(|it| it.version)
    }
}

#[derive(Serialize)]
pub(super) struct InstancesView {
    pub(super) instances: Vec<InstanceView>,
}

#[derive(Serialize)]
pub(super) struct InstanceView {
    pub(super) service: String,
    pub(super) instance: String,
    /// 32 hexadecimal digits.
    pub(super) incarnation: String,
    pub(super) secret: String,
    pub(super) version: Option<u64>,
    pub(super) stage: Option<&'static str>,
    pub(super) held: Vec<u64>,
    pub(super) standing: String,
    /// None: never heard in this leader's term.
    pub(super) silent_for_ms: Option<u64>,
    pub(super) lease_left_ms: u64,
    pub(super) last_failure: Option<String>,
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
    pub(super) fn name(&self) -> String {
        format!("{}/{}#{}", self.service, self.instance, self.incarnation.get(..8).unwrap_or(&self.incarnation))
    }

    pub(super) fn full_name(&self) -> String {
        format!("{}/{}/{}", self.service, self.instance, self.incarnation)
    }
}

/// What came of an order.
#[derive(Serialize)]
pub(super) struct OrderView {
    pub(super) secret: String,
    pub(super) command: &'static str,
    pub(super) version: Option<u64>,
    pub(super) generation: Option<u64>,
    /// How the rotation ended, if it was waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rotation: Option<FinishedView>,
}

/// What came of a wait.
#[derive(Serialize)]
pub(super) struct WaitView {
    pub(super) secret: String,
    #[serde(rename = "for")]
    pub(super) goal: String,
    pub(super) reached: bool,
    pub(super) current: Option<u64>,
    /// The rotation whose end was waited for.
    pub(super) rotation: Option<FinishedView>,
}

#[derive(Serialize)]
pub(super) struct WhyView {
    pub(super) secret: String,
    pub(super) current: Option<u64>,
    pub(super) rotation: Option<RotationView>,
    pub(super) overlays: Vec<String>,
    /// Whether anything waits.
    pub(super) waiting: bool,
    pub(super) blockers: Vec<BlockerView>,
    pub(super) last: Option<FinishedView>,
}

#[derive(Serialize)]
pub(super) struct DoctorView {
    pub(super) findings: Vec<FindingView>,
}

#[derive(Serialize)]
pub(super) struct FindingView {
    pub(super) level: String,
    pub(super) subject: String,
    pub(super) text: String,
    pub(super) fix: Option<String>,
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
pub(super) struct ConfigView {
    pub(super) file: String,
    pub(super) cluster: String,
    pub(super) operators: usize,
    pub(super) services: usize,
    pub(super) secrets: usize,
}

/// A failure, on standard error.
#[derive(Serialize)]
pub(super) struct ErrorView<'a> {
    pub(super) error: ErrorBody<'a>,
}

#[derive(Serialize)]
pub(super) struct ErrorBody<'a> {
    pub(super) kind: &'a str,
    pub(super) exit_code: u8,
    pub(super) problem: &'a str,
    pub(super) fix: Option<&'a str>,
}
