//! What can be typed, as clap reads it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use rotacast_admin::parse_duration;
use rotacast_protocol::{RotationNumber, SecretName, Version};

use crate::build;
use crate::global::Global;
use crate::goal::Goal;
use crate::instance_pattern::InstancePattern;
use crate::support_bundle::BundleArgs;

const EXIT_CODES: &str = "\
Exit codes: 0 done · 1 refused or failed · 2 wrong usage or configuration · 3 broadcaster or what it needs \
cannot be reached · 4 time ran out · 5 not found · 6 rolled back";

/// Rotates credentials while the services that use them keep running.
#[derive(Parser)]
#[command(name = "rotacast", version, long_version = build::LONG.as_str(), max_term_width = 110, arg_required_else_help = true, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    #[cfg(feature = "broadcaster")]
    #[command(flatten)]
    Broadcaster(crate::broadcaster::Command),
    #[command(flatten)]
    Ask(Ask),
    /// Make a key pair: NAME.key (private) and NAME.pub.
    Keygen {
        /// Path and name of both files, without ending.
        #[arg(long, value_name = "NAME", default_value = "rotacast")]
        out: PathBuf,
    },
    /// Look at the keys of Rotacast itself, and replace one by another.
    #[command(subcommand)]
    Keys(crate::keys::KeysCommand),
    /// Print a completion script.
    Completions {
        /// For which shell.
        shell: clap_complete::Shell,
    },
    /// Say what this program was built from.
    Version,
    /// Print the manual page, or write every command's into a folder.
    Man {
        /// The folder.
        #[arg(long, value_name = "FOLDER")]
        dir: Option<PathBuf>,
    },
}

/// The commands that ask a broadcaster.
#[derive(Subcommand)]
pub(crate) enum Ask {
    /// Write a secret's next version; the value comes from standard input or a file, never from an argument.
    Put(PutArgs),
    /// Make a new version and rotate to it.
    Rotate(RotateArgs),
    /// Show every secret, or one in full.
    Status {
        /// Which secret.
        secret: Option<SecretName>,
    },
    /// Show what changes, as it changes, until Ctrl-C.
    Watch {
        /// Which secret; all if none is named.
        secret: Option<SecretName>,
    },
    /// Say what a secret waits for: who, why, since when, and what happens next.
    Why {
        /// Which secret.
        secret: SecretName,
    },
    /// Show the instances, and the version that each uses.
    Instances {
        /// Which secret; all if none is named.
        secret: Option<SecretName>,
        /// Only instances that hold or have reached another version than this one.
        #[arg(long, value_name = "VERSION")]
        not_on: Option<Version>,
    },
    /// Wait until a rotation ends, or until a version is current.
    Wait(WaitArgs),
    /// Allow the activation that waits for approval.
    Approve(OrderArgs),
    /// Block irreversible steps until resumed.
    Pause(ReasonedArgs),
    /// Lift a pause.
    Resume(OrderArgs),
    /// Go back to the old version.
    Rollback(ReasonedArgs),
    /// Retire a version although named instances, or the provider's sessions, may still use it. They are cut off.
    Retire(RetireArgs),
    /// Do not wait for an instance to prepare or switch. The retire still waits for it.
    Excuse {
        #[command(flatten)]
        order: OrderArgs,
        /// The instance: SERVICE/INSTANCE, or SERVICE/INSTANCE/INCARNATION if it has several incarnations.
        instance: InstancePattern,
    },
    /// Say that an incarnation no longer runs: no secret waits for it any more. If it runs after all, it is cut off.
    Gone(GoneArgs),
    /// Give a version up: its value is erased once no instance may use it, and its credential is left alone.
    Abandon(AbandonArgs),
    /// Leave safe mode, after you have checked the store. Test logins that failed are tried again. Where no login is possible and
    /// no version waits, it says that the current version works.
    LeaveSafeMode(ReasonedArgs),
    /// Show the orders that wait for the approval of other operators; approve or withdraw one.
    Approvals {
        #[command(subcommand)]
        command: Option<ApprovalsCommand>,
    },
    /// Check store, bus, leadership, audit log, secrets, leases, clocks and your own key.
    Doctor,
    /// Write what support needs to see into one file, which holds no secret.
    SupportBundle(BundleArgs),
}

#[derive(Args)]
pub(crate) struct PutArgs {
    /// Which secret.
    pub(crate) secret: SecretName,
    /// The file with the value, byte for byte; standard input if it is not given.
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
    #[command(flatten)]
    pub(crate) beside: Beside,
}

