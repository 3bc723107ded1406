//! What all servers share: a command, a folder, a probe that says whether the server is ready.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::probe::Probe;
use crate::until::LOOK_EVERY;
use crate::{Process, Scratch};

/// Timeout for a server to become ready. A server takes a second or two, Kafka a few more. A machine with ten times as
/// much work as it has cores takes minutes.
const START_LIMIT: Duration = Duration::from_secs(240);

/// Timeout for a server to end when it is asked to. etcd and PostgreSQL finish writing first.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// How often a start is tried with other ports. Another process may take a port between the search and the server's
/// bind. Three times in a row is no coincidence.
const PORT_ATTEMPTS: u32 = 3;

/// The name of every server's data folder.
pub(crate) const DATA: &str = "data";
/// The name of its copy.
const BACKUP: &str = "backup";

/// A running, stopped or paused server. Ends when dropped.
#[derive(Debug)]
pub struct Server {
    // Before the folder: dropped first, so that nothing writes there while it is removed.
    process: Process,
    plan: Plan,
    scratch: Scratch,
}

/// How to run a server, as often as wanted, on the same ports and data.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) name: &'static str,
    pub(crate) program: std::path::PathBuf,
    pub(crate) arguments: Vec<std::ffi::OsString>,
    pub(crate) variables: Vec<(String, std::ffi::OsString)>,
    pub(crate) probe: Probe,
    pub(crate) stop: Signal,
}

impl Plan {
    fn spawn(&self, scratch: &Scratch) -> Process {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .current_dir(scratch.path());
        Process::spawn(self.name, command, &scratch.path().join("log"), None)
    }
}

impl Server {
    /// Starts what `plan` says, and waits until it is ready. `plan` is asked again, for other ports, if one
    /// of them is taken meanwhile; `scratch` stays the same.
    pub(crate) async fn start(scratch: Scratch, mut plan: impl FnMut(&Scratch) -> Plan) -> Self {
        let first = plan(&scratch);
        let process = first.spawn(&scratch);
        let mut server = Self { process, plan: first, scratch };
        for attempt in 1.. {
            match server.ready().await {
                Ok(()) => break,
                Err(log) if attempt < PORT_ATTEMPTS && log.contains("ddress already in use") => {
                    server.plan = plan(&server.scratch);
                    server.process = server.plan.spawn(&server.scratch);
                }
                Err(log) => panic!("{} does not start\n{log}", server.plan.name),
            }
        }
        server
    }

    /// The process id of the current run.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Its folder: data and `log`.
    #[must_use]
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// Asks it to shut down properly and waits for that.
    pub async fn stop(&mut self) {
        if self.process.ended().is_none() {
            self.process.stop(self.plan.stop, STOP_LIMIT).await;
        }
    }

    /// Ends it at once with SIGKILL, its children too.
    pub async fn kill(&mut self) {
        self.process.kill().await;
    }

    /// SIGSTOP: it keeps its connections and answers nothing, like a machine that swaps or is cut off.
    pub fn pause(&mut self) {
        self.process.pause();
    }

    /// SIGCONT after [`Server::pause`].
    pub fn resume(&mut self) {
        self.process.resume();
    }

    /// Starts it again on the same ports and data and waits until it is ready; stops it first if it runs.
    ///
    /// # Panics
    /// If it does not become ready.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.process = self.plan.spawn(&self.scratch);
        if let Err(log) = self.ready().await {
            panic!("{} does not start again\n{log}", self.plan.name);
        }
    }

    /// Copies its data as they are on disk at this moment, as a snapshot of the disk would, in place of an earlier copy. It
    /// is paused meanwhile.
    ///
    /// # Panics
    /// If they cannot be copied.
    pub fn back_up(&mut self) {
        self.pause();
        copy_anew(&self.scratch.path().join(DATA), &self.scratch.path().join(BACKUP));
        self.resume();
    }

    /// Kills it, and starts it again on the data that [`Server::back_up`] has copied.
    ///
    /// # Panics
    /// If there is no copy, or if it does not become ready.
    pub async fn restore(&mut self) {
        self.kill().await;
        copy_anew(&self.scratch.path().join(BACKUP), &self.scratch.path().join(DATA));
        self.restart().await;
    }

    /// Everything that it has logged.
    ///
    /// # Panics
    /// If the log cannot be read.
    #[must_use]
    pub fn log(&self) -> String {
        let file = self.scratch.path().join("log");
        let bytes = std::fs::read(&file).unwrap_or_else(|error| panic!("cannot read {}: {error}", file.display()));
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub(crate) fn log_tail(&self) -> String {
        self.process.log_tail()
    }

    /// Waits until the server is ready. Otherwise returns what happened, with the log.
    async fn ready(&mut self) -> Result<(), String> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.process.ended() {
                return Err(format!("it ended with {status}\n{}", self.process.log_tail()));
            }
            let Err(found) = self.plan.probe.ask().await else { return Ok(()) };
            if start.elapsed() > START_LIMIT {
                let log = self.process.log_tail();
                return Err(format!("it is not ready after {START_LIMIT:?}; its last answer was: {found}\n{log}"));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// Copies a folder with everything in it over the folder at the target.
pub(crate) fn copy_anew(from: &Path, to: &Path) {
    fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
        std::fs::create_dir_all(to)?;
        for entry in std::fs::read_dir(from)? {
            let entry = entry?;
            let (path, target) = (entry.path(), to.join(entry.file_name()));
            if path.is_dir() { copy(&path, &target)? } else { std::fs::copy(&path, &target).map(drop)? }
        }
        Ok(())
    }
    let removed = if to.exists() { std::fs::remove_dir_all(to) } else { Ok(()) };
    let copied = removed.and_then(|()| copy(from, to));
    copied.unwrap_or_else(|error| panic!("cannot copy {} to {}: {error}", from.display(), to.display()));
}
