//! What the simulator shows, with the seeds of an ordinary run.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod exhaustive;
mod mutants;
mod scenarios;
mod seeds;
mod table;
