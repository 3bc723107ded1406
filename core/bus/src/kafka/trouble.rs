//! Why something that goes on trying does not get on.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::BusError;

/// For how long a call names a problem after it was met last. What goes on trying meets it again within seconds; an older one is of
/// work that was given up.
const TOLD: Duration = Duration::from_secs(60);

/// The newest problem of something that goes on trying, until it gets on.
#[derive(Default)]
pub(super) struct Trouble(Mutex<Option<(Instant, BusError)>>);

impl Trouble {
    pub(super) fn note(&self, problem: BusError) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), problem));
    }

    pub(super) fn over(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// What is in the way now.
    pub(super) fn now(&self) -> Option<BusError> {
        let noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        noted.as_ref().filter(|(met, _)| met.elapsed() < TOLD).map(|(_, problem)| problem.clone())
    }
}
