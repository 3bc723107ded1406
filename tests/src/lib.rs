//! Rotacast against real servers: the harness that end-to-end tests, conformance runs and benchmarks share.

// An internal crate: a doc comment is there where it says more than the name.
#![allow(missing_docs)]

pub mod browser;
pub mod collector;
pub mod http;
pub mod pool_service;
pub mod world;

/// Real servers, started, stopped, killed, paused and cut off at will.
pub use rotacast_test_servers as servers;
