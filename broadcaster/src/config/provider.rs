//! What makes, tests and retires credentials.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use rotacast_provider::postgres::PostgresSettings;

use super::backend::IN_THE_CLEAR;
use super::reader::Section;

/// How a provider is called in the configuration.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ProviderName(String);

impl ProviderName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ProviderName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let fits = text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'));
        match !text.is_empty() && text.len() <= 64 && fits {
            true => Ok(Self(text.into())),
            false => Err(format!("provider {text:?} is not valid: expected 1 to 64 of a-z, 0-9, '_' and '-'")),
        }
    }
}

impl fmt::Display for ProviderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// One provider.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ProviderConfig {
    /// Random text that no outside system knows.
    Generate {
        /// How many characters; none: the provider's own choice.
        length: Option<usize>,
        /// Out of which; none: letters and digits.
        alphabet: Option<String>,
    },
    /// PostgreSQL: a login role per version.
    Postgres(PostgresConfig),
}

/// Where the administrator's connection string comes from. It may hold a password, so it is never in the file itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AdminSource {
    /// In the file, without a password (peer or certificate authentication).
    Text(String),
    /// A file that holds it.
    File(PathBuf),
    /// An environment variable that holds it.
    Variable(String),
}

/// One PostgreSQL server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PostgresConfig {
    /// The administrator's connection.
    pub admin: AdminSource,
    /// The role that owns the objects.
    pub group_role: String,
    /// Names a version's role; none: `{secret}_v{version}`.
    pub role_name: Option<String>,
    /// The database that services connect to.
    pub database: String,
    /// The server, as services reach it.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Other addresses of the same server, `host:port`.
    pub also_at: Vec<(String, u16)>,
    /// What to do with sessions that are still there when their credential retires.
    pub sessions: SessionsAtRetire,
    /// Most connections at once, over all its secrets.
    pub max_connections: u32,
    /// How long a new login that is refused may still be on its way to a replica.
    pub settle: Duration,
    /// How often a credential that is in use is tested again.
    pub test_every: Duration,
    /// Allows an administrator's connection to another machine, without encryption.
    pub in_the_clear: bool,
}

/// What to do with sessions that are still there when their credential retires.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionsAtRetire {
    /// Wait until each has ended by itself.
    Wait,
    /// End them after so much time.
    TerminateAfter(Duration),
}

/// A test holds two connections at once. Above, a broadcaster would be the server's largest client.
const CONNECTIONS: std::ops::RangeInclusive<u32> = 2..=100;
/// A replica that lags behind for longer is not fit for logins. The test of a login ends well within the bound of an effect.
const SETTLE: std::ops::RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(30);
/// Each test is a login, and one that fails is a line in the server's log.
const TEST_EVERY: std::ops::RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(365 * 24 * 3600);

#[derive(Clone, Copy)]
enum Kind {
    Generate,
    Postgres,
}

pub(super) fn read(section: &Section<'_, '_>) -> BTreeMap<ProviderName, ProviderConfig> {
    let mut providers = BTreeMap::new();
    for (name, section) in section.named_sections() {
        let name = name.parse().map_err(|error| section.problem_here(error)).ok();
        let kinds = [("generate", Kind::Generate), ("postgres", Kind::Postgres)];
        if section.required_text("kind", "expected \"generate\" or \"postgres\"").is_none() {
            continue;
        }
        let provider = match section.choice("kind", &kinds) {
            Some(Kind::Generate) => {
                Some(ProviderConfig::Generate { length: section.integer("length"), alphabet: section.text("alphabet") })
            }
            Some(Kind::Postgres) => read_postgres(&section).map(ProviderConfig::Postgres),
            None => continue,
        };
        section.finish();
        if let (Some(name), Some(provider)) = (name, provider) {
            providers.insert(name, provider);
        }
    }
    providers
}

fn read_postgres(section: &Section<'_, '_>) -> Option<PostgresConfig> {
    let admin = read_admin(section);
    let group_role = section.required_text("group_role", "the role that owns the objects");
    let database = section.required_text("database", "the database that services connect to");
    let host = section.required_text("host", "the server, as services reach it");
    let port = section.integer("port").unwrap_or(5432);
    let mut also_at = Vec::new();
    for text in section.texts("also_at").unwrap_or_default() {
        let endpoint = text.rsplit_once(':').and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?)));
        match endpoint {
            Some(endpoint) => also_at.push(endpoint),
            None => {
                section.problem("also_at", format!("{text:?} is no address; expected such as \"pooler.internal:6432\""))
            }
        }
    }
    let sessions = match section.text_or_section("on_live_sessions") {
        None => SessionsAtRetire::Wait,
        Some(Ok(text)) if text == "wait" => SessionsAtRetire::Wait,
        Some(Ok(text)) => {
            let problem =
                format!("{text:?} is not one of the choices; expected \"wait\" or {{ terminate_after = \"30s\" }}");
            section.problem("on_live_sessions", problem);
            SessionsAtRetire::Wait
        }
        Some(Err(table)) => {
            let after = table.duration("terminate_after");
            table.finish();
            if after.is_none() {
                section.problem("on_live_sessions", "names no time; expected { terminate_after = \"30s\" }".into());
            }
            after.map_or(SessionsAtRetire::Wait, SessionsAtRetire::TerminateAfter)
        }
    };
    let role_name = section.text("role_name");
    if role_name.as_ref().is_some_and(|name| !(name.contains("{secret}") && name.contains("{version}"))) {
        section.problem(
            "role_name",
            "must contain {secret} and {version}: every version of every secret has a role of its own".into(),
        );
    }
    Some(PostgresConfig {
        admin: admin?,
        group_role: group_role?,
        role_name,
        database: database?,
        host: host?,
        port,
        also_at,
        sessions,
        max_connections: section
            .integer_within("max_connections", &CONNECTIONS)
            .unwrap_or(PostgresSettings::MAX_CONNECTIONS),
        settle: section.duration_within("settle", &SETTLE).unwrap_or(PostgresSettings::SETTLE),
        test_every: section.duration_within("test_every", &TEST_EVERY).unwrap_or(PostgresSettings::TEST_EVERY),
        in_the_clear: section.flag(IN_THE_CLEAR).unwrap_or_default(),
    })
}

fn read_admin(section: &Section<'_, '_>) -> Option<AdminSource> {
    let (text, file, variable) = (section.text("admin"), section.path("admin_file"), section.text("admin_env"));
    match (text, file, variable) {
        (Some(text), None, None) => {
            // The text itself is not repeated: it may hold the password after all.
            let userinfo = text.split_once("://").and_then(|(_, rest)| rest.split(['/', '?']).next()?.split_once('@'));
            if text.contains("password") || userinfo.is_some_and(|(user, _)| user.contains(':')) {
                section.problem("admin", "holds a password; put the whole text into a file that only its owner may read, and name it in admin_file".into());
                return None;
            }
            Some(AdminSource::Text(text))
        }
        (None, Some(file), None) => Some(AdminSource::File(file)),
        (None, None, Some(variable)) => Some(AdminSource::Variable(variable)),
        _ => {
            section.problem("admin_file", "expected exactly one of admin_file, admin_env and admin".into());
            None
        }
    }
}
