//! One server for all tests of a binary.

use std::ops::Deref;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::{Scratch, Server};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// One test's use of a server that other tests of the same binary use too. It cannot be stopped, and the
/// test keeps to its own [`Shared::name`].
#[derive(Debug)]
pub struct Shared<S: Deref<Target = Server> + 'static> {
    server: &'static S,
    name: String,
}

impl<S: Deref<Target = Server>> Shared<S> {
    pub(crate) fn new(server: &'static S) -> Self {
        let name = format!("t{:x}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        Self { server, name }
    }

    /// This test's own name, for prefixes, streams, databases and roles: lower-case letters, digits and
    /// underscores, no longer than 24.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl<S: Deref<Target = Server>> Deref for Shared<S> {
    type Target = S;

    fn deref(&self) -> &S {
        self.server
    }
}

impl<S: Deref<Target = Server>> Drop for Shared<S> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            Scratch::keep();
            eprintln!("{}", self.server.log_tail());
        }
    }
}
