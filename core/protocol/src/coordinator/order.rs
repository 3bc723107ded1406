//! What an operator orders: one type that every front parses into, and what it changes.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::decide::operator;
use super::{Change, Coordinator, Elsewhere, Rejection};
use crate::id::{InstanceKey, Version};
use crate::name::OperatorName;
use crate::phase::{Outcome, Phase};
use crate::record::{Label, MAX_GONE, MAX_PAUSES, Origin, Override, Pause, RecordChange, Statement, Unknown};
use crate::time::Now;
use crate::word::words;

words! {
    /// An order's name.
    pub enum OrderName("order") {
        Rotate = "rotate": "Make a new version and rotate to it.",
        Pause = "pause": "Block irreversible steps.",
        Resume = "resume": "Lift the pause.",
        Approve = "approve": "Allow the activation.",
        Rollback = "rollback" / "roll back": "Go back to the old version.",
        Override = "override": "Let a retire cut off instances that are named, or the provider's live sessions.",
        Excuse = "excuse": "Do not wait for an instance to prepare or switch.",
        Gone = "gone": "Say that an incarnation no longer runs: nothing waits for it any more.",
        Abandon = "abandon": "Give a version up: its value is erased, and its credential at the provider is left alone.",
        LeaveSafeMode = "leave_safe_mode" / "leave safe mode": "The store was checked; go on.",
    }
}

/// An order that cannot exist, with what is missing.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum InvalidOrder {
    /// The reason is empty.
    #[error("the reason is empty: say why")]
    NoReason,
    /// The reason is longer than [`Reason::MAX_BYTES`].
    #[error("the reason has {found} bytes, expected at most {}", Reason::MAX_BYTES)]
    LongReason { found: usize },
    /// The placeholder of a command that was shown.
    #[error("the reason is still {}: say in its place what you know", Reason::PLACEHOLDER)]
    PlaceholderReason,
    /// An override that cuts off neither instances nor sessions.
    #[error("name who is cut off: instances, or the provider's sessions")]
    CutsOffNothing,
}

/// Why an operator orders something: not empty, and at most [`Reason::MAX_BYTES`] long. Spaces around it are cut off.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Reason(Box<str>);

impl Reason {
    /// Longest reason, in bytes.
    pub const MAX_BYTES: usize = 1024;

    /// What stands for the reason in commands to paste. It is refused: only the person who pastes knows the reason, and the
    /// audit log keeps it.
    pub const PLACEHOLDER: &str = "WHY";

    /// Checks a reason.
    ///
    /// # Errors
    /// [`InvalidOrder::NoReason`], [`InvalidOrder::LongReason`] or [`InvalidOrder::PlaceholderReason`].
    pub fn new(text: &str) -> Result<Self, InvalidOrder> {
        match text.trim() {
            "" => Err(InvalidOrder::NoReason),
            Self::PLACEHOLDER => Err(InvalidOrder::PlaceholderReason),
            text if text.len() > Self::MAX_BYTES => Err(InvalidOrder::LongReason { found: text.len() }),
            text => Ok(Self(text.into())),
        }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for Reason {
    type Err = InvalidOrder;
    fn from_str(text: &str) -> Result<Self, InvalidOrder> {
        Self::new(text)
    }
}

/// Whom an override lets a retire cut off: instances, the provider's live sessions, or both.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct CutOff {
    version: Version,
    instances: BTreeSet<InstanceKey>,
    sessions: bool,
    reason: Reason,
}

impl CutOff {
    /// Of which version's retire, which instances, and whether the provider's live sessions too.
    ///
    /// # Errors
    /// [`InvalidOrder::CutsOffNothing`].
    pub fn new(
        version: Version,
        instances: BTreeSet<InstanceKey>,
        sessions: bool,
        reason: Reason,
    ) -> Result<Self, InvalidOrder> {
        if instances.is_empty() && !sessions {
            return Err(InvalidOrder::CutsOffNothing);
        }
        Ok(Self { version, instances, sessions, reason })
    }

    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Which instances.
    #[must_use]
    pub fn instances(&self) -> &BTreeSet<InstanceKey> {
        &self.instances
    }

    /// Whether the provider's live sessions too.
    #[must_use]
    pub fn sessions(&self) -> bool {
        self.sessions
    }
}

/// What an operator asks. One that exists is well-formed; whether it fits the record is decided by [`Coordinator::decide`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Order {
    /// See [`OrderName::Rotate`].
    Rotate,
    /// See [`OrderName::Pause`].
    Pause { reason: Reason },
    /// See [`OrderName::Resume`].
    Resume,
    /// See [`OrderName::Approve`].
    Approve,
    /// See [`OrderName::Rollback`].
    Rollback { reason: Reason },
    /// See [`OrderName::Override`].
    Override(CutOff),
    /// See [`OrderName::Excuse`].
    Excuse { instance: InstanceKey },
    /// See [`OrderName::Gone`].
    Gone { instance: InstanceKey, reason: Reason },
    /// See [`OrderName::Abandon`].
    Abandon { version: Version, reason: Reason },
    /// See [`OrderName::LeaveSafeMode`].
    LeaveSafeMode,
}

