//! `rotacast permissions`: what each login needs at the servers, in each server's own language.

mod consul;
mod etcd;
mod kafka;
mod nats;
mod postgres;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use rotacast_broadcaster::config::{Config, SecretPattern};
use rotacast_broadcaster::permissions::{self, NoPermissions};

use crate::error::Stop;
use crate::output::Output;

#[derive(Subcommand)]
pub(crate) enum PermissionsCommand {
    /// Print the `authorization` section of nats.conf.
    Nats {
        #[command(flatten)]
        from: From,
        /// Print commands for nsc instead, for servers that use JWTs.
        #[arg(long)]
        nsc: bool,
    },
    /// Print commands for `kafka-acls.sh`.
    Kafka {
        #[command(flatten)]
        from: From,
    },
    /// Print commands for `etcdctl`: roles and users.
    Etcd {
        #[command(flatten)]
        from: From,
    },
    /// Print Consul's policies, and the commands that make tokens for them.
    Consul {
        #[command(flatten)]
        from: From,
        /// Write only the policies, each into a file NAME.hcl in this folder.
        #[arg(long, value_name = "FOLDER")]
        dir: Option<PathBuf>,
    },
    /// Print the SQL that makes the administrator of each provider.
    Postgres {
        #[command(flatten)]
        from: From,
        /// The administrator's role.
        #[arg(long, value_name = "ROLE", default_value = "rotacast_admin")]
        admin: String,
    },
}

#[derive(Args)]
pub(crate) struct From {
    /// The broadcaster's configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

impl From {
    fn read(&self) -> Result<Config, Stop> {
        Ok(Config::read_for_any_build(&self.config)?)
    }

    /// The first line of each text.
    fn title(&self, what: &str, config: &Config) -> String {
        let file: String = self.config.display().to_string().chars().filter(|c| !c.is_control()).collect();
        format!("{what} for Rotacast's cluster {}, from {file}.", config.cluster)
    }
}

pub(crate) fn run(output: Output, command: &PermissionsCommand) -> Result<(), Stop> {
    let text = match command {
        PermissionsCommand::Nats { from, nsc } => {
            let config = from.read()?;
            let logins = permissions::nats(&config)?;
            let title = from.title("NATS permissions", &config);
            let unnamed = config.any_service.is_some();
            if *nsc { nats::nsc(&title, &logins, unnamed) } else { nats::conf(&title, &logins, unnamed) }
        }
        PermissionsCommand::Kafka { from } => {
            let config = from.read()?;
            kafka::commands(&from.title("Kafka ACLs", &config), &permissions::kafka(&config)?)
        }
        PermissionsCommand::Etcd { from } => {
            let config = from.read()?;
            etcd::commands(&from.title("etcd roles and users", &config), &permissions::etcd(&config)?)
        }
        PermissionsCommand::Consul { from, dir } => {
            let config = from.read()?;
            let tokens = permissions::consul(&config)?;
            match dir {
                Some(dir) => return consul::write(output, dir, &tokens),
                None => consul::commands(&from.title("Consul policies", &config), &tokens),
            }
        }
        PermissionsCommand::Postgres { from, admin } => {
            let config = from.read()?;
            let admin = postgres::role(admin)?;
            postgres::sql(&from.title("PostgreSQL administrators", &config), &permissions::postgres(&config)?, &admin)
        }
    };
    output.raw(text.as_bytes())
}

impl std::convert::From<NoPermissions> for Stop {
    fn from(problem: NoPermissions) -> Self {
        let fix = match &problem {
            NoPermissions::AnotherServer { .. } => {
                "ask for the server that the configuration uses: `rotacast permissions --help` lists them"
            }
            NoPermissions::SharedUser { .. } => "name another user in the configuration",
            NoPermissions::Unquotable { .. } => "choose a name without these characters",
        };
        Self::usage(problem.to_string(), fix)
    }
}

/// Lines of comment, each beginning with `mark`.
fn comment(mark: &str, text: &str) -> String {
    text.lines().map(|line| if line.is_empty() { format!("{mark}\n") } else { format!("{mark} {line}\n") }).collect()
}

/// What is said about a login whose right to a secret covers the secrets below it.
fn below(wider: &[SecretPattern]) -> String {
    let each = wider.iter().map(|secret| {
        format!("\nKeys are granted by their beginning: with {secret} it may also read the values of secrets named {secret}/...")
    });
    each.collect()
}

/// A word of a shell, whatever it holds. Names hold no single quote: `rotacast_broadcaster::permissions` refuses them.
fn shell(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | ':' | '=' | ',');
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// Said where services that are not named may use secrets.
const UNNAMED: &str = "The configuration has [services.\"*\"]: services that it does not name. They get no login here. Give each a\n\
                       section of its own.";
