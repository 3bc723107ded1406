//! The one rule that the tests of this thread have broken; see `rotacast-mutate`. Not part of an ordinary build.

use std::cell::RefCell;

thread_local! {
    static BROKEN: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Whether a rule is broken.
#[must_use]
pub fn is(rule: &str) -> bool {
    BROKEN.with_borrow(|broken| broken.as_deref() == Some(rule))
}

/// While it lives, a rule is broken on this thread.
#[derive(Debug)]
pub struct Broken {
    before: Option<String>,
}

impl Broken {
    /// Breaks a rule.
    #[must_use]
    pub fn rule(rule: String) -> Self {
        Self { before: BROKEN.replace(Some(rule)) }
    }
}

impl Drop for Broken {
    fn drop(&mut self) {
        BROKEN.set(self.before.take());
    }
}
