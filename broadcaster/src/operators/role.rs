//! A role: which orders, on which secrets, and what may be read of them.

use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use rotacast_protocol::SecretName;

use super::right::{OrderKind, Reading};
use crate::config::SecretPattern;

/// Longest name of a role, in bytes: as of a provider.
const MAX_NAME_BYTES: usize = 64;

/// How a role is called.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RoleName(String);

impl RoleName {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RoleName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let fits = text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'));
        match !text.is_empty() && text.len() <= MAX_NAME_BYTES && fits {
            true => Ok(Self(text.into())),
            false => {
                Err(format!("role {text:?} is not valid: expected 1 to {MAX_NAME_BYTES} of a-z, 0-9, '_' and '-'"))
            }
        }
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// How an order that a role allows takes effect.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub enum Terms {
    /// At once.
    #[default]
    Alone,
    /// After so many other operators have approved it in time.
    Approvals { needed: NonZeroU32, within: Duration },
    /// At once, if the order says so; with a reason, and for everyone to see.
    Emergency,
}

/// What the operators who have it may do.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Role {
    /// About which secrets.
    pub secrets: Vec<SecretPattern>,
    /// Which orders they may give.
    pub orders: BTreeSet<OrderKind>,
    /// What they may read.
    pub read: BTreeSet<Reading>,
    /// How their orders take effect.
    pub terms: Terms,
}

impl Role {
    /// Whether it is about a secret; `None`: about all of them, and the broadcaster itself.
    #[must_use]
    pub fn is_about(&self, secret: Option<&SecretName>) -> bool {
        match secret {
            Some(secret) => self.secrets.iter().any(|pattern| pattern.matches(secret)),
            None => self.secrets.iter().any(|pattern| pattern.as_str() == "*"),
        }
    }

    /// Whether it allows an order.
    #[must_use]
    pub fn allows(&self, order: OrderKind, secret: Option<&SecretName>) -> bool {
        self.orders.contains(&order) && self.is_about(secret)
    }

    /// Whether it lets something be read. Metrics name no secret.
    #[must_use]
    pub fn reads(&self, what: Reading, secret: Option<&SecretName>) -> bool {
        self.read.contains(&what) && (what == Reading::Metrics || self.is_about(secret))
    }
}
