//! The `rotacast` program, and its stores, buses and providers with what measures them.

#![allow(clippy::unwrap_used)]

mod cli;
mod life;
mod measured;
mod start;
