//! Real servers for tests.
//!
//! ```no_run
//! # async fn example() {
//! use rotacast_test_servers::Etcd;
//!
//! let Some(mut etcd) = Etcd::start().await else { return }; // missing: fails, or is skipped and counted
//! let endpoint = etcd.endpoint();
//! etcd.kill().await; // SIGKILL
//! etcd.restart().await; // same port, same data
//! # }
//! ```
//!
//! A test that only needs *a* server shares one per test binary with [`Etcd::shared`], and keeps to the
//! names that [`Shared::name`] gives it.
//!
//! Servers listen on free loopback ports, keep their data in a scratch folder, and end with the test
//! process however that ends: a watchdog holds the other end of a pipe. A failed test prints the end of
//! the server's log and keeps the folder.
//!
//! `tools/servers install` fetches the servers. They are looked for in `ROTACAST_ETCD`, `ROTACAST_ETCDCTL`,
//! `ROTACAST_NATS`, `ROTACAST_CONSUL`, `ROTACAST_JAVA` (a binary each), `ROTACAST_KAFKA` and `ROTACAST_POSTGRES` (a folder
//! each), `ROTACAST_CHROMIUM`, `ROTACAST_CHROMEDRIVER`, `ROTACAST_AXE`, `ROTACAST_PROMETHEUS` and `ROTACAST_PROMTOOL` (a file
//! each), then `.servers/`, then the system.

// An internal crate: a doc comment is there where it says more than the name.
#![allow(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod certificates;
mod chromedriver;
mod consul;
mod disk;
mod etcd;
mod find;
mod kafka;
mod nats;
mod network;
mod port;
mod postgres;
mod probe;
mod process;
mod prometheus;
mod proxy;
mod scratch;
mod server;
mod shared;
mod until;
mod watchdog;

pub use certificates::make_certificates;
pub use chromedriver::{ChromeDriver, axe};
pub use consul::{Consul, ConsulCertificates, ConsulConfig};
pub use disk::Disk;
pub use etcd::Etcd;
pub use find::skip;
pub use kafka::{Kafka, KafkaCluster, KafkaConfig};
pub use nats::{Nats, NatsConfig};
pub use network::Network;
pub use port::free_port;
pub use postgres::Postgres;
pub use process::Process;
pub use prometheus::{Prometheus, Promtool};
pub use proxy::Proxy;
pub use scratch::Scratch;
pub use server::Server;
pub use shared::Shared;
pub use until::until;
