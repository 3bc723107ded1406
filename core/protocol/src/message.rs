//! What broadcaster and instances tell each other, after parsing: both directions carry whole
//! state, so that a later message repairs the loss of any earlier one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{
    Challenge, Epoch, Generation, InstanceKey, LeaseSequence, Nonce, ReportSequence, Revision, RotationId, Version,
};
use crate::name::SecretName;
use crate::phase::Phase;
use crate::time::WallTime;
use crate::word::words;

/// Most secrets one instance may register for. Bounds a report (about 60 bytes a secret).
pub const MAX_SECRETS_PER_INSTANCE: usize = 256;
/// Most versions of one secret an instance may hold at once; more is a leak of guards.
pub const MAX_HELD_VERSIONS: usize = 16;
/// Longest text of a failure, in bytes; the rest is cut off.
pub const MAX_FAILURE_TEXT_BYTES: usize = 256;

/// One roster entry: an instance says that it exists, or that it is gone for good.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Registration {
    pub key: InstanceKey,
    /// Whether at most one incarnation has this instance name at a time (a StatefulSet pod, a systemd unit): a later one
    /// then proves the earlier one over.
    pub exclusive: bool,
    /// Which secrets it uses. At most [`MAX_SECRETS_PER_INSTANCE`].
    pub secrets: BTreeSet<SecretName>,
    /// A clean leave: it uses nothing any more and this incarnation never comes back.
    pub left: bool,
}

/// What the broadcaster wants of every instance that uses a secret. Whole, never a delta.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SecretState {
    pub secret: SecretName,
    /// The term of the leader that wrote it.
    pub epoch: Epoch,
    /// Orders states: an instance never goes back to a lower revision.
    pub revision: Revision,
    /// The direction; see [`Generation`].
    pub generation: Generation,
    pub rotation: Option<RotationId>,
    /// Where that rotation stands.
    pub phase: Option<Phase>,
    /// The version to use for new work.
    pub current: Option<Version>,
    /// A version to fetch and validate, without using it for work yet.
    pub pending: Option<Version>,
    /// A version on its way out: finish old work with it, begin none.
    pub previous: Option<Version>,
    /// Versions that no instance may begin to use.
    pub sealed: BTreeSet<Version>,
    /// How often to send Sync while nothing else asks for one.
    pub sync_interval: Duration,
    /// For how long a store read that shows a version unsealed allows its use, from the read's send time.
    pub self_lease: Duration,
    /// How long a use may outlast its checkout.
    pub max_use: Duration,
    /// The store's history broke, and it is not known which version is good: instances that already serve an unsealed version
    /// keep it, and `current` is for those that serve none.
    pub stay: bool,
    /// The last time that a part of the store's history was lost, if ever. It stays in every later state, so that an
    /// instance that was away meanwhile learns of it.
    pub lost_history: Option<LostHistory>,
}

/// A part of the store's history was lost: it was restored from a backup, or wiped.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct LostHistory {
    /// The revision that the record leapt to when it was noticed, above every lost one: an instance that acts on an
    /// older state has acted on what was lost.
    pub noticed: Revision,
    /// The newest version that the store still knew. A number above it may have been another version's.
    pub kept_to: Option<Version>,
}

words! {
    /// How far an instance has come with the version it is moving to. Ordered.
    pub enum Stage("stage") {
        Seen = "seen": "It knows of the version.",
        Prepared = "prepared": "It has fetched and validated the version and could switch at once.",
        Switched = "switched": "New work uses the version.",
        Released = "released": "Nothing uses any other version any more.",
    }
}

words! {
    /// Why an instance could not take the next step.
    pub enum FailureKind("failure kind") {
        Fetch = "fetch" / "could not fetch the value": "The value could not be fetched; it is tried again.",
        PrepareRefused = "prepare_refused" / "refused the value":
            "The service's prepare hook refused the value, which counts against the failure budget.",
        SwitchFailed = "switch_failed" / "failed to switch":
            "The service's switch hook failed, which counts against the failure budget.",
        NotReady = "not_ready" / "is not ready yet":
            "A hook asked to be called again later, such as while a database starts. It counts against no budget.",
        ReleaseFailed = "release_failed" / "has not released":
            "The service's release hook failed, or runs for longer than its time. The version stays held.",
    }
}

