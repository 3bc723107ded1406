//! The suite on every store.

mod consul;
mod embedded;
mod etcd;
