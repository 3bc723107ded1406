//! A small disk that can be filled.

use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::Process;
use crate::network::run;
use crate::until::until_now;

/// Time for the kernel to mount it, with a margin for a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// A file system in memory in a folder, for the processes that [enter](Disk::enter). No other process sees it.
///
/// It ends with this value, and with the test process however that ends: only a sleeping process and those that entered
/// keep it.
#[derive(Debug)]
pub struct Disk {
    holder: Process,
    folder: PathBuf,
}

impl Disk {
    /// Mounted at `folder`, which is made. `None` where that is not possible, which is printed: it takes root,
    /// `unshare` and `nsenter`.
    ///
    /// # Panics
    /// If it is possible but fails.
    pub async fn mount(folder: &Path, bytes: u64) -> Option<Self> {
        let possible =
            rustix::process::geteuid().is_root() && run("unshare", ["--mount", "nsenter", "--version"]).is_ok();
        if !possible {
            eprintln!("NO SMALL DISK: it takes root, unshare and nsenter");
            return None;
        }
        std::fs::create_dir_all(folder).unwrap_or_else(|error| panic!("cannot make {}: {error}", folder.display()));
        let mut command = Command::new("unshare");
        command.args(["--mount", "--", "sh", "-c"]);
        command.args([r#"mount -t tmpfs -o "size=$2" none "$1" && : >"$1/.mounted" && exec sleep infinity"#, "disk"]);
        command.arg(folder).arg(bytes.to_string());
        let holder = Process::spawn("disk", command, &folder.with_extension("disk.log"), None);
        let disk = Self { holder, folder: folder.to_owned() };
        let mounted = || disk.path().join(".mounted").exists().then_some(());
        until_now(&format!("a disk at {}", folder.display()), LIMIT, mounted).await;
        Some(disk)
    }

    /// The path at which this process finds the files that the processes inside have in the folder.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        let absolute = self.folder.strip_prefix("/").expect("scratch folders are absolute");
        PathBuf::from(format!("/proc/{}/root", self.holder.id())).join(absolute)
    }

    /// The same command, to run with the disk in its folder.
    #[must_use]
    pub fn enter(&self, command: &Command) -> Command {
        let mut inside = Command::new("nsenter");
        inside.arg(format!("--mount=/proc/{}/ns/mnt", self.holder.id())).arg("--");
        inside.arg(command.get_program()).args(command.get_args());
        inside.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        inside
    }

    /// Leaves no free byte.
    ///
    /// # Panics
    /// If it cannot be written for another reason than being full.
    pub fn fill(&self) {
        let filler = self.filler();
        let mut file = std::fs::File::create(&filler).unwrap_or_else(|error| panic!("{}: {error}", filler.display()));
        loop {
            match file.write(&[0; 4096]) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return,
                Err(error) => panic!("{}: {error}", filler.display()),
            }
        }
    }

    /// Frees what [`Disk::fill`] has taken.
    ///
    /// # Panics
    /// If it cannot be freed.
    pub fn free(&self) {
        match std::fs::remove_file(self.filler()) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => panic!("{}: {error}", self.filler().display()),
        }
    }

    fn filler(&self) -> PathBuf {
        self.path().join(".filler")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scratch;

    #[tokio::test]
    async fn a_full_disk_takes_nothing_until_it_is_freed() {
        let scratch = Scratch::new("disk");
        let folder = scratch.path().join("data");
        let Some(disk) = Disk::mount(&folder, 1 << 20).await else { return };
        let write = || {
            let mut command = Command::new("sh");
            command.args(["-c", r#"head -c 10000 /dev/zero >"$1/file""#, "sh"]).arg(&folder);
            disk.enter(&command).output().unwrap().status.success()
        };
        assert!(write());
        disk.fill();
        std::fs::remove_file(disk.path().join("file")).unwrap();
        disk.fill();
        assert!(!write());
        disk.free();
        assert!(write());
        assert_eq!(disk.path().join("file").metadata().unwrap().len(), 10_000);
        assert!(!folder.join("file").exists(), "seen from outside");
    }
}
