//! Keeping a secret's schedule.

use std::time::Duration;

use rotacast_clock as clock;
use rotacast_protocol::coordinator::{Input, Order, Rejection};
use rotacast_protocol::{Instant, Now, OperatorName};
use tracing::{info, warn};

use super::{Ended, SecretTask};
use crate::schedule::SCHEDULE;

/// Pause before a scheduled rotation that was refused is asked for again. What refuses one needs an operator, or minutes.
const ASK_AGAIN: Duration = Duration::from_secs(60);

impl SecretTask {
    /// When the schedule's rotation is due; none while it may not start.
    pub(super) fn scheduled(&self, now: Now) -> Option<Instant> {
        let record = self.coordinator.record();
        if record.paused.is_some() || record.safe_mode.is_some() {
            return None;
        }
        let due = self.settings.schedule?.next(record)?;
        let at = now.instant + Duration::from_millis(due.0.saturating_sub(now.wall.0));
        Some(self.ask_again.map_or(at, |again| again.max(at)))
    }

    /// Starts the rotation that is due, as an operator's order would.
    pub(super) async fn keep_schedule(&mut self) -> Result<(), Ended> {
        let now = clock::now();
        if self.scheduled(now).is_none_or(|due| due > now.instant) {
            return Ok(());
        }
        self.ask_again = None;
        let by = OperatorName::new(SCHEDULE).expect("a valid name");
        match self.coordinator.decide(now, Input::Operator { by: by.clone(), order: Order::Rotate }) {
            Ok(changes) => {
                info!(secret = %self.secret, "rotated by its schedule");
                self.commit_for(changes, Some(&by)).await?;
                self.settle().await
            }
            Err(rejection) => {
                if !matches!(rejection, Rejection::Deposed { .. }) {
                    warn!(secret = %self.secret, %rejection, "its schedule's rotation cannot start; it is tried again");
                }
                self.ask_again = Some(now.instant + ASK_AGAIN);
                Ok(())
            }
        }
    }
}
