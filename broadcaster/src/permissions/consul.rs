//! Consul: the policy of each token.

use super::etcd::{below, spans, wider};
use super::{BROADCASTER, Login, NoPermissions, Span, quotable};
use crate::config::{Config, SecretPattern, StoreConfig};

/// One token of Consul, with a policy of its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConsulAccess {
    /// Whose.
    pub login: Login,
    /// The policy's name.
    pub policy: String,
    /// What it may do.
    pub rules: Vec<ConsulRule>,
    /// Secrets with which it may also read the secrets below them.
    pub wider: Vec<SecretPattern>,
}

/// A rule of a policy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ConsulRule {
    /// To read keys.
    Read(Span),
    /// To read and write keys.
    Write(Span),
    /// To make and end sessions.
    Sessions,
    /// To ask agents for their version.
    Agents,
}

/// The tokens of Consul: the broadcasters', then one for each service that reads values itself.
///
/// # Errors
/// [`NoPermissions`] if the store is another one.
pub fn consul(config: &Config) -> Result<Vec<ConsulAccess>, NoPermissions> {
    let StoreConfig::Consul { .. } = &config.store else {
        return Err(NoPermissions::AnotherServer {
            setting: "store.kind",
            found: config.store.kind().to_owned(),
            expected: "consul",
        });
    };
    let mut rules = vec![ConsulRule::Write(Span::Beginning(below(config)?)), ConsulRule::Sessions, ConsulRule::Agents];
    if let Some(source) = config.store.source_prefix() {
        rules.push(ConsulRule::Read(Span::Beginning(format!("{}/", quotable("store.source_prefix", source)?))));
    }
    let mut all =
        vec![ConsulAccess { login: Login::Broadcasters, policy: BROADCASTER.into(), rules, wider: Vec::new() }];
    for (name, service) in &config.services {
        let mut rules = Vec::new();
        for pattern in &service.secrets {
            rules.extend(spans(config, pattern)?.map(ConsulRule::Read));
        }
        // Consul's names of policies have no dots. So a dot becomes `_d` and an underscore `_u`: no two services share one.
        let policy = format!("rotacast-{}", name.as_str().replace('_', "_u").replace('.', "_d"));
        all.push(ConsulAccess { login: Login::Service(name.clone()), policy, rules, wider: wider(&service.secrets) });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::super::tests::config;
    use super::*;

    #[test]
    fn a_service_reads_and_only_broadcasters_write() {
        let tokens = consul(&config("[store]\nkind = \"consul\"\naddress = \"http://127.0.0.1:8500\"")).unwrap();
        assert_eq!(
            tokens[0].rules,
            [ConsulRule::Write(Span::Beginning("rotacast/".into())), ConsulRule::Sessions, ConsulRule::Agents]
        );
        assert_eq!(tokens[1].policy, "rotacast-led_dger");
        assert_eq!(
            tokens[1].rules[..3],
            [
                ConsulRule::Read(Span::Beginning("rotacast/versions/ledger/db/".into())),
                ConsulRule::Read(Span::Beginning("rotacast/readers/ledger/db/".into())),
                ConsulRule::Read(Span::Key("rotacast/records/ledger/db".into())),
            ]
        );
        assert!(tokens[1..].iter().flat_map(|token| &token.rules).all(|rule| matches!(rule, ConsulRule::Read(_))));
    }
}
