//! One secret's engine: events and time in, actions out.
//!
//! The machine owns the [`Coordinator`] and the loop around it: take in what happened, save what is decided, apply it once
//! it is durable, start what has to be done, try again what failed. It does no IO. A shell feeds
//! it ([`Machine::handle`], [`Machine::saved`]), asks it for actions ([`Machine::poll`]) and carries them out in order. The
//! broadcaster's task is such a shell, and so are both simulators: what they run is what ships.
//!
//! Persist before acting: between [`Action::Save`] and [`Machine::saved`] the machine takes nothing in and gives nothing
//! out, so that no answer, command or change leaves before the record that justifies it is durable.

mod event;
mod retry;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{Hash, Hasher};

pub use event::{Action, Answer, CommandId, Event, Jitter, Recorded, SaveId};
use retry::Retries;

use crate::coordinator::{Change, CommandKind, Coordinator, Failed, Input, Rejection};
use crate::id::{InstanceKey, RotationNumber, Version};
use crate::name::OperatorName;
use crate::record::{Label, RecordChange};
use crate::time::{Instant, Now};

/// Events that wait in the machine. They are taken in together before time-driven rules are looked at again; a shell that
/// has more keeps them in its own bounded mailbox.
pub const MAX_EVENTS: usize = 1024;

/// Most leaps of one secret in a term because the bus has a newer state: what it says is not signed. Together they are
/// some fifty days of clock (see `RecordChange::SafeModeEntered`), more than the clocks of hosts that sign anything for
/// each other differ by.
const MAX_LEAPS: u32 = 64;

/// Sees every change as it is applied, with the state before and after it: for what is counted, traced and logged.
pub trait Observer {
    /// These changes were decided; none is applied yet.
    fn decided(&mut self, coordinator: &Coordinator, changes: &[Change]) {
        let _ = (coordinator, changes);
    }
    /// This change is about to be applied.
    fn before(&mut self, coordinator: &Coordinator, change: &Change) {
        let _ = (coordinator, change);
    }
    /// This change was applied.
    fn after(&mut self, coordinator: &Coordinator, change: &Change, now: Now) {
        let _ = (coordinator, change, now);
    }
}

/// Observes nothing.
impl Observer for () {}

/// A save under way, and what follows it.
#[derive(Clone, Hash, Debug)]
struct Saving<R> {
    id: SaveId,
    changes: Vec<Change>,
    by: Option<OperatorName>,
    then: Then<R>,
}

/// What follows once changes are applied.
#[derive(Clone, Hash, Debug)]
enum Then<R> {
    Nothing,
    Grant { key: InstanceKey, to: R },
    Confirm { to: R },
}

/// Numbers the runs of commands. Two machines that differ in it alone are in the same state.
#[derive(Clone, Copy, Default, Debug)]
struct Runs(u64);

impl Hash for Runs {
    fn hash<H: Hasher>(&self, _state: &mut H) {}
}

/// One secret's engine in one term. See the module's documentation.
#[derive(Clone, Hash, Debug)]
pub struct Machine<R> {
    coordinator: Coordinator,
    events: VecDeque<Event<R>>,
    actions: VecDeque<Action<R>>,
    saving: Option<Saving<R>>,
    in_flight: BTreeMap<CommandId, CommandKind>,
    retries: Retries,
    runs: Runs,
    leaps: u32,
    /// Something waits until the leadership is known to last.
    awaits_leadership: bool,
}

impl<R> Machine<R> {
    /// The engine of a record that was just taken over.
    #[must_use]
    pub fn new(coordinator: Coordinator) -> Self {
        Self {
            coordinator,
            events: VecDeque::new(),
            actions: VecDeque::new(),
            saving: None,
            in_flight: BTreeMap::new(),
            retries: Retries::default(),
            runs: Runs::default(),
            leaps: 0,
            awaits_leadership: false,
        }
    }

    /// The state, for those who only look.
    #[must_use]
    pub fn coordinator(&self) -> &Coordinator {
        &self.coordinator
    }

