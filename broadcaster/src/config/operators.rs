//! Who may do what: operators and their roles.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::str::FromStr;

use rotacast_proto::VerifyingKey;
use rotacast_protocol::OperatorName;

use super::reader::{Section, suggestion};
use crate::operators::{Operator, Operators, OrderKind, Reading, Role, RoleName};
use crate::settings::SCHEDULE;
use crate::token::TokenDigest;

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
        token: section.parse::<TokenDigest>("token"),
        roles: some(section, "roles").unwrap_or_default(),
    };
    if !section.has("keys") && !section.has("token") {
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
        if operator.token.is_some() && operator.token == theirs.token {
            section.problem("token", format!("has the same token as {other}; expected one of its own"));
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
