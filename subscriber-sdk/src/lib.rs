//! Rotacast's subscriber SDK.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod builder;
mod clock;
mod connect;
mod credential;
mod driver;
mod error;
mod handle;
mod hooks;
mod live;
mod source;
mod subscriber;
#[cfg(feature = "testing")]
pub mod testing;
mod trust;

pub use builder::{Builder, START_TIMEOUT};
pub use clock::Clock;
pub use credential::{CredentialView, DatabaseCredential};
pub use error::{Error, ErrorKind};
pub use handle::{Changes, SecretHandle};
pub use hooks::{HOOK_TIMEOUT, HookOutcome, Hooks, Refusal};
pub use live::Guard;
#[cfg(feature = "grpc")]
pub use source::FetchSource;
pub use source::{StoreSource, ValueSource};
pub use subscriber::{LEAVE_BOUND, Subscriber};

#[cfg(feature = "nats")]
pub use rotacast_bus::NatsCredentials;
pub use rotacast_proto::{SecretValue, SigningKey, VerifyingKey};
pub use rotacast_protocol::{Instant, Version};
