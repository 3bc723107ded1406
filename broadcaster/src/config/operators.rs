//! Who may do what: operators and their roles.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use rotacast_proto::VerifyingKey;
use rotacast_protocol::OperatorName;

use super::Config;
use super::pattern::SecretPattern;
use super::reader::{Section, suggestion};
use crate::operators::{Operator, Operators, OrderKind, Reading, Role, RoleName, Terms};
use crate::settings::SCHEDULE;
use crate::token::TokenDigest;

/// Most approvals that a role may ask for: more people are not asked in time.
const APPROVALS: std::ops::RangeInclusive<u32> = 1..=8;
/// How long an order waits for its approvals unless set: long enough to reach a person, and short enough that what they
/// approve is still what they have seen.
const APPROVALS_WITHIN: Duration = Duration::from_secs(3600);
/// Shortest and longest such wait.
const APPROVALS_WITHIN_RANGE: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(7 * 24 * 3600);

/// Who acts in the audit log without being an operator.
const RESERVED: [&str; 3] = ["broadcaster", "store", SCHEDULE];

pub(super) fn read(operators: &Section<'_, '_>, roles: &Section<'_, '_>) -> Operators {
    let roles = read_roles(roles);
    let mut people: BTreeMap<OperatorName, Operator> = BTreeMap::new();
    for (name, section) in operators.named_sections() {
        let operator = read_operator(&name, &section, &roles);
        section.finish();
        match OperatorName::new(name.as_str()) {
            Ok(name) if RESERVED.contains(&name.as_str()) => {
                section.problem_here("is what the audit log calls Rotacast itself; expected another name".into());
            }
            Ok(name) => {
                note_shared(&section, &operator, &people);
                people.insert(name, operator);
            }
            Err(error) => section.problem_here(error.to_string()),
        }
    }
    Operators::new(people, roles)
}

fn read_operator(name: &str, section: &Section<'_, '_>, roles: &BTreeMap<RoleName, Role>) -> Operator {
    let keys = section.texts("keys").unwrap_or_default();
    let keys = keys
        .iter()
        .filter_map(|key| VerifyingKey::parse(key).map_err(|error| section.problem("keys", error.to_string())).ok());
    let operator = Operator {
        keys: keys.collect(),
        tokens: some::<TokenDigest>(section, "tokens").unwrap_or_default().into_iter().collect(),
        roles: some(section, "roles").unwrap_or_default(),
    };
    if !section.has("keys") && !section.has("tokens") {
        section.problem_here(format!(
            "can neither sign nor sign in: add keys (`rotacast keygen --out {name}`), a token (`rotacast token --out {name}`), or both"
        ));
    }
    let known: Vec<&str> = roles.keys().map(RoleName::as_str).collect();
    for role in operator.roles.iter().filter(|role| !roles.contains_key(*role)) {
        section.problem("roles", format!("there is no [roles.{role}]{}", suggestion(role.as_str(), &known)));
    }
    if !roles.is_empty() && !section.has("roles") {
        section.problem_here(format!(
            "has no roles, so it could do nothing: as soon as there are [roles], each operator needs some, such as roles = \
             [{:?}]",
            known[0]
        ));
    }
    operator
}

/// A key says who signed, a token who signed in: shared, they could not.
fn note_shared(section: &Section<'_, '_>, operator: &Operator, others: &BTreeMap<OperatorName, Operator>) {
    for (other, theirs) in others {
        let same_key = |key: &VerifyingKey| theirs.keys.iter().any(|known| known.id() == key.id());
        if operator.keys.iter().any(same_key) {
            section.problem("keys", format!("has the same key as {other}; expected one of its own"));
        }
        if operator.tokens.iter().any(|token| theirs.tokens.contains(token)) {
            section.problem("tokens", format!("has the same token as {other}; expected one of its own"));
        }
    }
}

