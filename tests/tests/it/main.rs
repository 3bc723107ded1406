//! Rotacast against real servers, end to end.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod approvals;
mod broadcaster_killed;
mod canary;
mod dashboard;
mod dashboard_scale;
mod failed_start;
mod forged_messages;
mod homes;
mod kafka_faults;
mod key_rotation;
mod main_job;
mod one_fault;
mod outages;
mod permissions;
mod pool_service;
mod prometheus;
mod random_faults;
mod refused_servers;
mod renewed_certificates;
mod replicas;
mod service_faults;
mod store_restored;
mod traces;
mod versions_while_down;
mod world;
