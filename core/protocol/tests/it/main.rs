//! What tests the rules together: stories, scenarios, and properties of every input. A test of one rule is beside that rule.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

#[path = "../../src/bench.rs"]
mod bench;
mod properties;
mod scenarios;
mod stories;
mod vocabulary;
