//! What is due, and when: derived from a holder's state alone.

use std::time::Duration;

use rotacast_protocol::message::MAX_HELD_VERSIONS;
use rotacast_protocol::{Instant, Version};

use super::{Holder, READ_PATIENCE};
use crate::input::{Command, Step};

/// A Sync that says nothing new, because the last one brought no lease or no answer, follows after 1/8 of the Sync
/// interval: a leader that answers without granting is not asked in a loop.
const SYNC_PACE_DIVISOR: u32 = 8;

/// Fastest repetition of Syncs that say nothing new.
pub const SYNC_PACE_FLOOR: Duration = Duration::from_millis(50);

/// Slowest repetition of Syncs while a lease is missing.
pub const SYNC_PACE_CEILING: Duration = Duration::from_secs(5);

/// How often to Sync before any desired state has said it.
const SYNC_INTERVAL_UNTOLD: Duration = Duration::from_secs(5);

/// The store is read when less than 1/2 of a self-lease is left, which leaves time for several
/// attempts before the lapse.
const READ_LEAD_DIVISOR: u32 = 2;

/// Reads that do not help are repeated after 1/8 of a self-lease.
const READ_PACE_DIVISOR: u32 = 8;

/// Fastest repetition of store reads, whatever the self-lease.
const READ_PACE_FLOOR: Duration = Duration::from_millis(100);

impl Holder {
    /// The one step to run next, if its time has come. One at a time, so that the service never prepares a version
    /// while it is closing it.
    pub(super) fn next_step(&self, now: Instant) -> Option<(Step, Version)> {
        let may_run = |step: Step, version: Version| step == Step::Release || self.leases.until(version) > now;
        self.steps()
            .into_iter()
            .find(|(step, version, not_before)| *not_before <= now && may_run(*step, *version))
            .map(|(step, version, _)| (step, version))
    }

    /// Steps that are due, the most urgent first, with the time before which they wait.
    fn steps(&self) -> Vec<(Step, Version, Instant)> {
        if self.running.is_some() {
            return Vec::new();
        }
        let mut steps = Vec::new();
        let current = self.current();
        for version in self.wanted() {
            let Some(slot) = self.slots.get(&version) else { continue };
            let arrived = self.serving == Some(version) && self.applied == Some(version);
            if !slot.prepared {
                steps.push((Step::Prepare, version, slot.not_before));
            } else if current == Some(version) && !arrived {
                steps.push((Step::Switch, version, slot.not_before));
            }
        }
        for (version, slot) in &self.slots {
            let wanted = self.wants(*version);
            let let_go = !slot.activated || self.applied.is_some_and(|applied| applied != *version);
            let guarded = self.is_guarded(*version);
            if slot.touched && !wanted && let_go && self.serving != Some(*version) && !guarded {
                steps.push((Step::Release, *version, slot.not_before));
            }
        }
        steps
    }

    /// What is due now. The same command is listed until it is done; the driver runs those not in flight.
    #[must_use]
    pub fn commands(&self, now: Instant) -> Vec<Command> {
        let mut commands = Vec::new();
        if self.sync_due().is_none_or(|due| due <= now) {
            commands.push(Command::Sync);
        }
        if self.read_due().is_some_and(|due| due <= now) {
            commands.push(Command::ReadStore);
        }
        commands.extend(self.next_step(now).map(|(step, version)| Command::Run(step, version)));
        for version in self.wanted() {
            let waits = self.load_not_before.get(&version).is_some_and(|at| *at > now);
            if self.owes_load(version) && !waits && self.is_leased(version, now) {
                commands.push(Command::Load(version));
            }
        }
        commands
    }

    /// The service releases nothing that a guard points to.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(GuardsRelease, false))]
    fn is_guarded(&self, version: Version) -> bool {
        self.guards.contains(&version)
    }

    /// The joiner's barrier: the lease first, then the value.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(LeaseFirst, true))]
    fn is_leased(&self, version: Version, now: Instant) -> bool {
        self.leases.until(version) > now
    }

    fn owes_load(&self, version: Version) -> bool {
        !self.slots.contains_key(&version) && self.slots.len() < MAX_HELD_VERSIONS
    }

    /// When to Sync; none: at once.
    fn sync_due(&self) -> Option<Instant> {
        let sent = self.sync_sent?;
        if self.owes_acknowledgement || self.sync_said.as_ref() != Some(&self.news()) {
            return None;
        }
        let interval = self.state.as_ref().map_or(SYNC_INTERVAL_UNTOLD, |state| state.sync_interval);
        let paced = sent + (interval / SYNC_PACE_DIVISOR).clamp(SYNC_PACE_FLOOR, SYNC_PACE_CEILING);
        if self.sync_silent {
            return Some(paced);
        }
        let half = self.needs().into_iter().map(|version| self.leases.half_over(version)).min();
        Some(half.unwrap_or(Instant::from_nanos(u64::MAX)).min(sent + interval).max(paced))
    }

    /// When to read the store, if it comes to that.
    fn read_due(&self) -> Option<Instant> {
        let Some(state) = &self.state else {
            // Nothing is known yet: the leader is asked first, as long as it answers.
            let sent = self.sync_sent?;
            let due = if self.sync_silent { sent } else { sent + READ_PATIENCE };
            return Some(self.read_paced(due, READ_PATIENCE));
        };
        let lead = state.self_lease / READ_LEAD_DIVISOR;
        let lapse = self.needs().into_iter().map(|version| self.leases.until(version)).min()?;
        let patience = if self.sync_silent { Instant::ZERO } else { self.read_not_before };
        let pace = (state.self_lease / READ_PACE_DIVISOR).max(READ_PACE_FLOOR);
        Some(self.read_paced((lapse - lead).max(patience), pace))
    }

    fn read_paced(&self, due: Instant, pace: Duration) -> Instant {
        self.read_sent.map_or(due, |sent| due.max(sent + pace))
    }

    /// The next moment after `now` at which [`commands`](Self::commands) or [`active`](Self::active) change by
    /// themselves.
    #[must_use]
    pub fn next_wakeup(&self, now: Instant) -> Option<Instant> {
        let lapses = self.concerned().into_iter().map(|version| self.leases.until(version)).collect::<Vec<_>>();
        self.sync_due()
            .into_iter()
            .chain(self.read_due())
            .chain(self.steps().into_iter().map(|(_, _, at)| at))
            .chain(self.load_not_before.values().copied())
            .chain(lapses)
            .filter(|at| *at > now)
            .min()
    }
}
