//! The only way a record changes, the same for a live decision and for a simulation.

#[cfg(test)]
mod tests;

use super::{
    Cause, Doubt, Finished, Label, MAX_HISTORY, Origin, Override, Pause, PhaseEntered, ProviderId, RetireStep,
    Retirement, Rotation, SafeMode, SecretRecord, Statement, Timing, Unknown, Unproven, VersionRecord,
};
use crate::id::{Epoch, Generation, InstanceKey, Revision, Version};
use crate::message::LostHistory;
use crate::name::OperatorName;
use crate::phase::{Outcome, Phase};
use crate::time::WallTime;
use std::collections::BTreeSet;
use std::time::Duration;

/// More changes than any record sees between a backup and its restoration: two thousand a second for a year.
const LOST_CHANGES: u64 = 1 << 36;
/// More changes than a record sees in a millisecond. What is leapt to grows with the time of day, so that a second restoration
/// of the same backup leaps above the first; until the year 2248 it is a number that every JSON reader has exactly.
const CHANGES_PER_MILLI: u64 = 1 << 10;

/// One change of a record. Every change raises the revision by one, and entering safe mode by far more.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum RecordChange {
    /// A leader has taken the record over.
    TermBegan { epoch: Epoch },
    /// The policy's times have changed.
    TimingSet { timing: Timing },
    /// Every lease longer than this has expired on every clock.
    LeaseBoundLowered {
        /// The longest that may be running.
        to: Duration,
    },
    /// A version was read from the store, or is about to be made.
    VersionAdded {
        version: Version,
        origin: Origin,
        /// Which provider looks after the secret now.
        provider: Option<ProviderId>,
        at: WallTime,
    },
    /// The number may be that of a version of the lost history, which an instance may still use.
    MayBeInUse { version: Version },
    /// A version that was never announced is skipped for a newer one.
    VersionSkipped { version: Version, by: Version, at: WallTime },
    /// A rotation to a pending version begins: generation +1.
    RotationStarted {
        new: Version,
        trigger: String,
        /// Which provider makes and tests the new version, and is to end it.
        provider: Option<ProviderId>,
        at: WallTime,
    },
    /// A managed rotation's credential exists and is in the store; or another client's value has taken its
    /// number and is used instead (`origin` says which).
    CredentialCreated {
        /// Who made the value that is in the store.
        origin: Origin,
    },
    /// The new credential works: instances are asked to prepare.
    PreparingBegan { at: WallTime },
    /// An operator approved the activation.
    Approved { by: OperatorName },
    /// Preparing and switching no longer wait for an incarnation.
    Excused {
        /// `service/instance/incarnation`.
        instance: String,
    },
    /// Current = new.
    Activated { at: WallTime },
    /// Every instance has switched.
    DrainingBegan { at: WallTime },
    /// Current = old again: generation +1.
    RollbackStarted { reason: String, at: WallTime },
    /// No instance may begin to use a version from here on.
    Sealed { version: Version },
    /// An operator lets a retire cut instances or sessions off.
    Overridden { version: Version, word: Override },
    /// An operator gives a version up that is on its way out: the provider is not asked to end its credential.
    GivenUp { version: Version, word: Statement },
    /// A step ended nothing at the provider.
    LeftAlone { version: Version, why: Unproven },
    /// An operator says that an incarnation is gone for good.
    SaidGone { instance: InstanceKey, word: Statement },
    /// The roster no longer has an incarnation that was said to be gone.
    GoneForgotten {
        /// `service/instance/incarnation`.
        instance: String,
    },
    /// The point of no return.
    RetireBegan { version: Version, at: WallTime },
    /// A step past the point of no return is done, by the provider unless it says that it left the credential alone.
    RetireAdvanced { version: Version, step: RetireStep },
    /// A version is gone.
    RetireFinished { version: Version },
    /// The rotation in flight is over.
    RotationEnded { outcome: Outcome, at: WallTime },
    /// An operator pauses.
    Paused(Pause),
    /// An operator resumes.
    Resumed,
    /// The store is not what it was.
    ///
    /// Revisions and generations that the store has lost may have been published, and acted on: they are leapt over, so
    /// that instances follow what the store says now, and what they acknowledged of the lost history counts for nothing. Nor
    /// does an operator's word: it was said of what may no longer be so.
    SafeModeEntered(SafeMode),
    /// An operator has looked at it. Instances that stay with what they serve continue to do so while a version waits, or while
    /// the current one is not known to work. Logins that failed are tried again.
    SafeModeLeft,
    /// A test login since the store lost history has worked.
    VersionProved { version: Version },
    /// A test login since the store lost history has failed.
    ProofFailed {
        version: Version,
        /// In words.
        reason: String,
    },
    /// Numbers up to this one were used in the history that was lost, and an instance still uses one: they never come again.
    NumbersLost { last: Version },
    /// The last change is later than now, as was noticed at this time; or no longer.
    ClockNoted { since: Option<WallTime> },
}

