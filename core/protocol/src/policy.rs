//! What an operator may choose about one secret's rotations.

use std::collections::BTreeMap;
use std::time::Duration;

use thiserror::Error;

use crate::name::ServiceName;
use crate::phase::Phase;
use crate::record::ProviderId;

/// What silence means: when an instance that cannot be reached stops holding back a retire.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum WhenUnreachable {
    /// When its usage lease has expired on every clock; the SDK fences itself by then.
    Fence,
    /// Never: only a release, a clean leave or a named operator's override.
    Hold,
    /// After this much silence. For consumers that cannot fence themselves, such as files rendered
    /// for a legacy process; weaker than the lease, since nothing makes the consumer stop.
    PresumeDeadAfter(Duration),
}

/// What an empty set of members means.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum WhenEmpty {
    /// An empty set is never unanimous: wait for an instance, or for an operator.
    Hold,
    /// Continue: no instance uses it.
    Proceed,
}

/// What happens when a phase lasts longer than its deadline. Never a silent retire.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum OnDeadline {
    /// Give it the same time again, and say so.
    Extend,
    /// Wait for as long as it takes, and report the rotation as stuck.
    Hold,
    /// Roll back (before `Retiring` only; afterwards this is `Hold`).
    RollBack,
}

/// A phase's deadline.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Deadline {
    /// How long the phase may last.
    pub after: Duration,
    /// What happens then.
    pub then: OnDeadline,
}

/// What happens when more instances refuse the new version than the budget allows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum OnFailure {
    /// Roll back.
    RollBack,
    /// Wait, and report the rotation as stuck.
    Hold,
}

/// One secret's policy.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Policy {
    /// Lease while nothing rotates. Long, so that a broadcaster outage harms no service.
    pub lease_idle: Duration,
    /// Lease while this secret rotates. Short, so that a dead instance does not hold it up for long.
    pub lease_rotating: Duration,
    /// For how long a store read that shows a version unsealed allows its use.
    pub self_lease: Duration,
    /// How long a use may outlast its checkout.
    pub max_use: Duration,
    /// How often an idle instance sends Sync.
    pub sync_idle: Duration,
    /// How often an instance sends Sync while this secret rotates.
    pub sync_rotating: Duration,
    /// How long old and new stay valid together at least, from the activation.
    pub min_overlap: Duration,
    /// What silence means.
    pub when_unreachable: WhenUnreachable,
    /// After how many missed Syncs preparing and switching go on without an instance: neither ends a credential, and the
    /// retire still waits for it. Under [`WhenUnreachable::Hold`] they wait for every instance.
    pub missed_syncs: u32,
    /// From how long on a rotation that waits is reported as stuck, counted from the beginning of its phase.
    pub stuck_after: Duration,
    /// What an empty set of members means.
    pub when_empty: WhenEmpty,
    /// Services that must have at least this many live instances on the new version.
    pub required: BTreeMap<ServiceName, u32>,
    /// Whether an operator must approve before the activation.
    pub approval: bool,
    /// Deadlines by phase.
    pub deadlines: BTreeMap<Phase, Deadline>,
    /// How many instances may refuse the new version before `on_failure` applies.
    pub failure_budget: u32,
    /// How many failed logins with the new version may be reported before `on_failure` applies.
    pub auth_failure_budget: u64,
    /// What happens beyond the budgets.
    pub on_failure: OnFailure,
    /// Most versions that may be valid at once; a further one waits its turn. At least 2.
    pub max_live_versions: usize,
    /// What makes and tests the secret's versions. `None`: Rotacast makes none and only follows what is written.
    pub provider: Option<ProviderId>,
}

/// The usage lease while a secret rotates, unless the policy says otherwise. Instances renew it with every Sync, so that at any moment
/// it lasts longer than an outage of ten minutes: `sync_rotating`, and a Sync or two that the outage lost, are below a minute.
pub const LEASE_ROTATING: Duration = Duration::from_secs(11 * 60);

