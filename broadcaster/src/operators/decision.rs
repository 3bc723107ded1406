//! Whether an operator may give an order.

use std::num::NonZeroU32;
use std::time::Duration;

use rotacast_protocol::coordinator::Reason;
use rotacast_protocol::{OperatorName, SecretName};

use super::Operators;
use super::right::OrderKind;
use super::role::{RoleName, Terms};

/// Most roles that a refusal names: it travels in headers.
const MAX_NAMED: usize = 5;

/// By what right an order is carried out, and why it was given: the audit log has it.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Warrant {
    /// None: no role is configured.
    pub role: Option<RoleName>,
    pub reason: Option<Reason>,
    /// Alone, by a role for emergencies.
    pub emergency: bool,
    /// Who has approved it.
    pub approvals: Vec<OperatorName>,
}

/// What an order waits for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NeedsApprovals {
    pub role: RoleName,
    /// Of so many operators besides the one who gives it.
    pub needed: NonZeroU32,
    /// Within this time.
    pub within: Duration,
}

/// What is to become of an order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision {
    /// It is carried out at once, by this role; none: no role is configured.
    Granted { role: Option<RoleName> },
    /// Others have to approve it.
    NeedsApprovals(NeedsApprovals),
    /// No role of the operator allows it.
    Denied { problem: String, fix: String },
}

impl Operators {
    /// Decides about an order. `secret` is `None` for one that is about none; `emergency`: its operator wants to act alone by a
    /// role for emergencies. Of several roles, the one that asks for least counts.
    #[must_use]
    pub fn decide(
        &self,
        operator: &OperatorName,
        order: OrderKind,
        secret: Option<&SecretName>,
        emergency: bool,
    ) -> Decision {
        if !self.people.contains_key(operator) {
            let problem = format!("{operator} is no operator any more");
            return Decision::Denied { problem, fix: "the configuration lists operators under [operators]".into() };
        }
        if self.roles.is_empty() {
            return match emergency {
                true => Decision::Denied {
                    problem: "no role is configured, so there are none for emergencies".into(),
                    fix: "leave --emergency out: every order is carried out at once".into(),
                },
                false => Decision::Granted { role: None },
            };
        }
        let able = || self.roles_of(operator).filter(|(_, role)| role.allows(order, secret));
        let first_aid = able().find(|(_, role)| role.terms == Terms::Emergency).map(|(name, _)| name.clone());
        match (emergency, first_aid) {
            (true, Some(name)) => Decision::Granted { role: Some(name) },
            (true, None) => {
                let about = about(secret);
                Decision::Denied {
                    problem: format!("{operator} has no role for emergencies that allows {order}{about}"),
                    fix: "leave --emergency out, or ask an operator who has one (`emergency = true` under [roles])"
                        .into(),
                }
            }
            (false, first_aid) => {
                if let Some((name, _)) = able().find(|(_, role)| role.terms == Terms::Alone) {
                    return Decision::Granted { role: Some(name.clone()) };
                }
                let rules = able().filter_map(|(name, role)| match role.terms {
                    Terms::Approvals { needed, within } => Some(NeedsApprovals { role: name.clone(), needed, within }),
                    Terms::Alone | Terms::Emergency => None,
                });
                match (rules.min_by_key(|rule| rule.needed), first_aid) {
                    (Some(rule), _) => Decision::NeedsApprovals(rule),
                    (None, Some(name)) => Decision::Denied {
                        problem: format!("{operator} may {order}{} in emergencies only (role {name})", about(secret)),
                        fix: "add --emergency and --reason: the order is carried out at once, is on record, and is shown to everyone"
                            .into(),
                    },
                    (None, None) => self.denied(operator, order, secret),
                }
            }
        }
    }

    /// Whether an operator may approve another one's order: who may give it may.
    ///
    /// # Errors
    /// What is wrong, and what is needed.
    pub fn may_approve(
        &self,
        operator: &OperatorName,
        order: OrderKind,
        secret: Option<&SecretName>,
    ) -> Result<(), (String, String)> {
        let all = self.roles.is_empty() && self.people.contains_key(operator);
        if all || self.roles_of(operator).any(|(_, role)| role.allows(order, secret)) {
            return Ok(());
        }
        match self.denied(operator, order, secret) {
            Decision::Denied { problem, fix } => Err((format!("{problem}, and so cannot approve it"), fix)),
            Decision::Granted { .. } | Decision::NeedsApprovals(_) => Ok(()),
        }
    }

    fn denied(&self, operator: &OperatorName, order: OrderKind, secret: Option<&SecretName>) -> Decision {
        let about = about(secret);
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

fn about(secret: Option<&SecretName>) -> String {
    secret.map(|secret| format!(" {secret}")).unwrap_or_default()
}

/// The first few of many names.
fn named(names: &[&str]) -> String {
    let first = names[..names.len().min(MAX_NAMED)].join(", ");
    match names.len().saturating_sub(MAX_NAMED) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}