impl SecretRecord {
    /// Carries out one change. The change was decided on this very record, so its preconditions hold;
    /// a change that does not fit (a record from elsewhere) leaves the part it names alone.
    pub fn apply(&mut self, change: &RecordChange) {
        self.revision = self.revision.next();
        match change {
            RecordChange::TermBegan { epoch } => self.epoch = *epoch,
            RecordChange::TimingSet { timing } => {
                self.bounds.sync = raised(self.longest_sync(), timing.longest_sync());
                let unknown = std::mem::take(&mut self.timing.unknown);
                self.timing = Timing { unknown, ..timing.clone() };
                self.bounds.lease = self.bounds.lease.max(timing.lease_idle);
                self.bounds.self_lease = raised(self.bounds.self_lease, timing.self_lease);
                self.bounds.max_use = raised(self.bounds.max_use, timing.max_use);
            }
            RecordChange::LeaseBoundLowered { to } => {
                self.bounds.lease = *to;
                self.bounds.sync = self.timing.longest_sync();
            }
            RecordChange::VersionAdded { version, origin, provider, at } => {
                self.last_version = self.last_version.max(Some(*version));
                self.versions.insert(
                    *version,
                    VersionRecord {
                        label: Label::Pending,
                        origin: *origin,
                        sealed: false,
                        announced: false,
                        doubt: None,
                        provider: provider.clone(),
                        unproven: None,
                        seen: *at,
                        note: String::new(),
                        unknown: Unknown::new(),
                    },
                );
            }
            RecordChange::MayBeInUse { version } => self.announce(*version),
            RecordChange::VersionSkipped { version, by, at } => {
                self.replace(*version, format!("replaced by version {by}"), *at);
            }
            RecordChange::RotationStarted { new, trigger, provider, at } => {
                self.generation = self.generation.next();
                self.rotations = self.rotations.next();
                if let Some(version) = self.versions.get_mut(new) {
                    version.provider.clone_from(provider);
                }
                let created = self.versions.get(new).is_none_or(|version| version.origin == Origin::Watched);
                self.rotation = Some(Rotation {
                    generation: self.generation,
                    number: self.rotations,
                    old: self.current,
                    new: *new,
                    trigger: trigger.clone(),
                    phase: Phase::Verifying,
                    started: *at,
                    phase_since: *at,
                    phases: vec![PhaseEntered { phase: Phase::Verifying, at: *at }],
                    created,
                    activated: None,
                    approved: None,
                    excused: BTreeSet::new(),
                    rollback: None,
                    unknown: Unknown::new(),
                });
            }
            RecordChange::CredentialCreated { origin } => self.created(*origin),
            RecordChange::PreparingBegan { at } => {
                self.enter(Phase::Preparing, *at);
                if let Some(version) = self.rotation.as_ref().map(|rotation| rotation.new) {
                    self.announce(version);
                }
            }
            RecordChange::Approved { by } => {
                if let Some(rotation) = &mut self.rotation {
                    rotation.approved = Some(by.clone());
                }
            }
            RecordChange::Excused { instance } => {
                if let Some(rotation) = &mut self.rotation {
                    rotation.excused.insert(instance.clone());
                }
            }
            RecordChange::Activated { at } => self.activate(*at),
            RecordChange::DrainingBegan { at } => self.enter(Phase::Draining, *at),
            RecordChange::RollbackStarted { reason, at } => self.roll_back(reason, *at),
            RecordChange::Sealed { version } => {
                if let Some(version) = self.versions.get_mut(version) {
                    version.sealed = true;
                }
            }
            RecordChange::Overridden { version, word } => {
                if let Some(retirement) = self.retirements.get_mut(version) {
                    retirement.overrides.push(word.clone());
                }
            }
            RecordChange::GivenUp { version, word } => self.give_up(*version, word),
            RecordChange::LeftAlone { version, why } => {
                if let Some(version) = self.versions.get_mut(version) {
                    version.unproven = Some(*why);
                }
            }
            RecordChange::SaidGone { instance, word } => {
                self.gone.insert(instance.full_name(), word.clone());
            }
            RecordChange::GoneForgotten { instance } => {
                self.gone.remove(instance);
            }
            RecordChange::RetireBegan { version, at } => {
                self.begin_steps(*version);
                if self.rotation.as_ref().is_some_and(|r| r.old == Some(*version) && r.phase == Phase::Draining) {
                    self.enter(Phase::Retiring, *at);
                }
            }
            RecordChange::RetireAdvanced { version, step } => {
                if let Some(retirement) = self.retirements.get_mut(version) {
                    retirement.step = Some(*step);
                }
                // Said of an earlier step, or before the provider's answer came.
                if let Some(version) = self.versions.get_mut(version) {
                    version.unproven = None;
                }
            }
            RecordChange::RetireFinished { version } => self.finish_retire(*version),
            RecordChange::RotationEnded { outcome, at } => self.end_rotation(*outcome, *at),
            RecordChange::Paused(pause) => self.pause(pause),
            RecordChange::Resumed => self.paused = None,
            RecordChange::SafeModeEntered(safe_mode) => {
                self.safe_mode = Some(safe_mode.clone());
                if !self.stay {
                    self.ended_to = self.last_version;
                }
                self.stay = true;
                self.leap(safe_mode.at);
            }
            RecordChange::SafeModeLeft => {
                self.safe_mode = None;
                self.take_word();
                self.test_again();
                self.stay = self.stays_after_safe_mode();
            }
            RecordChange::ClockNoted { since } => self.ahead_since = *since,
            RecordChange::VersionProved { version } => {
                if let Some(version) = self.versions.get_mut(version) {
                    version.doubt = None;
                }
                // An operator has looked already, and it was all that instances still stayed for.
                self.stay &= self.safe_mode.is_some() || self.stays_after_safe_mode();
            }
            RecordChange::ProofFailed { version, reason } => {
                if let Some(version) = self.versions.get_mut(version) {
                    version.doubt = Some(Doubt::Failed);
                    version.note.clone_from(reason);
                }
            }
            RecordChange::NumbersLost { last } => self.last_version = self.last_version.max(Some(*last)),
        }
    }

