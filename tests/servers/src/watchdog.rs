//! Ends the processes that a test process started, however the test process ends.
//!
//! A shell holds the read end of a pipe whose only write end is in this process. When this process is
//! gone, even by SIGKILL, the shell reads end of file, kills every process still registered and removes
//! the scratch folder. (Linux's parent-death signal is tied to the *thread* that spawned, and test
//! threads end early.)

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

/// A group id equals the id of its first process. Removal is repeated, because a server's children may write for a
/// moment after it ended; 50 × 0.1 s is far longer.
const SCRIPT: &str = r#"
trap '' INT TERM HUP QUIT
pids=
while read -r verb pid; do
    rest=
    for known in $pids; do [ "$known" = "$pid" ] || rest="$rest $known"; done
    pids=$rest
    [ "$verb" = + ] && pids="$pids $pid"
done
for pid in $pids; do kill -s KILL -- "-$pid"; kill -s KILL "$pid"; done
[ -e "$1/keep" ] && exit 0
tries=0
while [ "$tries" -lt 50 ]; do
    rm -rf "$1" && exit 0
    sleep 0.1
    tries=$((tries + 1))
done
"#;

/// The shell, with its input piped. It ends after this process, so this process cannot wait for it.
static SHELL: OnceLock<Mutex<Child>> = OnceLock::new();

/// Starts the watchdog of this process, which also removes `folder` at the end.
pub(crate) fn start(folder: &Path) {
    SHELL.get_or_init(|| {
        let shell = Command::new("sh")
            .args(["-c", SCRIPT, "rotacast-watchdog"])
            .arg(folder)
            .current_dir("/")
            .stdin(Stdio::piped())
            // It outlives this process, whose output a reader may be reading to its end.
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("a POSIX shell is on PATH");
        Mutex::new(shell)
    });
}

/// From now on the process `pid` and its group end with this process.
pub(crate) fn watch(pid: u32) {
    tell('+', pid);
}

/// The process `pid` has ended, or need not be ended any more.
pub(crate) fn forget(pid: u32) {
    tell('-', pid);
}

fn tell(verb: char, pid: u32) {
    let shell = SHELL.get().expect("the folder for the process's log was made first, and that starts the watchdog");
    let mut shell = shell.lock().unwrap_or_else(PoisonError::into_inner);
    let pipe = shell.stdin.as_mut().expect("it was started with its input piped");
    // A dead watchdog must be noticed: otherwise the processes that it was to end would stay.
    writeln!(pipe, "{verb} {pid}").expect("the watchdog is alive");
}
