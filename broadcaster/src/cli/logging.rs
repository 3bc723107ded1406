//! The log of a broadcaster, on standard error.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::stop::{Exit, Stop};
use crate::config::LogFormat;
use crate::log::LogLayer;

/// Starts it.
pub(super) fn start(filter: &str, format: LogFormat) -> Result<(), Stop> {
    let parsed = EnvFilter::try_new(filter).map_err(|error| {
        Stop::usage(format!("log filter {filter:?}: {error}"), "expected such as `info` or `rotacast=debug,warn`")
    })?;
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let layer = LogLayer::new(format, colours, std::io::stderr());
    let started = tracing_subscriber::registry().with(parsed).with(layer).try_init();
    started.map_err(|error| Stop::failed(Exit::Failed, "log", format!("cannot start the log: {error}"), ""))
}