fn read_roles(section: &Section<'_, '_>) -> BTreeMap<RoleName, Role> {
    let mut roles = BTreeMap::new();
    for (name, section) in section.named_sections() {
        let orders = some_or_all(&section, "orders", OrderKind::all());
        let role = Role {
            secrets: some(&section, "secrets").unwrap_or_default().into_iter().collect(),
            orders: orders.clone().unwrap_or_default(),
            read: some_or_all(&section, "read", Reading::ALL.into_iter()).unwrap_or_else(|| Reading::ALL.into()),
            terms: read_terms(&section, orders.as_ref()),
        };
        if !section.has("secrets") && role.read.iter().any(|what| *what != Reading::Metrics) {
            section.problem("secrets", "is missing; expected such as [\"payments/*\"], or [\"*\"] for all".into());
        }
        let everywhere = role.is_about(None);
        // With "*" it is left out where it could not be given.
        let by_name =
            section.texts("orders").unwrap_or_default().iter().any(|it| it == OrderKind::AcceptAuditLoss.as_str());
        if by_name && !everywhere {
            section.problem(
                "orders",
                format!(
                    "{} is about the audit log of all secrets: it needs secrets = [\"*\"]",
                    OrderKind::AcceptAuditLoss
                ),
            );
        }
        section.finish();
        match name.parse::<RoleName>() {
            Ok(name) => {
                roles.insert(name, role);
            }
            Err(error) => section.problem_here(error),
        }
    }
    roles
}

/// How the orders of a role take effect.
fn read_terms(section: &Section<'_, '_>, orders: Option<&BTreeSet<OrderKind>>) -> Terms {
    let approvals = section.integer_within("approvals", &APPROVALS).and_then(NonZeroU32::new);
    let within = section.duration_within("approvals_within", &APPROVALS_WITHIN_RANGE);
    let emergency = section.flag("emergency").unwrap_or(false);
    match (approvals, emergency) {
        (Some(_), true) => {
            section.problem("emergency", "acts alone, so it goes with no approvals: leave one of both out".into());
            Terms::Emergency
        }
        (Some(needed), false) => {
            if orders.is_some_and(|orders| orders.contains(&OrderKind::Put)) {
                section.problem(
                    "orders",
                    "put cannot wait for approvals, since its value is kept nowhere meanwhile: name the other orders, allow put in a \
                     role without approvals, and have its activation approved (approval = true in [secrets])"
                        .into(),
                );
            }
            Terms::Approvals { needed, within: within.unwrap_or(APPROVALS_WITHIN) }
        }
        (None, emergency) => {
            if within.is_some() {
                section.problem("approvals_within", "needs approvals, such as approvals = 1".into());
            }
            if emergency { Terms::Emergency } else { Terms::Alone }
        }
    }
}

/// A list of names; each that is none is a problem.
fn some<T: FromStr<Err: Display> + Ord>(section: &Section<'_, '_>, key: &'static str) -> Option<BTreeSet<T>> {
    let texts = section.texts(key)?;
    let parsed = texts
        .iter()
        .filter_map(|text| text.parse().map_err(|error: T::Err| section.problem(key, error.to_string())).ok());
    Some(parsed.collect())
}

/// The same, where `"*"` stands for all.
fn some_or_all<T: FromStr<Err: Display> + Ord>(
    section: &Section<'_, '_>,
    key: &'static str,
    all: impl Iterator<Item = T>,
) -> Option<BTreeSet<T>> {
    if section.texts(key)?.iter().any(|text| text == "*") {
        return Some(all.collect());
    }
    some(section, key)
}

/// What may be meant, and more likely is not.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let operators = &config.operators;
    let mut warnings = Vec::new();
    let known: Vec<SecretPattern> = config.secrets.keys().cloned().chain(config.used_patterns()).collect();
    for (name, role) in operators.roles() {
        if !operators.people().any(|(_, operator)| operator.roles.contains(name)) {
            warnings.push(format!("[roles.{name}]: no operator has this role"));
        }
        for pattern in &role.secrets {
            if !known.is_empty() && !known.iter().any(|other| other.overlaps(pattern)) {
                warnings.push(format!(
                    "[roles.{name}]: {pattern:?} fits no secret of [secrets] or [services]; is it spelled as those are?"
                ));
            }
            let Terms::Approvals { needed, .. } = role.terms else { continue };
            let short = role.orders.iter().filter(|order| able(operators, **order, pattern) <= needed.get() as usize);
            let short: Vec<&str> = short.map(|order| order.as_str()).collect();
            if !short.is_empty() {
                warnings.push(format!(
                    "[roles.{name}]: approvals = {needed}, but not enough operators may give {} for {pattern:?}: one \
                     gives it, and {needed} others must approve it",
                    short.join(", ")
                ));
            }
        }
    }
    warnings
}

/// How many operators may give an order about all secrets that a pattern means.
fn able(operators: &Operators, order: OrderKind, pattern: &SecretPattern) -> usize {
    let allows = |role: &RoleName| {
        let role = operators.roles().get(role);
        role.is_some_and(|role| role.orders.contains(&order) && role.secrets.iter().any(|other| other.covers(pattern)))
    };
    operators.people().filter(|(_, operator)| operator.roles.iter().any(allows)).count()
}
