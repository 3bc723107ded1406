//! Waiting for a condition.

use std::time::{Duration, Instant};

/// How often a condition is checked. Short, because every wait in a test ends with half of it on average.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Waits until `condition` yields a value, looking every 10 ms.
///
/// The `limit` ends a broken test and measures nothing: give it far more than a slow, busy machine needs.
///
/// # Panics
/// If the limit passes. The message says `what` was waited for.
pub async fn until<T>(what: &str, limit: Duration, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} in vain for: {what}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The same for conditions that need no `await`. The future can move between threads.
pub(crate) async fn until_now<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} in vain for: {what}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The same for code that cannot use `await`, such as a `Drop`. Says whether the condition was met.
pub(crate) fn until_blocking(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !condition() {
        if start.elapsed() >= limit {
            return false;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    true
}
