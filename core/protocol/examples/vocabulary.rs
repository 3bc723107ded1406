//! Prints the vocabulary as the script that the dashboard loads, for the checks of its other scripts.
#![allow(clippy::print_stdout)]

fn main() {
    print!("{}", rotacast_protocol::word::script());
}