    /// A further pause adds its reason to the one in force.
    fn pause(&mut self, pause: &Pause) {
        let Some(first) = &mut self.paused else {
            self.paused = Some(pause.clone());
            return;
        };
        let Pause { by, reason, at, .. } = pause.clone();
        first.more.push(Statement { by, reason, at, unknown: Unknown::new() });
    }

    /// Leaves every revision and generation behind that a lost history may have had, an earlier leap in it included.
    fn leap(&mut self, at: WallTime) {
        self.revision = revision_above(self.revision, at);
        self.generation = Generation(above(self.generation.0, at));
        let revision = self.revision;
        self.lost_history = Some(LostHistory { noticed: revision, kept_to: self.last_version });
        // Whatever the record says: in the lost history they may have been.
        self.versions.values_mut().for_each(|version| version.announced = true);
        self.doubt_live_versions();
        self.unseal();
        for retirement in self.retirements.values_mut() {
            retirement.unwanted_since = revision;
            void_words(retirement);
        }
        if let Some(rotation) = &mut self.rotation {
            rotation.approved = None;
            rotation.excused.clear();
            rotation.activated = rotation.activated.map(|_| revision);
        }
    }

    /// In the history that was lost, a rollback may have made a sealed version current again, and instances that use it stay with it.
    /// Past the point of no return there is no way back.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(LeapUnseals, ()))]
    fn unseal(&mut self) {
        let sealed = self.retirements.iter().filter(|(_, retirement)| retirement.step.is_none());
        for version in sealed.map(|(version, _)| version) {
            if let Some(version) = self.versions.get_mut(version) {
                version.sealed = false;
            }
        }
    }

