//! Every provider under the suite, and what is its own.

#![allow(clippy::unwrap_used)]

mod generate;
#[cfg(feature = "postgres")]
mod postgres;
