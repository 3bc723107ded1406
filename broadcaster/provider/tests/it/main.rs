//! Every provider under the suite, and the tests of what only one provider has.

#![allow(clippy::unwrap_used)]

mod generate;
#[cfg(feature = "postgres")]
mod postgres;
