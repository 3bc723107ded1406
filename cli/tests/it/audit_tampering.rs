//! An audit log that was cut off, from the command line: found offline, at the start and by an operator, who accepts it.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

struct Served {
    process: Child,
    address: String,
}

fn rotacast(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rotacast"));
    command.env_clear().current_dir(folder);
    command
}

impl Served {
    fn start(folder: &Path) -> Self {
        let mut process =
            rotacast(folder).args(["serve", "--config", "rotacast.toml"]).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap()).lines();
        let address = log.by_ref().find_map(|line| {
            let line: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
            (line["message"] == "listening").then(|| line["address"].as_str().unwrap().to_owned())
        });
        // What is not read would hold it up.
        std::thread::spawn(move || log.for_each(drop));
        Self { process, address: address.expect("it listens") }
    }

    /// A command that asks it, as its operator. Commands wait for a broadcaster that is starting.
    fn ask(&self, folder: &Path, arguments: &[&str]) -> Output {
        let mut command = rotacast(folder);
        command.env("ROTACAST_SERVER", format!("http://{}", self.address));
        command.args(["--operator", "ada", "--operator-key", "ada.key"]).args(arguments).output().unwrap()
    }

    fn stop(mut self) {
        kill_process(Pid::from_child(&self.process), Signal::TERM).unwrap();
        assert!(self.process.wait().unwrap().success());
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_tail_that_was_cut_off_is_found_and_accepted_on_record() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for name in ["broadcaster", "ada"] {
        assert!(rotacast(folder).args(["keygen", "--out", name]).output().unwrap().status.success());
    }
    let ada = std::fs::read_to_string(folder.join("ada.pub")).unwrap();
    let text = format!(
        "cluster = \"test\"\nreplica = \"one\"\n[listen]\ngrpc = \"127.0.0.1:0\"\n[keys]\nsigning_key = \"broadcaster.key\"\n\
         [log]\nformat = \"json\"\n[operators.ada]\nkeys = [\"{}\"]\n",
        ada.trim()
    );
    std::fs::write(folder.join("rotacast.toml"), text).unwrap();
    std::fs::write(folder.join("value"), "first").unwrap();
    let verify = |more: &[&str]| {
        rotacast(folder).args(["audit", "verify", "--config", "rotacast.toml"]).args(more).output().unwrap()
    };
    let pause = ["pause", "a/b", "--reason", "a freeze"];

    let served = Served::start(folder);
    let put = served.ask(folder, &["put", "a/b", "--file", "value", "--wait"]);
    assert!(put.status.success(), "{}", told(&put));
    let paused = served.ask(folder, &pause);
    assert!(paused.status.success(), "{}", told(&paused));
    served.stop();
    let whole = verify(&["--store"]);
    assert!(whole.status.success(), "{}", told(&whole));
    assert!(told(&whole).contains("the store's head is in it, with 0 entries behind it"), "{}", told(&whole));
    assert!(told(&whole).contains("1 signature of operators checked"), "{}", told(&whole));

    let log = folder.join("rotacast-data/audit.jsonl");
    let text = std::fs::read_to_string(&log).unwrap();
    let lines = text.lines().count();
    std::fs::write(&log, text.split_inclusive('\n').take(lines - 3).collect::<String>()).unwrap();
    assert!(verify(&[]).status.success(), "by itself it looks whole");
    let cut = verify(&["--store"]);
    assert_eq!(cut.status.code(), Some(1), "{}", told(&cut));
    let ends = format!("it ends with entry {}, but entry {lines} was written", lines - 3);
    assert!(told(&cut).contains(&ends), "{}", told(&cut));

    let served = Served::start(folder);
    let refused = served.ask(folder, &pause);
    assert_eq!(refused.status.code(), Some(1), "{}", told(&refused));
    assert!(
        told(&refused).contains("the order is not carried out, because it cannot be recorded"),
        "{}",
        told(&refused)
    );
    let doctor = told(&served.ask(folder, &["doctor"]));
    assert!(doctor.contains(&ends), "{doctor}");
    // The command of the finding, with a reason for its placeholder.
    let (_, command) = doctor.split_once("`rotacast audit accept-loss ").unwrap_or_else(|| panic!("{doctor}"));
    let doubt: String = command.chars().take_while(char::is_ascii_hexdigit).collect();
    let accept = |reason| served.ask(folder, &["audit", "accept-loss", &doubt, "--reason", reason]);
    assert_eq!(accept("WHY").status.code(), Some(2), "the placeholder is no reason");
    let accepted = accept("the disk broke");
    assert!(accepted.status.success(), "{}", told(&accepted));
    let paused = served.ask(folder, &pause);
    assert!(paused.status.success(), "{}", told(&paused));
    served.stop();

    let verified = verify(&["--store"]);
    assert!(verified.status.success(), "{}", told(&verified));
    assert!(
        told(&verified).contains(&format!("entries behind {lines} are lost: ada accepted it")),
        "{}",
        told(&verified)
    );
    assert!(told(&verified).contains("the disk broke"), "{}", told(&verified));
    let shown = rotacast(folder).args(["audit", "show", "--config", "rotacast.toml"]).output().unwrap();
    assert!(told(&shown).contains("order=pause") && !told(&shown).contains("signed="), "{}", told(&shown));
}
