//! The `rotacast` command line: see `docs/operate/cli.md`.
//!
//! Results go to standard output, everything else to standard error. Exit codes and JSON are stable.

mod arguments;
mod audit_log;
mod bars;
mod client;
mod doctor;
mod follow;
mod goal;
mod instances;
mod keys;
mod life;
mod logging;
mod order;
mod output;
mod progress;
mod retire;
mod servers;
mod shell;
mod status;
mod stop;
mod summary;
mod support_bundle;
mod table;
mod times;
mod token;

mod wait;
mod watch;
mod why;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;

pub use arguments::{Cli, DevArgs, ServeArgs};

use crate::view::ConfigView;
use arguments::{AuditCommand, Command, ConfigCommand, Global};
use client::Client;
use output::Output;
use stop::{Exit, Stop};

use crate::config::{Config, LogFormat};

/// What every command works with.
struct Context {
    global: Global,
    output: Output,
}

impl Context {
    async fn client(&self) -> Result<Client, Stop> {
        Client::connect(&self.global).await
    }
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    run(std::env::args_os())
}

/// Runs a command line, the program's name first.
fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    // An error means that one is installed already, which is just as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output; a reader that is gone is no failure.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { ExitCode::SUCCESS };
        }
    };
    let output = Output::new(cli.global.output);
    let context = Context { global: cli.global, output };
    match dispatch(&context, cli.command) {
        Ok(()) | Err(Stop::Unread) => ExitCode::SUCCESS,
        Err(Stop::Failed(failure)) => {
            output::report(&failure, output);
            failure.exit.into()
        }
    }
}

fn dispatch(context: &Context, command: Command) -> Result<(), Stop> {
    match command {
        Command::Serve(args) => {
            let log = Config::read(&args.config)?.log;
            logging::start(&log.level, log.format)?;
            run_broadcaster(crate::serve::run(args))
        }
        Command::Dev(args) => {
            logging::start(&args.log, LogFormat::Text)?;
            run_broadcaster(crate::dev::run(args))
        }
        Command::Audit(AuditCommand::Verify { file, head, after }) => {
            audit_log::verify(context.output, &file, head, after)
        }
        Command::Audit(AuditCommand::Show { file, after, secret, last }) => {
            audit_log::show(context.output, &file, after, secret.as_ref(), last)
        }
        Command::Config(ConfigCommand::Check { file, without_files }) => {
            config_check(context.output, &file, without_files)
        }
        Command::Keygen { out } => keys::make(context.output, &out),
        Command::Token { out } => token::make(context.output, &out),
        Command::Completions { shell } => shell::completions(context.output, shell),
        Command::Man { dir } => shell::man(context.output, dir.as_deref()),
        Command::Version => match context.output.is_data() {
            true => context.output.data(&crate::build::INFO),
            false => context.output.line(format_args!("rotacast {}", *crate::build::LONG)),
        },
        command => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| Stop::failed(Exit::Failed, "runtime", error.to_string(), ""))?;
            let result = runtime.block_on(talk(context, command));
            // Nothing that is still running (a name being looked up) is worth waiting for.
            runtime.shutdown_background();
            result
        }
    }
}

/// The commands that ask a broadcaster.
async fn talk(context: &Context, command: Command) -> Result<(), Stop> {
    match command {
        Command::Put(args) => order::put(context, args).await,
        Command::Rotate(args) => order::rotate(context, args).await,
        Command::Status { secret } => status::run(context, secret.as_ref()).await,
        Command::Watch { secret } => watch::run(context, secret.as_ref()).await,
        Command::Why { secret } => why::run(context, &secret).await,
        Command::Instances { secret, not_on } => instances::run(context, secret.as_ref(), not_on).await,
        Command::Wait(args) => wait::run(context, args).await,
        Command::Approve(args) => order::approve(context, args.secret).await,
        Command::Pause(args) => order::pause(context, args).await,
        Command::Resume(args) => order::resume(context, args.secret).await,
        Command::Rollback(args) => order::roll_back(context, args).await,
        Command::Retire(args) => retire::run(context, args).await,
        Command::Excuse { order, instance } => retire::excuse(context, order.secret, &instance).await,
        Command::LeaveSafeMode(args) => order::leave_safe_mode(context, args.secret).await,
        Command::Doctor => doctor::run(context).await,
        Command::SupportBundle(args) => support_bundle::run(context, args).await,
        Command::Serve(_)
        | Command::Dev(_)
        | Command::Audit(_)
        | Command::Config(_)
        | Command::Keygen { .. }
        | Command::Token { .. }
        | Command::Completions { .. }
        | Command::Man { .. }
        | Command::Version => unreachable!("dispatched without a connection"),
    }
}

/// Runs a broadcaster until it is told to stop.
fn run_broadcaster(broadcaster: impl Future<Output = anyhow::Result<()>>) -> Result<(), Stop> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Stop::failed(Exit::Failed, "runtime", error.to_string(), ""))?;
    Ok(runtime.block_on(broadcaster)?)
}

/// `rotacast config check`: what a broadcaster would make of a file and, but for `without_files`, of the files it names.
fn config_check(output: Output, file: &Path, without_files: bool) -> Result<(), Stop> {
    let config = Config::read(file)?;
    if !without_files {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Stop::failed(Exit::Failed, "runtime", error.to_string(), ""))?;
        let problems = runtime.block_on(crate::serve::rehearse(&config));
        if !problems.is_empty() {
            let problems: Vec<_> = problems.iter().map(|problem| format!("{}: {problem}", file.display())).collect();
            let fix = "the files are the ones of this machine; on another one check the text alone, by --without-files";
            return Err(Stop::failed(Exit::Usage, "configuration", problems.join("\n"), fix));
        }
    }
    let (secrets, operators) = (config.secrets.len(), config.operators.len());
    let services = config.services.len() + usize::from(config.any_service.is_some());
    if output.is_data() {
        let cluster = config.cluster.to_string();
        return output.data(&ConfigView { file: file.display().to_string(), cluster, operators, services, secrets });
    }
    output.line(format_args!(
        "{}: well. Cluster {}, {}, {}, {}",
        file.display(),
        config.cluster,
        summary::count(operators, "operator"),
        summary::count(services, "service"),
        summary::count(secrets, "section") + " of secrets"
    ))
}
