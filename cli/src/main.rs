//! The `rotacast` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    rotacast::main()
}
