//! Where Rotacast keeps versions and rotation records.
//!
//! The seam has two halves. [`ReadStore`] is what an instance needs: a small linearizable key-value interface with
//! list and watch. `Store`, behind the feature `leader`, adds conditional commits and leader election. etcd, Consul and an
//! embedded crash-safe file implement them. [`SecretReader`] and, for leaders, `SecretTree` above them know the keys.
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
#[cfg(any(feature = "leader", feature = "consul", feature = "etcd"))]
mod history;
mod key;
#[cfg(feature = "leader")]
mod leader;
mod reader;
mod store;
#[cfg(feature = "leader")]
mod tree;

#[cfg(feature = "consul")]
pub use consul::{ConsulOptions, ConsulStore};
#[cfg(feature = "embedded")]
pub use embedded::EmbeddedStore;
pub use error::StoreError;
#[cfg(feature = "etcd")]
pub use etcd::{EtcdOptions, EtcdStore, EtcdUser};
pub use key::{InvalidPrefix, Key, Prefix};
pub use reader::{RecordEntry, SecretReader, StoredVersion};
pub use rotacast_proto::{ClientTls, Finding, Level, LoginSecret, ServerFault};
use store::NO_ANSWER;
pub use store::{CALL_TIMEOUT, Cursor, Entry, Listing, ReadStore, StoreEvent};

#[cfg(any(feature = "leader", feature = "consul", feature = "etcd"))]
pub use history::Setback;
#[cfg(feature = "leader")]
pub use leader::{
    Check, Commit, Committed, Leadership, MAX_COMMIT_BYTES, MAX_COMMIT_OPS, MAX_STORED_BYTES, Store, Write,
};
#[cfg(feature = "leader")]
pub use tree::{
    AuditHead, AuditHeads, Created, ImportEvent, Owner, PlainImporter, Published, Readers, Records, Rewrapped, Roster,
    RosterEntry, SealState, SecretTree, StoredAuditHead, StoredRequest, VersionEvent, VersionStamp,
};
