//! The rotation record: the truth about one secret, saved in the store by compare-and-swap.

mod change;
mod codec;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use change::RecordChange;
pub(crate) use codec::MAX_RECORD_BYTES;
pub use codec::{FORMAT, RecordError};

use crate::id::{Epoch, Generation, Revision, RotationId, RotationNumber, Version};
use crate::message::{LostHistory, SecretState};
use crate::name::{OperatorName, SecretName};
use crate::phase::{Outcome, Phase};
use crate::policy::Policy;
use crate::time::WallTime;
use crate::word::words;

/// Finished rotations and ended versions kept in the record, for people; older ones are in the audit log.
pub const MAX_HISTORY: usize = 20;

/// Pauses of one secret that are in force at once: as many as people can keep apart.
pub const MAX_PAUSES: usize = 8;

/// Incarnations of one secret that the record remembers as gone: what one lost rack holds, in 40 KiB of the record.
pub const MAX_GONE: usize = 256;

/// Fields written by a later build that this one does not know; kept as they are.
pub type Unknown = BTreeMap<String, serde_json::Value>;

words! {
    /// What a version is to its secret: AWS's words, plus two.
    pub enum Label("label") {
        Pending = "pending": "Known, and not activated yet.",
        Current = "current": "In use for new work.",
        Previous = "previous": "On its way out.",
        Retired = "retired": "Gone, after a rotation.",
        Unproven = "unproven": "Gone from the store, after a rotation. No provider ended its credential, which may still be valid.",
        Rejected = "rejected": "Gone, or going, without having become or stayed current.",
    }
}

words! {
    /// Who made a version.
    pub enum Origin("origin") {
        Watched = "watched": "Written into the store from outside.",
        Managed = "managed": "Made by Rotacast, through the provider.",
    }
}

words! {
    /// Why a version from before the store lost history is not trusted.
    pub enum Doubt("doubt") {
        Untested = "untested": "No test login has been made since the store lost history, in which the version may have ended.",
        Failed = "failed": "The test login since the store lost history failed.",
    }
}

words! {
    /// Why Rotacast gave a version up without ending its credential.
    pub enum Unproven("unproven end") {
        NoProvider = "no_provider" / "no provider":
            "No provider looks after the version: Rotacast only followed it. Its writer ends the credential.",
        LeftAlone = "left_alone" / "left alone":
            "The provider found another owner's credential under the name in the value, and left it alone.",
        ValueLost = "value_lost" / "value lost":
            "The version was given up while its credential was to be made, and the store has no value that names it: if it was made, it may be valid.",
        Abandoned = "abandoned": "An operator gave the version up.",
    }
}

/// Which provider looks after a version: the one that made it, or that tested a value from outside. Enough to find the same
/// provider again under another name; never a secret.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ProviderId {
    /// Such as `postgres`.
    pub kind: String,
    /// As it was called in the configuration. For people: another name does not make it another provider.
    pub name: String,
    /// The system whose credentials it makes, such as `app at db.internal:5432`; empty where there is none. Together with the
    /// kind it tells one provider from another.
    pub system: String,
}

impl ProviderId {
    /// Whether there is a system to log in to.
    #[must_use]
    pub fn has_logins(&self) -> bool {
        !self.system.is_empty()
    }

    /// Whether one can end what the other made.
    #[must_use]
    pub fn is_same_system(&self, other: &Self) -> bool {
        self.kind == other.kind && self.system == other.system
    }
}

impl fmt::Display for ProviderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}", self.name, self.kind)?;
        if !self.system.is_empty() {
            write!(f, " {}", self.system)?;
        }
        f.write_str(")")
    }
}

/// One version's part of the record.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct VersionRecord {
    /// What it is now.
    pub label: Label,
    pub origin: Origin,
    /// No instance may begin to use it.
    #[serde(default)]
    pub sealed: bool,
    /// Instances have been told of it.
    #[serde(default)]
    pub announced: bool,
    /// See [`Doubt`]; none: it is of this history, or a test login since has worked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doubt: Option<Doubt>,
    /// Which provider looks after it. `None`: none does, and Rotacast only follows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<ProviderId>,
    /// Why no provider ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unproven: Option<Unproven>,
    /// When it was first known.
    pub seen: WallTime,
    /// Why it ended, or why its test login failed, in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// See [`Unknown`].
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl VersionRecord {
    /// Whether a login can show that it works. The shape of a value shows nothing.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(ProofNeedsLogin, true))]
    #[must_use]
    pub fn can_log_in(&self) -> bool {
        self.provider.as_ref().is_some_and(ProviderId::has_logins)
    }
}

