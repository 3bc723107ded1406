//! The `rotacast` program, run as people and scripts run it: against a broadcaster whose state the test sets, and as a
//! broadcaster.

#![allow(clippy::unwrap_used)]

mod alone;
mod audit_tampering;
mod on_the_machine;
mod orders;
mod pasted;
mod reading;
mod replicas;
mod scripted_broadcaster;
mod seals;
mod serve_lifecycle;
mod serve_without_servers;
mod sign_ins;
mod waiting;
