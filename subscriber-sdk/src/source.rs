//! Where values and the record come from.

#[cfg(feature = "grpc")]
mod fetch;
mod store;

use async_trait::async_trait;
use rotacast_proto::SecretValue;
use rotacast_protocol::message::SecretState;
use rotacast_protocol::{SecretName, Version};

#[cfg(feature = "grpc")]
pub use fetch::FetchSource;
#[cfg(feature = "grpc")]
pub(crate) use fetch::FetchTarget;
pub use store::StoreSource;

use crate::error::Error;

/// Reads values, and the desired state as the store has it.
///
/// Every call ends within a few seconds, or with [`ErrorKind::Unreachable`](crate::ErrorKind::Unreachable).
#[async_trait]
pub trait ValueSource: Send + Sync + 'static {
    /// What and where it is, for people.
    fn describe(&self) -> String;

    /// The desired state, read linearizably: it shows every change that was acknowledged before this was called.
    /// Self-leases rest on that.
    ///
    /// # Errors
    /// [`ErrorKind::NoSuchSecret`](crate::ErrorKind::NoSuchSecret) without a record; else by whose fault.
    async fn read_state(&self, secret: &SecretName) -> Result<SecretState, Error>;

    /// One version's value.
    ///
    /// # Errors
    /// By whose fault; never with the value.
    async fn read_value(&self, secret: &SecretName, version: Version) -> Result<SecretValue, Error>;
}
