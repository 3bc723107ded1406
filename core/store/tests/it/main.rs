//! Every store under the suite, and the tests of what only one store has.

#![allow(clippy::unwrap_used)]

mod conformance;
mod consul_index;
mod consul_server;
mod embedded_file;
mod etcd_server;
mod etcd_tls;
mod silence;
