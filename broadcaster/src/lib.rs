//! The Rotacast broadcaster: watches versions, announces them, follows every instance, and retires a version when no
//! instance uses it any more.

#![cfg_attr(test, allow(clippy::unwrap_used))]
// An internal crate: a doc comment is there where it says more than the name.
#![allow(missing_docs)]

pub mod api;
pub mod audit;
pub mod broadcaster;
pub mod certificates;
pub mod config;
pub mod connections;
pub mod dev;
pub mod driver;
pub mod findings;
pub mod hardening;
pub mod health;
pub mod home;
pub mod identities;
pub mod key_book;
pub mod key_uses;
pub mod log;
pub mod metrics;
pub mod operators;
pub mod orders;
pub mod permissions;
pub mod sealing;
pub mod serve;
pub mod settings;
pub mod sign_ins;
pub mod signal;
pub mod systemd;
pub mod token;
pub mod traces;
pub mod viewers;
pub mod web;
