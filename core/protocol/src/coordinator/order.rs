//! What an operator orders.

use std::collections::BTreeSet;

use super::decide::{bounded, operator};
use super::member::full_name;
use super::{Change, Coordinator, Order, Rejection};
use crate::id::{InstanceKey, Version};
use crate::name::OperatorName;
use crate::phase::Phase;
use crate::record::{Origin, Override, Pause, RecordChange, SecretRecord, Unknown};
use crate::rules::Rule;
use crate::time::Now;

impl Coordinator {
    pub(super) fn operator(&self, now: Now, by: OperatorName, order: Order) -> Result<Vec<Change>, Rejection> {
        match order {
            Order::Rotate => self.order_rotate(now, &by),
            Order::Pause { reason } => {
                let pause = Pause { by, reason: bounded(reason), at: now.wall, unknown: Unknown::new() };
                Ok(vec![Change::Record(RecordChange::Paused(pause))])
            }
            Order::Resume if self.record.paused.is_none() => Err(operator("it is not paused")),
            Order::Resume => Ok(vec![Change::Record(RecordChange::Resumed)]),
            Order::Approve => self.order_approve(by),
            Order::RollBack { reason } => self.order_roll_back(now, &by, &reason),
            Order::Override { version, instances, sessions, reason } => {
                let names = instances.iter().map(full_name).collect();
                self.check_override(version, &instances, sessions)?;
                let (reason, at) = (bounded(reason), now.wall);
                let word = Override { by, reason, at, instances: names, sessions, unknown: Unknown::new() };
                self.fitting(vec![Change::Record(RecordChange::Overridden { version, word })])
            }
            Order::Excuse { instance } => self.order_excuse(&instance),
            Order::LeaveSafeMode => self.order_leave_safe_mode(),
        }
    }

    /// Ordered once more, it ends the staying that safe mode has left behind, if nothing is there to wait for.
    fn order_leave_safe_mode(&self) -> Result<Vec<Change>, Rejection> {
        let SecretRecord { safe_mode, stay, current, .. } = &self.record;
        match (safe_mode, stay) {
            (None, false) => Err(operator("it is not in safe mode")),
            (None, true) if self.record.waits() || current.is_none() => Err(operator(
                "safe mode is left already, and instances stay with what they serve until the next version is current: \
                 wait for it, or write one",
            )),
            _ => Ok(vec![Change::Record(RecordChange::SafeModeLeft)]),
        }
    }

    fn order_rotate(&self, now: Now, by: &OperatorName) -> Result<Vec<Change>, Rejection> {
        if let Some(rotation) = &self.record.rotation {
            return Err(operator(format!(
                "a rotation to version {} is in flight ({}): wait for it, or roll it back",
                rotation.new, rotation.phase
            )));
        }
        if let Some(version) = self.waiting_version() {
            return Err(operator(format!("version {version} is about to be rotated to: wait for it")));
        }
        if self.record.safe_mode.is_some() {
            return Err(operator("in safe mode: check the store and leave safe mode first"));
        }
        if !self.has_room() {
            return Err(operator(format!(
                "{} versions are still valid, as many as max_live_versions allows: wait until one is retired",
                self.record.live_versions().count()
            )));
        }
        let version = self.record.last_version.map_or(Version::FIRST, Version::next);
        let at = now.wall;
        Ok(vec![
            Change::Record(RecordChange::VersionAdded { version, origin: Origin::Managed, at }),
            Change::Record(RecordChange::RotationStarted { new: version, trigger: by.to_string(), at }),
        ])
    }

    fn order_approve(&self, by: OperatorName) -> Result<Vec<Change>, Rejection> {
        match &self.record.rotation {
            Some(rotation) if matches!(rotation.phase, Phase::Verifying | Phase::Preparing) => {
                Ok(vec![Change::Record(RecordChange::Approved { by })])
            }
            Some(rotation) => Err(operator(format!("it is {} already: nothing waits for an approval", rotation.phase))),
            None => Err(operator("no rotation is in flight")),
        }
    }

    fn order_roll_back(&self, now: Now, by: &OperatorName, reason: &str) -> Result<Vec<Change>, Rejection> {
        let Some(rotation) = &self.record.rotation else { return Err(operator("no rotation is in flight")) };
        match rotation.phase {
            Phase::Retiring if !self.broken.is(Rule::NoReturn) => Err(operator(format!(
                "it is Retiring: version {} is being destroyed and cannot come back; rotate to a new version instead",
                rotation.old.map_or_else(String::new, |old| old.to_string())
            ))),
            Phase::RollingBack => Err(operator("it is rolling back already")),
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
            // provider waits for are; or that the credential was revoked by hand, where its value is lost and nobody else can.
            Some(retirement) if retirement.step.is_some() && !(sessions && instances.is_empty()) => {
                return Err(operator(format!(
                    "version {version} is being destroyed already; that its sessions are cut off, or that its credential was \
                     revoked by hand, is said with the sessions alone"
                )));
            }
            Some(_) => {}
        }
        if instances.is_empty() && !sessions {
            return Err(operator("name who is cut off: instances, or the provider's sessions"));
        }
        if let Some(unknown) = instances.iter().find(|key| !self.members.contains_key(*key)) {
            return Err(operator(format!("{unknown} is no member of this rotation")));
        }
        Ok(())
    }

    fn order_excuse(&self, instance: &InstanceKey) -> Result<Vec<Change>, Rejection> {
        let phase = self.record.rotation.as_ref().map(|rotation| rotation.phase);
        if !matches!(phase, Some(Phase::Preparing | Phase::Activating)) {
            return Err(operator("excusing is for Preparing and Activating; a retire needs an override"));
        }
        if !self.members.contains_key(instance) {
            return Err(operator(format!("{instance} is no member of this rotation")));
        }
        self.fitting(vec![Change::Record(RecordChange::Excused { instance: full_name(instance) })])
    }
}
