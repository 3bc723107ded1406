//! A child process under full control.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::until::{until_blocking, until_now};
use crate::{Scratch, watchdog};

/// Timeout for a process to end after SIGKILL or to stop after SIGSTOP. The kernel needs milliseconds, on a busy
/// machine a little more.
const SIGNAL_LIMIT: Duration = Duration::from_secs(30);

/// How many lines of a log a failed test shows.
const LOG_LINES: usize = 60;

/// A process in a group of its own, with its output in files. It ends when this value is dropped, and with the test
/// process however that ends.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    /// Itself and its descendants while paused.
    paused: Vec<Pid>,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `command`; both outputs are appended to the file `log`, or, with `stdout` given, the standard
    /// output goes to that file.
    ///
    /// # Panics
    /// If it cannot be started or the files cannot be written.
    #[must_use]
    pub fn spawn(name: &str, mut command: Command, log: &Path, stdout: Option<&Path>) -> Self {
        let errors = append(log);
        let output = append(stdout.unwrap_or(log));
        let program = command.get_program().to_owned();
        let child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: cannot start {}: {error}", program.display()));
        watchdog::watch(child.id());
        Self { name: name.to_owned(), child, log: log.to_owned(), paused: Vec::new(), ended: None }
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where its standard error (or both outputs) went.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("waiting for one's own child works");
            if self.ended.is_some() {
                watchdog::forget(self.id());
            }
        }
        self.ended
    }

    /// Waits for it to end by itself.
    ///
    /// # Panics
    /// If it runs longer than `limit`.
    pub async fn wait(&mut self, limit: Duration) -> ExitStatus {
        let what = format!("{} (process {}) to end", self.name, self.id());
        until_now(&what, limit, || self.ended()).await
    }

    /// Sends `signal`; nothing happens if the process has ended.
    pub fn signal(&mut self, signal: Signal) {
        if self.ended().is_none() {
            send(self.pid(), signal);
        }
    }

    /// Sends `signal`, which asks it to end, and waits.
    ///
    /// # Panics
    /// If it has not ended within `limit`.
    pub async fn stop(&mut self, signal: Signal, limit: Duration) -> ExitStatus {
        self.resume();
        self.signal(signal);
        self.wait(limit).await
    }

    /// Kills it and its descendants with SIGKILL, as a power cut would, and waits until they are gone.
    pub async fn kill(&mut self) {
        let doomed = self.kill_tree();
        let what = format!("{} (process {}) to be gone after SIGKILL", self.name, self.id());
        let mut gone = || self.ended().is_some() && !doomed.iter().any(|pid| is_alive(*pid));
        until_now(&what, SIGNAL_LIMIT, || gone().then_some(())).await;
    }

    /// Stops it and its descendants with SIGSTOP: they keep memory, files and connections, and do nothing.
    pub fn pause(&mut self) {
        if self.ended().is_some() {
            return;
        }
        // The parent first, so that it starts no more children while they are being stopped.
        send(self.pid(), Signal::STOP);
        self.paused = family(self.pid());
        for pid in &self.paused {
            send(*pid, Signal::STOP);
            // A stopped child never notices that its parent is gone.
            watchdog::watch(number(*pid));
        }
        // The signal is taken up a moment after it is sent.
        let paused = std::mem::take(&mut self.paused);
        let still = until_blocking(SIGNAL_LIMIT, || paused.iter().all(|pid| !is_running(*pid)));
        self.paused = paused;
        assert!(still, "{} (process {}) still runs {SIGNAL_LIMIT:?} after SIGSTOP", self.name, self.id());
    }

    /// Lets it run again after [`Process::pause`].
    pub fn resume(&mut self) {
        for pid in std::mem::take(&mut self.paused).into_iter().rev() {
            send(pid, Signal::CONT);
            if pid != self.pid() {
                watchdog::forget(number(pid));
            }
        }
    }

    /// The last lines of its log, for a failure message.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let text = match std::fs::read(&self.log) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => return format!("cannot read {}: {error}", self.log.display()),
        };
        let lines: Vec<&str> = text.lines().collect();
        let shown = &lines[lines.len().saturating_sub(LOG_LINES)..];
        format!("--- {}: last {} lines of {}\n{}\n---", self.name, shown.len(), self.log.display(), shown.join("\n"))
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn kill_tree(&mut self) -> Vec<Pid> {
        let mut doomed = family(self.pid());
        doomed.append(&mut self.paused);
        if self.ended().is_none() {
            for pid in &doomed {
                send(*pid, Signal::KILL);
            }
        }
        doomed.retain(|pid| *pid != self.pid());
        for pid in &doomed {
            watchdog::forget(number(*pid));
        }
        doomed
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            Scratch::keep();
            eprintln!("{}", self.log_tail());
        }
        let doomed = self.kill_tree();
        let gone = until_blocking(SIGNAL_LIMIT, || self.ended().is_some() && !doomed.iter().any(|pid| is_alive(*pid)));
        if !gone {
            eprintln!("{}: process {} is still there {SIGNAL_LIMIT:?} after SIGKILL", self.name, self.id());
        }
    }
}

fn append(path: &Path) -> File {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()))
}

fn send(pid: Pid, signal: Signal) {
    match kill_process(pid, signal) {
        // A descendant may end between being listed and being signalled.
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => panic!("cannot send {signal:?} to process {pid:?}: {error}"),
    }
}

/// `root` and all its descendants, parents before children. Without /proc only `root`.
fn family(root: Pid) -> Vec<Pid> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        if let Some((_, parent)) = state_and_parent(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        let below = children.remove(&pid.as_raw_nonzero().get()).unwrap_or_default();
        found.extend(below.into_iter().filter_map(Pid::from_raw));
        next += 1;
    }
    found
}

fn number(pid: Pid) -> u32 {
    pid.as_raw_nonzero().get().unsigned_abs()
}

fn is_running(pid: Pid) -> bool {
    is_alive(pid) && state_and_parent(pid.as_raw_nonzero().get()).is_some_and(|(state, _)| state != 'T')
}

/// A zombie that its parent has not collected yet holds nothing.
fn is_alive(pid: Pid) -> bool {
    state_and_parent(pid.as_raw_nonzero().get()).is_some_and(|(state, _)| state != 'Z' && state != 'X')
}

fn state_and_parent(pid: i32) -> Option<(char, i32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name is in parentheses and may contain parentheses.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}
