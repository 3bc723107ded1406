//! The SDK against a cluster in memory.

#![allow(clippy::unwrap_used)]

mod addresses;
mod lifecycle;
mod threads;
mod traces;
