//! Who the operators are, and what each of them may do and read. Pure: no IO, no clock, no randomness.
//!
//! An operator is one person or program, with keys that sign orders, a token that signs in, or both. All of them carry the
//! same rights. Without any role, every operator may do everything alone.

mod decision;
mod right;
mod role;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use rotacast_proto::VerifyingKey;
use rotacast_protocol::{OperatorName, SecretName};

pub use decision::{Decision, NeedsApprovals, Warrant};
pub use right::{OrderKind, Reading, UnknownRight};
pub use role::{Role, RoleName, Terms};

use crate::token::TokenDigest;

/// One person or program.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Operator {
    /// Sign orders. Several while one replaces another.
    pub keys: Vec<VerifyingKey>,
    /// Sign in to the dashboard, and let programs read. Several while one replaces another.
    pub tokens: Vec<TokenDigest>,
    pub roles: BTreeSet<RoleName>,
}

/// With what an operator has shown who they are.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Credential {
    /// A signature by the key of this id.
    Key(String),
    /// The token with this digest.
    Token(TokenDigest),
}

/// An operator who has shown who they are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SignedIn {
    pub name: OperatorName,
    pub credential: Credential,
}

/// All operators and roles, as configured.
#[derive(Clone, Default, PartialEq)]
pub struct Operators {
    people: BTreeMap<OperatorName, Operator>,
    roles: BTreeMap<RoleName, Role>,
}

impl fmt::Debug for Operators {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operators").field("people", &self.people.keys()).field("roles", &self.roles).finish()
    }
}

impl Operators {
    /// These and no others.
    #[must_use]
    pub fn new(people: BTreeMap<OperatorName, Operator>, roles: BTreeMap<RoleName, Role>) -> Self {
        Self { people, roles }
    }

    /// These operators, who may do everything.
    #[must_use]
    pub fn with_keys(people: impl IntoIterator<Item = (OperatorName, VerifyingKey)>) -> Self {
        let operator = |key| Operator { keys: vec![key], ..Operator::default() };
        Self::new(people.into_iter().map(|(name, key)| (name, operator(key))).collect(), BTreeMap::new())
    }

    /// All of them, by name.
    pub fn people(&self) -> impl Iterator<Item = (&OperatorName, &Operator)> {
        self.people.iter()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.people.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.people.is_empty()
    }

    #[must_use]
    pub fn roles(&self) -> &BTreeMap<RoleName, Role> {
        &self.roles
    }

    /// Whose key has this id, and the key.
    #[must_use]
    pub fn by_key(&self, key_id: &str) -> Option<(&OperatorName, &VerifyingKey)> {
        self.people.iter().find_map(|(name, operator)| {
            let key = operator.keys.iter().find(|key| key.id().as_str() == key_id)?;
            Some((name, key))
        })
    }

    /// Whose token it is.
    #[must_use]
    pub fn by_token(&self, digest: &TokenDigest) -> Option<SignedIn> {
        let (name, _) = self.people.iter().find(|(_, operator)| operator.tokens.contains(digest))?;
        Some(SignedIn { name: name.clone(), credential: Credential::Token(*digest) })
    }

    /// Whether what an operator has shown earlier is still theirs.
    #[must_use]
    pub fn holds(&self, operator: &SignedIn) -> bool {
        let Some(known) = self.people.get(&operator.name) else { return false };
        match &operator.credential {
            Credential::Key(id) => known.keys.iter().any(|key| key.id().as_str() == id),
            Credential::Token(digest) => known.tokens.contains(digest),
        }
    }

    fn roles_of<'a>(&'a self, operator: &OperatorName) -> impl Iterator<Item = (&'a RoleName, &'a Role)> {
        let names = self.people.get(operator).into_iter().flat_map(|operator| &operator.roles);
        names.filter_map(|name| self.roles.get_key_value(name))
    }

    /// Whether an operator may read something about a secret. `None`: about all of them, and the broadcaster itself.
    #[must_use]
    pub fn may_read(&self, operator: &OperatorName, what: Reading, secret: Option<&SecretName>) -> bool {
        let known = self.people.contains_key(operator);
        known && (self.roles.is_empty() || self.roles_of(operator).any(|(_, role)| role.reads(what, secret)))
    }

    /// Whether there is anything of the kind that an operator may read.
    #[must_use]
    pub fn may_read_some(&self, operator: &OperatorName, what: Reading) -> bool {
        let known = self.people.contains_key(operator);
        known && (self.roles.is_empty() || self.roles_of(operator).any(|(_, role)| role.read.contains(&what)))
    }

    /// Whether an operator has a role for emergencies.
    #[must_use]
    pub fn has_emergency_role(&self, operator: &OperatorName) -> bool {
        self.roles_of(operator).any(|(_, role)| role.terms == Terms::Emergency)
    }

    /// Whether any order waits for approvals.
    #[must_use]
    pub fn asks_for_approvals(&self) -> bool {
        self.roles.values().any(|role| matches!(role.terms, Terms::Approvals { .. }))
    }

    /// Whether there is an order that an operator may give.
    #[must_use]
    pub fn may_order_some(&self, operator: &OperatorName) -> bool {
        let known = self.people.contains_key(operator);
        known && (self.roles.is_empty() || self.roles_of(operator).any(|(_, role)| !role.orders.is_empty()))
    }
}