impl Order {
    /// A pause.
    ///
    /// # Errors
    /// See [`Reason::new`].
    pub fn pause(reason: &str) -> Result<Self, InvalidOrder> {
        Ok(Self::Pause { reason: Reason::new(reason)? })
    }

    /// A rollback.
    ///
    /// # Errors
    /// See [`Reason::new`].
    pub fn rollback(reason: &str) -> Result<Self, InvalidOrder> {
        Ok(Self::Rollback { reason: Reason::new(reason)? })
    }

    /// An incarnation is gone.
    ///
    /// # Errors
    /// See [`Reason::new`].
    pub fn gone(instance: InstanceKey, reason: &str) -> Result<Self, InvalidOrder> {
        Ok(Self::Gone { instance, reason: Reason::new(reason)? })
    }

    /// A version is given up.
    ///
    /// # Errors
    /// See [`Reason::new`].
    pub fn abandon(version: Version, reason: &str) -> Result<Self, InvalidOrder> {
        Ok(Self::Abandon { version, reason: Reason::new(reason)? })
    }

    /// An override.
    ///
    /// # Errors
    /// See [`CutOff::new`] and [`Reason::new`].
    pub fn cut_off(
        version: Version,
        instances: BTreeSet<InstanceKey>,
        sessions: bool,
        reason: &str,
    ) -> Result<Self, InvalidOrder> {
        CutOff::new(version, instances, sessions, Reason::new(reason)?).map(Self::Override)
    }

    /// Why, if it needs a reason.
    #[must_use]
    pub fn reason(&self) -> Option<&Reason> {
        match self {
            Self::Pause { reason }
            | Self::Rollback { reason }
            | Self::Override(CutOff { reason, .. })
            | Self::Gone { reason, .. }
            | Self::Abandon { reason, .. } => Some(reason),
            Self::Rotate | Self::Resume | Self::Approve | Self::Excuse { .. } | Self::LeaveSafeMode => None,
        }
    }

    #[must_use]
    pub fn name(&self) -> OrderName {
        match self {
            Self::Rotate => OrderName::Rotate,
            Self::Pause { .. } => OrderName::Pause,
            Self::Resume => OrderName::Resume,
            Self::Approve => OrderName::Approve,
            Self::Rollback { .. } => OrderName::Rollback,
            Self::Override(_) => OrderName::Override,
            Self::Excuse { .. } => OrderName::Excuse,
            Self::Gone { .. } => OrderName::Gone,
            Self::Abandon { .. } => OrderName::Abandon,
            Self::LeaveSafeMode => OrderName::LeaveSafeMode,
        }
    }
}

impl Coordinator {
    pub(super) fn operator(&self, now: Now, by: OperatorName, order: Order) -> Result<Vec<Change>, Rejection> {
        match order {
            Order::Rotate => self.order_rotate(now, &by),
            Order::Pause { reason } => self.order_pause(now, by, &reason),
            Order::Resume if self.record.paused.is_none() => Err(operator("it is not paused")),
            Order::Resume => Ok(vec![Change::Record(RecordChange::Resumed)]),
            Order::Approve => self.order_approve(by),
            Order::Rollback { reason } => self.order_roll_back(now, &by, &reason),
            Order::Override(CutOff { version, instances, sessions, reason }) => {
                let names = instances.iter().map(InstanceKey::full_name).collect();
                self.check_override(version, &instances, sessions)?;
                let (reason, at) = (reason.to_string(), now.wall);
                let word = Override { by, reason, at, instances: names, sessions, unknown: Unknown::new() };
                self.fitting(vec![Change::Record(RecordChange::Overridden { version, word })])
            }
            Order::Excuse { instance } => self.order_excuse(&instance),
            Order::Gone { instance, reason } => self.order_gone(now, by, instance, &reason),
            Order::Abandon { version, reason } => self.order_abandon(now, by, version, &reason),
            Order::LeaveSafeMode => self.order_leave_safe_mode(),
        }
    }

