//! One version's value, as the service sees it.

use std::fmt;

use rotacast_proto::SecretValue;
use rotacast_protocol::{SecretName, Version};
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error as _};
use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind};

/// One version of a secret with its value. The value is wiped from memory when the last holder drops it. `Debug` shows the
/// version and never the value.
pub struct CredentialView {
    secret: SecretName,
    version: Version,
    value: SecretValue,
}

impl CredentialView {
    pub(crate) fn new(secret: SecretName, version: Version, value: SecretValue) -> Self {
        Self { secret, version, value }
    }

    /// The secret's name.
    #[must_use]
    pub fn secret(&self) -> &SecretName {
        &self.secret
    }

    /// The version's number.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The bytes of the value. Do not log them, and keep no copy beyond the guard.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        self.value.expose()
    }

    /// Parses the value as JSON.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`], with line and column, without the text.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(self.expose()).map_err(|error| {
            // serde_json's own message may quote the value.
            let (line, column, category) = (error.line(), error.column(), error.classify());
            Error::new(
                ErrorKind::Malformed,
                format!(
                    "{} version {} is not the JSON it is read as: {category:?} error at line {line}, column {column}",
                    self.secret, self.version
                ),
                "compare the value's fields with the type it is read into",
            )
        })
    }

    /// Parses the value as a database credential.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`], with line and column, without the text.
    pub fn database(&self) -> Result<DatabaseCredential, Error> {
        self.json()
    }

    /// Whether a text gives the value away: as a whole, or one of its strings when it is a JSON object.
    pub(crate) fn appears_in(&self, text: &str) -> bool {
        const SHORTEST: usize = 4; // Shorter ones occur in ordinary words.
        let shown = |secret: &str| secret.len() >= SHORTEST && text.contains(secret);
        let fields: Option<serde_json::Map<String, serde_json::Value>> = serde_json::from_slice(self.expose()).ok();
        std::str::from_utf8(self.expose()).is_ok_and(shown)
            || fields.is_some_and(|fields| {
                fields
                    .iter()
                    .filter(|(name, _)| !PUBLIC_FIELDS.contains(&name.as_str()))
                    .any(|(_, value)| value.as_str().is_some_and(shown))
            })
    }
}

/// Fields of a database credential that are no secret, and that an error may need to name.
const PUBLIC_FIELDS: [&str; 5] = ["engine", "host", "port", "username", "dbname"];

impl fmt::Debug for CredentialView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CredentialView({} {:?})", self.secret, self.version)
    }
}

/// A database credential with the field names of AWS. Unknown fields are ignored.
#[derive(Clone, Deserialize)]
pub struct DatabaseCredential {
    /// `postgres`, `mysql`, …; empty if the value does not say.
    #[serde(default)]
    pub engine: String,
    /// The database's host.
    pub host: String,
    /// The database's port. In the value, a number or a string with a number.
    #[serde(deserialize_with = "port")]
    pub port: u16,
    /// The login's name.
    pub username: String,
    /// The login's password. It is wiped from memory when dropped.
    #[serde(deserialize_with = "password")]
    pub password: Zeroizing<String>,
    /// The database's name; empty if the value does not say.
    #[serde(default)]
    pub dbname: String,
}

impl fmt::Debug for DatabaseCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseCredential({}@{}:{}/{})", self.username, self.host, self.port, self.dbname)
    }
}

fn password<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Zeroizing<String>, D::Error> {
    String::deserialize(deserializer).map(Zeroizing::new)
}

fn port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Port {
        Number(u16),
        Text(String),
    }
    match Port::deserialize(deserializer)? {
        Port::Number(port) => Ok(port),
        Port::Text(text) => text.parse().map_err(|_| D::Error::custom("port is no number from 0 to 65535")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(value: &str) -> CredentialView {
        let secret = SecretName::new("payments/db").unwrap();
        CredentialView::new(secret, Version::FIRST, SecretValue::new(value.as_bytes().to_vec()))
    }

    #[test]
    fn a_database_credential_reads_awss_fields_and_either_kind_of_port() {
        for port in ["5432", "\"5432\""] {
            let text = format!(
                r#"{{"engine":"postgres","host":"db","port":{port},"username":"app_v1","password":"hunter22","dbname":"pay","extra":1}}"#
            );
            let credential = view(&text).database().unwrap();
            assert_eq!((credential.port, credential.password.as_str()), (5432, "hunter22"));
            assert!(!format!("{credential:?}").contains("hunter22"));
        }
    }

    #[test]
    fn a_json_error_does_not_quote_the_value() {
        let error = view(r#""hunter22""#).database().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Malformed);
        assert!(!format!("{error} {error:?}").contains("hunter22"), "{error}");
    }

    #[test]
    fn a_text_that_gives_the_value_away_is_noticed() {
        let credential = view(r#"{"username":"app_v1","password":"hunter22"}"#);
        assert!(credential.appears_in("password hunter22 is wrong"));
        assert!(!credential.appears_in("login of app_v1 failed"));
        assert!(view("s3cr3t").appears_in("it is s3cr3t"));
    }
}
