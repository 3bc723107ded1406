//! PostgreSQL: the administrator of each provider, which is no superuser.

use super::{NoPermissions, quotable};
use crate::config::{Config, ProviderConfig, ProviderName};

/// What one provider's administrator needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PostgresAccess {
    /// Which provider.
    pub provider: ProviderName,
    /// The database that services connect to.
    pub database: String,
    /// The role that owns the objects.
    pub group: String,
}

/// The providers that are PostgreSQL servers.
///
/// # Errors
/// [`NoPermissions`] if there is none, or a name cannot be quoted.
pub fn postgres(config: &Config) -> Result<Vec<PostgresAccess>, NoPermissions> {
    let mut all = Vec::new();
    for (name, provider) in &config.providers {
        let ProviderConfig::Postgres(postgres) = provider else { continue };
        let quoted = |setting: &str, text: &str| quotable(format!("providers.{name}.{setting}"), text);
        all.push(PostgresAccess {
            provider: name.clone(),
            database: quoted("database", &postgres.database)?,
            group: quoted("group_role", &postgres.group_role)?,
        });
    }
    if all.is_empty() {
        return Err(NoPermissions::AnotherServer {
            setting: "providers",
            found: "without one of kind postgres".into(),
            expected: "at least one",
        });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::super::tests::config;
    use super::*;

    #[test]
    fn each_provider_says_what_its_administrator_needs() {
        let provider = "[providers.pg]\nkind = \"postgres\"\nadmin = \"host=/run user=a\"\ngroup_role = \"app owner\"\n\
                        database = \"app\"\nhost = \"127.0.0.1\"";
        let all = postgres(&config(provider)).unwrap();
        assert_eq!((all.len(), all[0].group.as_str(), all[0].database.as_str()), (1, "app owner", "app"));
        assert!(postgres(&config("")).is_err());
        let hostile = provider.replace("app owner", "a\\\"; DROP ROLE x; --");
        assert!(matches!(postgres(&config(&hostile)), Err(NoPermissions::Unquotable { .. })));
    }
}
