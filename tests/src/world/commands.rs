//! The `rotacast` command line as the operator uses it.

use std::path::PathBuf;
use std::process::Output;

use super::CLUSTER;

/// Runs `rotacast` in a world's folder, at all its broadcasters.
#[derive(Clone, Debug)]
pub struct Commands {
    pub(super) program: PathBuf,
    pub(super) servers: String,
    pub(super) operator: &'static str,
    pub(super) folder: PathBuf,
}

impl Commands {
    /// At these broadcasters only, separated by commas.
    #[must_use]
    pub fn at(mut self, servers: String) -> Self {
        self.servers = servers;
        self
    }

    /// As another operator.
    #[must_use]
    pub fn of(mut self, operator: &'static str) -> Self {
        self.operator = operator;
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
            .env("ROTACAST_OPERATOR", self.operator)
            .env("ROTACAST_OPERATOR_KEY", self.folder.join(format!("keys/{}.key", self.operator)))
            .env("ROTACAST_TOKEN_FILE", self.folder.join(format!("keys/{}.token", self.operator)))
            .env("ROTACAST_CLUSTER", CLUSTER)
            .current_dir(&self.folder)
            .kill_on_drop(true)
            .output()
            .await
            .unwrap_or_else(|error| panic!("cannot run {}: {error}", self.program.display()))
    }
}
