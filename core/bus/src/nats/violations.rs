//! What the server refuses for want of a right: it says so beside the request, which gets no answer.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// For how long a refusal is taken for the cause of what gets no answer: longer than any call takes.
const COUNTS_FOR: Duration = Duration::from_secs(30);
/// Longest text that is kept. A subject has at most 512 bytes.
const MAX_TEXT: usize = 700;

/// The last refusal. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Violations(Arc<Mutex<Option<(Instant, String)>>>);

impl Violations {
    /// Notes an error of the server, if it is a refusal.
    pub(super) fn note(&self, error: &str) {
        if error.to_ascii_lowercase().contains("permissions violation") {
            let text = error.chars().take(MAX_TEXT).collect();
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), text));
        }
    }

    pub(super) fn last(&self) -> Option<String> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().filter(|(at, _)| at.elapsed() < COUNTS_FOR).map(|(_, text)| text.clone())
    }
}
