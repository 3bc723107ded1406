//! The `rotacast` program itself, run as people and scripts run it, against a broadcaster whose state is scripted.

mod alone;
mod fake;
mod orders;
mod reading;
mod replicas;
mod waiting;
