//! NATS with JetStream.

use std::fmt::Write as _;
use std::ops::{Deref, DerefMut};

use rustix::process::Signal;
use tokio::sync::OnceCell;

use crate::probe::Probe;
use crate::server::Plan;
use crate::{Scratch, Server, Shared, find, free_port};

/// More than any test stores, and small enough to stop a runaway test.
const MEMORY: &str = "256MB";
const FILES: &str = "1GB";

/// A single NATS server with JetStream in a scratch folder. [`Server`] has everything about its process.
#[derive(Debug)]
pub struct Nats {
    server: Server,
    port: u16,
    monitor_port: u16,
}

/// Lines to add to the server's configuration file.
#[derive(Debug, Clone, Copy, Default)]
pub struct NatsConfig<'a> {
    /// At the top level, such as `max_payload: 64KB` or an `authorization` block.
    pub top: &'a str,
    /// Inside `jetstream`, such as `sync_interval: always`.
    pub jetstream: &'a str,
}

impl Nats {
    /// Starts one; `None` if nats-server is missing, after counting the test as skipped ([`crate::skip`]).
    ///
    /// # Panics
    /// If it is there and does not start.
    pub async fn start() -> Option<Self> {
        Self::start_with(NatsConfig::default()).await
    }

    /// Starts one with further configuration.
    ///
    /// # Panics
    /// As [`Nats::start`].
    pub async fn start_with(config: NatsConfig<'_>) -> Option<Self> {
        Self::start_in(config, &[]).await
    }

    /// Starts one with further configuration, and variables in its environment.
    ///
    /// # Panics
    /// As [`Nats::start`].
    pub async fn start_in(config: NatsConfig<'_>, variables: &[(String, String)]) -> Option<Self> {
        let Some(program) = find::binary("ROTACAST_NATS", "nats-server") else {
            find::skip("nats-server");
            return None;
        };
        let (mut port, mut monitor_port) = (0, 0);
        let server = Server::start(Scratch::new("nats"), |scratch| {
            (port, monitor_port) = (free_port(), free_port());
            let file = write_config(scratch, port, monitor_port, config);
            Plan {
                name: "nats-server",
                program: program.clone(),
                arguments: vec!["--config".into(), file.into()],
                variables: variables.iter().map(|(name, value)| (name.clone(), value.into())).collect(),
                probe: Probe::Http { port: monitor_port, path: "/healthz", expected: "\"ok\"" },
                stop: Signal::TERM,
            }
        })
        .await;
        Some(Self { server, port, monitor_port })
    }

    /// The one all tests of this binary share; `None` as with [`Nats::start`].
    ///
    /// # Panics
    /// As [`Nats::start`].
    pub async fn shared() -> Option<Shared<Self>> {
        static SHARED: OnceCell<Option<Nats>> = OnceCell::const_new();
        match SHARED.get_or_init(Self::start).await {
            Some(server) => Some(Shared::new(server)),
            None => {
                find::skip("nats-server");
                None
            }
        }
    }

    /// The client port on loopback.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The port of the HTTP monitor (`/varz`, `/connz`, `/jsz`) on loopback.
    #[must_use]
    pub fn monitor_port(&self) -> u16 {
        self.monitor_port
    }

    /// `nats://127.0.0.1:<port>`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Replaces the further configuration, and has the running server read it.
    ///
    /// # Panics
    /// If the server is not there.
    pub fn reload(&self, config: NatsConfig<'_>) {
        write_config(self.scratch(), self.port, self.monitor_port, config);
        let id = i32::try_from(self.server.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a process id");
        rustix::process::kill_process(id, Signal::HUP).expect("nats-server runs");
    }

    /// Removes everything JetStream has stored, as losing the disk would. The server must be stopped.
    ///
    /// # Panics
    /// If the folder cannot be removed.
    pub fn lose_streams(&mut self) {
        let folder = self.scratch().path().join("jetstream");
        std::fs::remove_dir_all(&folder).unwrap_or_else(|error| panic!("cannot remove {}: {error}", folder.display()));
    }
}

impl Deref for Nats {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl DerefMut for Nats {
    fn deref_mut(&mut self) -> &mut Server {
        &mut self.server
    }
}

fn write_config(scratch: &Scratch, port: u16, monitor_port: u16, config: NatsConfig<'_>) -> std::path::PathBuf {
    let mut text = format!("listen: 127.0.0.1:{port}\nhttp: 127.0.0.1:{monitor_port}\n");
    let folder = scratch.path().display();
    write!(text, "jetstream {{\n  store_dir: \"{folder}\"\n  max_memory_store: {MEMORY}\n  max_file_store: {FILES}\n")
        .expect("writing to a String cannot fail");
    writeln!(text, "{}\n}}\n{}", config.jetstream, config.top).expect("writing to a String cannot fail");
    let file = scratch.path().join("nats.conf");
    std::fs::write(&file, text).unwrap_or_else(|error| panic!("cannot write {}: {error}", file.display()));
    file
}
