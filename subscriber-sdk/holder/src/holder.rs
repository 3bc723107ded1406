//! One secret, as one instance holds it.

mod schedule;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rotacast_protocol::message::{
    Failure, FailureKind, LostHistory, MAX_FAILURE_TEXT_BYTES, MAX_HELD_VERSIONS, SecretGrant, SecretReport,
    SecretState, Stage,
};
use rotacast_protocol::{Generation, Instant, LeaseSequence, Nonce, Revision, SecretName, Version};

use crate::input::{Input, Rejection, Setback, Step, StepFailure};
use crate::lease::Leases;
use crate::slot::Slot;

pub use schedule::{SYNC_PACE_CEILING, SYNC_PACE_FLOOR};

/// How long a newly wanted version waits for the leader's lease before the store is asked instead:
/// a healthy Sync takes milliseconds, and thousands of instances that start together should not all
/// read the store.
pub const READ_PATIENCE: Duration = Duration::from_millis(500);

/// Why a version is not taken over: for people, in the failure.
const LOST_TEXT: &str = "the store was restored, and this number came again while the instance uses the version that had it before: restart it";

/// Decides for one secret which version may be handed out, and says what is known of it.
#[derive(Clone, Hash, Debug)]
pub struct Holder {
    secret: SecretName,
    state: Option<SecretState>,
    /// The highest version asked for in this generation: rule V.
    highest: Option<Version>,
    leases: Leases,
    slots: BTreeMap<Version, Slot>,
    /// Handed out for new work.
    serving: Option<Version>,
    /// Held since before the store lost a part of its history, and not among what it kept: should the number come again, it is
    /// another version.
    lost: BTreeSet<Version>,
    /// What the service itself uses for new work, as its switch hook was last told; none while in doubt.
    applied: Option<Version>,
    running: Option<(Step, Version)>,
    guards: BTreeSet<Version>,
    failure: Option<Failure>,
    /// What keeps a version from being released. It is reported while nothing is wrong with a version that is wanted.
    release_failure: Option<Failure>,
    auth_failures: BTreeMap<Version, u64>,
    load_not_before: BTreeMap<Version, Instant>,
    sync_sent: Option<Instant>,
    sync_said: Option<SecretReport>,
    sync_silent: bool,
    /// The newest grant names a version that is not held: until the leader hears that it arrived, it must assume that
    /// the version may still be used on its strength.
    owes_acknowledgement: bool,
    read_sent: Option<Instant>,
    read_not_before: Instant,
}

impl Holder {
    /// A holder of nothing.
    #[must_use]
    pub fn new(secret: SecretName) -> Self {
        Self {
            secret,
            state: None,
            highest: None,
            leases: Leases::default(),
            slots: BTreeMap::new(),
            serving: None,
            lost: BTreeSet::new(),
            applied: None,
            running: None,
            guards: BTreeSet::new(),
            failure: None,
            release_failure: None,
            auth_failures: BTreeMap::new(),
            load_not_before: BTreeMap::new(),
            sync_sent: None,
            sync_said: None,
            sync_silent: false,
            owes_acknowledgement: false,
            read_sent: None,
            read_not_before: Instant::ZERO,
        }
    }

    /// The newest desired state it acts on.
    #[must_use]
    pub fn state(&self) -> Option<&SecretState> {
        self.state.as_ref()
    }

    /// The version for new work, whether or not a lease allows it right now.
    #[must_use]
    pub fn serving(&self) -> Option<Version> {
        self.serving
    }

    /// Until when a version may be handed out, if it may be handed out now. A use that began before may last `max_use`
    /// longer at most.
    #[must_use]
    pub fn usable(&self, version: Version, now: Instant) -> Option<Instant> {
        let until = self.leases.until(version);
        (self.serving == Some(version) && lasts(until, now)).then_some(until)
    }

    /// The version that may be handed out now, and until when.
    #[must_use]
    pub fn active(&self, now: Instant) -> Option<(Version, Instant)> {
        let version = self.serving?;
        Some((version, self.usable(version, now)?))
    }

    /// Until when the lease of a version runs, handed out or not: for guards that exist already.
    #[must_use]
    pub fn lease_until(&self, version: Version) -> Instant {
        self.leases.until(version)
    }

