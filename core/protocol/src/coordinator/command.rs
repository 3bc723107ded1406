//! Side effects that are still outstanding: derived from state alone.

#[cfg(test)]
mod tests;

use std::time::Duration;

use super::Coordinator;
use crate::id::{Revision, Version};
use crate::phase::Phase;
use crate::record::RetireStep;
use crate::time::{Instant, Now};
use crate::word::words;

/// How old a usage reading may be for the guard to use it, and how often one is taken while a retire waits:
/// often enough for a live view, rare enough for a busy database.
pub const USAGE_INTERVAL: Duration = Duration::from_secs(1);

/// What is to be done. Doing any of these twice is harmless.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum CommandKind {
    /// Publish the desired state.
    Publish,
    /// Make a managed version's value durable, then the credential at the provider, then the version key.
    Create { version: Version },
    /// Log in with it.
    Test { version: Version },
    /// Ask the provider who uses it.
    ReadUsage { version: Version },
    /// Make the intent to retire durable in the audit log, with the guard's evidence.
    Audit { version: Version },
    /// Carry out a step past the point of no return.
    Retire { version: Version, step: RetireStep },
}

words! {
    /// A command's name: a side effect of the leader.
    pub enum CommandName("command") {
        Publish = "publish": "Publish the desired state.",
        Create = "create": "Make a managed version's value durable, then the credential at the provider, then the version key.",
        Test = "test": "Log in with the new credential.",
        ReadUsage = "read_usage" / "read the usage": "Ask the provider who uses a version.",
        Audit = "audit": "Make the intent to retire durable in the audit log, with the guard's evidence.",
        Disable = "disable": "End the old credential's validity at the provider.",
        Destroy = "destroy": "Remove the old credential at the provider.",
        Erase = "erase": "Remove the old value from the store.",
    }
}

impl CommandKind {
    #[must_use]
    pub fn name(&self) -> CommandName {
        match self {
            Self::Publish => CommandName::Publish,
            Self::Create { .. } => CommandName::Create,
            Self::Test { .. } => CommandName::Test,
            Self::ReadUsage { .. } => CommandName::ReadUsage,
            Self::Audit { .. } => CommandName::Audit,
            Self::Retire { step: RetireStep::Disable, .. } => CommandName::Disable,
            Self::Retire { step: RetireStep::Destroy, .. } => CommandName::Destroy,
            Self::Retire { step: RetireStep::Erase, .. } => CommandName::Erase,
        }
    }

    /// The version that it is about.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        match self {
            Self::Publish => None,
            Self::Create { version }
            | Self::Test { version }
            | Self::ReadUsage { version }
            | Self::Audit { version }
            | Self::Retire { version, .. } => Some(*version),
        }
    }

    /// Whether the provider does it, so that the way out of its failure lies there.
    pub(super) fn is_of_the_provider(&self) -> bool {
        !matches!(self, Self::Retire { step: RetireStep::Erase, .. }) && self.works_on().is_some()
    }

    /// The version whose credential it uses or changes. No two commands on one version run at once.
    #[must_use]
    pub fn works_on(&self) -> Option<Version> {
        match self {
            Self::Create { version }
            | Self::Test { version }
            | Self::ReadUsage { version }
            | Self::Retire { version, .. } => Some(*version),
            Self::Publish | Self::Audit { .. } => None,
        }
    }
}

/// A command with what it was derived from. Two leaders derive equal commands from equal records, so the pair
/// of kind and revision names the effect across a crash.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Command {
    pub kind: CommandKind,
    pub revision: Revision,
}

impl Coordinator {
    /// Every side effect that is outstanding now. The driver runs those that are not in flight yet and reports each outcome
    /// by an input; what is still outstanding afterwards shows up again.
    #[must_use]
    pub fn commands(&self, now: Now) -> Vec<Command> {
        let mut kinds = Vec::new();
        if !self.leads(now.instant) || !self.is_signed() {
            return Vec::new();
        }
        if self.published < Some(self.record.revision) {
            kinds.push(CommandKind::Publish);
        }
        if let Some(rotation) = &self.record.rotation
            && rotation.phase == Phase::Verifying
        {
            let version = rotation.new;
            if rotation.created {
                kinds.extend(self.may_test(version).then_some(CommandKind::Test { version }));
            } else if self.knows_bus() && self.record.safe_mode.is_none() {
                // Entering safe mode gives the version up; an earlier release's record may be in it and have one to make.
                kinds.push(CommandKind::Create { version });
            }
        }
        kinds.extend(self.to_prove().map(|version| CommandKind::Test { version }));
        for (version, retirement) in &self.record.retirements {
            let version = *version;
            if let Some(step) = retirement.step {
                if self.pause_holds_steps() || self.record.safe_mode.is_some() {
                    continue;
                }
                kinds.push(CommandKind::Retire { version, step });
                continue;
            }
            let progress = self.retiring.get(&version);
            if retirement.given_up.is_none() && self.may_drain(version) && self.usage_is_due(version, now.instant) {
                kinds.push(CommandKind::ReadUsage { version });
            }
            if progress.is_some_and(|progress| !progress.audited) && self.guard_holds(version, now) {
                kinds.push(CommandKind::Audit { version });
            }
        }
        kinds.into_iter().map(|kind| Command { kind, revision: self.record.revision }).collect()
    }

    /// Whether the record asks for a command, now or once the time has come.
    pub(super) fn may_be_owed(&self, command: &CommandKind) -> bool {
        let verifying = self.record.rotation.as_ref().filter(|rotation| rotation.phase == Phase::Verifying);
        let verifies = |version, created| verifying.is_some_and(|it| it.new == version && it.created == created);
        let retirement = |version| self.record.retirements.get(version);
        let progress =
            |version| self.retiring.get(version).filter(|_| retirement(version).is_some_and(|it| it.step.is_none()));
        match command {
            CommandKind::Publish => self.published < Some(self.record.revision),
            CommandKind::Create { version } => verifies(*version, false),
            CommandKind::Test { version } => {
                verifies(*version, true) && self.may_test(*version) || self.to_prove().any(|it| it == *version)
            }
            CommandKind::ReadUsage { version } => {
                progress(version).is_some()
                    && retirement(version).is_some_and(|it| it.given_up.is_none())
                    && self.has_provider(*version)
            }
            CommandKind::Audit { version } => progress(version).is_some_and(|it| !it.audited),
            CommandKind::Retire { version, step } => retirement(version).is_some_and(|it| it.step == Some(*step)),
        }
    }

    /// Past the point of no return, but each step still ends something for good.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(PauseSteps, false))]
    fn pause_holds_steps(&self) -> bool {
        self.record.paused.is_some()
    }

    /// Whether a provider can be asked who uses a version.
    pub(super) fn has_provider(&self, version: Version) -> bool {
        self.record.versions.get(&version).is_some_and(|version| version.provider.is_some())
    }

    fn usage_is_due(&self, version: Version, now: Instant) -> bool {
        if !self.has_provider(version) {
            return false;
        }
        let sealed = self.retiring.get(&version).and_then(|progress| progress.sealed);
        self.usage.get(&version).is_none_or(|(sent, _)| {
            // A reading from before the seal is no evidence: take one at once.
            now.since(*sent) >= USAGE_INTERVAL || sealed.is_some_and(|sealed| *sent < sealed)
        })
    }

    pub(super) fn next_usage(&self, version: Version) -> Option<Instant> {
        self.usage.get(&version).map(|(sent, _)| *sent + USAGE_INTERVAL)
    }
}
