//! Where Rotacast keeps versions and rotation records.
//!
//! [`Store`] is the seam: a small linearizable key-value interface with list+watch, conditional
//! commits and leader election, implemented by etcd, by Consul and by an embedded crash-safe file.
//! [`SecretTree`] above it knows the keys, and turns watches into a gap-free stream of versions.
#![cfg_attr(test, allow(clippy::unwrap_used))]

#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "consul")]
mod consul;
#[cfg(feature = "embedded")]
mod embedded;
mod error;
#[cfg(feature = "etcd")]
mod etcd;
#[cfg(any(feature = "consul", feature = "embedded", feature = "etcd"))]
mod history;
mod key;
mod store;
mod tree;

#[cfg(feature = "consul")]
pub use consul::{ConsulOptions, ConsulStore, ConsulTls};
#[cfg(feature = "embedded")]
pub use embedded::EmbeddedStore;
pub use error::StoreError;
#[cfg(feature = "etcd")]
pub use etcd::{EtcdOptions, EtcdStore, EtcdTls, EtcdUser};
pub use key::{InvalidPrefix, Key, Prefix};
pub use rotacast_proto::{Finding, Level};
pub use store::{
    CALL_TIMEOUT, Check, Commit, Committed, Cursor, Entry, Leadership, Listing, MAX_COMMIT_BYTES, MAX_COMMIT_OPS,
    Setback, Store, StoreEvent, Write,
};
pub use tree::{
    Created, ImportEvent, PlainImporter, Published, RecordEntry, SecretTree, StoredVersion, VersionEvent, VersionStamp,
};