    /// Versions whose values must stay in memory.
    pub fn loaded(&self) -> impl Iterator<Item = Version> + '_ {
        self.slots.keys().copied()
    }

    /// What went wrong last, if the last step did.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// Takes in what happened.
    ///
    /// # Errors
    /// A [`Rejection`] changes nothing (a grant whose own leases are rejected may still bring a newer state).
    pub fn handle(&mut self, now: Instant, input: Input) -> Result<(), Rejection> {
        let result = self.take_in(now, input);
        self.settle();
        result
    }

    fn take_in(&mut self, now: Instant, input: Input) -> Result<(), Rejection> {
        match input {
            Input::State(state) => {
                self.accept(now, state)?;
                // A leader has spoken: it is asked before the store, whatever it did not answer before.
                self.sync_silent = false;
                Ok(())
            }
            Input::SyncSent { nonce, at } => {
                self.leases.sent(nonce, at);
                self.sync_sent = Some(at);
                self.sync_said = Some(self.news());
                self.owes_acknowledgement = false;
                Ok(())
            }
            Input::SyncFailed { nonce } => {
                self.leases.answered(nonce)?;
                self.sync_silent = true;
                Ok(())
            }
            Input::Grant { nonce, grant } => self.granted(now, nonce, grant),
            Input::StoreRead { sent, state } => self.store_read(now, sent, state),
            Input::Loaded { version } => self.loaded_value(version),
            Input::LoadFailed { version, setback } => self.load_failed(now, version, setback),
            Input::Begin { step, version } => self.begin(now, step, version),
            Input::Finished { step, version, result } => self.finished(now, step, version, result),
            Input::ReleaseOverdue { version, text } => self.release_overdue(version, text),
            Input::Held(guards) => {
                self.guards = guards;
                Ok(())
            }
            Input::AuthFailure { version, count } => {
                let total = self.auth_failures.entry(version).or_insert(0);
                *total = total.saturating_add(count);
                if self.auth_failures.len() > MAX_HELD_VERSIONS {
                    self.auth_failures.pop_first();
                }
                Ok(())
            }
        }
    }

    /// Rule V: only a newer revision counts, and within a generation no version comes back.
    fn accept(&mut self, now: Instant, state: SecretState) -> Result<(), Rejection> {
        if state.secret != self.secret {
            return Err(Rejection::OtherSecret { expected: self.secret.clone(), found: state.secret });
        }
        if let Some(newest) = &self.state {
            if !is_newer(&state, newest) {
                return Err(Rejection::Stale { newest: newest.revision, found: state.revision });
            }
            let same_direction = state.generation == newest.generation;
            let current_comes_back = state.current != newest.current && state.current < self.highest;
            let pending_comes_back = state.pending.is_some() && state.pending < self.highest;
            let comes_back = current_comes_back || pending_comes_back;
            if turns_back(&state, newest) || is_comeback(same_direction, comes_back) {
                return Err(Rejection::GoesBack {
                    revision: state.revision,
                    generation: state.generation,
                    found: if current_comes_back { state.current } else { state.pending },
                    newest: self.highest,
                    newest_generation: newest.generation,
                });
            }
            if !same_direction {
                self.highest = None;
            }
            // Heard of for the first time, however long ago it was: what is held is of the history that was lost, but for
            // what the store has kept.
            if let Some(lost) = newly_lost(&state, newest) {
                self.lost.extend(self.slots.keys().filter(|version| Some(**version) > lost.kept_to));
            }
        }
        let newly_wanted = [state.current, state.pending].into_iter().flatten().any(|version| !self.wants(version));
        if newly_wanted {
            self.read_not_before = now + READ_PATIENCE;
        }
        self.highest = self.highest.max(state.current).max(state.pending);
        self.state = Some(state);
        Ok(())
    }

    fn granted(&mut self, now: Instant, nonce: Nonce, mut grant: SecretGrant) -> Result<(), Rejection> {
        let at = self.leases.answered(nonce)?;
        self.sync_silent = false;
        match grant.state.take().map(|state| self.accept(now, state)) {
            None | Some(Ok(()) | Err(Rejection::Stale { .. })) => {}
            Some(Err(rejection)) => return Err(rejection),
        }
        let concerned = self.concerned();
        self.leases.grant(now, at, &grant, |version| concerned.contains(&version))?;
        self.owes_acknowledgement |= self.must_acknowledge(&grant);
        Ok(())
    }

    /// A grant for what is held no more is acknowledged, so that the leader need not outwait it.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(Acknowledge, false))]
    fn must_acknowledge(&self, grant: &SecretGrant) -> bool {
        let held = self.held();
        grant.leases.keys().any(|version| !held.contains(version) && !self.wants(*version))
    }

    /// Rule 8: what a linearizable read shows unsealed and wanted may be used for a self-lease from its send time.
    fn store_read(&mut self, now: Instant, sent: Instant, state: SecretState) -> Result<(), Rejection> {
        self.read_sent = self.read_sent.max(Some(sent));
        let read = state.clone();
        let accepted = match self.accept(now, state) {
            Err(Rejection::Stale { .. }) | Ok(()) => Ok(()),
            Err(rejection) => return Err(rejection),
        };
        let newest = self.state.as_ref();
        let stays = self.serving.filter(|_| read.stay);
        let allowed = [read.current, read.pending, read.previous, stays].into_iter().flatten().filter(|version| {
            let concerns = self.wants(*version) || self.slots.contains_key(version);
            shows_unsealed(&read, *version) && agrees(newest, *version, concerns)
        });
        let allowed: Vec<Version> = allowed.collect();
        self.leases.read(read_begins(sent, now), &read, allowed);
        accepted
    }

    fn loaded_value(&mut self, version: Version) -> Result<(), Rejection> {
        if !self.wants(version) || self.slots.contains_key(&version) || self.slots.len() >= MAX_HELD_VERSIONS {
            return Err(Rejection::NotOwed { what: "the value", version });
        }
        self.slots.insert(version, Slot::LOADED);
        self.clear_failure(version);
        Ok(())
    }

    fn load_failed(&mut self, now: Instant, version: Version, setback: Setback) -> Result<(), Rejection> {
        if !self.wants(version) || self.slots.contains_key(&version) {
            return Err(Rejection::NotOwed { what: "the value", version });
        }
        self.load_not_before.insert(version, now + setback.retry_after);
        self.failure = Some(failure(FailureKind::Fetch, version, setback.text));
        Ok(())
    }

    fn begin(&mut self, now: Instant, step: Step, version: Version) -> Result<(), Rejection> {
        if self.next_step(now) != Some((step, version)) {
            let what = match step {
                Step::Prepare => "preparation",
                Step::Switch => "the switch",
                Step::Release => "the release",
            };
            return Err(Rejection::NotOwed { what, version });
        }
        self.running = Some((step, version));
        if let Some(slot) = self.slots.get_mut(&version) {
            slot.touched = true;
            if step == Step::Switch {
                slot.activated = true;
                self.doubt();
            }
        }
        Ok(())
    }

    /// From the begin of a switch on the service may use either version, also when the switch fails.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(SwitchDoubt, ()))]
    fn doubt(&mut self) {
        self.applied = None;
    }

    /// An instance that was handed the old version a moment before the switch counts until the runtime says otherwise.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(SwitchHolds, None))]
    fn handed_out_before(&self, version: Version) -> Option<Version> {
        self.serving.filter(|old| *old != version)
    }

    fn finished(
        &mut self,
        now: Instant,
        step: Step,
        version: Version,
        result: Result<(), StepFailure>,
    ) -> Result<(), Rejection> {
        if self.running != Some((step, version)) {
            return Err(Rejection::NotBegun { step, version });
        }
        self.running = None;
        let Some(slot) = self.slots.get_mut(&version) else { return Ok(()) };
        match (step, result) {
            (Step::Prepare, Ok(())) => {
                slot.prepared = true;
                self.clear_failure(version);
            }
            (Step::Switch, Ok(())) => {
                self.applied = Some(version);
                self.clear_failure(version);
                if self.current() == Some(version) {
                    self.guards.extend(self.handed_out_before(version));
                    self.serving = Some(version);
                }
            }
            (Step::Release, Ok(())) => *slot = Slot::LOADED,
            (step, Err(problem)) => {
                let (refused, setback) = match problem {
                    StepFailure::Refused(setback) => (true, setback),
                    StepFailure::NotReady(setback) => (false, setback),
                };
                slot.not_before = now + setback.retry_after;
                let kind = match step {
                    Step::Release => {
                        self.release_failure = Some(failure(FailureKind::ReleaseFailed, version, setback.text));
                        return Ok(());
                    }
                    _ if !refused => FailureKind::NotReady,
                    Step::Prepare => FailureKind::PrepareRefused,
                    Step::Switch => FailureKind::SwitchFailed,
                };
                if self.wants(version) {
                    self.failure = Some(failure(kind, version, setback.text));
                }
            }
        }
        Ok(())
    }

    fn release_overdue(&mut self, version: Version, text: String) -> Result<(), Rejection> {
        let step = Step::Release;
        if self.running != Some((step, version)) {
            return Err(Rejection::NotBegun { step, version });
        }
        self.release_failure = Some(failure(FailureKind::ReleaseFailed, version, text));
        Ok(())
    }

    /// The version has taken a step: what was wrong with it is over.
    fn clear_failure(&mut self, version: Version) {
        if self.failure.as_ref().is_some_and(|failure| failure.version == version) {
            self.failure = None;
        }
    }

    /// Drops what no longer matters. Everything that could keep a version from being reported as released is decided here.
    fn settle(&mut self) {
        let (wanted, guards, serving, running) = (self.wanted(), &self.guards, self.serving, self.running);
        self.slots.retain(|version, slot| {
            is_shown(slot)
                || wanted.contains(version)
                || guards.contains(version)
                || serving == Some(*version)
                || running.is_some_and(|(_, running)| running == *version)
        });
        let slots = &self.slots;
        self.lost.retain(|version| slots.contains_key(version));
        if let Some(version) = self.lost.iter().find(|version| self.asked_for(**version)) {
            self.failure = Some(failure(FailureKind::SwitchFailed, *version, LOST_TEXT.to_owned()));
        }
        self.load_not_before.retain(|version, _| wanted.contains(version));
        if self.failure.as_ref().is_some_and(|failure| !wanted.contains(&failure.version)) {
            self.failure = None;
        }
        let release =
            |failure: &&Failure| self.slots.contains_key(&failure.version) && !wanted.contains(&failure.version);
        self.release_failure = self.release_failure.as_ref().filter(release).cloned();
        let concerned = self.concerned();
        self.leases.keep(|version| concerned.contains(&version));
    }

    fn current(&self) -> Option<Version> {
        let state = self.state.as_ref()?;
        self.stays().or(state.current)
    }

    /// The version it stays with while it is not known which one is good. A sealed one cannot be leased: it moves on from that.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(Stay, None))]
    fn stays(&self) -> Option<Version> {
        let state = self.state.as_ref().filter(|state| state.stay)?;
        self.serving.filter(|serving| !state.sealed.contains(serving))
    }

    fn pending(&self) -> Option<Version> {
        self.state.as_ref()?.pending
    }

    fn wants(&self, version: Version) -> bool {
        self.current() == Some(version) || self.pending() == Some(version)
    }

    /// Current first: it is what new work waits for.
    fn wanted(&self) -> Vec<Version> {
        let mut wanted: Vec<Version> = self.current().into_iter().chain(self.pending()).collect();
        wanted.dedup();
        wanted
    }

    /// Versions a lease may be recorded for.
    fn concerned(&self) -> BTreeSet<Version> {
        self.slots.keys().copied().chain(self.wanted()).chain(self.guards.iter().copied()).collect()
    }

    /// Versions that need a lease and can have one.
    fn needs(&self) -> Vec<Version> {
        let sealed = |version: &Version| self.state.as_ref().is_some_and(|state| state.sealed.contains(version));
        let mut needs = self.wanted();
        needs.extend(self.serving);
        needs.sort_unstable();
        needs.dedup();
        needs.retain(|version| !sealed(version));
        needs
    }

    /// Versions this instance may be using, or could begin to use without a further desired state.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(ServingHeld, self.slots.keys().chain(&self.guards).copied().filter(|version| self.serving != Some(*version) || self.wants(*version)).collect()))]
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(GuardsHeld, self.slots.keys().chain(&self.serving).copied().filter(|version| self.serving == Some(*version) || !self.guards.contains(version)).collect()))]
    fn held(&self) -> BTreeSet<Version> {
        self.slots.keys().chain(&self.guards).chain(&self.serving).copied().collect()
    }

    /// What to tell the broadcaster.
    #[must_use]
    pub fn report(&self) -> SecretReport {
        SecretReport {
            generation: self.state.as_ref().map_or(Generation(0), |state| state.generation),
            revision: self.state.as_ref().map_or(Revision(0), |state| state.revision),
            reached: self.reached(),
            // Never more than MAX_HELD_VERSIONS: only what has a slot is ever handed out, and slots are bounded.
            held: self.held(),
            lease: self.leases.sequence(),
            failure: self.failure.clone().or_else(|| self.release_failure.clone()),
            auth_failures: self.auth_failures.clone(),
        }
    }

    /// The report without what every answer changes: what is worth telling at once.
    pub(crate) fn news(&self) -> SecretReport {
        SecretReport { lease: LeaseSequence(0), ..self.report() }
    }

    /// Whether the newest grant must be acknowledged for a version to count as released.
    pub(crate) fn owes_acknowledgement(&self) -> bool {
        self.owes_acknowledgement
    }

    /// Whether the state asks for this number, whatever this instance stays with.
    fn asked_for(&self, version: Version) -> bool {
        self.state.as_ref().is_some_and(|state| {
            state.pending == Some(version) || state.current == Some(version) && self.stays().is_none()
        })
    }

    fn reached(&self) -> Option<(Version, Stage)> {
        let current = self.current();
        // The number came again, and what is held under it is not what the store means by it.
        if let Some(version) = self.lost.iter().find(|version| self.asked_for(**version)) {
            return Some((*version, Stage::Seen));
        }
        let arrived = current.is_some() && self.serving == current && self.applied == current;
        let prepared = |version: Version| match self.slots.get(&version) {
            Some(slot) if slot.prepared => Stage::Prepared,
            _ => Stage::Seen,
        };
        match (current, self.pending()) {
            (Some(current), _) if !arrived => Some((current, prepared(current))),
            (_, Some(pending)) => Some((pending, prepared(pending))),
            (Some(current), None) => {
                let alone = self.held().iter().all(|held| *held == current);
                Some((current, if alone { Stage::Released } else { Stage::Switched }))
            }
            (None, None) => None,
        }
    }
}

