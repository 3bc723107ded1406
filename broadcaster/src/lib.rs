//! The Rotacast broadcaster: watches versions, announces them, follows every instance and retires
//! what nobody uses any more.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod api;
pub mod audit;
pub mod broadcaster;
pub mod config;
pub mod dev;
pub mod driver;
pub mod health;
pub mod log;
pub mod metrics;
pub mod serve;
pub mod signal;
pub mod systemd;
pub mod traces;
pub mod web;
