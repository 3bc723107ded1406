//! Where Rotacast keeps versions and rotation records.
//!
//! [`Store`] is the seam: a small linearizable key-value interface with list+watch, conditional
//! commits and leader election, implemented by etcd and by an embedded crash-safe file.
//! [`SecretTree`] above it knows the keys, and turns watches into a gap-free stream of versions.

mod error;
mod key;
mod store;

pub use error::StoreError;
pub use key::Key;
pub use store::{
    Check, Commit, Committed, Cursor, Entry, Finding, Leadership, Level, Listing, Store, StoreEvent, Write,
    CALL_TIMEOUT,
};