/// Lease rule 2: every use compares the clock.
#[cfg_attr(rotacast_mutants, rotacast_mutate::rule(ClockOnUse, true))]
fn lasts(until: Instant, now: Instant) -> bool {
    until > now
}

/// Only newer states count.
#[cfg_attr(rotacast_mutants, rotacast_mutate::rule(NewerState, true))]
fn is_newer(state: &SecretState, newest: &SecretState) -> bool {
    state.revision > newest.revision
}

/// A lower generation does not count.
#[cfg_attr(rotacast_mutants, rotacast_mutate::rule(NewerDirection, false))]
fn turns_back(state: &SecretState, newest: &SecretState) -> bool {
    state.generation < newest.generation
}

/// Within a generation no version comes back.
#[cfg_attr(rotacast_mutants, rotacast_mutate::rule(NoComeback, false))]
fn is_comeback(same_direction: bool, comes_back: bool) -> bool {
    same_direction && comes_back
}

/// A number that comes again after the store lost its history is another version.
#[cfg_attr(rotacast_mutants, rotacast_mutate::rule(Lost, None))]
fn newly_lost(state: &SecretState, newest: &SecretState) -> Option<LostHistory> {
    state.lost_history.filter(|lost| lost.noticed > newest.revision)
}

/// A read allows what it shows unsealed.
#[cfg_attr(rotacast_mutants, rotacast_mutate::rule(ReadUnsealed, true))]
fn shows_unsealed(state: &SecretState, version: Version) -> bool {
    !state.sealed.contains(&version)
}

/// A read allows what nothing newer has sealed or stopped asking for.
#[cfg_attr(rotacast_mutants, rotacast_mutate::rule(ReadNewest, true))]
fn agrees(newest: Option<&SecretState>, version: Version, concerns: bool) -> bool {
    concerns && newest.is_none_or(|newest| !newest.sealed.contains(&version))
}

/// Lease rule 8: a self-lease counts from the read's send time.
#[cfg_attr(rotacast_mutants, rotacast_mutate::rule(ReadFromSend, _now))]
fn read_begins(sent: Instant, _now: Instant) -> Instant {
    sent
}

/// What the service was shown is held until the service has released it.
#[cfg_attr(rotacast_mutants, rotacast_mutate::rule(TouchedHeld, false))]
fn is_shown(slot: &Slot) -> bool {
    slot.touched
}

fn failure(kind: FailureKind, version: Version, mut text: String) -> Failure {
    if text.len() > MAX_FAILURE_TEXT_BYTES {
        let end = (0..=MAX_FAILURE_TEXT_BYTES).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
    }
    Failure { kind, version, text }
}
