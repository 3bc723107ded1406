//! Which server, which roles, and what to do with sessions that are still there.

use std::fmt;
use std::time::Duration;

use rotacast_proto::{FileError, InTheClear, LoginSecret};
use rotacast_protocol::{SecretName, Version};
use thiserror::Error;

/// PostgreSQL silently cuts longer names off (NAMEDATALEN − 1), so that two different ones could be one role.
pub(super) const MAX_IDENTIFIER_BYTES: usize = 63;

/// Where a server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// What `disable` does about sessions that outlive their role's right to log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnLiveSessions {
    /// Waits until each has ended by itself.
    #[default]
    Wait,
    /// Ends them, once so much time has passed since the role was disabled.
    Terminate {
        /// By the server's clock.
        after: Duration,
    },
}

/// How one PostgreSQL server is looked after.
#[derive(Clone)]
pub struct PostgresSettings {
    /// The name of the cluster, which goes into the mark on each role: another cluster never touches it.
    pub cluster: String,
    /// The administrator's connection, as a URL or as `key=value` pairs; read for every connection. Its database must be
    /// the one whose objects the group role owns.
    pub admin: LoginSecret,
    /// The role that owns the objects; every login role is a member of it and acts as it.
    pub group_role: String,
    /// Names a version's role: `{secret}` and `{version}` are filled in, all other than letters and digits of the
    /// secret's name as `_`. Must contain both.
    pub role_name: String,
    /// The database that goes into drawn values.
    pub database: String,
    /// The server, as services reach it; goes into drawn values.
    pub endpoint: Endpoint,
    /// Other addresses of the same server that a value from elsewhere may name: an alias, a pooler.
    pub also_at: Vec<Endpoint>,
    /// What to do about sessions that are still there.
    pub on_live_sessions: OnLiveSessions,
    /// Most connections at once, over all secrets. At least [`PostgresSettings::LEAST_CONNECTIONS`].
    pub max_connections: u32,
    /// How long a new login that the server refuses may still be on its way to it, such as to a replica that lags behind.
    pub settle: Duration,
    /// How often a credential that is in use is tested again.
    pub test_every: Duration,
    /// Allows the administrator's connection to lead to another machine: it is not encrypted.
    pub in_the_clear: bool,
}

impl PostgresSettings {
    /// What `role_name` is unless set.
    pub const ROLE_NAME: &'static str = "{secret}_v{version}";
    /// What `max_connections` is unless set: rotations of many secrets take turns, and the application keeps its connections.
    pub const MAX_CONNECTIONS: u32 = 4;
    /// A test holds the administrator's connection beside the login.
    pub const LEAST_CONNECTIONS: u32 = 2;
    /// What `settle` is unless set.
    pub const SETTLE: Duration = Duration::from_secs(10);
    /// What `test_every` is unless set.
    pub const TEST_EVERY: Duration = Duration::from_secs(24 * 3600);
}

/// Settings that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidSettings {
    /// The administrator's connection does not parse. What it says is not repeated: it may hold a password.
    #[error(
        "the administrator's connection is not valid: expected `postgres://user@host:port/database` or `host=… user=… dbname=…`"
    )]
    Admin,
    /// The file with the administrator's connection cannot be read.
    #[error("{0}")]
    AdminFile(FileError),
    /// The administrator's connection leads to another machine, and that is not allowed by name.
    #[error("the administrator's connection (admin, admin_file or admin_env): {0}")]
    InTheClear(InTheClear),
    /// A name PostgreSQL would cut off, or that is empty.
    #[error("{setting} is not valid: expected 1 to 63 bytes, without control characters")]
    Name {
        /// Which one.
        setting: &'static str,
    },
    /// No call could be made.
    #[error("max_connections is {0}; expected at least 2: a test holds two at once")]
    Connections(u32),
    /// Two versions would share a role.
    #[error("role_name must contain {{secret}} and {{version}}: every version of every secret has a role of its own")]
    Template,
}

pub(super) fn check_name(setting: &'static str, name: &str) -> Result<(), InvalidSettings> {
    let fits = !name.is_empty() && name.len() <= MAX_IDENTIFIER_BYTES && !name.chars().any(char::is_control);
    if fits { Ok(()) } else { Err(InvalidSettings::Name { setting }) }
}

/// The role of a version. `None` when PostgreSQL would cut the name off, and two versions could meet.
pub(super) fn role_name(template: &str, secret: &SecretName, version: Version) -> Option<String> {
    let secret: String = secret.as_str().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let name = template.replace("{secret}", &secret).replace("{version}", &version.to_string());
    (name.len() <= MAX_IDENTIFIER_BYTES).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_named_after_the_secret_and_the_version() {
        let secret = SecretName::new("payments/db.main-1").unwrap();
        let version = Version::new(12).unwrap();
        assert_eq!(role_name(PostgresSettings::ROLE_NAME, &secret, version).unwrap(), "payments_db_main_1_v12");
    }

    #[test]
    fn a_name_that_would_be_cut_off_is_none() {
        let version = Version::new(1).unwrap();
        let name = |length: usize| SecretName::new("a".repeat(length)).unwrap();
        assert_eq!(role_name(PostgresSettings::ROLE_NAME, &name(60), version).unwrap().len(), 63);
        assert_eq!(role_name(PostgresSettings::ROLE_NAME, &name(61), version), None);
    }
}
