//! What the simulator shows, with the seeds of an ordinary run.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod exhaustive;
#[cfg(rotacast_mutants)]
mod mutants;
mod rules;
mod scenarios;
mod seeds;
mod table;