    /// How many more events it takes now: none during a save.
    #[must_use]
    pub fn room(&self) -> usize {
        if self.saving.is_some() { 0 } else { MAX_EVENTS.saturating_sub(self.events.len()) }
    }

    /// Whether a save is under way.
    #[must_use]
    pub fn is_saving(&self) -> bool {
        self.saving.is_some()
    }

    /// Whether a renewal of the leadership is waited for. Otherwise the machine need not be woken for one.
    #[must_use]
    pub fn awaits_leadership(&self) -> bool {
        self.awaits_leadership
    }

    /// Adds an event; [`Machine::poll`] takes it in. At most [`Machine::room`] at a time.
    pub fn handle(&mut self, event: Event<R>) {
        self.events.push_back(event);
    }

    /// When time alone may change something, or a command is to be tried again.
    #[must_use]
    pub fn next_wakeup(&self, now: Now) -> Option<Instant> {
        let in_flight: BTreeSet<&CommandKind> = self.in_flight.values().collect();
        // One that is due and not in flight waits for another command on its version to end.
        let retry = self.retries.next(now.instant, |kind| !in_flight.contains(kind));
        [self.coordinator.next_wakeup(now), retry].into_iter().flatten().min()
    }

    /// The next thing to do; none: wait for an event, the save, or [`Machine::next_wakeup`]. `leads_until` is until when the
    /// leadership is known to last, by the leader's clock and counted from its own send times.
    pub fn poll(&mut self, now: Now, leads_until: Instant, observer: &mut impl Observer) -> Option<Action<R>> {
        loop {
            if let Some(action) = self.actions.pop_front() {
                return Some(action);
            }
            if self.saving.is_some() {
                return None;
            }
            self.extend_leadership(now, leads_until, observer);
            if let Some(event) = self.events.pop_front() {
                if !self.take_in(now, event, observer) {
                    self.awaits_leadership = true;
                    return None;
                }
                continue;
            }
            match self.coordinator.decide(now, Input::Tick) {
                Ok(changes) if changes.is_empty() => self.awaits_leadership = false,
                Ok(changes) => {
                    self.commit(now, changes, None, Then::Nothing, observer);
                    continue;
                }
                // It does not lead at the moment: a renewal or the end of the term is next.
                Err(_) => {
                    self.awaits_leadership = true;
                    return None;
                }
            }
            if !self.start_commands(now) {
                return None;
            }
        }
    }

    /// The save is durable: its changes take effect, and callers that wait for them are answered.
    pub fn saved(&mut self, now: Now, id: SaveId, observer: &mut impl Observer) {
        if let Some(saving) = self.saving.take_if(|saving| saving.id == id) {
            self.apply(now, saving.changes, saving.by, saving.then, observer);
        }
    }

    fn extend_leadership(&mut self, now: Now, until: Instant, observer: &mut impl Observer) {
        if until > self.coordinator.tenure().valid_until
            && let Ok(changes) = self.coordinator.decide(now, Input::LeadershipExtended { until })
        {
            self.commit(now, changes, None, Then::Nothing, observer);
        }
    }

