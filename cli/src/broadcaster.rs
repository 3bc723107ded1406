//! The commands that are a broadcaster, or that read its files. They need no running one.

mod audit_log;
mod config_check;
#[cfg(feature = "demo")]
mod demo;
mod dev;
mod permissions;
mod seal;
mod serve;
mod support_files;
mod token;

use std::io::IsTerminal as _;
use std::path::PathBuf;

use clap::Subcommand;
use rotacast_broadcaster::config::{Config, ConfigError, LogFormat};
use rotacast_broadcaster::{hardening, log};
use tokio::runtime::Builder;

use crate::error::{Exit, Stop};
use crate::{Context, runtime};

pub(crate) use support_files::SupportFiles;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Run the broadcaster.
    Serve(serve::ServeArgs),
    /// Run everything in this one process, with no servers and no configuration.
    Dev(dev::DevArgs),
    /// Look at configuration files.
    #[command(subcommand)]
    Config(config_check::ConfigCommand),
    /// Print what each login needs at NATS, Kafka, etcd, Consul or PostgreSQL, from a configuration file.
    #[command(subcommand)]
    Permissions(permissions::PermissionsCommand),
    /// Check or show the audit log.
    #[command(subcommand)]
    Audit(audit_log::AuditCommand),
    /// Look at who can open the stored values.
    #[command(subcommand)]
    Seal(seal::SealCommand),
    /// Make a token for signing in to the dashboard: NAME.token. The configuration gets its digest.
    Token {
        /// Path and name of the file, without ending; the name is that of the person who signs in with it.
        #[arg(long, value_name = "NAME", default_value = "rotacast")]
        out: PathBuf,
    },
}

pub(crate) fn run(context: &Context, command: Command) -> Result<(), Stop> {
    let output = context.output;
    match command {
        Command::Serve(args) => {
            let log = Config::read(&args.config)?.log;
            start_log(&log.level, log.format)?;
            hardening::keep_memory_private();
            until_stopped(serve::run(args))
        }
        Command::Dev(args) => {
            start_log(&args.log, LogFormat::Text)?;
            hardening::keep_memory_private();
            until_stopped(dev::run(args))
        }
        Command::Config(command) => config_check::run(output, &command),
        Command::Permissions(command) => permissions::run(output, &command),
        Command::Audit(command) => audit_log::run(context, command),
        Command::Seal(command) => seal::run(output, command),
        Command::Token { out } => token::make(output, &out),
    }
}

/// Starts the log, on standard error.
fn start_log(filter: &str, format: LogFormat) -> Result<(), Stop> {
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    log::start(filter, format, colours)
        .map_err(|error| Stop::usage(error.to_string(), "expected such as `info` or `rotacast=debug,warn`"))
}

fn until_stopped(broadcaster: impl Future<Output = anyhow::Result<()>>) -> Result<(), Stop> {
    Ok(runtime(&mut Builder::new_multi_thread())?.block_on(broadcaster)?)
}

impl From<ConfigError> for Stop {
    fn from(error: ConfigError) -> Self {
        Self::failed(Exit::Usage, "configuration", error.to_string(), "")
    }
}

/// What ended a broadcaster.
impl From<anyhow::Error> for Stop {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast::<ConfigError>() {
            Ok(error) => error.into(),
            Err(error) => Self::failed(Exit::Failed, "failed", format!("{error:#}"), ""),
        }
    }
}
