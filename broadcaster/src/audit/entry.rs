//! What is written, and what is read back.

use rotacast_protocol::{AuditChain, RotationNumber, SecretName};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One thing that happened, to be written down.
#[derive(Clone, PartialEq, Debug)]
pub struct Entry {
    pub(super) actor: String,
    pub(super) action: String,
    pub(super) secret: Option<SecretName>,
    pub(super) rotation: Option<RotationNumber>,
    pub(super) details: Map<String, Value>,
}

impl Entry {
    /// `actor` did `action`: an operator's name, `broadcaster`, `store` or `schedule`, and a snake_case verb.
    #[must_use]
    pub fn new(actor: impl Into<String>, action: impl Into<String>) -> Self {
        Self { actor: actor.into(), action: action.into(), secret: None, rotation: None, details: Map::new() }
    }

    /// With another actor.
    #[must_use]
    pub fn by(mut self, actor: impl Into<String>) -> Self {
        self.actor = actor.into();
        self
    }

    /// To which secret.
    #[must_use]
    pub fn secret(mut self, secret: SecretName) -> Self {
        self.secret = Some(secret);
        self
    }

    /// In the rotation of this number, if any.
    #[must_use]
    pub fn rotation(mut self, number: Option<RotationNumber>) -> Self {
        self.rotation = number;
        self
    }

    /// One more fact. Never a value: the type that holds values cannot be turned into JSON.
    #[must_use]
    pub fn detail(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.details.insert(name.into(), value.into());
        self
    }
}

/// An entry as it stands in the log. Fields of later formats are left out.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Recorded {
    /// The line format's number.
    pub format: u32,
    /// Of which log it is.
    pub chain: AuditChain,
    /// Counts entries from 1, across files. It leaves numbers out only where an operator has accepted a loss.
    pub sequence: u64,
    /// RFC 3339, for people.
    pub time: String,
    /// Unix milliseconds.
    pub time_ms: u64,
    pub actor: String,
    /// Which secret, if one.
    pub secret: Option<SecretName>,
    /// The rotation's number, if in one.
    pub rotation: Option<RotationNumber>,
    /// What was done.
    pub action: String,
    /// Facts by name.
    pub details: Map<String, Value>,
    /// The hash of the line before; zeros for the first.
    pub prev: String,
    /// This line's hash.
    pub hash: String,
}
