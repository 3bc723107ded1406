//! Whether an operator may give an order.

use rotacast_protocol::coordinator::Reason;
use rotacast_protocol::{OperatorName, SecretName};

use super::Operators;
use super::right::OrderKind;
use super::role::RoleName;

/// Most roles that a refusal names: it travels in headers.
const MAX_NAMED: usize = 5;

/// By what right an order is carried out, and why it was given: the audit log has it.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Warrant {
    /// None: no role is configured.
    pub role: Option<RoleName>,
    pub reason: Option<Reason>,
}

/// What is to become of an order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision {
    /// It is carried out at once, by this role; none: no role is configured.
    Granted { role: Option<RoleName> },
    /// No role of the operator allows it.
    Denied { problem: String, fix: String },
}

impl Operators {
    /// Decides about an order. `secret` is `None` for one that is about none.
    #[must_use]
    pub fn decide(&self, operator: &OperatorName, order: OrderKind, secret: Option<&SecretName>) -> Decision {
        if !self.people.contains_key(operator) {
            let problem = format!("{operator} is no operator any more");
            return Decision::Denied { problem, fix: "the configuration lists operators under [operators]".into() };
        }
        if self.roles.is_empty() {
            return Decision::Granted { role: None };
        }
        match self.roles_of(operator).find(|(_, role)| role.allows(order, secret)) {
            Some((name, _)) => Decision::Granted { role: Some(name.clone()) },
            None => self.denied(operator, order, secret),
        }
    }

    fn denied(&self, operator: &OperatorName, order: OrderKind, secret: Option<&SecretName>) -> Decision {
        let about = secret.map(|secret| format!(" {secret}")).unwrap_or_default();
        let pattern = secret.map_or("*", SecretName::as_str);
        let own: Vec<&str> = self.roles_of(operator).map(|(name, _)| name.as_str()).collect();
        let own = if own.is_empty() { "none".to_owned() } else { named(&own) };
        let able: Vec<&str> =
            self.roles.iter().filter(|(_, role)| role.allows(order, secret)).map(|(name, _)| name.as_str()).collect();
        let needed = format!("a role with \"{order}\" in orders and {pattern} in secrets");
        let fix = match able.as_slice() {
            [] => format!(
                "needed is {needed}, and there is none: add one under [roles] in the broadcaster's configuration"
            ),
            able => format!(
                "needed is {needed}, such as {}: add it to roles of [operators.{operator}] in the broadcaster's configuration, or \
                 ask an operator who has it",
                named(able)
            ),
        };
        Decision::Denied { problem: format!("{operator} may not {order}{about} (roles: {own})"), fix }
    }
}

/// The first few of many names.
fn named(names: &[&str]) -> String {
    let first = names[..names.len().min(MAX_NAMED)].join(", ");
    match names.len().saturating_sub(MAX_NAMED) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}
