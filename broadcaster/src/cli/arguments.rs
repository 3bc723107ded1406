//! What can be typed, as clap reads it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use rotacast_protocol::{ClusterName, Generation, OperatorName, SecretName, Version};

use super::goal::Goal;
use super::life::LifePattern;
use crate::audit;
use crate::build;
use crate::config::parse_duration;

const EXIT_CODES: &str = "\
Exit codes: 0 done · 1 refused or failed · 2 wrong usage or configuration · 3 broadcaster or what it needs \
cannot be reached · 4 time ran out · 5 not found · 6 rolled back";

/// Rotates credentials while the services that use them keep running.
#[derive(Parser)]
#[command(name = "rotacast", version, long_version = build::LONG.as_str(), max_term_width = 110, arg_required_else_help = true, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Flags that every command takes.
#[derive(Args)]
pub(super) struct Global {
    /// Where the broadcaster listens; https needs --ca. Of several, with commas or by repeating it, the leader is found.
    #[arg(
        long,
        global = true,
        env = "ROTACAST_SERVER",
        value_name = "URL",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:7400"
    )]
    pub(super) server: Vec<String>,
    /// In whose name commands are given; `operator` if the key is the one that `rotacast dev` made.
    #[arg(long, global = true, env = "ROTACAST_OPERATOR", value_name = "NAME")]
    pub(super) operator: Option<OperatorName>,
    /// The operator's private key; ./rotacast-data/keys/operator.key if that exists.
    #[arg(long, global = true, env = "ROTACAST_OPERATOR_KEY", value_name = "FILE")]
    pub(super) operator_key: Option<PathBuf>,
    /// Which cluster commands are meant for; the server is asked if it is not given.
    #[arg(long, global = true, env = "ROTACAST_CLUSTER", value_name = "NAME")]
    pub(super) cluster: Option<ClusterName>,
    /// Certificates (PEM) that the server's must lead back to.
    #[arg(long, global = true, env = "ROTACAST_CA", value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,
    /// This client's own certificate (PEM), where the server asks for one.
    #[arg(long, global = true, env = "ROTACAST_CLIENT_CERT", value_name = "FILE", requires = "client_key")]
    pub(super) client_cert: Option<PathBuf>,
    /// The private key (PEM) of --client-cert.
    #[arg(long, global = true, env = "ROTACAST_CLIENT_KEY", value_name = "FILE", requires = "client_cert")]
    pub(super) client_key: Option<PathBuf>,
    /// Tables for people, with all columns if wide; JSON or YAML for programs.
    #[arg(short, long, global = true, value_name = "FORMAT", value_enum, default_value_t = Format::Table)]
    pub(super) output: Format,
}

/// How results are written.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Table,
    Wide,
    Json,
    Yaml,
}

