//! Providers as configured.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use rotacast_proto::LoginSecret;
use rotacast_protocol::ClusterName;
use rotacast_protocol::record::ProviderId;
use rotacast_provider::postgres::{Endpoint, OnLiveSessions, PostgresProvider, PostgresSettings};
use rotacast_provider::{Draw, GenerateProvider, Provider};

use super::files::readable;
use crate::config::{AdminSource, Config, PostgresConfig, ProviderConfig, ProviderName, SessionsAtRetire};

/// How many characters a drawn value has unless set: 190 bits out of letters and digits.
const DEFAULT_LENGTH: usize = 32;

/// All configured providers.
pub(super) struct Providers {
    named: BTreeMap<ProviderName, Arc<dyn Provider>>,
}

impl Providers {
    pub(super) fn new(config: &Config) -> anyhow::Result<Self> {
        let (mut named, cluster) = (BTreeMap::new(), &config.cluster);
        for (name, config) in &config.providers {
            named.insert(name.clone(), provider(config, cluster).with_context(|| format!("[providers.{name}]"))?);
        }
        Ok(Self { named })
    }

    /// What a record keeps of a provider.
    pub(super) fn id(&self, name: &ProviderName) -> Option<ProviderId> {
        Some(self.named.get(name)?.id(name.as_str()))
    }

    /// The one that can end what `id` made: of the same kind and system. If several are, as for two group roles of one
    /// database, it is the one of the same name: another one could not end it, or is not meant to.
    pub(super) fn find(&self, id: &ProviderId) -> Option<Arc<dyn Provider>> {
        let same =
            |(name, provider): &(&ProviderName, &Arc<dyn Provider>)| provider.id(name.as_str()).is_same_system(id);
        let all: Vec<_> = self.named.iter().filter(same).collect();
        let found = match all[..] {
            [only] => Some(only),
            _ => all.into_iter().find(|(name, _)| name.as_str() == id.name),
        };
        match found {
            Some((_, provider)) => Some(Arc::clone(provider)),
            // Such a value is known to no outside system: there is nothing that a section could add.
            None if id.kind == GenerateProvider::KIND => Some(Arc::new(GenerateProvider::default())),
            None => None,
        }
    }
}

fn provider(config: &ProviderConfig, cluster: &ClusterName) -> anyhow::Result<Arc<dyn Provider>> {
    Ok(match config {
        ProviderConfig::Generate { length, alphabet } => {
            let alphabet = alphabet.as_deref().unwrap_or(Draw::ALPHANUMERIC);
            Arc::new(GenerateProvider::new(Draw::new(length.unwrap_or(DEFAULT_LENGTH), alphabet)?))
        }
        ProviderConfig::Postgres(config) => Arc::new(PostgresProvider::new(postgres(config, cluster)?)?),
    })
}

fn postgres(config: &PostgresConfig, cluster: &ClusterName) -> anyhow::Result<PostgresSettings> {
    let admin = match &config.admin {
        AdminSource::Text(text) => LoginSecret::from(text.clone()),
        AdminSource::File(path) => {
            readable("admin_file", path)?;
            LoginSecret::File(path.clone())
        }
        AdminSource::Variable(name) => LoginSecret::from(
            std::env::var(name).with_context(|| format!("admin_env: the variable {name} is not set"))?,
        ),
    };
    Ok(PostgresSettings {
        cluster: cluster.to_string(),
        max_connections: config.max_connections,
        settle: config.settle,
        test_every: config.test_every,
        in_the_clear: config.in_the_clear,
        admin,
        group_role: config.group_role.clone(),
        role_name: config.role_name.clone().unwrap_or_else(|| PostgresSettings::ROLE_NAME.to_owned()),
        database: config.database.clone(),
        endpoint: Endpoint { host: config.host.clone(), port: config.port },
        also_at: config.also_at.iter().map(|(host, port)| Endpoint { host: host.clone(), port: *port }).collect(),
        on_live_sessions: match config.sessions {
            SessionsAtRetire::Wait => OnLiveSessions::Wait,
            SessionsAtRetire::TerminateAfter(after) => OnLiveSessions::Terminate { after },
        },
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn postgres(name: &str, port: u16) -> String {
        format!(
            "[providers.{name}]\nkind = \"postgres\"\nadmin = \"host=localhost user=u dbname=app\"\ngroup_role = \"{name}\"\n\
             database = \"app\"\nhost = \"h\"\nport = {port}\nalso_at = [\"h:5432\"]\n"
        )
    }

    fn providers(sections: &str) -> Providers {
        let text = format!("cluster = \"a\"\n{sections}");
        Providers::new(&Config::parse(Path::new("r.toml"), &text, &|_| None).unwrap()).unwrap()
    }

    #[test]
    fn what_made_a_version_is_found_under_another_name_and_not_at_another_address() {
        let id = providers(&postgres("payments", 5432)).id(&"payments".parse().unwrap()).unwrap();
        assert_eq!(id.to_string(), "payments (postgres app at h:5432)");
        let find = |sections: &str| providers(sections).find(&id).map(|found| found.describe());
        assert_eq!(find(&postgres("renamed", 5432)).as_deref(), Some("postgres app at h:5432"));
        // Also where the new address claims to be another one of the same server.
        assert_eq!(find(&postgres("payments", 5433)), None);
        assert_eq!(find("[providers.payments]\nkind = \"generate\"\n"), None);
        assert_eq!(find(""), None);
    }

    #[test]
    fn an_administrator_beyond_this_machine_is_allowed_by_name_only() {
        let section = postgres("payments", 5432).replace("host=localhost", "host=pg.internal");
        let build = |more: &str| {
            let text = format!("cluster = \"a\"\n{section}{more}");
            Providers::new(&Config::parse(Path::new("r.toml"), &text, &|_| None).unwrap()).map(drop)
        };
        let told = format!("{:#}", build("").unwrap_err());
        assert!(told.starts_with("[providers.payments]: ") && told.contains("set in_the_clear = true"), "{told}");
        build("in_the_clear = true\n").unwrap();
    }

    #[test]
    fn among_several_of_one_system_only_the_name_says_which_made_a_version() {
        let (payments, billing) = (postgres("payments", 5432), postgres("billing", 5432));
        let id = providers(&payments).id(&"payments".parse().unwrap()).unwrap();
        let find = |sections: &str| providers(sections).find(&id);
        assert!(find(&billing).is_some(), "the only one");
        let both = providers(&format!("{payments}{billing}"));
        assert!(Arc::ptr_eq(&both.find(&id).unwrap(), &both.named[&"payments".parse().unwrap()]));
        assert!(find(&format!("{billing}{}", postgres("renamed", 5432))).is_none(), "a guess");
    }

    #[test]
    fn what_no_outside_system_knows_needs_no_section_to_end() {
        let id = providers("[providers.random]\nkind = \"generate\"\n").id(&"random".parse().unwrap()).unwrap();
        assert!(providers("").find(&id).is_some());
    }
}