#[derive(Args)]
pub(crate) struct RotateArgs {
    /// Which secret.
    pub(crate) secret: SecretName,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
    #[command(flatten)]
    pub(crate) beside: Beside,
}

/// Whether to stay until the rotation is over.
#[derive(Args)]
pub(crate) struct Waiting {
    /// Wait until the rotation is over.
    #[arg(long)]
    pub(crate) wait: bool,
    /// Longest wait, such as `90s` or `10m`; the rotation continues after it.
    #[arg(long, value_name = "DURATION", requires = "wait", value_parser = parse_duration)]
    pub(crate) timeout: Option<Duration>,
}

#[derive(Args)]
pub(crate) struct WaitArgs {
    /// Which secret.
    pub(crate) secret: SecretName,
    /// The goal: `retired` and `rolled_back` are ends of the rotation in flight (or of the last one, if none is);
    /// `idle`: no rotation is in flight and no version waits for one; `current=N`: version N is current.
    #[arg(long = "for", value_name = "GOAL")]
    pub(crate) goal: Goal,
    /// Which rotation, as `rotate` printed it; for `retired` and `rolled_back`.
    #[arg(long, value_name = "NUMBER", value_parser = parse_rotation)]
    pub(crate) rotation: Option<RotationNumber>,
    /// Longest wait, such as `90s` or `10m`; without it, as long as it takes.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) timeout: Option<Duration>,
}

fn parse_rotation(text: &str) -> Result<RotationNumber, String> {
    text.parse().map(RotationNumber).map_err(|_| "expected a whole number".to_owned())
}

#[derive(Args)]
pub(crate) struct OrderArgs {
    /// Which secret.
    pub(crate) secret: SecretName,
    #[command(flatten)]
    pub(crate) beside: Beside,
}

/// What may be said beside an order.
#[derive(Args)]
pub(crate) struct Beside {
    /// The reason; it is recorded.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    #[command(flatten)]
    pub(crate) emergency: Emergency,
}

/// Whether an order is given alone.
#[derive(Args, Clone, Copy)]
pub(crate) struct Emergency {
    /// Act alone, by a role for emergencies: without approvals, with a reason, on record and for everyone to see.
    #[arg(long)]
    pub(crate) emergency: bool,
}

/// What is done with orders that wait for approvals.
#[derive(Subcommand)]
pub(crate) enum ApprovalsCommand {
    /// Approve another operator's order, exactly as it waits. With the last approval that it needs, it is carried out.
    Approve {
        /// The request, or its first digits.
        request: String,
    },
    /// Take back an order that you have given, or your approval of another one's.
    Withdraw {
        /// The request, or its first digits.
        request: String,
    },
}

#[derive(Args)]
pub(crate) struct ReasonedArgs {
    /// Which secret.
    pub(crate) secret: SecretName,
    /// The reason; it is recorded.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) emergency: Emergency,
}

#[derive(Args)]
pub(crate) struct GoneArgs {
    /// The instance: SERVICE/INSTANCE, or SERVICE/INSTANCE/INCARNATION. An incarnation that is heard is never meant.
    pub(crate) instance: InstancePattern,
    /// How you know; it is recorded.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
    /// Do not ask.
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) emergency: Emergency,
}

#[derive(Args)]
pub(crate) struct AbandonArgs {
    /// Which secret.
    pub(crate) secret: SecretName,
    /// The version: on its way out, moved to, or waiting for its rotation.
    pub(crate) version: Version,
    /// The reason; it is recorded.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) emergency: Emergency,
}

#[derive(Args)]
pub(crate) struct RetireArgs {
    /// Which secret.
    pub(crate) secret: SecretName,
    /// The version; it must be on its way out already.
    #[arg(long, value_name = "VERSION")]
    pub(crate) version: Version,
    /// Required: a normal retire needs no command, only one that cuts instances or sessions off.
    #[arg(long = "override", required = true)]
    pub(crate) overriding: bool,
    /// An instance to cut off: SERVICE/INSTANCE or SERVICE/INSTANCE/INCARNATION. May be repeated.
    #[arg(long, value_name = "INSTANCE")]
    pub(crate) instance: Vec<InstancePattern>,
    /// Cut off the provider's live sessions too.
    #[arg(long)]
    pub(crate) sessions: bool,
    /// The reason; it is recorded.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
    /// Do not ask.
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) emergency: Emergency,
}