    /// Whether the event was taken in; otherwise it is the next one still, and waits for the leadership.
    fn take_in(&mut self, now: Now, event: Event<R>, observer: &mut impl Observer) -> bool {
        match event {
            Event::Input(input) => {
                if !self.coordinator.leads(now.instant) {
                    self.events.push_front(Event::Input(input));
                    return false;
                }
                match self.coordinator.decide(now, input) {
                    Ok(changes) => self.commit(now, changes, None, Then::Nothing, observer),
                    Err(rejection) => self.actions.push_back(Action::Refused(rejection)),
                }
            }
            Event::Sync { key, sequence, report, reply } => {
                let input = Input::Sync { key: key.clone(), sequence, report };
                match self.coordinator.decide(now, input) {
                    Ok(changes) => self.commit(now, changes, None, Then::Grant { key, to: reply }, observer),
                    Err(rejection) => self.reply(reply, Answer::Refused(rejection)),
                }
            }
            Event::Order { by, order, reply } => {
                match self.coordinator.decide(now, Input::Operator { by: by.clone(), order }) {
                    Ok(changes) => self.commit(now, changes, Some(by), Then::Confirm { to: reply }, observer),
                    Err(rejection) => self.reply(reply, Answer::Refused(rejection)),
                }
            }
            Event::CommandDone { id, outcome, jitter } => self.command_done(now, id, outcome, jitter),
            Event::Gap { missing, found } => {
                let numbers = self.lost_between(missing, found);
                self.actions.push_back(match numbers.is_empty() {
                    true => Action::AwaitVersion { missing, found },
                    false => Action::NoteLost { numbers },
                });
            }
            Event::Question { reply } => self.reply(reply, Answer::Now),
        }
        true
    }

    /// Every event with a reply token is answered once.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(Answered, { let _ = (to, answer); }))]
    fn reply(&mut self, to: R, answer: Answer) {
        self.actions.push_back(Action::Reply { to, answer });
    }

    /// Has the record saved if it changes; otherwise the changes take effect at once.
    fn commit(
        &mut self,
        now: Now,
        changes: Vec<Change>,
        by: Option<OperatorName>,
        then: Then<R>,
        observer: &mut impl Observer,
    ) {
        observer.decided(&self.coordinator, &changes);
        let Some(record) = self.coordinator.record_after(&changes) else {
            return self.apply(now, changes, by, then, observer);
        };
        // Revisions only grow, so that one names the save.
        let id = SaveId(record.revision.0);
        let action = Action::Save { id, record: Box::new(record), changes: changes.clone(), by: by.clone() };
        self.actions.push_back(action);
        self.await_save(now, Saving { id, changes, by, then }, observer);
    }

    /// Nothing takes effect before its save is confirmed.
    #[cfg_attr(rotacast_mutants, rotacast_mutate::rule(SaveAwaited, self.apply(now, saving.changes, saving.by, saving.then, observer)))]
    fn await_save(&mut self, now: Now, saving: Saving<R>, observer: &mut impl Observer) {
        let _ = (now, observer);
        self.saving = Some(saving);
    }

    fn apply(
        &mut self,
        now: Now,
        changes: Vec<Change>,
        by: Option<OperatorName>,
        then: Then<R>,
        observer: &mut impl Observer,
    ) {
        let record = self.coordinator.record();
        let last = record.last_version;
        let unmade = record.rotation.as_ref().filter(|rotation| !rotation.created).map(|rotation| rotation.new);
        let mut recorded = Vec::new();
        for change in changes {
            let before = self.rotation();
            observer.before(&self.coordinator, &change);
            self.coordinator.apply(now, &change);
            observer.after(&self.coordinator, &change, now);
            if let Change::Record(change) = change {
                recorded.push(Recorded { change, rotation: self.rotation().or(before) });
            }
        }
        let broke = |it: &Recorded| matches!(it.change, RecordChange::SafeModeEntered(_));
        let mut numbers: BTreeSet<Version> = unmade.filter(|_| recorded.iter().any(broke)).into_iter().collect();
        let lost = recorded.iter().find_map(|recorded| match recorded.change {
            RecordChange::NumbersLost { last } => Some(last),
            _ => None,
        });
        if !recorded.is_empty() {
            self.actions.push_back(Action::Changed { changes: recorded, by });
        }
        if let Some(newest) = lost {
            numbers.extend(self.lost_between(last.map_or(Version::FIRST, Version::next), newest.next()));
        }
        if !numbers.is_empty() {
            self.actions.push_back(Action::NoteLost { numbers });
        }
        match then {
            Then::Nothing => {}
            Then::Grant { key, to } => {
                let untracked = "it is not tracked; it runs on self-leases".to_owned();
                let answer = match self.coordinator.grant(&key) {
                    Some(grant) => Answer::Granted(grant),
                    None => Answer::Refused(Rejection::Sender { key, problem: untracked }),
                };
                self.reply(to, answer);
            }
            Then::Confirm { to } => {
                let rotation = self.coordinator.record().rotation.as_ref();
                let rotation = rotation.map(|rotation| (rotation.number, rotation.new));
                self.reply(to, Answer::Ordered(rotation));
            }
        }
    }

