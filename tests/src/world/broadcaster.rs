//! The broadcaster's process.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use super::settings::{FIRST, data_folder};
use super::{LIMIT, Operator, Programs};
use crate::servers::{Disk, Process, Scratch, free_port};

/// `rotacast serve`, started and killed at will, on the same address and data.
#[derive(Debug)]
pub struct Broadcaster {
    name: String,
    program: PathBuf,
    config: PathBuf,
    log: PathBuf,
    port: u16,
    data: PathBuf,
    disk: Option<Disk>,
    process: Option<Process>,
}

impl Broadcaster {
    pub(super) fn new(programs: &Programs, folder: &Scratch, name: &str, config: impl FnOnce(u16) -> PathBuf) -> Self {
        let port = free_port();
        let log = folder.path().join(match name {
            FIRST => "broadcaster.log".into(),
            name => format!("broadcaster-{name}.log"),
        });
        let data = folder.path().join(data_folder(name));
        let (name, program, config) = (name.into(), programs.rotacast.clone(), config(port));
        Self { name, program, config, log, port, data, disk: None, process: None }
    }

    /// From now on its data is on a separate disk, if one can be made.
    pub(super) async fn mount(&mut self, bytes: u64) {
        self.disk = Disk::mount(&self.data, bytes).await;
    }

    /// The disk of its data, if it has one.
    #[must_use]
    pub fn disk(&self) -> Option<&Disk> {
        self.disk.as_ref()
    }

    /// Where this process finds its data.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.disk.as_ref().map_or_else(|| self.data.clone(), Disk::path)
    }

    /// The port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its name in the election.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Everything it has logged so far, over all its runs.
    ///
    /// # Panics
    /// If the log cannot be read.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).expect("the broadcaster's log is text")
    }

    /// The configuration file. After a change, [`Broadcaster::signal`] with SIGHUP has it read again.
    #[must_use]
    pub fn config(&self) -> &std::path::Path {
        &self.config
    }

    /// Starts it, without waiting.
    ///
    /// # Panics
    /// If it runs already.
    pub fn spawn(&mut self) {
        assert!(self.process.is_none(), "the broadcaster runs already");
        let mut command = Command::new(&self.program);
        command.arg("serve").arg("--config").arg(&self.config);
        if let Some(disk) = &self.disk {
            command = disk.enter(&command);
        }
        self.process = Some(Process::spawn("broadcaster", command, &self.log, None));
    }

    /// Starts it and waits until it leads.
    ///
    /// # Panics
    /// If it ends or does not get there within [`LIMIT`].
    pub async fn start(&mut self, operator: &Operator) {
        self.spawn();
        self.leads(operator).await;
    }

    /// Waits until it leads.
    ///
    /// # Panics
    /// As [`Broadcaster::start`].
    pub async fn leads(&mut self, operator: &Operator) {
        let waiting = async {
            loop {
                self.assert_runs();
                if operator.broadcaster().await.is_ok_and(|status| status.leader) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LIMIT, waiting).await.expect("the broadcaster leads in time");
    }

    /// # Panics
    /// If it has ended, or was never started.
    pub fn assert_runs(&mut self) {
        let process = self.process.as_mut().expect("the broadcaster was started");
        if let Some(status) = process.ended() {
            panic!("the broadcaster ended with {status}");
        }
    }

    /// SIGKILL.
    pub async fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().await;
        }
    }

    /// SIGTERM, and waits for a clean end.
    ///
    /// # Panics
    /// If it does not end cleanly within [`LIMIT`].
    pub async fn stop(&mut self) {
        if let Some(process) = &mut self.process {
            let status = process.stop(Signal::TERM, LIMIT).await;
            assert!(status.success(), "the broadcaster ended with {status} after SIGTERM\n{}", process.log_tail());
        }
        self.process = None;
    }

    /// SIGSTOP.
    pub fn pause(&mut self) {
        self.running().pause();
    }

    /// SIGCONT.
    pub fn resume(&mut self) {
        self.running().resume();
    }

    /// Any other signal.
    pub fn signal(&mut self, signal: Signal) {
        self.running().signal(signal);
    }

    fn running(&mut self) -> &mut Process {
        self.process.as_mut().expect("the broadcaster was started")
    }
}
