//! A sample service's process.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;

use super::{LIMIT, Programs};
use crate::pool_service::Status;
use crate::servers::{Network, Process, Scratch, until};

/// More bytes than two lines of a status have.
const STATUS_BYTES: u64 = 64 * 1024;

/// `pool-service`, started, stopped, paused and killed at will.
#[derive(Debug)]
pub struct Service {
    name: String,
    process: Process,
    output: PathBuf,
}

impl Service {
    pub(super) fn start(
        programs: &Programs,
        folder: &Scratch,
        (service, instance): (&str, &str),
        arguments: Vec<String>,
        collector: Option<&str>,
        network: Option<&Network>,
    ) -> Self {
        let name = format!("{service}/{instance}");
        let file = |ending: &str| {
            let free = (1..).map(|run| folder.path().join(format!("{service}-{instance}-{run}.{ending}")));
            free.into_iter().find(|path| !path.exists()).expect("numbers do not end")
        };
        let (log, output) = (file("log"), file("jsonl"));
        let mut command = Command::new(&programs.pool_service);
        command.args(arguments).env(
            "RUST_LOG",
            "info,rotacast_subscriber=trace,rotacast_holder=trace,rotacast_bus=trace,rotacast_proto=trace",
        );
        if let Some(url) = collector {
            command.env("OTEL_EXPORTER_OTLP_ENDPOINT", url).env("OTEL_SERVICE_NAME", service);
        }
        if let Some(network) = network {
            command = network.enter(&command);
        }
        let process = Process::spawn(&name, command, &log, Some(&output));
        Self { name, process, output }
    }

    /// `service/instance`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Its last status; `None` if it has written none yet.
    ///
    /// # Panics
    /// If its output is not what it should be.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        // Only the end of the file: it is read often, and grows as long as the service runs.
        let mut file = File::open(&self.output).expect("the output file was made at the start");
        let start = file.metadata().expect("it is open").len().saturating_sub(STATUS_BYTES);
        file.seek(SeekFrom::Start(start)).expect("it is a file");
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).expect("it is a file");
        // The text after the last line feed is still being written.
        let text = String::from_utf8_lossy(&bytes);
        let last = text.rsplit_once('\n')?.0.lines().next_back()?;
        Some(serde_json::from_str(last).unwrap_or_else(|error| panic!("{}: {error}: {last}", self.name)))
    }

    /// Waits until a status matches.
    ///
    /// # Panics
    /// If it ends or does not within [`LIMIT`].
    pub async fn until(&mut self, what: &str, mut fits: impl FnMut(&Status) -> bool) -> Status {
        let what = format!("{}: {what}", self.name);
        until(&what, LIMIT, async || {
            let ended = self.process.ended();
            match self.status() {
                Some(status) if fits(&status) => Some(status),
                last => {
                    assert!(ended.is_none(), "{what}: it has ended with {ended:?}; its last status: {last:?}");
                    None
                }
            }
        })
        .await
    }

    /// Waits until it has answered queries with this version.
    pub async fn uses(&mut self, version: u64) -> Status {
        let what = format!("queries with version {version}");
        self.until(&what, |status| status.by_version.contains_key(&version)).await
    }

    /// SIGKILL.
    pub async fn kill(&mut self) {
        self.process.kill().await;
    }

    /// SIGSTOP.
    pub fn pause(&mut self) {
        self.process.pause();
    }

    /// SIGCONT.
    pub fn resume(&mut self) {
        self.process.resume();
    }

    /// SIGTERM: it leaves. Returns its last status.
    ///
    /// # Panics
    /// If it does not end cleanly within [`LIMIT`].
    pub async fn stop(&mut self) -> Status {
        let status = self.process.stop(Signal::TERM, LIMIT).await;
        assert!(status.success(), "{} ended with {status} after SIGTERM", self.name);
        let last = self.status().expect("it says something before it ends");
        assert!(last.left, "{}: its last line is not that it left: {last:?}", self.name);
        last
    }
}
