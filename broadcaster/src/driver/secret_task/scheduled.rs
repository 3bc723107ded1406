//! Keeping a secret's schedule.

use std::time::Duration;

use rotacast_clock as clock;
use rotacast_proto::Level;
use rotacast_protocol::coordinator::{Input, Order, Rejection};
use rotacast_protocol::machine::Event;
use rotacast_protocol::schedule::last_change;
use rotacast_protocol::{Instant, Now, OperatorName};
use tracing::warn;

use super::{Environment, SecretTask, Waiting};
use crate::findings::Topic;
use crate::settings::SCHEDULE;

/// Pause before a scheduled rotation that was refused is asked for again. What refuses one needs an operator, or minutes.
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// Longest time between two looks at the wall clock, by which schedules go: a clock that was set is noticed by then.
const LOOK_AT_CLOCK: Duration = Duration::from_secs(60);

impl SecretTask {
    /// When the schedule's rotation is to be looked at; none while it may not start.
    pub(super) fn scheduled(&mut self, now: Now) -> Option<Instant> {
        Some(self.due(now)?.min(now.instant + LOOK_AT_CLOCK))
    }

    fn due(&mut self, now: Now) -> Option<Instant> {
        let record = self.machine.coordinator().record();
        if record.paused.is_some() || record.safe_mode.is_some() {
            return None;
        }
        let schedule = self.settings.schedule?;
        let due = schedule.next(record, now.wall)?;
        let at = match self.overdue {
            Some((overdue, begins)) if overdue == due && due <= now.wall => begins,
            _ => {
                now.instant
                    + Duration::from_millis(due.0.saturating_sub(now.wall.0))
                    + schedule.jitter(record, due, now.wall)
            }
        };
        self.overdue = (due <= now.wall).then_some((due, at));
        Some(self.ask_again.map_or(at, |again| again.max(at)))
    }

    /// Says, and has the record note, that its last change is later than now.
    pub(super) fn look_at_clock(&mut self) {
        let now = clock::now();
        if self.machine.coordinator().clock_noted(now).is_some() {
            self.machine.handle(Event::Input(Input::ClockRead));
        }
        let record = self.machine.coordinator().record();
        let Environment { findings, .. } = &self.environment;
        let secret = self.secret.as_str();
        match (record.ahead_since, last_change(record)) {
            (Some(since), Some(last)) if self.said_ahead.is_none() => {
                let text = format!(
                    "at {since} its record had been changed at {last}, which was still to come: a broadcaster's clock was \
                     wrong. Its schedule counts from {since}"
                );
                let fix = "compare the clocks of all replicas, such as with `chronyc tracking`; this ends with the next rotation";
                findings.raise(Topic::Clock, secret, Level::Warning, text, fix);
                self.said_ahead = Some(since);
            }
            (None, _) if self.said_ahead.take().is_some() => findings.clear(Topic::Clock, secret),
            _ => {}
        }
    }

    /// Orders the rotation that is due, as an operator would. Whether one is.
    pub(super) fn ask_for_scheduled_rotation(&mut self) -> bool {
        let now = clock::now();
        if self.due(now).is_none_or(|due| due > now.instant) {
            return false;
        }
        // Until it is answered, and in case that it is refused.
        self.ask_again = Some(now.instant + ASK_AGAIN);
        // No order is carried out that is not on record, the schedule's included.
        if self.environment.audit.fails() {
            warn!(secret = %self.secret, "its schedule's rotation waits: the audit log takes no entries");
            return false;
        }
        let by = OperatorName::new(SCHEDULE).expect("a valid name");
        self.machine.handle(Event::Order { by, order: Order::Rotate, reply: Waiting::Schedule });
        true
    }

    pub(super) fn schedule_refused(&self, rejection: &Rejection) {
        if !matches!(rejection, Rejection::Deposed { .. }) {
            warn!(secret = %self.secret, %rejection, "its schedule's rotation cannot start; it is tried again");
        }
    }
}
