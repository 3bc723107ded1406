//! `rotacast config check`: what a broadcaster would make of a file, and of the files that it names.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use rotacast_admin::view::ConfigView;
use rotacast_broadcaster::config::Config;
use rotacast_broadcaster::serve::rehearse;
use tokio::runtime::Builder;

use crate::error::{Exit, Stop};
use crate::output::{Output, note};
use crate::runtime;
use crate::summary::count;

#[derive(Subcommand)]
pub(crate) enum ConfigCommand {
    /// Read a configuration file, and the files it names, and say what is wrong. No server is asked.
    Check {
        /// The file.
        file: PathBuf,
        /// Do not read the files it names: keys, certificates, passwords. They may be on another machine.
        #[arg(long)]
        without_files: bool,
    },
}

pub(crate) fn run(output: Output, command: &ConfigCommand) -> Result<(), Stop> {
    let ConfigCommand::Check { file, without_files } = command;
    check(output, file, *without_files)
}

fn check(output: Output, file: &Path, without_files: bool) -> Result<(), Stop> {
    let config = Config::read(file)?;
    if !without_files {
        let problems = runtime(&mut Builder::new_current_thread())?.block_on(rehearse(&config));
        if !problems.is_empty() {
            let problems: Vec<_> = problems.iter().map(|problem| format!("{}: {problem}", file.display())).collect();
            let fix = "the files are the ones of this machine; on another one check the text alone, by --without-files";
            return Err(Stop::failed(Exit::Usage, "configuration", problems.join("\n"), fix));
        }
    }
    let warnings = config.warnings();
    let (secrets, operators) = (config.secrets.len(), config.operators.len());
    let services = config.services.len() + usize::from(config.any_service.is_some());
    if output.is_data() {
        let cluster = config.cluster.to_string();
        return output.data(&ConfigView {
            file: file.display().to_string(),
            cluster,
            operators,
            services,
            secrets,
            warnings,
        });
    }
    for warning in &warnings {
        note(format_args!("warning: {}: {warning}", file.display()));
    }
    output.line(format_args!(
        "{}: ok. Cluster {}, {}, {}, {}",
        file.display(),
        config.cluster,
        count(operators, "operator"),
        count(services, "service"),
        count(secrets, "section") + " of secrets"
    ))
}
