//! Errors, by what the service can do about them.

use std::fmt;

/// The kinds of errors, for programs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting of the builder, an environment variable or a file is missing or wrong.
    Config,
    /// This instance's key, or a trusted key, is missing or unusable.
    Identity,
    /// The bus, the store or every broadcaster does not answer.
    Unreachable,
    /// The secret has no version yet.
    NoSuchSecret,
    /// No lease allows the use of any version at the moment: neither a broadcaster nor the store has answered for too long.
    Lapsed,
    /// The bus, the store or the broadcaster refuses this instance.
    Denied,
    /// The service's own hook refused the version.
    Refused,
    /// A value does not parse as what you asked for, or a stored record is damaged.
    Malformed,
    /// The subscriber was closed or has left.
    Closed,
    /// Guards were still held at the end of [`Subscriber::leave`](crate::Subscriber::leave)'s wait.
    InUse,
}

/// An error of this crate: what happened, where, and what to do about it. It never contains a value.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    what: String,
    fix: String,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, what: what.into(), fix: fix.into() }))
    }

    /// An error of a [`ValueSource`](crate::ValueSource) or a test double outside this crate.
    #[must_use]
    pub fn external(kind: ErrorKind, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(kind, what, fix)
    }

    /// The kind, for programs.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What to do about it; empty if no advice applies.
    #[must_use]
    pub fn fix(&self) -> &str {
        &self.0.fix
    }

    /// Whether the same call may succeed later, without a change of settings.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self.kind(), ErrorKind::Unreachable | ErrorKind::Lapsed | ErrorKind::NoSuchSecret | ErrorKind::InUse)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)?;
        if self.0.fix.is_empty() { Ok(()) } else { write!(f, "; {}", self.0.fix) }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)
    }
}

impl std::error::Error for Error {}

impl From<rotacast_bus::BusError> for Error {
    fn from(error: rotacast_bus::BusError) -> Self {
        use rotacast_bus::BusError as Bus;
        let (kind, fix) = match &error {
            Bus::Unreachable { .. } => (ErrorKind::Unreachable, "check the address and that the bus is up"),
            Bus::NoLeader { .. } => {
                (ErrorKind::Unreachable, "start a broadcaster (`rotacast serve`) on this bus and cluster")
            }
            Bus::Denied { .. } => (ErrorKind::Denied, "check this instance's credentials and permissions on the bus"),
            Bus::Cancelled => (ErrorKind::Closed, ""),
            _ => (ErrorKind::Config, "run `rotacast doctor`"),
        };
        Self::new(kind, error.to_string(), fix)
    }
}

#[cfg(any(feature = "consul", feature = "etcd"))]
impl From<rotacast_store::StoreError> for Error {
    fn from(error: rotacast_store::StoreError) -> Self {
        use rotacast_store::StoreError as Store;
        let (kind, fix) = match &error {
            Store::Unreachable { .. } | Store::Unwritable { .. } => {
                (ErrorKind::Unreachable, "check the address and that the store is up")
            }
            Store::Denied { .. } => {
                (ErrorKind::Denied, "check this instance's credentials and permissions in the store")
            }
            Store::Cancelled => (ErrorKind::Closed, ""),
            Store::Sealed { problem: rotacast_seal::SealError::NoKey { .. }, .. } => (
                ErrorKind::Denied,
                "put this service's public sealing key, which `rotacast keygen` wrote beside its private one, as `sealing_key` \
                 under [services] into the broadcaster's configuration and reload it: the leader then wraps the value for it; \
                 or get values from broadcasters with .broadcasters(…)",
            ),
            Store::Corrupt { .. } | Store::Sealed { .. } => (ErrorKind::Malformed, "run `rotacast doctor`"),
            _ => (ErrorKind::Config, "run `rotacast doctor`"),
        };
        Self::new(kind, error.to_string(), fix)
    }
}

#[cfg(all(test, any(feature = "consul", feature = "etcd")))]
mod tests {
    use rotacast_proto::KeyId;
    use rotacast_seal::{ReaderName, SealError};
    use rotacast_store::StoreError;

    use super::*;

    #[test]
    fn a_value_that_is_sealed_for_others_says_for_which_keys_and_how_to_be_one_of_them() {
        let key = |byte: u8| KeyId::of(&[byte; 32]);
        let sealed_for =
            vec![(ReaderName::Broadcasters, key(1)), (ReaderName::Service("ledger".parse().unwrap()), key(2))];
        let problem = SealError::NoKey { sealed_for, at_hand: vec![key(3)] };
        let error = Error::from(StoreError::Sealed { key: "rotacast/versions/payments/db/1".into(), problem });
        assert_eq!(error.kind(), ErrorKind::Denied);
        let text = error.to_string();
        for expected in ["service ledger", "sealing_key", "rotacast/versions/payments/db/1"] {
            assert!(text.contains(expected), "{expected:?} is missing: {text}");
        }
        assert!([1, 2, 3].iter().all(|byte| text.contains(key(*byte).as_str())), "{text}");
        let damaged = Error::from(StoreError::Sealed { key: "k".into(), problem: SealError::Ciphertext });
        assert_eq!(damaged.kind(), ErrorKind::Malformed);
    }
}