impl FailureKind {
    /// Whether it counts against the policy's failure budget.
    #[must_use]
    pub fn counts(self) -> bool {
        match self {
            Self::PrepareRefused | Self::SwitchFailed => true,
            Self::Fetch | Self::NotReady | Self::ReleaseFailed => false,
        }
    }
}

/// An instance's last failure with a version.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Failure {
    /// What went wrong.
    pub kind: FailureKind,
    /// With which version.
    pub version: Version,
    /// The service's words, at most [`MAX_FAILURE_TEXT_BYTES`]. Never a value: the SDK builds it from
    /// the hook's refusal type, not from what the hook was given.
    pub text: String,
}

/// One instance's whole observed state of one secret.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SecretReport {
    /// The generation of the newest desired state it has acted on.
    pub generation: Generation,
    /// The revision of that state: nothing that state did not ask for will be begun from now on.
    pub revision: Revision,
    /// The version it is moving to or has arrived at, and how far it is.
    pub reached: Option<(Version, Stage)>,
    /// Every version a guard, a pool or a prepared hook still holds. At most [`MAX_HELD_VERSIONS`].
    pub held: BTreeSet<Version>,
    /// The newest lease grant it has received.
    pub lease: LeaseSequence,
    /// What last went wrong, if the last step did.
    pub failure: Option<Failure>,
    /// Failed logins the service told the SDK about, by version, since this incarnation began.
    pub auth_failures: BTreeMap<Version, u64>,
}

/// One instance's whole observed state. Soft: resent until covered.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct InstanceReport {
    pub key: InstanceKey,
    /// Orders the reports of this incarnation.
    pub sequence: ReportSequence,
    /// By secret. At most [`MAX_SECRETS_PER_INSTANCE`].
    pub secrets: BTreeMap<SecretName, SecretReport>,
}

/// Heartbeat, lease renewal and gap check at once.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SyncRequest {
    /// Echoed by the reply; the lease counts from the moment this was sent.
    pub nonce: Nonce,
    /// The challenge of the newest answer that has arrived; none before the first.
    pub echo: Option<Challenge>,
    /// The whole observed state. Leases are asked for what it holds and for what it has reached.
    pub report: InstanceReport,
}

/// The leader's answer to one Sync.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SyncReply {
    pub key: InstanceKey,
    /// Of which request.
    pub nonce: Nonce,
    /// The leader's term.
    pub epoch: Epoch,
    /// The newest report the leader has folded: no need to resend up to here.
    pub covered: ReportSequence,
    /// The leader does not know this incarnation: register again.
    pub unregistered: bool,
    /// The request did not echo the outstanding challenge, so it had no effect. The next one may.
    pub unproven: bool,
    /// What the next Sync has to echo; none for an incarnation that is not registered.
    pub challenge: Option<Challenge>,
    /// By secret: leases, and the desired state when the instance's was older.
    pub secrets: BTreeMap<SecretName, SecretGrant>,
}

/// Leases of one secret, and what is wanted of it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SecretGrant {
    /// Orders grants.
    pub sequence: LeaseSequence,
    /// Which versions may be used, for how long from the request's send time.
    pub leases: BTreeMap<Version, Duration>,
    /// The desired state, when the report's revision was older.
    pub state: Option<SecretState>,
}

/// Asks the broadcaster for one version's value, or for the desired state as the store has it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct FetchRequest {
    pub key: InstanceKey,
    /// Echoed by the reply; a self-lease counts from the moment this was sent.
    pub nonce: Nonce,
    /// When it was made, by the instance's wall clock: a Fetch gives a value once, and only for a while.
    pub issued: WallTime,
    pub secret: SecretName,
    /// Which version's value; none: only the state.
    pub version: Option<Version>,
}
