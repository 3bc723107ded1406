//! Keeping a secret's schedule.

use std::time::Duration;

use rotacast_clock as clock;
use rotacast_protocol::coordinator::{Order, Rejection};
use rotacast_protocol::machine::Event;
use rotacast_protocol::{Instant, Now, OperatorName};
use tracing::warn;

use super::{SecretTask, Waiting};
use crate::schedule::SCHEDULE;

/// Pause before a scheduled rotation that was refused is asked for again. What refuses one needs an operator, or minutes.
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// Longest time between two looks at the wall clock, by which schedules go: a clock that was set is noticed by then.
const LOOK_AT_CLOCK: Duration = Duration::from_secs(60);

impl SecretTask {
    /// When the schedule's rotation is to be looked at; none while it may not start.
    pub(super) fn scheduled(&self, now: Now) -> Option<Instant> {
        Some(self.due(now)?.min(now.instant + LOOK_AT_CLOCK))
    }

    fn due(&self, now: Now) -> Option<Instant> {
        let record = self.machine.coordinator().record();
        if record.paused.is_some() || record.safe_mode.is_some() {
            return None;
        }
        let due = self.settings.schedule?.next(record)?;
        let at = now.instant + Duration::from_millis(due.0.saturating_sub(now.wall.0));
        Some(self.ask_again.map_or(at, |again| again.max(at)))
    }

    /// Orders the rotation that is due, as an operator would. Whether one is.
    pub(super) fn ask_for_scheduled_rotation(&mut self) -> bool {
        let now = clock::now();
        if self.due(now).is_none_or(|due| due > now.instant) {
            return false;
        }
        // Until it is answered, and in case that it is refused.
        self.ask_again = Some(now.instant + ASK_AGAIN);
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
