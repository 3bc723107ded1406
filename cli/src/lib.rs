//! The `rotacast` command line: see `docs/operate/cli.md`.
//!
//! Results go to standard output, everything else to standard error. Exit codes and JSON are stable. Without the feature
//! `broadcaster` it is a client only: it talks to a broadcaster, and can neither be one nor read one's files.

#![cfg_attr(test, allow(clippy::unwrap_used))]
// An internal crate: a doc comment is there where it says more than the name.
#![allow(missing_docs)]

mod approvals;
mod arguments;
#[cfg(feature = "broadcaster")]
mod broadcaster;
mod build;
mod client;
mod completions;
mod doctor;
mod error;
mod follow;
mod global;
mod goal;
mod gone;
mod human_time;
mod instance_pattern;
mod instances;
mod keygen;
mod keys;
mod order;
mod output;
mod progress_bars;
mod progress_notes;
mod retire;
mod servers;
mod status;
mod summary;
mod support_bundle;
mod table;
mod wait;
mod watch;
mod why;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser as _;
use tokio::runtime::{Builder, Runtime};

use arguments::{ApprovalsCommand, Cli, Command};
use client::Client;
use error::{Exit, Stop};
use global::Global;
use output::Output;

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
        #[cfg(feature = "broadcaster")]
        Command::Broadcaster(command) => broadcaster::run(context, command),
        Command::Keygen { out } => keygen::make(context.output, &out),
        Command::Keys(command) => keys::run(context, command),
        Command::Completions { shell } => completions::script(context.output, shell),
        Command::Man { dir } => completions::manual(context.output, dir.as_deref()),
        Command::Version => build::tell(context.output),
        Command::Ask(command) => {
            let runtime = runtime(&mut Builder::new_current_thread())?;
            let result = runtime.block_on(ask(context, command));
            // Nothing that is still running (a name being looked up) is worth waiting for.
            runtime.shutdown_background();
            result
        }
    }
}

/// The commands that ask a broadcaster.
async fn ask(context: &Context, command: arguments::Ask) -> Result<(), Stop> {
    use arguments::Ask;
    match command {
        Ask::Put(args) => order::put(context, args).await,
        Ask::Rotate(args) => order::rotate(context, args).await,
        Ask::Status { secret } => status::run(context, secret.as_ref()).await,
        Ask::Watch { secret } => watch::run(context, secret.as_ref()).await,
        Ask::Why { secret } => why::run(context, &secret).await,
        Ask::Instances { secret, not_on } => instances::run(context, secret.as_ref(), not_on).await,
        Ask::Wait(args) => wait::run(context, args).await,
        Ask::Approve(args) => order::approve(context, args).await,
        Ask::Pause(args) => order::pause(context, args).await,
        Ask::Resume(args) => order::resume(context, args).await,
        Ask::Rollback(args) => order::roll_back(context, args).await,
        Ask::Retire(args) => retire::run(context, args).await,
        Ask::Excuse { order, instance } => retire::excuse(context, order, &instance).await,
        Ask::Gone(args) => gone::run(context, args).await,
        Ask::Abandon(args) => order::abandon(context, args).await,
        Ask::LeaveSafeMode(args) => order::leave_safe_mode(context, args).await,
        Ask::Approvals { command: None } => approvals::list(context).await,
        Ask::Approvals { command: Some(ApprovalsCommand::Approve { request }) } => {
            approvals::approve(context, &request).await
        }
        Ask::Approvals { command: Some(ApprovalsCommand::Withdraw { request }) } => {
            approvals::withdraw(context, &request).await
        }
        Ask::Doctor => doctor::run(context).await,
        Ask::SupportBundle(args) => support_bundle::run(context, args).await,
    }
}

fn runtime(builder: &mut Builder) -> Result<Runtime, Stop> {
    builder.enable_all().build().map_err(|error| Stop::failed(Exit::Failed, "runtime", error.to_string(), ""))
}
