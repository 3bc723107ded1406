//! Prometheus, and the tool that checks rules for it.

use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::Output;

use rustix::process::Signal;

use crate::probe::Probe;
use crate::server::Plan;
use crate::{Scratch, Server, find, free_port};

/// A Prometheus in a scratch folder. [`Server`] has everything about its process.
#[derive(Debug)]
pub struct Prometheus {
    server: Server,
    port: u16,
}

impl Prometheus {
    /// Starts one with this configuration (YAML); `None` if prometheus is missing, after counting the test as skipped
    /// ([`crate::skip`]).
    ///
    /// # Panics
    /// If it is there and does not start.
    pub async fn start(config: &str) -> Option<Self> {
        let Some(program) = find::binary("ROTACAST_PROMETHEUS", "prometheus") else {
            find::skip("prometheus");
            return None;
        };
        let mut port = 0;
        let server = Server::start(Scratch::new("prometheus"), |scratch| {
            port = free_port();
            let file = scratch.path().join("prometheus.yml");
            std::fs::write(&file, config).unwrap_or_else(|error| panic!("cannot write {}: {error}", file.display()));
            let folder = scratch.path().display();
            Plan {
                name: "prometheus",
                program: program.clone(),
                arguments: vec![
                    format!("--config.file={folder}/prometheus.yml").into(),
                    format!("--storage.tsdb.path={folder}/data").into(),
                    format!("--web.listen-address=127.0.0.1:{port}").into(),
                ],
                variables: Vec::new(),
                probe: Probe::Http { port, path: "/-/ready", expected: "Ready" },
                stop: Signal::TERM,
            }
        })
        .await;
        Some(Self { server, port })
    }

    /// Where it listens: `127.0.0.1:<port>`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

impl Deref for Prometheus {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl DerefMut for Prometheus {
    fn deref_mut(&mut self) -> &mut Server {
        &mut self.server
    }
}

/// `promtool`.
#[derive(Clone, Debug)]
pub struct Promtool(PathBuf);

impl Promtool {
    /// `None` if it is missing, after counting the test as skipped ([`crate::skip`]).
    #[must_use]
    pub fn find() -> Option<Self> {
        let found = find::binary("ROTACAST_PROMTOOL", "promtool");
        if found.is_none() {
            find::skip("promtool");
        }
        found.map(Self)
    }

    /// Runs it in a folder, with this text as its input.
    ///
    /// # Panics
    /// If it cannot be run.
    #[must_use]
    pub fn run(&self, folder: &Path, arguments: &[&str], input: &str) -> Output {
        let file = Scratch::new("promtool");
        let path = file.path().join("input");
        std::fs::write(&path, input).expect("the scratch folder is ours");
        std::process::Command::new(&self.0)
            .args(arguments)
            .current_dir(folder)
            .stdin(std::fs::File::open(&path).expect("it was just written"))
            .output()
            .unwrap_or_else(|error| panic!("cannot run {}: {error}", self.0.display()))
    }
}
