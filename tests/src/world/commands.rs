//! The `rotacast` command line as the operator uses it.

use std::path::PathBuf;
use std::process::Output;

use super::{CLUSTER, OPERATOR};

/// Runs `rotacast` in a world's folder, at all its broadcasters.
#[derive(Clone, Debug)]
pub struct Commands {
    pub(super) program: PathBuf,
    pub(super) servers: String,
    pub(super) operator_key: PathBuf,
    pub(super) folder: PathBuf,
}

impl Commands {
    /// At these broadcasters only, separated by commas.
    #[must_use]
    pub fn at(mut self, servers: String) -> Self {
        self.servers = servers;
        self
    }

    /// Runs it with these arguments.
    ///
    /// # Panics
    /// If it cannot be started.
    pub async fn run(&self, arguments: &[&str]) -> Output {
        tokio::process::Command::new(&self.program)
            .args(arguments)
            .env("ROTACAST_SERVER", &self.servers)
            .env("ROTACAST_OPERATOR", OPERATOR)
            .env("ROTACAST_OPERATOR_KEY", &self.operator_key)
            .env("ROTACAST_CLUSTER", CLUSTER)
            .current_dir(&self.folder)
            .kill_on_drop(true)
            .output()
            .await
            .unwrap_or_else(|error| panic!("cannot run {}: {error}", self.program.display()))
    }
}
