//! `rotacast keys`: the keys of Rotacast itself, and how one takes the place of another.

mod file;
mod status;

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use rotacast_proto::KeyId;
use rotacast_seal::KeyUse;

use crate::Context;
use crate::error::Stop;

#[derive(Subcommand)]
pub(crate) enum KeysCommand {
    /// Show the keys of broadcasters, services and operators, what each counts for, and which live instances use or trust it.
    Status,
    /// Show the keys of a private key file. Of each use, the first is the one in use.
    List {
        /// The private key file.
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
    },
    /// Draw a key and add it to a private key file, behind those that are there: it is not in use yet.
    New {
        /// The private key file.
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
        /// What the key is for.
        #[arg(long = "for", value_name = "USE")]
        purpose: Purpose,
    },
    /// Make a key of a private key file the one in use. A signing key must be trusted where it is to count: the leader is asked.
    Use {
        /// The private key file.
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
        /// The key's id, as `rotacast keys list` shows it.
        key: String,
        /// Do not ask whether it is trusted.
        #[arg(long)]
        force: bool,
    },
    /// Remove a key from a private key file. A key that is in use, or that a stored value needs, is not removed.
    Drop(DropArgs),
}

#[derive(clap::Args)]
pub(crate) struct DropArgs {
    /// The private key file.
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    /// The key's id, as `rotacast keys list` shows it.
    key: String,
    /// The broadcaster's configuration: for a sealing key, to look into the store whether a value needs it. An embedded store can be
    /// read only while no broadcaster runs.
    #[cfg(feature = "broadcaster")]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Remove it although it is in use, or a value may need it. What was sealed for it alone can never be opened again.
    #[arg(long)]
    force: bool,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Purpose {
    /// To sign messages.
    Signing,
    /// To open sealed values.
    Sealing,
}

impl From<Purpose> for KeyUse {
    fn from(purpose: Purpose) -> Self {
        match purpose {
            Purpose::Signing => Self::Signing,
            Purpose::Sealing => Self::Sealing,
        }
    }
}

pub(crate) fn run(context: &Context, command: KeysCommand) -> Result<(), Stop> {
    let output = context.output;
    match command {
        KeysCommand::Status => asking(status::run(context)),
        KeysCommand::List { file } => file::show(output, &file::open(&file)?),
        KeysCommand::New { file, purpose } => file::add(output, &file, purpose.into()),
        KeysCommand::Use { file, key, force } => {
            let key = id(&key)?;
            let known = file::open(&file)?.find(&key);
            if known.is_some_and(|(of, in_use)| of == KeyUse::Signing && !in_use) && !force {
                asking(status::check_trusted(context, &key))?;
            }
            file::bring_into_use(output, &file, &key)
        }
        KeysCommand::Drop(args) => {
            let key = id(&args.key)?;
            file::remove(output, &args, &key)
        }
    }
}

fn asking(asked: impl Future<Output = Result<(), Stop>>) -> Result<(), Stop> {
    let runtime = crate::runtime(&mut tokio::runtime::Builder::new_current_thread())?;
    let result = runtime.block_on(asked);
    // Nothing that is still running (a name being looked up) is worth waiting for.
    runtime.shutdown_background();
    result
}

fn id(text: &str) -> Result<KeyId, Stop> {
    KeyId::parse(text).ok_or_else(|| {
        Stop::usage(
            format!("{text:?} is no key id"),
            "expected 16 hexadecimal digits, as `rotacast keys list` shows them",
        )
    })
}