    fn order_pause(&self, now: Now, by: OperatorName, reason: &Reason) -> Result<Vec<Change>, Rejection> {
        if self.record.paused.as_ref().is_some_and(|pause| pause.more.len() + 1 >= MAX_PAUSES) {
            return Err(operator(format!(
                "it is paused for {MAX_PAUSES} reasons already: resume it, or leave it at those"
            )));
        }
        let (reason, at) = (reason.to_string(), now.wall);
        let pause = Pause { by, reason, at, more: Vec::new(), unknown: Unknown::new() };
        self.fitting(vec![Change::Record(RecordChange::Paused(pause))])
    }

    fn order_rotate(&self, now: Now, by: &OperatorName) -> Result<Vec<Change>, Rejection> {
        let in_the_way = self.record.rotation.as_ref();
        if let Some(rotation) = in_the_way.filter(|rotation| !self.rotate_makes_way(rotation)) {
            let may_go_back = !matches!(rotation.phase, Phase::Retiring | Phase::RollingBack);
            return Err(operator(format!(
                "a rotation to version {} is in flight ({}): wait for it{}",
                rotation.new,
                rotation.phase.words(),
                if may_go_back { ", or roll it back" } else { "" }
            )));
        }
        if self.record.safe_mode.is_some() {
            let secret = &self.record.secret;
            let why = Reason::PLACEHOLDER;
            return Err(operator(format!(
                "in safe mode: check the store, then `rotacast leave-safe-mode {secret} --reason '{why}'`"
            )));
        }
        let at = now.wall;
        let ended = in_the_way.map(|_| RecordChange::RotationEnded { outcome: Outcome::RolledBack, at });
        match (self.waiting_version(), &ended) {
            // It begins by itself once nothing is in its way.
            (Some(_), Some(ended)) => return Ok(vec![Change::Record(ended.clone())]),
            (Some(version), None) => {
                return Err(operator(format!("version {version} is about to be rotated to: wait for it")));
            }
            (None, _) => {}
        }
        if self.is_only_followed() {
            let secret = &self.record.secret;
            return Err(operator(format!(
                "{secret} has no provider, so Rotacast follows its versions and makes none: write the new value to its source or \
                 with `rotacast put {secret}`, or name a provider in its section of the configuration"
            )));
        }
        if !self.has_room() {
            return Err(operator(format!(
                "{} versions are still valid, as many as max_live_versions allows: wait until one is retired, or raise it",
                self.record.live_versions().count()
            )));
        }
        let version = self.record.last_version.map_or(Version::FIRST, Version::next);
        let provider = self.policy.provider.clone();
        let added = RecordChange::VersionAdded { version, origin: Origin::Managed, provider: provider.clone(), at };
        let started = RecordChange::RotationStarted { new: version, trigger: by.to_string(), provider, at };
        let changes = ended.into_iter().chain([added]).chain(self.may_be_in_use(version, now)).chain([started]);
        Ok(changes.map(Change::Record).collect())
    }

    fn order_approve(&self, by: OperatorName) -> Result<Vec<Change>, Rejection> {
        match &self.record.rotation {
            Some(rotation) if matches!(rotation.phase, Phase::Verifying | Phase::Preparing) => {
                Ok(vec![Change::Record(RecordChange::Approved { by })])
            }
            Some(rotation) => {
                Err(operator(format!("it is {} already: nothing waits for an approval", rotation.phase.words())))
            }
            None => Err(operator("no rotation is in flight")),
        }
    }

    fn order_roll_back(&self, now: Now, by: &OperatorName, reason: &Reason) -> Result<Vec<Change>, Rejection> {
        let Some(rotation) = &self.record.rotation else { return Err(operator("no rotation is in flight")) };
        match rotation.phase {
            phase if !may_turn_back(phase) => Err(operator(format!(
                "it is retiring: version {} is being destroyed and cannot come back; rotate to a new version instead",
                rotation.old.map_or_else(String::new, |old| old.to_string())
            ))),
            Phase::RollingBack => Err(operator("it is rolling back already")),
            _ if !self.may_order_way_back() => Err(operator(self.doubted_way_back())),
            _ => Ok(vec![self.roll_back(now, format!("{by}: {reason}"))]),
        }
    }

    fn check_override(
        &self,
        version: Version,
        instances: &BTreeSet<InstanceKey>,
        sessions: bool,
    ) -> Result<(), Rejection> {
        match self.record.retirements.get(&version) {
            None => return Err(operator(format!("version {version} is not on its way out"))),
            // Past the point of no return no instance is cut off any more. What can still be said is that sessions which the
            // provider waits for are; or that the credential was revoked by hand, where its value is lost and Rotacast cannot do it.
            Some(retirement) if retirement.step.is_some() && !(sessions && instances.is_empty()) => {
                return Err(operator(format!(
                    "version {version} is being destroyed already; that its sessions are cut off, or that its credential was \
                     revoked by hand, is said with the sessions alone"
                )));
            }
            Some(_) => {}
        }
        if let Some(unknown) = instances.iter().find(|key| self.members.id(key).is_none()) {
            return Err(operator(format!("{unknown} is no member of this rotation")));
        }
        Ok(())
    }

