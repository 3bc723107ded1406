//! The wire contract: its vectors, what is decoded is what was encoded, and what must not be printed.

#![allow(clippy::unwrap_used)]

mod printing;
mod properties;
mod vectors;
