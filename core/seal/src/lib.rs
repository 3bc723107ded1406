//! Values sealed at rest.
//!
//! A version's value is encrypted under a data key of its own. The data key is wrapped for each *reader*: the broadcasters, and
//! every service that the configuration lets use the secret. What the store holds, [`Sealed`], is useless without the
//! private sealing key of one of them.
//!
//! | layer | what |
//! |---|---|
//! | value | ChaCha20-Poly1305 under a data key that is drawn for this version; cluster, secret and version are associated data |
//! | data key | HPKE (RFC 9180) in base mode: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305; `info` is cluster, secret and version |
//!
//! [`AddedReaders`] holds the same data key wrapped for readers that came later, so that [`Sealed`] itself never changes.
//! Nothing here is derived from the value except its ciphertext: there is no digest to try guesses against.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cipher;
mod error;
mod format;
mod key;

pub use cipher::{Place, Reader, ReaderSet, add_readers, can_open, open, seal};
pub use error::SealError;
pub use format::{AddedReaders, MAX_ADDED_READERS, MAX_OVERHEAD, MAX_READERS, Sealed, WrappedKey};
pub use key::{KeyFile, KeyUse, ReaderName, SealingKey, SealingKeys, SealingPublicKey, create_key_file};
