//! Ends what a test process started, however that process ends.
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

/// A group id equals the id of its first process. Removal is repeated, because a server's own children
/// may write for a moment after it died; 50 × 0.1 s is far more than they take.
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

/// The shell, with its input piped. It ends after this process, so nobody here can wait for it.
static SHELL: OnceLock<Mutex<Child>> = OnceLock::new();

/// Starts the watchdog of this process, which also removes `folder` at the end.
pub(crate) fn start(folder: &Path) {
    SHELL.get_or_init(|| {
        let shell = Command::new("sh")
            .args(["-c", SCRIPT, "rotacast-watchdog"])
            .arg(folder)
            .current_dir("/")
            .stdin(Stdio::piped())
            // It outlives this process, whose output somebody may be reading to the end.
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

/// The process `pid` is gone or no concern any more.
pub(crate) fn forget(pid: u32) {
    tell('-', pid);
}

fn tell(verb: char, pid: u32) {
    let shell = SHELL.get().expect("the folder for the process's log was made first, and that starts the watchdog");
    let mut shell = shell.lock().unwrap_or_else(PoisonError::into_inner);
    let pipe = shell.stdin.as_mut().expect("it was started with its input piped");
    // A dead watchdog must not go unnoticed: what it was to end would be left behind.
    writeln!(pipe, "{verb} {pid}").expect("the watchdog is alive");
}
