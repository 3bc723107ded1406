//! The only type a secret's value lives in.

use zeroize::{Zeroize, Zeroizing};

/// A secret's value: wiped when dropped, and without `Debug`, `Display` or `Serialize`, so that no
/// log line, error or report can carry it.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(Zeroizing<Vec<u8>>);

impl SecretValue {
    /// Longest value, in bytes: etcd refuses requests over 1.5 MiB and Consul values over 512 KiB.
    pub const MAX_BYTES: usize = 256 * 1024;

    /// Takes over the bytes.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Copies the bytes in and wipes the source.
    #[must_use]
    pub fn take(source: &mut [u8]) -> Self {
        let value = Self::new(source.to_vec());
        source.zeroize();
        value
    }

    /// The bytes. The caller answers for where they go.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
