//! Bounds how many log lines a peer can cause.
//!
//! A line that a connection, a message or a request of any peer may cause has a [`LogLimit`] of its own: a flood writes
//! [`LINES`] lines in each [`WINDOW`], and the next line that is written says how many were left out.
//!
//! ```
//! use rotacast_log_limit::LogLimit;
//!
//! static REFUSED: LogLimit = LogLimit::new();
//! if let Some(left_out) = REFUSED.admit() {
//!     println!("refused a message; {left_out} more lines like this were left out");
//! }
//! ```

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lines of one kind in each window: a person reads the first few, the rest is for the counters.
pub const LINES: u32 = 10;

/// How long a window is: a flood of a whole day stays below 15,000 lines of its kind.
pub const WINDOW: Duration = Duration::from_secs(60);

static LEFT_OUT: AtomicU64 = AtomicU64::new(0);

/// How many lines of every kind this process has left out.
#[must_use]
pub fn left_out() -> u64 {
    LEFT_OUT.load(Ordering::Relaxed)
}

impl Default for LogLimit {
    fn default() -> Self {
        Self::new()
    }
}

/// The bound of one kind of line.
#[derive(Debug)]
pub struct LogLimit {
    lines: u32,
    window: Mutex<Window>,
}

#[derive(Debug)]
struct Window {
    began: Option<Instant>,
    written: u32,
    left_out: u64,
}

impl LogLimit {
    /// A kind of line, of which none was written yet.
    #[must_use]
    pub const fn new() -> Self {
        Self::of(LINES)
    }

    /// The same, with another number of lines in each window: for lines that are worth reading one by one.
    #[must_use]
    pub const fn of(lines: u32) -> Self {
        Self { lines, window: Mutex::new(Window { began: None, written: 0, left_out: 0 }) }
    }

    /// Whether a line may be written now: `Some` with the number of lines left out since the last one.
    pub fn admit(&self) -> Option<u64> {
        self.admit_at(Instant::now())
    }

    fn admit_at(&self, now: Instant) -> Option<u64> {
        // Whole after every call on it.
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if window.began.is_none_or(|began| now.saturating_duration_since(began) >= WINDOW) {
            window.began = Some(now);
            window.written = 0;
        }
        if window.written < self.lines {
            window.written += 1;
            return Some(std::mem::take(&mut window.left_out));
        }
        window.left_out += 1;
        LEFT_OUT.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_writes_a_few_lines_in_each_window_and_says_how_many_it_left_out() {
        let limit = LogLimit::new();
        let begin = Instant::now();
        let before = left_out();
        let written: Vec<_> = (0..1_000).filter_map(|_| limit.admit_at(begin)).collect();
        assert_eq!(written, vec![0; LINES as usize]);
        let later = begin + WINDOW;
        let written: Vec<_> = (0..1_000).filter_map(|_| limit.admit_at(later)).collect();
        assert_eq!((written.len(), written[0], written[1]), (LINES as usize, 1_000 - u64::from(LINES), 0));
        assert_eq!(left_out() - before, 2 * (1_000 - u64::from(LINES)));
    }
}
