//! What may be allowed: orders, and what is read.

use std::fmt;
use std::str::FromStr;

use rotacast_protocol::coordinator::OrderName;
use thiserror::Error;

/// What an operator can order. All but the last are about a secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum OrderKind {
    /// Write the next version.
    Put,
    /// What the coordinator of a secret takes.
    Secret(OrderName),
    /// Go on although entries of the audit log are lost.
    AcceptAuditLoss,
}

impl OrderKind {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        let of_secrets = OrderName::ALL.iter().copied().map(Self::Secret);
        std::iter::once(Self::Put).chain(of_secrets).chain(std::iter::once(Self::AcceptAuditLoss))
    }

    /// The name, as everywhere.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Secret(name) => name.as_str(),
            Self::AcceptAuditLoss => "accept_audit_loss",
        }
    }

    /// Whether it may end what is in use, or gives up what is known: it needs a reason.
    #[must_use]
    pub const fn needs_reason(self) -> bool {
        match self {
            Self::AcceptAuditLoss => true,
            Self::Put => false,
            Self::Secret(name) => match name {
                OrderName::Pause
                | OrderName::Rollback
                | OrderName::Override
                | OrderName::Gone
                | OrderName::Abandon
                | OrderName::LeaveSafeMode => true,
                OrderName::Rotate | OrderName::Resume | OrderName::Approve | OrderName::Excuse => false,
            },
        }
    }
}

/// What an operator can read. Values are never read.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Reading {
    /// How secrets stand, and orders that wait for approvals; over all secrets also findings.
    Status,
    /// Which instances use them.
    Fleet,
    /// The audit log.
    Audit,
    /// The figures of `/metrics`, which name no secret.
    Metrics,
}

impl Reading {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Status, Self::Fleet, Self::Audit, Self::Metrics];

    /// The name, as in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Fleet => "fleet",
            Self::Audit => "audit",
            Self::Metrics => "metrics",
        }
    }
}

/// Text that names no right.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{found:?} is no {noun}; expected \"*\" or some of {expected}")]
pub struct UnknownRight {
    noun: &'static str,
    found: String,
    expected: String,
}

impl UnknownRight {
    fn new(noun: &'static str, found: &str, known: &[&str]) -> Self {
        Self { noun, found: found.chars().take(64).collect(), expected: known.join(", ") }
    }
}

impl FromStr for OrderKind {
    type Err = UnknownRight;
    fn from_str(text: &str) -> Result<Self, UnknownRight> {
        Self::all().find(|kind| kind.as_str() == text).ok_or_else(|| {
            let known: Vec<&str> = Self::all().map(Self::as_str).collect();
            UnknownRight::new("order", text, &known)
        })
    }
}

impl FromStr for Reading {
    type Err = UnknownRight;
    fn from_str(text: &str) -> Result<Self, UnknownRight> {
        Self::ALL
            .into_iter()
            .find(|reading| reading.as_str() == text)
            .ok_or_else(|| UnknownRight::new("reading", text, &Self::ALL.map(Self::as_str)))
    }
}

impl fmt::Display for OrderKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
