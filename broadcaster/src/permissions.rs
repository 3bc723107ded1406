//! What each login needs at the servers, from the configuration. The command line prints it in each server's own language.
//!
//! Nothing here knows a password, and nothing asks a server.

mod consul;
mod etcd;
mod kafka;
mod nats;
mod postgres;

use std::collections::BTreeSet;
use std::fmt;

use rotacast_protocol::ServiceName;
use thiserror::Error;

use crate::config::Config;

pub use consul::{ConsulAccess, ConsulRule, consul};
pub use etcd::{EtcdAccess, EtcdGrant, Span, etcd};
pub use kafka::{KafkaAccess, KafkaAcl, KafkaResource, kafka};
pub use nats::{NatsAccess, nats};
pub use postgres::{PostgresAccess, postgres};

/// The user of the broadcasters where the configuration names none.
pub const BROADCASTER: &str = "rotacast-broadcaster";

/// Whose login it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Login {
    /// The broadcasters share one.
    Broadcasters,
    /// The instances of a service share one.
    Service(ServiceName),
}

impl fmt::Display for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broadcasters => f.write_str("the broadcasters"),
            Self::Service(service) => write!(f, "service {service}"),
        }
    }
}

/// Why no permissions can be said.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum NoPermissions {
    /// The configuration is about another server.
    #[error("{setting} is {found}, expected {expected}")]
    AnotherServer {
        /// Which setting.
        setting: &'static str,
        /// What it is.
        found: String,
        /// What this command is for.
        expected: &'static str,
    },
    /// Two logins would be one.
    #[error("user {user:?} of {setting} is also the name of a service; choose another user for the broadcasters")]
    SharedUser {
        /// Which setting.
        setting: &'static str,
        /// The name.
        user: String,
    },
    /// A name in the configuration cannot be written in the server's language.
    #[error(
        "{setting} is {found:?}, which cannot be quoted safely: it holds a quote, a backslash or a control character"
    )]
    Unquotable {
        /// Which setting.
        setting: String,
        /// Its value.
        found: String,
    },
}

/// The broadcasters' user, which must be no service's.
fn broadcasters_user(config: &Config, setting: &'static str, user: Option<&str>) -> Result<String, NoPermissions> {
    let user = quotable(setting, user.unwrap_or(BROADCASTER))?;
    match config.services.keys().any(|service| service.as_str() == user) {
        true => Err(NoPermissions::SharedUser { setting, user }),
        false => Ok(user),
    }
}

/// A text that every server's language can quote.
fn quotable(setting: impl Into<String>, text: &str) -> Result<String, NoPermissions> {
    if text.chars().any(|c| c.is_control() || matches!(c, '"' | '\'' | '\\' | '`')) {
        return Err(NoPermissions::Unquotable { setting: setting.into(), found: text.into() });
    }
    Ok(text.to_owned())
}

/// Names of variables that hold passwords, each another one.
#[derive(Debug, Default)]
pub struct Variables(BTreeSet<String>);

impl Variables {
    /// The variable for this login.
    pub fn of(&mut self, server: &str, user: &str) -> String {
        let upper = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
        let name: String = format!("ROTACAST_{server}_PASSWORD_{user}").chars().map(upper).collect();
        let free = (1..).map(|number| if number == 1 { name.clone() } else { format!("{name}_{number}") });
        let free = free.into_iter().find(|name| !self.0.contains(name)).unwrap_or(name);
        self.0.insert(free.clone());
        free
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// A configuration with these settings and two services.
    pub(super) fn config(settings: &str) -> Config {
        let key = |seed: u8| rotacast_proto::SigningKey::from_seed(&[seed; 32]).public().to_text();
        let text = format!(
            "cluster = \"prod\"\n{settings}\n[services.payments-api]\nkeys = [\"{}\"]\nsecrets = [\"payments/*\", \"mail/d*\"]\n\
             [services.\"led.ger\"]\nkeys = [\"{}\"]\nsecrets = [\"ledger/db\", \"*\"]\n",
            key(1),
            key(2)
        );
        Config::parse(Path::new("rotacast.toml"), &text, &|_| None).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn no_two_logins_share_a_variable() {
        let mut variables = Variables::default();
        let all = ["a-b", "a.b", "a_b"].map(|user| variables.of("NATS", user));
        assert_eq!(all, ["ROTACAST_NATS_PASSWORD_A_B", "ROTACAST_NATS_PASSWORD_A_B_2", "ROTACAST_NATS_PASSWORD_A_B_3"]);
    }

    #[test]
    fn what_cannot_be_quoted_is_refused() {
        for text in ["a'b", "a\"b", "a\\b", "a\nb", "a`b"] {
            assert!(quotable("bus.user", text).is_err(), "{text:?}");
        }
        quotable("bus.user", "CN=rotacast,O=Acme $x").unwrap();
    }
}
