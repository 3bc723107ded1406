//! Who may look at the dashboard and act there.

use std::collections::BTreeMap;

use rotacast_protocol::OperatorName;

use super::reader::Section;
use crate::token::{TokenDigest, Tokens};

/// The dashboard, on the address of [`Listen`](super::Listen).
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct DashboardConfig {
    /// Names, besides loopback's, under which browsers reach it without TLS: through a proxy, say.
    pub hosts: Vec<String>,
    /// Who may look and act.
    pub tokens: Tokens,
}

pub(super) fn read(section: &Section<'_, '_>) -> DashboardConfig {
    let hosts = section.texts("hosts").unwrap_or_default();
    for host in &hosts {
        let well = host.parse::<axum::http::uri::Authority>().is_ok_and(|it| it.port().is_none() && it.host() == host);
        if !well {
            section.problem(
                "hosts",
                format!("{host:?}: expected a name without scheme and port, such as \"rotacast.example\""),
            );
        }
    }
    let operators = people(&section.section("operators"));
    let readers = people(&section.section("readers"));
    section.finish();
    for (name, digest) in &readers {
        if let Some((operator, _)) = operators.iter().find(|(_, known)| *known == digest) {
            section.problem(
                "readers",
                format!("{name} has the token of the operator {operator}; expected one of its own"),
            );
        }
    }
    DashboardConfig { hosts, tokens: Tokens { operators, readers } }
}

fn people(section: &Section<'_, '_>) -> BTreeMap<OperatorName, TokenDigest> {
    let mut people: BTreeMap<OperatorName, TokenDigest> = BTreeMap::new();
    for (name, digest) in section.named_texts() {
        match (OperatorName::new(name.as_str()), digest.parse::<TokenDigest>()) {
            (Ok(person), Ok(digest)) => {
                // A token says who acts: shared, it could not.
                if let Some((other, _)) = people.iter().find(|(_, known)| **known == digest) {
                    section.problem(&name, format!("has the same token as {other}; expected one of its own"));
                }
                people.insert(person, digest);
            }
            (Err(error), _) => section.problem(&name, error.to_string()),
            (_, Err(error)) => section.problem(&name, error),
        }
    }
    people
}
