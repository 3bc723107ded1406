//! The `rotacast` program, built together with the tests so that they never run an outdated one.

use std::process::ExitCode;

fn main() -> ExitCode {
    rotacast::main()
}
