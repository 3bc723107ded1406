//! NATS: the subjects of each login.

use rotacast_bus::{NatsRights, NatsSecrets};

use super::{Login, NoPermissions, broadcasters_user};
use crate::config::{BusConfig, Config, NatsLogin, SecretPattern};

/// One login of NATS.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NatsAccess {
    /// Whose.
    pub login: Login,
    /// Its user.
    pub user: String,
    /// What it may do.
    pub rights: NatsRights,
    /// Patterns of secrets for which it may also read the states of other secrets, which hold no values.
    pub widened: Vec<SecretPattern>,
}

/// The logins of NATS: the broadcasters', then one for each service. Services that are not named have none.
///
/// # Errors
/// [`NoPermissions`] if the bus is another one, or a user cannot be named.
pub fn nats(config: &Config) -> Result<Vec<NatsAccess>, NoPermissions> {
    let BusConfig::Nats { login, .. } = &config.bus else {
        return Err(NoPermissions::AnotherServer {
            setting: "bus.kind",
            found: config.bus.kind().to_owned(),
            expected: "nats",
        });
    };
    let user = if let NatsLogin::Password(login) = login { Some(login.user.as_str()) } else { None };
    let broadcasters = NatsAccess {
        login: Login::Broadcasters,
        user: broadcasters_user(config, "bus.user", user)?,
        rights: NatsRights::broadcaster(&config.cluster),
        widened: Vec::new(),
    };
    let services = config.services.iter().map(|(name, service)| {
        let named: Vec<_> = service.secrets.iter().map(|pattern| (pattern, pattern.name())).collect();
        let secrets = named.iter().map(|(pattern, name)| (*pattern, of(pattern, name.as_ref())));
        let widened = secrets.clone().filter(|(_, secrets)| secrets.is_widened());
        NatsAccess {
            login: Login::Service(name.clone()),
            user: name.to_string(),
            widened: widened.map(|(pattern, _)| pattern.clone()).collect(),
            rights: NatsRights::service(&config.cluster, name, secrets.map(|(_, secrets)| secrets)),
        }
    });
    Ok(std::iter::once(broadcasters).chain(services).collect())
}

fn of<'s>(pattern: &'s SecretPattern, name: Option<&'s rotacast_protocol::SecretName>) -> NatsSecrets<'s> {
    match name {
        Some(name) => NatsSecrets::Named(name),
        None => NatsSecrets::Beginning(pattern.beginning()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::config;
    use super::*;

    #[test]
    fn each_service_has_a_login_with_its_own_secrets() {
        let logins = nats(&config("[bus]\nkind = \"nats\"\nurl = \"nats://127.0.0.1:4222\"")).unwrap();
        let users: Vec<_> = logins.iter().map(|login| login.user.as_str()).collect();
        assert_eq!(users, ["rotacast-broadcaster", "led.ger", "payments-api"]);
        assert_eq!(
            logins[2].rights.subscribe,
            [
                "rotacast.prod.inbox.payments-api.>",
                "rotacast.prod.registered.payments-api.*.*",
                "rotacast.prod.state.mail.>",
                "rotacast.prod.state.payments.>"
            ]
        );
        assert_eq!(logins[2].widened, ["mail/d*".parse().unwrap()]);
        assert_eq!(logins[1].widened, []);
    }

    #[test]
    fn another_bus_and_a_shared_user_are_refused() {
        let problem = nats(&config("")).unwrap_err();
        assert_eq!(problem.to_string(), "bus.kind is embedded, expected nats");
        let shared =
            "[bus]\nkind = \"nats\"\nurl = \"nats://127.0.0.1:4222\"\nuser = \"payments-api\"\npassword_file = \"p\"";
        assert!(matches!(nats(&config(shared)), Err(NoPermissions::SharedUser { .. })));
    }
}
