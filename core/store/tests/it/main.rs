//! Every store under the suite, and what is its own.

#![allow(clippy::unwrap_used)]

mod conformance;
mod consul_index;
mod consul_server;
mod embedded_file;
mod etcd_server;
mod etcd_tls;
mod silence;
