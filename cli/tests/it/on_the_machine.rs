//! What other programs and users of the machine get to see of a broadcaster: nothing of its memory, nothing of its files.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal, geteuid, kill_process};

/// A test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// A user without rights: to root no file is closed, so a test that runs as root shows nothing.
const NOBODY: u32 = 65_534;

/// A folder that belongs to a user who is not root, with the program in it.
struct Place {
    folder: tempfile::TempDir,
    program: PathBuf,
    user: u32,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let own = geteuid().as_raw();
        if own != 0 {
            return Self { folder, program: env!("CARGO_BIN_EXE_rotacast").into(), user: own };
        }
        // The build's own folder may be closed to that user.
        let program = folder.path().join("rotacast");
        std::fs::copy(env!("CARGO_BIN_EXE_rotacast"), &program).unwrap();
        for path in [folder.path(), &program] {
            chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        Self { folder, program, user: NOBODY }
    }

    /// A command of this user.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", "/usr/bin:/bin").current_dir(self.folder.path());
        if geteuid().is_root() {
            command.uid(self.user).gid(self.user);
        }
        command
    }

    fn rotacast(&self, arguments: &[&str]) {
        let output = self.command(&self.program).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Starts the program in a shell that has first done `prepare`.
    fn start(&self, prepare: &str, arguments: &[&str]) -> Running {
        let mut shell = self.command("/bin/sh");
        shell.args(["-c", &format!("{prepare} && exec \"$0\" \"$@\"")]).arg(&self.program).args(arguments);
        Running(shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// With a key and a configuration whose data folder is not there yet.
    fn serve(&self, prepare: &str) -> Running {
        self.rotacast(&["keygen", "--out", "broadcaster"]);
        let text = "cluster = \"test\"\ndata_dir = \"var/rotacast\"\n[listen]\ngrpc = \"127.0.0.1:0\"\n[keys]\nsigning_key = \"broadcaster.key\"\n";
        std::fs::write(self.folder.path().join("rotacast.toml"), text).unwrap();
        self.start(prepare, &["serve", "--config", "rotacast.toml"])
    }

    /// What keeps this user from reading a file; empty: nothing does.
    fn refusal(&self, file: &str) -> String {
        let output = self.command("head").args(["-c", "1", file]).output().unwrap();
        assert_eq!(output.status.success(), !output.stdout.is_empty(), "{file}");
        String::from_utf8(output.stderr).unwrap()
    }
}

/// Ended when dropped.
struct Running(Child);

impl Running {
    fn file(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.0.id())
    }

    /// The first line with `text`.
    fn line(pipe: impl Read + Send + 'static, text: &'static str) -> String {
        let (found, line) = mpsc::channel();
        std::thread::spawn(move || {
            let mut seen = Vec::new();
            // To its end, so that the program never waits for a reader.
            for line in BufReader::new(pipe).lines() {
                let line = line.unwrap();
                if line.contains(text) {
                    drop(found.send(Ok(line.clone())));
                }
                seen.push(line);
            }
            drop(found.send(Err(seen)));
        });
        line.recv_timeout(PATIENCE).expect("the program says nothing").unwrap_or_else(|seen| panic!("{seen:#?}"))
    }

    fn told(&mut self, text: &'static str) -> String {
        Self::line(self.0.stdout.take().unwrap(), text)
    }

    fn logged(&mut self, text: &'static str) -> String {
        Self::line(self.0.stderr.take().unwrap(), text)
    }

    fn stop(mut self) {
        kill_process(Pid::from_child(&self.0), Signal::TERM).unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already where a test stopped it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn memory_is_private(place: &Place, running: &Running) {
    let limits = std::fs::read_to_string(running.file("limits")).unwrap();
    let cores = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(cores.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"], "{cores}");
    for file in ["mem", "environ", "maps"] {
        let file = running.file(file);
        assert_eq!(std::fs::metadata(&file).unwrap().uid(), 0, "{file}");
        assert!(place.refusal(&file).contains("Permission denied"), "{file}: {}", place.refusal(&file));
    }
}

/// As many core dumps as the machine lets the test have.
const CORE_DUMPS: &str = "ulimit -S -c \"$(ulimit -H -c)\"";

#[test]
fn the_memory_of_dev_and_serve_is_closed_to_programs_of_the_same_user() {
    let place = Place::new();
    // What the system shows of a program that does nothing against it.
    let other = Running(place.command("sleep").arg("600").spawn().unwrap());
    assert_eq!(place.refusal(&other.file("environ")), "");
    let mut dev = place.start(CORE_DUMPS, &["dev", "--listen", "127.0.0.1:0"]);
    dev.told("Rotacast is running");
    memory_is_private(&place, &dev);
    let mut serve = place.serve(CORE_DUMPS);
    serve.logged("rotacast starts");
    memory_is_private(&place, &serve);
}

/// Every file and folder below, with its mode.
fn modes(folder: &Path, found: &mut Vec<(PathBuf, u32)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        found.push((entry.path(), metadata.permissions().mode() & 0o7777));
        if metadata.is_dir() {
            modes(&entry.path(), found);
        }
    }
}

/// Folders 0700, files 0600, and `names` among them.
fn only_its_owner_gets_into(folder: &Path, names: &[&str]) {
    let mut found = vec![(folder.to_owned(), folder.metadata().unwrap().permissions().mode() & 0o7777)];
    modes(folder, &mut found);
    for (path, mode) in &found {
        let expected = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(*mode, expected, "{} has mode {mode:o}, expected {expected:o}", path.display());
    }
    for name in names {
        assert!(found.iter().any(|(path, _)| path == &folder.join(name)), "{name} is not in {found:?}");
    }
}

#[test]
fn what_dev_writes_is_for_its_owner_alone_whatever_the_umask() {
    let place = Place::new();
    let mut dev = place.start("umask 000", &["dev", "--data", "deep/data", "--listen", "127.0.0.1:0"]);
    let told = dev.told("Rotacast is running");
    let address = told.split_whitespace().nth(4).unwrap().trim_end_matches(',').to_owned();
    let mut put = place.command(&place.program);
    put.args([
        "put",
        "demo/token",
        "--wait",
        "--server",
        &address,
        "--operator-key",
        "deep/data/keys/operator.key",
        "--operator",
        "operator",
    ]);
    let mut put = put.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    put.stdin.take().unwrap().write_all(b"first value").unwrap();
    let put = put.wait_with_output().unwrap();
    assert!(put.status.success(), "{}", String::from_utf8_lossy(&put.stderr));
    let data = place.folder.path().join("deep");
    let while_running = ["data/store.db-wal", "data/bus.db-wal"];
    let kept =
        ["data/store.db", "data/bus.db", "data/audit.jsonl", "data/keys/operator.token", "data/keys/identity.pub"];
    only_its_owner_gets_into(&data, &[&while_running[..], &kept[..]].concat());
    dev.stop();
    only_its_owner_gets_into(&data, &kept);
}

#[test]
fn what_serve_writes_is_for_its_owner_alone_whatever_the_umask() {
    let place = Place::new();
    let mut serve = place.serve("umask 000");
    serve.logged("this broadcaster leads");
    let data = place.folder.path().join("var");
    only_its_owner_gets_into(&data, &["rotacast/store.db", "rotacast/bus.db", "rotacast/audit.jsonl"]);
    serve.stop();
}

#[test]
fn what_commands_write_is_for_its_owner_alone_whatever_the_umask() {
    let place = Place::new();
    let with_open_umask = |arguments: &[&str]| {
        let mut running = place.start("umask 000", arguments);
        assert!(running.0.wait().unwrap().success(), "{arguments:?}");
    };
    with_open_umask(&["keygen", "--out", "ada"]);
    with_open_umask(&["token", "--out", "ada"]);
    with_open_umask(&["support-bundle", "--out", "bundle.json", "--server", "127.0.0.1:1"]);
    // The public half may be read by others, and written by its owner alone.
    for (name, expected) in [("ada.key", 0o600), ("ada.pub", 0o644), ("ada.token", 0o600), ("bundle.json", 0o600)] {
        let mode = place.folder.path().join(name).metadata().unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, expected, "{name} has mode {mode:o}, expected {expected:o}");
    }
}