    /// In the history that was lost, each may have ended.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(LeapDoubts, ()))]
    fn doubt_live_versions(&mut self) {
        let live: Vec<Version> = self.live_versions().collect();
        for version in live {
            if let Some(version) = self.versions.get_mut(&version) {
                version.doubt = Some(Doubt::Untested);
            }
        }
    }

    /// An operator says that the version works which instances are to follow, where no login can show it. Of what a rotation would go
    /// back to it says nothing. While another version waits, the word is only that instances go to that one.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(WordOfCurrent, self.versions.values_mut().filter(|version| !version.can_log_in()).for_each(|version| version.doubt = None)))]
    fn take_word(&mut self) {
        let Some(followed) = self.followed().filter(|_| !self.next_waits()) else { return };
        if let Some(version) = self.versions.get_mut(&followed).filter(|version| !version.can_log_in()) {
            version.doubt = None;
        }
    }

    /// The version that a rotation is about to make current, or else the current one.
    fn followed(&self) -> Option<Version> {
        let begins = |rotation: &&Rotation| matches!(rotation.phase, Phase::Verifying | Phase::Preparing);
        self.rotation.as_ref().filter(begins).map(|rotation| rotation.new).or(self.current)
    }

    /// A login may have failed for a reason that has passed.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(ProofAgain, ()))]
    fn test_again(&mut self) {
        for version in self.versions.values_mut().filter(|version| version.doubt == Some(Doubt::Failed)) {
            version.doubt = Some(Doubt::Untested);
        }
    }

    /// Whether a version waits that no rotation is moving to.
    fn next_waits(&self) -> bool {
        let moving = self.rotation.as_ref().map(|rotation| rotation.new);
        self.versions.iter().any(|(number, version)| version.label == Label::Pending && Some(*number) != moving)
    }

    /// Instances that stayed have nothing to go to, or would go back to a version that may have ended, only to leave it at
    /// once.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(StayWaits, self.current.is_none() || self.doubts_current() || self.rotation.is_none() && self.waits()))]
    fn stays_after_safe_mode(&self) -> bool {
        self.current.is_none() || self.doubts_current() || self.waits()
    }

    /// A rollback is a new generation.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(RollbackGeneration, ()))]
    fn turn(&mut self) {
        self.generation = self.generation.next();
    }

    /// A rollback ends the old version's retirement.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(RollbackSpares, ()))]
    fn spare(&mut self, version: Version) {
        self.retirements.remove(&version);
    }

    /// A replaced version is retired under a guard of its own.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(ReplacedRetires, { let _ = (note, at); self.label(version, Label::Rejected) }))]
    fn replace(&mut self, version: Version, note: String, at: WallTime) {
        self.reject(version, Cause::Superseded, note, at);
    }