    /// What an operator knows and silence does not say. A process that speaks is not gone.
    fn order_gone(
        &self,
        now: Now,
        by: OperatorName,
        instance: InstanceKey,
        reason: &Reason,
    ) -> Result<Vec<Change>, Rejection> {
        let Some(member) = self.members.find(&instance) else {
            return Err(operator(format!("{instance} is no member of this secret")));
        };
        if member.is_gone() {
            return Err(operator(format!("{instance} has left already: nothing waits for it")));
        }
        if let Some(why) = self.may_be_running_still(&instance, Elsewhere::default(), now) {
            return Err(operator(format!(
                "{why}. To retire a version although it runs, use `rotacast retire {} --version VERSION --override --instance \
                 '{instance}' --reason '{}'`",
                self.record.secret,
                Reason::PLACEHOLDER
            )));
        }
        if self.record.gone.len() >= MAX_GONE {
            return Err(operator(format!(
                "{MAX_GONE} incarnations are on record as gone: wait until the roster drops them"
            )));
        }
        let word = statement(now, by, reason);
        self.fitting(vec![Change::Record(RecordChange::SaidGone { instance, word })])
    }

    /// Gives a version up from wherever it is: one that is moved to is rolled back first.
    fn order_abandon(
        &self,
        now: Now,
        by: OperatorName,
        version: Version,
        reason: &Reason,
    ) -> Result<Vec<Change>, Rejection> {
        let rolled_back = |by: &OperatorName| self.roll_back(now, format!("{by} gives version {version} up: {reason}"));
        let mut changes = match (self.record.retirements.get(&version), &self.record.rotation) {
            (Some(retirement), _) if retirement.given_up.is_some() => {
                return Err(operator(format!("version {version} is given up already")));
            }
            (Some(_), _) => Vec::new(),
            (None, Some(rotation)) if rotation.new == version && may_turn_back(rotation.phase) => {
                if !self.may_order_way_back() {
                    return Err(operator(self.doubted_way_back()));
                }
                if self.safe_mode_keeps(version) {
                    return Err(operator(format!(
                        "in safe mode, giving version {version} up would make an earlier one current that is not proved: {}",
                        self.doubted_way_back()
                    )));
                }
                vec![rolled_back(&by)]
            }
            (None, rotation) => {
                let waits = self.record.versions.get(&version).is_some_and(|it| it.label == Label::Pending);
                if self.record.current == Some(version) {
                    return Err(operator(format!("version {version} is current: rotate to another one first")));
                }
                if !waits {
                    return Err(operator(format!(
                        "version {version} is not known, or has ended: there is nothing to give up"
                    )));
                }
                if rotation.is_some() || !self.may_start() {
                    let first = if rotation.is_some() { "the rotation in flight" } else { "safe mode" };
                    return Err(operator(format!("version {version} waits for its rotation: end {first} first")));
                }
                let started = RecordChange::RotationStarted {
                    new: version,
                    trigger: by.to_string(),
                    provider: self.policy.provider.clone(),
                    at: now.wall,
                };
                vec![Change::Record(started), rolled_back(&by)]
            }
        };
        let word = statement(now, by, reason);
        changes.push(Change::Record(RecordChange::GivenUp { version, word }));
        self.fitting(changes)
    }

    fn order_excuse(&self, instance: &InstanceKey) -> Result<Vec<Change>, Rejection> {
        let phase = self.record.rotation.as_ref().map(|rotation| rotation.phase);
        if !matches!(phase, Some(Phase::Preparing | Phase::Activating)) {
            return Err(operator("excusing is for preparing and activating; a retire needs an override"));
        }
        if self.members.id(instance).is_none() {
            return Err(operator(format!("{instance} is no member of this rotation")));
        }
        self.fitting(vec![Change::Record(RecordChange::Excused { instance: instance.full_name() })])
    }
}

fn statement(now: Now, by: OperatorName, reason: &Reason) -> Statement {
    Statement { by, reason: reason.to_string(), at: now.wall, unknown: Unknown::new() }
}

impl Coordinator {
    /// Without a provider nothing is made.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(NoProviderNoRotation, false))]
    fn is_only_followed(&self) -> bool {
        self.policy.provider.is_none()
    }
}

/// There is no way back from the point of no return.
#[cfg_attr(rotacast_mutants, rotacast_mutate::rule(NoReturn, true))]
fn may_turn_back(phase: Phase) -> bool {
    phase != Phase::Retiring
}
