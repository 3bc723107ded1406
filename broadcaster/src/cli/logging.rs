//! The log of a broadcaster, on standard error.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use super::stop::{Exit, Stop};
use crate::config::LogFormat;

/// Starts it.
pub(super) fn start(filter: &str, format: LogFormat) -> Result<(), Stop> {
    let parsed = EnvFilter::try_new(filter).map_err(|error| {
        Stop::usage(format!("log filter {filter:?}: {error}"), "expected such as `info` or `rotacast=debug,warn`")
    })?;
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let builder = tracing_subscriber::fmt().with_env_filter(parsed).with_writer(std::io::stderr).with_ansi(colours);
    let started = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    started.map_err(|error| Stop::failed(Exit::Failed, "log", format!("cannot start the log: {error}"), ""))
}
