//! Providers as configured.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use rotacast_proto::LoginSecret;
use rotacast_provider::postgres::{Endpoint, OnLiveSessions, PostgresProvider, PostgresSettings};
use rotacast_provider::{Draw, GenerateProvider, Provider};

use super::files::readable;
use crate::config::{AdminSource, PostgresConfig, ProviderConfig, ProviderName, SessionsAtRetire};

/// How many characters a drawn value has unless set: 190 bits out of letters and digits.
const DEFAULT_LENGTH: usize = 32;

/// All configured providers.
pub(super) struct Providers {
    named: BTreeMap<ProviderName, Arc<dyn Provider>>,
    /// For secrets without one: values that no outside system knows.
    none: Arc<dyn Provider>,
}

impl Providers {
    pub(super) fn new(configs: &BTreeMap<ProviderName, ProviderConfig>) -> anyhow::Result<Self> {
        let mut named = BTreeMap::new();
        for (name, config) in configs {
            named.insert(name.clone(), provider(config).with_context(|| format!("[providers.{name}]"))?);
        }
        Ok(Self { named, none: Arc::new(GenerateProvider::default()) })
    }

    pub(super) fn get(&self, name: Option<&ProviderName>) -> Arc<dyn Provider> {
        Arc::clone(name.and_then(|name| self.named.get(name)).unwrap_or(&self.none))
    }
}

fn provider(config: &ProviderConfig) -> anyhow::Result<Arc<dyn Provider>> {
    Ok(match config {
        ProviderConfig::Generate { length, alphabet } => {
            let alphabet = alphabet.as_deref().unwrap_or(Draw::ALPHANUMERIC);
            Arc::new(GenerateProvider::new(Draw::new(length.unwrap_or(DEFAULT_LENGTH), alphabet)?))
        }
        ProviderConfig::Postgres(config) => Arc::new(PostgresProvider::new(postgres(config)?)?),
    })
}

fn postgres(config: &PostgresConfig) -> anyhow::Result<PostgresSettings> {
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
