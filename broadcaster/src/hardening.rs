//! Keeps other programs out of this process's memory: values of secrets and private keys are in it.

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use tracing::warn;

/// Allows this process neither a core dump nor a debugger. Other programs of the same user can then not read its memory
/// and environment in `/proc` either. What the system refuses is a warning: an instance without credentials is worse.
pub fn keep_memory_private() {
    let steps: [(&str, io::Result<()>); 2] = [
        ("core dumps", forbid_core_dumps()),
        ("debuggers of the same user", set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(io::Error::from)),
    ];
    for (what, outcome) in steps {
        if let Err(problem) = outcome {
            warn!(%problem, "{what} cannot be forbidden: they would show the values of secrets: forbid them from outside, as deploy/systemd/rotacast.service does");
        }
    }
}

fn forbid_core_dumps() -> io::Result<()> {
    Ok(setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?)
}
