//! etcd: the keys of each role.

use super::{Login, NoPermissions, broadcasters_user, quotable};
use crate::config::{Config, SecretPattern, StoreConfig};

/// One user of etcd, with a role of the same name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EtcdAccess {
    /// Whose.
    pub login: Login,
    /// Its user and role.
    pub user: String,
    /// What it may do.
    pub grants: Vec<EtcdGrant>,
    /// Secrets with which it may also read the secrets below them.
    pub wider: Vec<SecretPattern>,
}

/// A right to keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EtcdGrant {
    /// Which keys.
    pub span: Span,
    /// Also to write them.
    pub write: bool,
}

/// Keys of a store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Span {
    /// One.
    Key(String),
    /// All that begin like this.
    Beginning(String),
}

/// The users of etcd: the broadcasters', then one for each service that reads values itself.
///
/// # Errors
/// [`NoPermissions`] if the store is another one, or a user cannot be named.
pub fn etcd(config: &Config) -> Result<Vec<EtcdAccess>, NoPermissions> {
    let StoreConfig::Etcd { login, .. } = &config.store else {
        return Err(NoPermissions::AnotherServer {
            setting: "store.kind",
            found: config.store.kind().to_owned(),
            expected: "etcd",
        });
    };
    let user = login.as_ref().map(|login| login.user.as_str());
    let user = broadcasters_user(config, "store.user", user)?;
    let mut grants = vec![EtcdGrant { span: Span::Beginning(below(config)?), write: true }];
    if let Some(source) = config.store.source_prefix() {
        let source = quotable("store.source_prefix", source)?;
        grants.push(EtcdGrant { span: Span::Beginning(format!("{source}/")), write: false });
    }
    let mut all = vec![EtcdAccess { login: Login::Broadcasters, user, grants, wider: Vec::new() }];
    for (name, service) in &config.services {
        let mut grants = Vec::new();
        for pattern in &service.secrets {
            let spans = spans(config, pattern)?;
            grants.extend(spans.into_iter().map(|span| EtcdGrant { span, write: false }));
        }
        all.push(EtcdAccess {
            login: Login::Service(name.clone()),
            user: name.to_string(),
            grants,
            wider: wider(&service.secrets),
        });
    }
    Ok(all)
}

/// Everything of Rotacast's, ending in `/`.
pub(super) fn below(config: &Config) -> Result<String, NoPermissions> {
    let prefix = quotable("store.prefix", config.store.prefix())?;
    Ok(format!("{prefix}/"))
}

/// Secrets whose keys are granted by their beginning, with which come the keys of `SECRET/...`; none if a pattern grants those
/// anyway.
pub(super) fn wider(secrets: &[SecretPattern]) -> Vec<SecretPattern> {
    let covered = |secret: &str| {
        let below = format!("{secret}/");
        secrets.iter().any(|other| other.name().is_none() && below.starts_with(other.beginning()))
    };
    let named = secrets.iter().filter(|pattern| pattern.name().is_some_and(|name| !covered(name.as_str())));
    named.cloned().collect()
}

/// What a service reads that uses these secrets: their versions, the readers that were added to them, and their records.
pub(super) fn spans(config: &Config, pattern: &SecretPattern) -> Result<[Span; 3], NoPermissions> {
    let below = below(config)?;
    Ok(match pattern.name() {
        Some(secret) => [
            Span::Beginning(format!("{below}versions/{secret}/")),
            Span::Beginning(format!("{below}readers/{secret}/")),
            Span::Key(format!("{below}records/{secret}")),
        ],
        None => {
            let beginning = pattern.beginning();
            [
                Span::Beginning(format!("{below}versions/{beginning}")),
                Span::Beginning(format!("{below}readers/{beginning}")),
                Span::Beginning(format!("{below}records/{beginning}")),
            ]
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::config;
    use super::*;

    #[test]
    fn a_service_reads_versions_and_records_of_its_secrets_and_writes_nothing() {
        let settings = "[store]\nkind = \"etcd\"\nendpoints = [\"http://127.0.0.1:2379\"]\nlayout = \"plain\"\n\
                        source_prefix = \"/secrets\"\nprefix = \"/rotacast\"";
        let users = etcd(&config(settings)).unwrap();
        let read = |span| EtcdGrant { span, write: false };
        assert_eq!(
            users[0].grants,
            [
                EtcdGrant { span: Span::Beginning("/rotacast/".into()), write: true },
                read(Span::Beginning("/secrets/".into()))
            ]
        );
        assert_eq!(
            users[1].grants,
            [
                read(Span::Beginning("/rotacast/versions/ledger/db/".into())),
                read(Span::Beginning("/rotacast/readers/ledger/db/".into())),
                read(Span::Key("/rotacast/records/ledger/db".into())),
                read(Span::Beginning("/rotacast/versions/".into())),
                read(Span::Beginning("/rotacast/readers/".into())),
                read(Span::Beginning("/rotacast/records/".into())),
            ]
        );
        assert_eq!(
            users[2].grants[3..],
            [
                read(Span::Beginning("/rotacast/versions/mail/d".into())),
                read(Span::Beginning("/rotacast/readers/mail/d".into())),
                read(Span::Beginning("/rotacast/records/mail/d".into()))
            ]
        );
        // `*` grants what is below ledger/db anyway.
        assert_eq!(users[1].wider, []);
        let named = ["payments/db".parse().unwrap(), "mail/*".parse().unwrap(), "mail/db".parse().unwrap()];
        assert_eq!(wider(&named), [named[0].clone()]);
        assert_eq!(etcd(&config("")).unwrap_err().to_string(), "store.kind is embedded, expected etcd");
    }
}