    /// The rotation in flight, by its number.
    fn rotation(&self) -> Option<RotationNumber> {
        self.coordinator.record().rotation.as_ref().map(|rotation| rotation.number)
    }

    /// Starts what has to be done, is not in flight and does not wait to be tried again. At most one command per version
    /// runs at a time, so that making a credential and destroying it never run into each other. A reading of its usage
    /// counts too: it logs in with the credential.
    fn start_commands(&mut self, now: Now) -> bool {
        let owed = self.coordinator.commands(now);
        self.retries.retain(|kind| owed.iter().any(|command| command.kind == *kind));
        let mut started = false;
        for command in owed {
            let busy = self.in_flight.values().any(|kind| {
                *kind == command.kind || kind.works_on().is_some_and(|version| command.kind.works_on() == Some(version))
            });
            if busy || self.retries.waits(&command.kind, now.instant) {
                continue;
            }
            self.runs.0 += 1;
            let id = CommandId(self.runs.0);
            self.in_flight.insert(id, command.kind.clone());
            self.actions.push_back(Action::Run { id, command });
            started = true;
        }
        started
    }

    fn command_done(&mut self, now: Now, id: CommandId, outcome: Result<Vec<Input>, Failed>, jitter: Jitter) {
        let Some(kind) = self.in_flight.remove(&id) else { return };
        match self.believed(outcome) {
            Ok(inputs) => {
                self.retries.succeeded(&kind);
                // Before what else waits: a command that is done is not started once more.
                for input in inputs.into_iter().rev() {
                    self.events.push_front(Event::Input(input));
                }
            }
            Err(failed) => {
                self.retries.failed(kind.clone(), now.instant, jitter);
                self.events.push_front(Event::Input(Input::Troubled { command: kind, failed }));
            }
        }
    }

    /// That the bus has a newer state is believed [`MAX_LEAPS`] times in a term.
    fn believed(&mut self, outcome: Result<Vec<Input>, Failed>) -> Result<Vec<Input>, Failed> {
        let went_back = |inputs: &Vec<Input>| inputs.iter().any(|input| matches!(input, Input::StoreWentBack { .. }));
        if !outcome.as_ref().is_ok_and(went_back) {
            return outcome;
        }
        self.leaps = self.leaps.saturating_add(1);
        if self.leaps <= MAX_LEAPS {
            return outcome;
        }
        let revision = self.coordinator.record().revision;
        Err(format!(
            "the bus has a state that is newer than revision {revision}, after {MAX_LEAPS} leaps over what may have been \
             lost: another client writes states of this secret; see who has the right to, and remove the message"
        )
        .into())
    }

    /// Numbers from `missing` to before `found` that were used in a history that the store has lost, or may have been: taken,
    /// and not listed, or rejected before they were written. Any other that is listed is about to be written, or was.
    fn lost_between(&self, missing: Version, found: Version) -> BTreeSet<Version> {
        let record = self.coordinator.record();
        let end = found.min(record.last_version.map_or(Version::FIRST, Version::next));
        let numbers = (missing.get()..end.get()).filter_map(|number| Version::new(number).ok());
        let rejected = |label| record.lost_history.is_some() && label == Label::Rejected;
        numbers.filter(|number| record.versions.get(number).is_none_or(|it| rejected(it.label))).collect()
    }
}

impl Rejection {
    /// Whether the input brings nothing new, as repeated and late messages do.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        matches!(self, Rejection::Stale { .. } | Rejection::Deposed { .. })
    }
}