#[derive(Subcommand)]
pub(super) enum Command {
    /// Run the broadcaster.
    Serve(ServeArgs),
    /// Run everything in this one process, with no servers and no configuration.
    Dev(DevArgs),
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
    /// Show who runs what.
    Instances {
        /// Which secret; all if none is named.
        secret: Option<SecretName>,
        /// Only instances that hold or have reached another version than this one.
        #[arg(long, value_name = "VERSION")]
        not_on: Option<Version>,
    },
    /// Wait until a secret has got somewhere.
    Wait(WaitArgs),
    /// Allow the activation that waits for approval.
    Approve(OrderArgs),
    /// Block irreversible steps until resumed.
    Pause(ReasonedArgs),
    /// Lift a pause.
    Resume(OrderArgs),
    /// Go back to the old version.
    Rollback(ReasonedArgs),
    /// Let a retire go on although somebody may still use the version. They are cut off.
    Retire(RetireArgs),
    /// Do not wait for an instance to prepare or switch; it never counts as having let go.
    Excuse {
        #[command(flatten)]
        order: OrderArgs,
        /// Whom: SERVICE/INSTANCE, or SERVICE/INSTANCE/INCARNATION if it runs more than once.
        instance: LifePattern,
    },
    /// Go on after the store was looked at.
    LeaveSafeMode(OrderArgs),
    /// Check or show the audit log.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Say what is well and what is not.
    Doctor,
    /// Look at configuration files.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Make a key pair: NAME.key (private) and NAME.pub.
    Keygen {
        /// Path and name of both files, without ending.
        #[arg(long, value_name = "NAME", default_value = "rotacast")]
        out: PathBuf,
    },
    /// Make a token for signing in to the dashboard: NAME.token. The configuration gets its digest.
    Token {
        /// Path and name of the file, without ending; the name is whoever is to sign in with it.
        #[arg(long, value_name = "NAME", default_value = "rotacast")]
        out: PathBuf,
    },
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

/// `rotacast serve`.
#[derive(Args, Clone, Debug)]
pub struct ServeArgs {
    /// The configuration file (TOML).
    #[arg(long, env = "ROTACAST_CONFIG", value_name = "FILE")]
    pub config: PathBuf,
}

/// `rotacast dev`.
#[derive(Args, Clone, Debug)]
pub struct DevArgs {
    /// Where databases, keys and the audit log are kept; made if it is not there.
    #[arg(long, value_name = "FOLDER", default_value = "rotacast-data")]
    pub data: PathBuf,
    /// Address and port to listen on.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7400")]
    pub listen: SocketAddr,
    /// Also run sample services and rotate a secret under them.
    #[arg(long)]
    pub demo: bool,
    /// Stop the demo after this many finished rotations.
    #[arg(long, value_name = "NUMBER", requires = "demo", value_parser = clap::value_parser!(u64).range(1..))]
    pub rotations: Option<u64>,
    /// How long the demo rests between two rotations.
    #[arg(long, value_name = "DURATION", requires = "demo", value_parser = parse_duration, default_value = "5s")]
    pub every: Duration,
    /// What is logged to standard error, e.g. `info` or `rotacast=debug,warn`.
    #[arg(long, env = "ROTACAST_LOG_LEVEL", value_name = "FILTER", default_value = "warn")]
    pub log: String,
}

#[derive(Args)]
pub(super) struct PutArgs {
    /// Which secret.
    pub(super) secret: SecretName,
    /// Where the value is, byte for byte; standard input if it is not given.
    #[arg(long, value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    #[command(flatten)]
    pub(super) waiting: Waiting,
}

#[derive(Args)]
pub(super) struct RotateArgs {
    /// Which secret.
    pub(super) secret: SecretName,
    #[command(flatten)]
    pub(super) waiting: Waiting,
}

/// Whether to stay until the rotation is over.
#[derive(Args)]
pub(super) struct Waiting {
    /// Wait until the rotation is over.
    #[arg(long)]
    pub(super) wait: bool,
    /// How long to wait at the most, e.g. `90s` or `10m`; the rotation goes on after that.
    #[arg(long, value_name = "DURATION", requires = "wait", value_parser = parse_duration)]
    pub(super) timeout: Option<Duration>,
}

#[derive(Args)]
pub(super) struct WaitArgs {
    /// Which secret.
    pub(super) secret: SecretName,
    /// For what: `retired` and `rolled-back` are ends of the rotation in flight (or of the last one, if none is),
    /// `idle` is no rotation in flight, `current=N` is version N in use.
    #[arg(long = "for", value_name = "GOAL")]
    pub(super) goal: Goal,
    /// Which rotation, as `rotate` printed it; for `retired` and `rolled-back`.
    #[arg(long, value_name = "NUMBER", value_parser = parse_generation)]
    pub(super) generation: Option<Generation>,
    /// How long at the most, e.g. `90s` or `10m`; without it, as long as it takes.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(super) timeout: Option<Duration>,
}

fn parse_generation(text: &str) -> Result<Generation, String> {
    text.parse().map(Generation).map_err(|_| "expected a whole number".to_owned())
}

#[derive(Args)]
pub(super) struct OrderArgs {
    /// Which secret.
    pub(super) secret: SecretName,
}

#[derive(Args)]
pub(super) struct ReasonedArgs {
    /// Which secret.
    pub(super) secret: SecretName,
    /// Why; goes on record.
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: String,
}

#[derive(Args)]
pub(super) struct RetireArgs {
    /// Which secret.
    pub(super) secret: SecretName,
    /// Which version, on its way out already.
    #[arg(long, value_name = "VERSION")]
    pub(super) version: Version,
    /// Says that this is meant: a retire needs no command, only cutting somebody off does.
    #[arg(long = "override", required = true)]
    pub(super) overriding: bool,
    /// Who is cut off: SERVICE/INSTANCE or SERVICE/INSTANCE/INCARNATION. May be repeated.
    #[arg(long, value_name = "INSTANCE")]
    pub(super) instance: Vec<LifePattern>,
    /// Cut off the provider's live sessions too.
    #[arg(long)]
    pub(super) sessions: bool,
    /// Why; goes on record.
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: String,
    /// Do not ask.
    #[arg(long)]
    pub(super) yes: bool,
}

#[derive(Args)]
pub(super) struct AuditFile {
    /// The log; ./rotacast-data/audit.jsonl, as `rotacast dev` writes it, if neither this nor --config is given.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    pub(super) file: Option<PathBuf>,
    /// The broadcaster's configuration, which says where the log is.
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

#[derive(Subcommand)]
pub(super) enum AuditCommand {
    /// Check every line of the log. The broadcaster need not run.
    Verify {
        #[command(flatten)]
        file: AuditFile,
        /// A head printed earlier: it must be in the log. Without it a log whose end was cut off looks whole.
        #[arg(long, value_name = "HASH")]
        head: Option<audit::Hash>,
        /// The head of what was archived, as NUMBER:HASH: the oldest file must follow it.
        #[arg(long, value_name = "HEAD", value_parser = parse_head)]
        after: Option<audit::Head>,
    },
    /// Check the log and show its entries.
    Show {
        #[command(flatten)]
        file: AuditFile,
        /// The head of what was archived, as NUMBER:HASH: the oldest file must follow it.
        #[arg(long, value_name = "HEAD", value_parser = parse_head)]
        after: Option<audit::Head>,
        /// Only entries about this secret.
        #[arg(long, value_name = "SECRET")]
        secret: Option<SecretName>,
        /// How many of the newest entries.
        #[arg(long, value_name = "NUMBER", default_value_t = 50)]
        last: usize,
    },
}

fn parse_head(text: &str) -> Result<audit::Head, String> {
    let (sequence, hash) = text.split_once(':').ok_or("expected NUMBER:HASH, as `rotacast audit verify` prints it")?;
    let sequence = sequence.parse().map_err(|_| "expected a whole number before the colon")?;
    Ok(audit::Head { sequence, hash: hash.parse()? })
}

#[derive(Subcommand)]
pub(super) enum ConfigCommand {
    /// Read a configuration file, and the files it names, and say what is wrong. No server is asked.
    Check {
        /// The file.
        file: PathBuf,
        /// Do not read the files it names: keys, certificates, passwords. They may be on another machine.
        #[arg(long)]
        without_files: bool,
    },
}