impl Label {
    /// Whether its version never comes back. A rejected one may still be on its way out.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Retired | Self::Unproven | Self::Rejected)
    }
}

/// A phase, and when a rotation entered it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct PhaseEntered {
    pub phase: Phase,
    pub at: WallTime,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Rotation {
    /// The generation it opened: its id on the wire, with the secret.
    pub generation: Generation,
    /// What people call it.
    #[serde(default)]
    pub number: RotationNumber,
    /// From; none for a secret's first version.
    pub old: Option<Version>,
    pub new: Version,
    /// Who asked: an operator's name, or `store`.
    pub trigger: String,
    pub phase: Phase,
    pub started: WallTime,
    /// When the phase was entered.
    pub phase_since: WallTime,
    /// The phases entered so far, in order, this one last; for people and traces. No phase is entered twice.
    #[serde(default)]
    pub phases: Vec<PhaseEntered>,
    /// The credential of a managed rotation exists and is in the store. Always true for a watched one.
    pub created: bool,
    /// The revision at which the new version became current, or at a rollback the old one again.
    #[serde(default)]
    pub activated: Option<Revision>,
    /// Who approved the activation.
    #[serde(default)]
    pub approved: Option<OperatorName>,
    /// Incarnations that preparing and switching do not wait for, as `service/instance/incarnation`. Never counts
    /// for the retire guard.
    #[serde(default)]
    pub excused: BTreeSet<String>,
    #[serde(default)]
    pub rollback: Option<String>,
    /// See [`Unknown`].
    #[serde(flatten)]
    pub unknown: Unknown,
}

words! {
    /// Why a version is being retired.
    pub enum Cause("cause") {
        Rotated = "rotated": "A newer version became current.",
        RolledBack = "rolled_back" / "rolled back": "Its rotation was rolled back.",
        Superseded = "superseded": "A newer version replaced it before it was activated.",
    }
}

words! {
    /// What is left to do once the point of no return is passed, in order.
    pub enum RetireStep("retire step") {
        Disable = "disable": "End the credential's validity at the provider.",
        Destroy = "destroy": "Remove the credential at the provider.",
        Erase = "erase": "Remove the value from the store.",
    }
}