    fn enter(&mut self, phase: Phase, at: WallTime) {
        if let Some(rotation) = &mut self.rotation {
            rotation.phase = phase;
            rotation.phase_since = at;
            rotation.phases.push(PhaseEntered { phase, at });
        }
    }

    fn announce(&mut self, version: Version) {
        if let Some(version) = self.versions.get_mut(&version) {
            version.announced = true;
        }
    }

    fn label(&mut self, version: Version, label: Label) {
        if let Some(version) = self.versions.get_mut(&version) {
            version.label = label;
        }
    }

    fn created(&mut self, origin: Origin) {
        if let Some(rotation) = &mut self.rotation {
            rotation.created = true;
            if let Some(version) = self.versions.get_mut(&rotation.new) {
                version.origin = origin;
            }
        }
    }

    fn reject(&mut self, version: Version, cause: Cause, note: String, at: WallTime) {
        if let Some(record) = self.versions.get_mut(&version) {
            record.label = Label::Rejected;
            record.note = note;
        }
        self.begin_retirement(version, cause, at);
    }

    fn begin_retirement(&mut self, version: Version, cause: Cause, at: WallTime) {
        let retirement = Retirement {
            cause,
            unwanted_since: self.revision,
            since: at,
            overrides: Vec::new(),
            given_up: None,
            unmade: false,
            step: None,
            unknown: Unknown::new(),
        };
        self.retirements.insert(version, retirement);
    }

    fn activate(&mut self, at: WallTime) {
        let Some(rotation) = &mut self.rotation else { return };
        let (old, new) = (rotation.old, rotation.new);
        rotation.activated = Some(self.revision);
        self.enter(Phase::Activating, at);
        // Good again: it was tested, and every instance has prepared it.
        self.stay &= self.safe_mode.is_some();
        self.current = Some(new);
        self.announce(new);
        self.label(new, Label::Current);
        if let Some(old) = old {
            self.label(old, Label::Previous);
            self.begin_retirement(old, Cause::Rotated, at);
        }
    }

    fn roll_back(&mut self, reason: &str, at: WallTime) {
        self.turn();
        let revision = self.revision;
        let Some(rotation) = &mut self.rotation else { return };
        let (old, new, unmade) = (rotation.old, rotation.new, !rotation.created);
        rotation.rollback = Some(reason.to_owned());
        rotation.activated = Some(revision);
        self.enter(Phase::RollingBack, at);
        self.current = old;
        if let Some(old) = old {
            self.label(old, Label::Current);
            self.spare(old);
            // It is wanted again, and so its seal is off.
            if let Some(version) = self.versions.get_mut(&old) {
                version.sealed = false;
            }
        }
        self.reject(new, Cause::RolledBack, reason.to_owned(), at);
        // What instances stayed for may have been whether this version works.
        let doubted = self.doubt(new).is_some();
        self.stay &= !doubted || self.safe_mode.is_some() || self.stays_after_safe_mode();
        if let Some(retirement) = self.retirements.get_mut(&new) {
            retirement.unmade = unmade;
        }
    }

    /// Nothing is asked of a provider where none looks after the version.
    fn begin_steps(&mut self, version: Version) {
        let Some(retirement) = self.retirements.get_mut(&version) else { return };
        let Some(known) = self.versions.get_mut(&version) else { return };
        let followed = no_provider(known);
        known.unproven = retirement.given_up.as_ref().map(|_| Unproven::Abandoned).or(followed);
        retirement.step = Some(if followed.is_some() { RetireStep::Erase } else { RetireStep::Disable });
    }

    fn give_up(&mut self, version: Version, word: &Statement) {
        let Some(retirement) = self.retirements.get_mut(&version) else { return };
        retirement.given_up = Some(word.clone());
        if matches!(retirement.step, Some(RetireStep::Disable | RetireStep::Destroy))
            && let Some(known) = self.versions.get_mut(&version)
        {
            known.unproven = Some(Unproven::Abandoned);
        }
    }

