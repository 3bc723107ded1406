//! What a support bundle takes from the broadcaster's own machine: its configuration and the end of its audit log.

use std::path::{Path, PathBuf};

use clap::Args;
use rotacast_broadcaster::audit::{self, Search};
use rotacast_broadcaster::config::Config;
use serde_json::Value;

use crate::error::{Exit, Stop};
use crate::support_bundle::{redacted, value};

/// Entries of the audit log that go in: the last rotations of a secret or two.
const MAX_ENTRIES: usize = 500;

#[derive(Args)]
pub(crate) struct SupportFiles {
    /// The broadcaster's configuration: its text goes in, without passwords, and the end of the audit log that it names.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// An audit log whose end goes in.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    audit: Option<PathBuf>,
}

impl SupportFiles {
    /// Sections of the bundle, or why one is missing.
    pub(crate) fn sections(&self) -> Vec<(&'static str, Result<Value, Stop>)> {
        match (&self.config, &self.audit) {
            (Some(file), _) => vec![
                ("configuration", configuration(file)),
                ("audit", Config::read(file).map_err(Stop::from).and_then(|config| entries(&config.audit.file))),
            ],
            (None, Some(file)) => vec![("audit", entries(file))],
            (None, None) => vec![("audit", Err(missing_argument()))],
        }
    }
}

fn missing_argument() -> Stop {
    Stop::usage("not asked for", "--config FILE or --audit FILE on the broadcaster's machine adds it")
}

/// The file's text. It holds no password, or it would not be taken; what else could hold one is taken out.
fn configuration(file: &Path) -> Result<Value, Stop> {
    // What does not parse may hold anything.
    Config::read(file)?;
    let text = std::fs::read_to_string(file).map_err(|error| {
        Stop::failed(Exit::Failed, "output", format!("cannot read {}: {error}", file.display()), "")
    })?;
    Ok(text.lines().map(redacted).collect())
}

fn entries(file: &Path) -> Result<Value, Stop> {
    let search = Search { limit: MAX_ENTRIES, ..Search::default() };
    Ok(value(&audit::search(file, &search)?.entries))
}