impl Default for Policy {
    fn default() -> Self {
        Self {
            lease_idle: Duration::from_secs(3600),
            lease_rotating: LEASE_ROTATING,
            self_lease: Duration::from_secs(10),
            max_use: Duration::from_secs(5),
            sync_idle: Duration::from_secs(60),
            sync_rotating: Duration::from_secs(10),
            min_overlap: Duration::ZERO,
            when_unreachable: WhenUnreachable::Fence,
            missed_syncs: 3,
            stuck_after: Duration::from_secs(600),
            when_empty: WhenEmpty::Hold,
            required: BTreeMap::new(),
            approval: false,
            deadlines: BTreeMap::new(),
            failure_budget: 0,
            auth_failure_budget: 10,
            on_failure: OnFailure::RollBack,
            max_live_versions: 4,
            provider: None,
        }
    }
}

/// A policy that contradicts itself.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{setting}: {problem}")]
pub struct InvalidPolicy {
    /// The setting's name, as in the configuration.
    pub setting: &'static str,
    /// What was found and what is expected.
    pub problem: String,
}

impl Policy {
    /// Checks that the settings fit together.
    ///
    /// # Errors
    /// The first setting that cannot work, with why.
    pub fn validate(&self) -> Result<(), InvalidPolicy> {
        let fail = |setting, problem: String| Err(InvalidPolicy { setting, problem });
        let shortest = Duration::from_millis(100);
        for (setting, value) in [
            ("lease_idle", self.lease_idle),
            ("lease_rotating", self.lease_rotating),
            ("self_lease", self.self_lease),
            ("sync_idle", self.sync_idle),
            ("sync_rotating", self.sync_rotating),
        ] {
            if value < shortest || value > Duration::from_secs(7 * 86_400) {
                return fail(setting, format!("{value:?} is out of range; expected 100ms to 7d"));
            }
        }
        if self.lease_rotating > self.lease_idle {
            return fail(
                "lease_rotating",
                format!("{:?} is longer than lease_idle ({:?})", self.lease_rotating, self.lease_idle),
            );
        }
        if self.sync_rotating * 2 > self.lease_rotating {
            return fail(
                "sync_rotating",
                format!(
                    "{:?} leaves no room for one lost Sync within lease_rotating ({:?}); expected at most half of it",
                    self.sync_rotating, self.lease_rotating
                ),
            );
        }
        if self.sync_idle * 2 > self.lease_idle {
            return fail(
                "sync_idle",
                format!(
                    "{:?} leaves no room for one lost Sync within lease_idle ({:?}); expected at most half of it",
                    self.sync_idle, self.lease_idle
                ),
            );
        }
        if self.missed_syncs == 0 {
            return fail(
                "missed_syncs",
                "0 waits for no instance; expected at least 1, or `when_unreachable` = \"hold\"".into(),
            );
        }
        if self.stuck_after < shortest {
            return fail("stuck_after", format!("{:?} is out of range; expected at least 100ms", self.stuck_after));
        }
        if self.max_live_versions < 2 {
            return fail("max_live_versions", format!("{} leaves no room for old and new", self.max_live_versions));
        }
        if let Some((service, _)) = self.required.iter().find(|(_, minimum)| **minimum == 0) {
            return fail("required", format!("service {service} needs a minimum of at least 1"));
        }
        if let Some((phase, _)) = self.deadlines.iter().find(|(_, deadline)| deadline.after.is_zero()) {
            return fail("deadlines", format!("the deadline of {phase} is zero"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_contradictions_are_named() {
        assert_eq!(Policy::default().validate(), Ok(()));
        let policy = Policy { sync_rotating: LEASE_ROTATING, ..Policy::default() };
        assert!(policy.validate().unwrap_err().to_string().starts_with("sync_rotating: 660s leaves no room"));
    }
}
