//! Where values and the record come from.

#[cfg(feature = "grpc")]
mod fetch;
#[cfg(any(feature = "consul", feature = "etcd"))]
mod store;

use async_trait::async_trait;
use rotacast_proto::SecretValue;
use rotacast_protocol::message::SecretState;
use rotacast_protocol::{SecretName, Version};

#[cfg(feature = "grpc")]
pub use fetch::FetchSource;
#[cfg(feature = "grpc")]
pub(crate) use fetch::FetchTarget;
#[cfg(any(feature = "consul", feature = "etcd"))]
pub use store::StoreSource;

use crate::error::Error;

/// Reads values, and the desired state, from the store. Implement it for a store of your own.
///
/// Every call ends within a few seconds, or fails with [`ErrorKind::Unreachable`](crate::ErrorKind::Unreachable).
#[async_trait]
pub trait ValueSource: Send + Sync + 'static {
    /// What and where the source is, for messages to people.
    fn describe(&self) -> String;

    /// Reads the desired state, linearizably: the answer shows every change that was acknowledged before the call. Self-leases
    /// rest on this; a stale answer breaks the promise that no credential is retired too early.
    ///
    /// # Errors
    /// [`ErrorKind::NoSuchSecret`](crate::ErrorKind::NoSuchSecret) if there is no record of the secret; otherwise
    /// [`Unreachable`](crate::ErrorKind::Unreachable), [`Denied`](crate::ErrorKind::Denied) or
    /// [`Malformed`](crate::ErrorKind::Malformed).
    async fn read_state(&self, secret: &SecretName) -> Result<SecretState, Error>;

    /// Reads the value of one version. At most 256 KiB.
    ///
    /// # Errors
    /// As [`read_state`](Self::read_state). The error never contains the value.
    async fn read_value(&self, secret: &SecretName, version: Version) -> Result<SecretValue, Error>;
}