/// An operator's order that a retire may cut instances or sessions off.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Override {
    pub by: OperatorName,
    pub reason: String,
    pub at: WallTime,
    /// The incarnations that are cut off, as `service/instance/incarnation`.
    pub instances: BTreeSet<String>,
    /// The provider's live sessions are cut off too.
    pub sessions: bool,
    /// See [`Unknown`].
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// What an operator has said, and why.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Statement {
    pub by: OperatorName,
    pub reason: String,
    pub at: WallTime,
    /// See [`Unknown`].
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// A version on its way out, with its own guard.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Retirement {
    pub cause: Cause,
    /// The revision from which no desired state asks for this version: who has acted on that
    /// revision and holds the version no more will never use it again.
    pub unwanted_since: Revision,
    pub since: WallTime,
    #[serde(default)]
    pub overrides: Vec<Override>,
    /// An operator has given the version up: the provider is not asked to end its credential, only its value is erased.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_up: Option<Statement>,
    /// The rotation was rolled back before the credential was made. If the store has no value of it either, there is no
    /// credential that Rotacast could name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unmade: bool,
    /// Past the point of no return: what is to be done next.
    #[serde(default)]
    pub step: Option<RetireStep>,
    /// See [`Unknown`].
    #[serde(flatten)]
    pub unknown: Unknown,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Pause {
    pub by: OperatorName,
    pub reason: String,
    pub at: WallTime,
    /// Said by further pauses while it was in force, at most [`MAX_PAUSES`] in all. One `resume` lifts them together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<Statement>,
    /// See [`Unknown`].
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl Pause {
    /// Every reason, each but the first with the operator who gave it.
    #[must_use]
    pub fn reasons(&self) -> String {
        let more = self.more.iter().map(|word| format!("; {}: {}", word.by, word.reason));
        std::iter::once(self.reason.clone()).chain(more).collect()
    }
}

/// Nothing irreversible happens until an operator says so: the store is not what it was.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct SafeMode {
    pub reason: String,
    pub at: WallTime,
    /// See [`Unknown`].
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// A rotation that is over.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Finished {
    /// The generation it opened.
    pub generation: Generation,
    /// What people call it.
    #[serde(default)]
    pub number: RotationNumber,
    pub outcome: Outcome,
    pub old: Option<Version>,
    pub new: Version,
    pub started: WallTime,
    pub ended: WallTime,
    /// The phases it went through, in order.
    #[serde(default)]
    pub phases: Vec<PhaseEntered>,
    /// Why, for a rollback, or for an end of the old version that no provider has proved.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// See [`Unknown`].
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// The lease times that instances and leaders use, so that every reader of the record knows them.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Timing {
    /// See [`Policy::lease_idle`].
    #[serde(with = "codec::millis", rename = "lease_idle_ms")]
    pub lease_idle: Duration,
    /// See [`Policy::lease_rotating`].
    #[serde(with = "codec::millis", rename = "lease_rotating_ms")]
    pub lease_rotating: Duration,
    /// See [`Policy::self_lease`].
    #[serde(with = "codec::millis", rename = "self_lease_ms")]
    pub self_lease: Duration,
    /// See [`Policy::max_use`].
    #[serde(with = "codec::millis", rename = "max_use_ms")]
    pub max_use: Duration,
    /// See [`Policy::sync_idle`].
    #[serde(with = "codec::millis", rename = "sync_idle_ms")]
    pub sync_idle: Duration,
    /// See [`Policy::sync_rotating`].
    #[serde(with = "codec::millis", rename = "sync_rotating_ms")]
    pub sync_rotating: Duration,
    /// See [`Unknown`].
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl Timing {
    /// What a policy says, in whole milliseconds.
    #[must_use]
    pub fn of(policy: &Policy) -> Self {
        let whole = |duration: Duration| Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
        Self {
            lease_idle: whole(policy.lease_idle),
            lease_rotating: whole(policy.lease_rotating),
            self_lease: whole(policy.self_lease),
            max_use: whole(policy.max_use),
            sync_idle: whole(policy.sync_idle),
            sync_rotating: whole(policy.sync_rotating),
            unknown: Unknown::new(),
        }
    }

    /// The longer one of the Sync intervals.
    #[must_use]
    pub fn longest_sync(&self) -> Duration {
        self.sync_idle.max(self.sync_rotating)
    }
}

/// The longest times that any instance may still use, whatever the policy says now. A leader that takes over
/// waits these, not the policy's: leases granted before a policy was shortened are still running.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Bounds {
    /// No lease longer than this is running. Lowered only after a wait that outlasts every longer one.
    #[serde(with = "codec::millis", rename = "lease_ms")]
    pub lease: Duration,
    /// No self-lease longer than this is running. Only ever raised.
    #[serde(with = "codec::millis", rename = "self_lease_ms")]
    pub self_lease: Duration,
    /// No use outlasts its checkout longer than this. Only ever raised.
    #[serde(with = "codec::millis", rename = "max_use_ms")]
    pub max_use: Duration,
    /// No instance that runs has been told to Sync less often than this. Lowered with `lease`: by then each has Synced again.
    #[serde(default, with = "codec::millis", rename = "sync_ms")]
    pub sync: Duration,
    /// See [`Unknown`].
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// The truth about one secret.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct SecretRecord {
    pub secret: SecretName,
    /// The term of the leader that wrote it last.
    pub epoch: Epoch,
    /// +1 per change.
    pub revision: Revision,
    /// +1 per change of direction.
    pub generation: Generation,
    /// +1 per rotation.
    #[serde(default)]
    pub rotations: RotationNumber,
    /// The version for new work.
    pub current: Option<Version>,
    /// The highest version ever taken in; numbers are never used again.
    pub last_version: Option<Version>,
    /// Live versions, and the newest [`MAX_HISTORY`] ended ones.
    pub versions: BTreeMap<Version, VersionRecord>,
    pub rotation: Option<Rotation>,
    /// Versions on their way out.
    pub retirements: BTreeMap<Version, Retirement>,
    pub paused: Option<Pause>,
    /// Incarnations that an operator has said are gone, as `service/instance/incarnation`: nothing waits for them. At most
    /// [`MAX_GONE`]; one that the roster no longer has is dropped.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub gone: BTreeMap<String, Statement>,
    /// See [`SafeMode`].
    pub safe_mode: Option<SafeMode>,
    /// See [`SecretState::stay`]: in safe mode, and after it until the version that waits then is current, the current one
    /// is known to work, or an operator ends it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stay: bool,
    /// While instances stay: versions up to here that the record does not list have ended, and are not of a lost history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_to: Option<Version>,
    /// See [`SecretState::lost_history`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_history: Option<LostHistory>,
    /// When a leader noticed that the last change was written by a clock that was ahead: schedules count from here until a
    /// rotation ends, or the clock that noted it turns out to have been behind. See [`clock_noted`](crate::schedule::clock_noted).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ahead_since: Option<WallTime>,
    /// The lease times in force.
    pub timing: Timing,
    /// The longest times that any instance may still use.
    pub bounds: Bounds,
    /// Finished rotations, newest last, at most [`MAX_HISTORY`].
    pub history: Vec<Finished>,
    /// See [`Unknown`].
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl SecretRecord {
    /// The record of a secret that no leader has seen yet.
    #[must_use]
    pub fn new(secret: SecretName, epoch: Epoch, timing: Timing) -> Self {
        Self {
            secret,
            epoch,
            revision: Revision(0),
            generation: Generation(0),
            rotations: RotationNumber(0),
            current: None,
            last_version: None,
            versions: BTreeMap::new(),
            rotation: None,
            retirements: BTreeMap::new(),
            paused: None,
            gone: BTreeMap::new(),
            safe_mode: None,
            stay: false,
            ended_to: None,
            lost_history: None,
            ahead_since: None,
            bounds: Bounds {
                lease: timing.lease_idle,
                self_lease: timing.self_lease,
                max_use: timing.max_use,
                sync: timing.longest_sync(),
                unknown: Unknown::new(),
            },
            timing,
            history: Vec::new(),
            unknown: Unknown::new(),
        }
    }

    /// Whether this secret is rotating: the short lease tier applies.
    #[must_use]
    pub fn is_rotating(&self) -> bool {
        self.rotation.is_some() || !self.retirements.is_empty()
    }

    /// How often an instance sends Sync.
    #[must_use]
    pub fn sync_interval(&self) -> Duration {
        if self.is_rotating() { self.timing.sync_rotating } else { self.timing.sync_idle }
    }

    /// The longest interval at which an instance may be sending Sync, whatever it has heard of this record.
    #[must_use]
    pub fn longest_sync(&self) -> Duration {
        self.bounds.sync.max(self.timing.longest_sync())
    }

    /// The version instances should prepare.
    #[must_use]
    pub fn pending(&self) -> Option<Version> {
        self.rotation.as_ref().filter(|rotation| rotation.phase == Phase::Preparing).map(|rotation| rotation.new)
    }

    /// The version the rotation in flight moves away from, once that has begun.
    #[must_use]
    pub fn previous(&self) -> Option<Version> {
        let rotation = self.rotation.as_ref()?;
        match rotation.phase {
            Phase::Activating | Phase::Draining | Phase::Retiring => rotation.old,
            Phase::RollingBack => Some(rotation.new).filter(|new| self.retirements.contains_key(new)),
            Phase::Verifying | Phase::Preparing => None,
        }
    }

    /// Whether a version waits: known, and not current yet.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.versions.values().any(|version| version.label == Label::Pending)
    }

    #[must_use]
    pub fn doubt(&self, version: Version) -> Option<Doubt> {
        self.versions.get(&version)?.doubt
    }

    /// While the current version is not known to work, instances stay with what they serve.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(StayProved, false))]
    #[must_use]
    pub fn doubts_current(&self) -> bool {
        self.current.is_some_and(|current| self.doubt(current).is_some())
    }

    /// Whether the lease times in force are a policy's.
    pub(crate) fn goes_by(&self, timing: &Timing) -> bool {
        self.timing == Timing { unknown: self.timing.unknown.clone(), ..timing.clone() }
    }

    /// Versions that no instance may begin to use.
    #[must_use]
    pub fn sealed(&self) -> BTreeSet<Version> {
        self.versions.iter().filter(|(_, version)| version.sealed).map(|(number, _)| *number).collect()
    }

    /// Versions whose credential may still be valid.
    pub fn live_versions(&self) -> impl Iterator<Item = Version> + '_ {
        self.versions
            .iter()
            .filter(|(number, version)| !version.label.is_over() || self.retirements.contains_key(number))
            .map(|(number, _)| *number)
    }

    /// What every instance that uses the secret should know. The same whether it came over the bus, in a
    /// Sync reply or was read from the store.
    #[must_use]
    pub fn state(&self) -> SecretState {
        SecretState {
            secret: self.secret.clone(),
            epoch: self.epoch,
            revision: self.revision,
            generation: self.generation,
            rotation: self
                .rotation
                .as_ref()
                .map(|rotation| RotationId { secret: self.secret.clone(), generation: rotation.generation }),
            phase: self.rotation.as_ref().map(|rotation| rotation.phase),
            current: self.current,
            pending: self.pending(),
            previous: self.previous(),
            sealed: self.sealed(),
            sync_interval: self.sync_interval(),
            self_lease: self.timing.self_lease,
            max_use: self.timing.max_use,
            stay: self.stay,
            lost_history: self.lost_history,
        }
    }
}
