//! `rotacast completions` and `rotacast man`.

use std::path::Path;

use clap::CommandFactory as _;

use crate::arguments::Cli;
use crate::error::{Exit, Stop};
use crate::output::Output;

pub(crate) fn script(output: Output, shell: clap_complete::Shell) -> Result<(), Stop> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "rotacast", &mut script);
    output.raw(&script)
}

pub(crate) fn manual(output: Output, folder: Option<&Path>) -> Result<(), Stop> {
    let failed =
        |error: std::io::Error| Stop::failed(Exit::Failed, "man", format!("cannot write manual pages: {error}"), "");
    let Some(folder) = folder else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut page).map_err(failed)?;
        return output.raw(&page);
    };
    std::fs::create_dir_all(folder).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), folder).map_err(failed)?;
    output.line(format_args!("manual pages written to {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
