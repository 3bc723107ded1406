//! What an operator can do about a blocker, as a command to paste.

use std::time::Duration;

use super::condition::{Blocker, ConditionName};
use super::{CommandKind, Coordinator, Cure, Evidence, Member, Reason, Trouble};
use crate::id::Version;
use crate::phase::Phase;
use crate::policy::OnDeadline;
use crate::record::RetireStep;
use crate::time::{Now, WallTime};

/// Only the person who pastes a command knows why.
const WHY: &str = Reason::PLACEHOLDER;

impl Coordinator {
    /// Adds the command to a blocker of the retire of `guarded`, or of anything else.
    pub(super) fn with_remedy(&self, mut blocker: Blocker, guarded: Option<Version>) -> Blocker {
        blocker.command = blocker.command.take().or_else(|| self.remedy(&blocker, guarded));
        blocker
    }

    fn remedy(&self, blocker: &Blocker, guarded: Option<Version>) -> Option<String> {
        let secret = &self.record.secret;
        let cut_off = |whom: &str| guarded.map(|version| self.cut_off_command(version, whom));
        match blocker.condition {
            ConditionName::Approval => Some(format!("rotacast approve {secret}")),
            ConditionName::NotPaused => Some(self.resume()),
            ConditionName::NotInSafeMode => Some(self.leave_safe_mode()),
            ConditionName::Start => self.record.safe_mode.is_some().then(|| self.leave_safe_mode()),
            ConditionName::Retired if self.record.safe_mode.is_some() => Some(self.leave_safe_mode()),
            ConditionName::Retired => self.record.paused.is_some().then(|| self.resume()),
            // Past its end it would be refused.
            ConditionName::Staying if self.record.waits() || self.record.current.is_none() => self.roll_back_command(),
            ConditionName::Staying => self.remedy_of_doubt().unwrap_or_else(|| Some(self.leave_safe_mode())),
            ConditionName::Prepared | ConditionName::Switched => {
                Some(format!("rotacast excuse {secret} '{}'", blocker.who))
            }
            ConditionName::MembersReleased => cut_off(&format!("--instance '{}'", blocker.who)),
            ConditionName::UsageEvidence if guarded.is_some_and(|version| self.usage_is_unavailable(version)) => {
                guarded.map(|version| self.abandon_command(version))
            }
            ConditionName::UsageEvidence => cut_off("--sessions"),
            ConditionName::Deadline => {
                let holds = self.deadline().is_some_and(|(deadline, _)| deadline.then == OnDeadline::Hold);
                holds.then(|| self.roll_back_command()).flatten()
            }
            ConditionName::Verified
            | ConditionName::Created
            | ConditionName::RosterRead
            | ConditionName::LiveInstance
            | ConditionName::RequiredServices
            | ConditionName::Leads
            | ConditionName::Phase
            | ConditionName::OverlapOver
            | ConditionName::InheritedLeasesOver
            | ConditionName::LiveInstanceConfirmed
            | ConditionName::Sealed
            | ConditionName::SelfLeasesOver
            | ConditionName::Retiring
            | ConditionName::Audited
            | ConditionName::Command => None,
        }
    }

    /// Whether a silent instance still runs is for people to find out, once its silence says something.
    pub(super) fn remedy_of_silent(&self, member: &Member, now: Now) -> Option<String> {
        self.may_be_said_gone(member, now).then(|| format!("rotacast gone '{}' --reason '{WHY}'", member.key))
    }

    /// What an operator can do about a command that keeps failing.
    pub(super) fn remedy_of_failing(&self, command: &CommandKind, trouble: &Trouble, now: Now) -> Option<String> {
        match command {
            CommandKind::Create { version } | CommandKind::Test { version }
                if self.record.rotation.as_ref().is_some_and(|rotation| rotation.new == *version) =>
            {
                self.roll_back_command()
            }
            CommandKind::Retire { version, .. }
                if trouble.failed.cure == Cure::SessionsEnd && self.sessions_cut_off_at(*version).is_none() =>
            {
                Some(self.cut_off_command(*version, "--sessions"))
            }
            CommandKind::ReadUsage { version } | CommandKind::Retire { version, .. }
                if trouble.failed.cure == Cure::Operator || self.may_be_given_up(command, trouble, now) =>
            {
                Some(self.abandon_command(*version))
            }
            // The doctor knows no more of a provider than what the blocker says.
            _ if command.is_of_the_provider() => None,
            _ => Some("rotacast doctor".to_owned()),
        }
    }

    /// Whether giving the version up is the last resort: its end is to be proved, or was begun, and that has failed for so long
    /// that it may never succeed, as where the address of its server is gone. Sessions that do not end are cut off first, and get
    /// as long again. Reading its use is no such step: a provider that is away comes back.
    pub(super) fn may_be_given_up(&self, command: &CommandKind, trouble: &Trouble, now: Now) -> bool {
        let CommandKind::Retire { version, step: RetireStep::Disable | RetireStep::Destroy } = command else {
            return false;
        };
        let cut_off = self.sessions_cut_off_at(*version);
        let since = |at: WallTime| Duration::from_millis(now.wall.0.saturating_sub(at.0));
        let tried =
            trouble.failed.cure != Cure::SessionsEnd || cut_off.is_some_and(|at| since(at) >= self.policy.stuck_after);
        tried && now.instant.since(trouble.since.instant) >= self.policy.stuck_after
    }

    /// When an operator first ordered it, if one has: to order it once more changes nothing.
    fn sessions_cut_off_at(&self, version: Version) -> Option<WallTime> {
        let retirement = self.record.retirements.get(&version)?;
        retirement.overrides.iter().find(|word| word.sessions).map(|word| word.at)
    }

    fn usage_is_unavailable(&self, version: Version) -> bool {
        matches!(self.usage.get(&version), Some((_, Evidence::Unavailable(_))))
    }

    fn cut_off_command(&self, version: Version, whom: &str) -> String {
        let secret = &self.record.secret;
        format!("rotacast retire {secret} --version {version} --override {whom} --reason '{WHY}'")
    }

    fn abandon_command(&self, version: Version) -> String {
        let secret = &self.record.secret;
        format!("rotacast abandon {secret} {version} --reason '{WHY}'")
    }

    fn resume(&self) -> String {
        format!("rotacast resume {}", self.record.secret)
    }

    pub(super) fn leave_safe_mode(&self) -> String {
        format!("rotacast leave-safe-mode {} --reason '{}'", self.record.secret, Reason::PLACEHOLDER)
    }

    /// While the rotation can go back.
    fn roll_back_command(&self) -> Option<String> {
        let phase = self.record.rotation.as_ref()?.phase;
        let may = !matches!(phase, Phase::Retiring | Phase::RollingBack) && self.may_order_way_back();
        may.then(|| format!("rotacast rollback {} --reason '{WHY}'", self.record.secret))
    }
}