    fn finish_retire(&mut self, version: Version) {
        let Some(retirement) = self.retirements.remove(&version) else { return };
        let unproven = self.versions.get(&version).is_some_and(|version| version.unproven.is_some());
        self.label(
            version,
            match retirement.cause {
                Cause::Rotated if unproven => Label::Unproven,
                Cause::Rotated => Label::Retired,
                Cause::RolledBack | Cause::Superseded => Label::Rejected,
            },
        );
        // Ended versions are kept for people, the newest few only; and the old one of a rotation, whose end says how it went.
        let old = self.rotation.as_ref().and_then(|rotation| rotation.old);
        let kept: BTreeSet<Version> = self.live_versions().chain(old).collect();
        let ended: Vec<Version> = self.versions.keys().copied().filter(|version| !kept.contains(version)).collect();
        for version in ended.iter().rev().skip(MAX_HISTORY) {
            self.versions.remove(version);
        }
    }

    /// Why a version that has ended is not called retired.
    fn unproven_end(&self, version: Version) -> Option<String> {
        let why = match self.versions.get(&version)?.unproven? {
            Unproven::NoProvider => "no provider looks after it",
            Unproven::LeftAlone => "the provider left another owner's credential alone",
            Unproven::ValueLost => "the store has no value that names the credential",
            Unproven::Abandoned => "an operator gave it up",
        };
        Some(format!("{why}, so the credential of version {version} may still be valid"))
    }

    fn end_rotation(&mut self, outcome: Outcome, at: WallTime) {
        let Some(rotation) = self.rotation.take() else { return };
        // The note is about the change before.
        self.ahead_since = None;
        if outcome == Outcome::Superseded {
            self.replace(rotation.new, "replaced by a newer version".into(), at);
        }
        let unproven = (outcome == Outcome::Retired).then(|| self.unproven_end(rotation.old?)).flatten();
        self.history.push(Finished {
            generation: rotation.generation,
            number: rotation.number,
            outcome,
            old: rotation.old,
            new: rotation.new,
            started: rotation.started,
            ended: at,
            phases: rotation.phases,
            reason: rotation.rollback.or(unproven).unwrap_or_default(),
            unknown: Unknown::new(),
        });
        if self.history.len() > MAX_HISTORY {
            self.history.remove(0);
        }
    }
}

/// A version that Rotacast only follows is never recorded as ended by a provider.
#[cfg_attr(rotacast_mutants, rotacast_mutate::rule(FollowedUnproven, None))]
fn no_provider(version: &VersionRecord) -> Option<Unproven> {
    version.provider.is_none().then_some(Unproven::NoProvider)
}

/// Longer times are durable before they are used.
#[cfg_attr(rotacast_mutants, rotacast_mutate::rule(BoundRaised, { let _ = to; bound }))]
fn raised(bound: Duration, to: Duration) -> Duration {
    bound.max(to)
}

/// Above every number that a lost history may have had, an earlier leap in it included.
fn above(number: u64, at: WallTime) -> u64 {
    number.saturating_add(LOST_CHANGES).max(at.0.saturating_mul(CHANGES_PER_MILLI))
}

/// What is leapt to is above every earlier leap, of whatever history.
#[cfg_attr(rotacast_mutants, rotacast_mutate::rule(LeapAbove, { let _ = at; Revision(revision.0 + (1 << 32)) }))]
fn revision_above(revision: Revision, at: WallTime) -> Revision {
    Revision(above(revision.0, at))
}

/// A break ends an operator's word.
#[cfg_attr(rotacast_mutants, rotacast_mutate::rule(LeapVoidsWords, { let _ = retirement; }))]
fn void_words(retirement: &mut Retirement) {
    retirement.overrides.clear();
    // Past the point of no return it stands: the provider must not end what an operator has excluded.
    if retirement.step.is_none() {
        retirement.given_up = None;
    }
}
