//! Conditions: what a phase or a retire waits for, by name.

use crate::time::{Instant, WallTime};
use crate::word::words;

words! {
    /// What something waits for: a condition of the retire guard, of the phase in force, or of what goes on beside them.
    pub enum ConditionName("condition") {
        Verified = "verified" / "the test login": "The test login with the new credential works.",
        Created = "created" / "the new credential": "The new credential exists and its value is in the store.",
        RosterRead = "roster_read" / "the roster to be read":
            "A leader that has just taken over has read the roster, or has waited long enough to hear every live instance.",
        Prepared = "prepared" / "instances to prepare": "Every reachable instance has fetched and validated the new version.",
        Switched = "switched" / "instances to switch": "Every reachable instance uses the new version for new work.",
        LiveInstance = "live_instance" / "a live instance":
            "At least one live instance uses the secret, since an empty set confirms nothing.",
        RequiredServices = "required_services" / "the required services":
            "Every required service has its minimum of live instances at this stage.",
        Approval = "approval" / "an operator's approval": "An operator has approved the activation.",
        NotPaused = "not_paused" / "the pause to be lifted": "No operator's pause is in force.",
        NotInSafeMode = "not_in_safe_mode" / "safe mode to be left": "The secret is not in safe mode.",
        Leads = "leads" / "the leadership": "This broadcaster's leadership is valid.",
        Phase = "phase" / "the rotation's phase": "The rotation has reached the phase in which this version may end.",
        OverlapOver = "overlap_over" / "the minimum overlap":
            "Old and new version have been valid together for the policy's minimum.",
        InheritedLeasesOver = "inherited_leases_over" / "earlier leaders' leases":
            "The roster names every instance that may have a lease of an earlier leader, or each such lease has expired on every clock.",
        MembersReleased = "members_released" / "instances to release the version":
            "No instance may still use the version: each has released it, left, or has no valid lease.",
        LiveInstanceConfirmed = "live_instance_confirmed" / "a live instance on the new version":
            "At least one live instance has confirmed the new version.",
        Sealed = "sealed" / "the seal": "The store says that the use of this version may no longer begin.",
        SelfLeasesOver = "self_leases_over" / "self-leases to expire":
            "Every use that a store read before the seal allowed has ended.",
        UsageEvidence = "usage_evidence" / "sessions to end":
            "A reading after the seal shows no live session at the provider, or the provider cannot tell.",
        Retiring = "retiring" / "a retirement": "The version is being retired.",
        Audited = "audited" / "the audit log": "The intent to retire the version is durable in the audit log.",
        Retired = "retired" / "the retire steps": "The old credential is disabled, destroyed and erased.",
        Start = "start" / "a rotation's start": "A version that waits can have its rotation.",
        Staying = "staying" / "instances that stay":
            "After lost history, instances follow again instead of staying with what they serve.",
        Command = "command" / "an action that fails": "An action that keeps failing works.",
        Deadline = "deadline" / "a phase past its deadline": "The phase in force ends within its deadline.",
    }
}

impl ConditionName {
    /// Whether it can only be judged after the seal, so that the seal does not wait for it.
    #[must_use]
    pub const fn judged_after_seal(self) -> bool {
        matches!(self, Self::Sealed | Self::SelfLeasesOver | Self::UsageEvidence)
    }

    /// Whether time alone meets it: nothing is to be done about it.
    #[must_use]
    pub const fn passes_by_itself(self) -> bool {
        matches!(self, Self::OverlapOver | Self::InheritedLeasesOver | Self::SelfLeasesOver | Self::RosterRead)
    }

    /// Whether its blockers are instances, by name.
    #[must_use]
    pub const fn names_instances(self) -> bool {
        matches!(self, Self::Prepared | Self::Switched | Self::MembersReleased)
    }
}

/// A reason why something waits.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Blocker {
    /// What waits.
    pub condition: ConditionName,
    /// Who holds it up; empty: no one in particular.
    pub who: String,
    pub why: String,
    /// Since when, if known.
    pub since: Option<WallTime>,
    /// What happens next.
    pub next: String,
    /// What an operator can do about it, as a command to paste.
    pub command: Option<String>,
}

/// One condition, judged.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Condition {
    pub name: ConditionName,
    /// Whether it holds.
    pub met: bool,
    /// What it was judged by.
    pub evidence: String,
    /// Who or what it waits for.
    pub blockers: Vec<Blocker>,
    /// When time alone may change it.
    pub until: Option<Instant>,
}

impl Condition {
    pub(super) fn judged(name: ConditionName, met: bool, evidence: impl Into<String>) -> Self {
        Self { name, met, evidence: evidence.into(), blockers: Vec::new(), until: None }
    }

    pub(super) fn met(name: ConditionName) -> Self {
        Self::judged(name, true, "")
    }

    /// Not met, for one reason that is evidence and blocker at once.
    pub(super) fn waiting(name: ConditionName, why: &str, since: WallTime, next: &str) -> Self {
        Self::judged(name, false, why).or("", why, Some(since), next)
    }

    /// Adds a blocker if the condition is not met.
    pub(super) fn or(
        mut self,
        who: impl Into<String>,
        why: impl Into<String>,
        since: Option<WallTime>,
        next: &str,
    ) -> Self {
        if !self.met {
            let (who, why, next) = (who.into(), why.into(), next.into());
            let blocker = Blocker { condition: self.name, who, why, since, next, command: None };
            self.blockers.push(blocker);
        }
        self
    }

    pub(super) fn until(mut self, until: Instant) -> Self {
        if !self.met {
            self.until = Some(until);
        }
        self
    }
}
