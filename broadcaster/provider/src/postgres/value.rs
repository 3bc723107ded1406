//! A database login as a value: JSON with AWS's field names.

use std::fmt;

use rotacast_proto::SecretValue;
use serde::de::{Deserializer, Error as _, Visitor};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

use super::settings::{Endpoint, MAX_IDENTIFIER_BYTES};

/// Where a value names no port or no database, AWS's rotation functions take these.
const DEFAULT_PORT: u16 = 5432;
const DEFAULT_DATABASE: &str = "postgres";

/// Why a value is no login. Never says what the value holds.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum MalformedValue {
    #[error(
        "the value is not the expected JSON object (line {line}, column {column}); \
         expected engine, host, port, username, password, dbname"
    )]
    Json { line: usize, column: usize },
    #[error("the value's `{0}` is missing or empty")]
    Missing(&'static str),
    #[error("the value's `engine` is not \"postgres\"")]
    Engine,
    #[error("the value's `{0}` is not valid: PostgreSQL takes at most 63 bytes without control characters")]
    Name(&'static str),
    #[error("the value's `password` or `host` holds a NUL character")]
    Nul,
}

/// A login. No `Debug`: it holds the password.
pub(super) struct LoginValue {
    pub(super) endpoint: Endpoint,
    pub(super) username: String,
    pub(super) password: Zeroizing<String>,
    pub(super) database: String,
    /// What tells one drawn value from another of the same version: public, unlike the password.
    pub(super) draw: Option<String>,
}

impl LoginValue {
    /// Reads a value; fields that it does not know are ignored.
    pub(super) fn parse(value: &SecretValue) -> Result<Self, MalformedValue> {
        let fields: Fields = serde_json::from_slice(value.expose())
            // Only the place: serde's message may repeat what it found there.
            .map_err(|error| MalformedValue::Json { line: error.line(), column: error.column() })?;
        if !fields.engine.is_none_or(|engine| matches!(engine.as_str(), "postgres" | "postgresql")) {
            return Err(MalformedValue::Engine);
        }
        let present =
            |field: Option<String>, name| field.filter(|text| !text.is_empty()).ok_or(MalformedValue::Missing(name));
        let identifier = |text: String, name| {
            let fits = text.len() <= MAX_IDENTIFIER_BYTES && !text.chars().any(char::is_control);
            if fits { Ok(text) } else { Err(MalformedValue::Name(name)) }
        };
        let password = fields
            .password
            .map(|password| password.0)
            .filter(|password| !password.is_empty())
            .ok_or(MalformedValue::Missing("password"))?;
        let host = present(fields.host, "host")?;
        if password.contains('\0') || host.contains('\0') {
            return Err(MalformedValue::Nul);
        }
        Ok(Self {
            endpoint: Endpoint { host, port: fields.port.map_or(DEFAULT_PORT, |port| port.0) },
            username: identifier(present(fields.username, "username")?, "username")?,
            password,
            database: identifier(fields.dbname.unwrap_or_else(|| DEFAULT_DATABASE.into()), "dbname")?,
            draw: fields.rotacast_draw,
        })
    }

    /// Writes a drawn value.
    pub(super) fn write(&self) -> SecretValue {
        let written = Written {
            engine: "postgres",
            host: &self.endpoint.host,
            port: self.endpoint.port,
            username: &self.username,
            password: &self.password,
            dbname: &self.database,
            rotacast_draw: self.draw.as_deref(),
        };
        // Roomy enough that the buffer, which holds the password, is never moved: each character takes at most six.
        let text = self.endpoint.host.len() + self.password.len() + 3 * MAX_IDENTIFIER_BYTES;
        let mut bytes = Vec::with_capacity(256 + 6 * text);
        serde_json::to_writer(&mut bytes, &written).expect("text and numbers always serialise into memory");
        SecretValue::new(bytes)
    }
}

#[derive(Deserialize)]
struct Fields {
    engine: Option<String>,
    host: Option<String>,
    port: Option<Port>,
    username: Option<String>,
    password: Option<Password>,
    dbname: Option<String>,
    rotacast_draw: Option<String>,
}

#[derive(Serialize)]
struct Written<'a> {
    engine: &'a str,
    host: &'a str,
    port: u16,
    username: &'a str,
    password: &'a str,
    dbname: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rotacast_draw: Option<&'a str>,
}

/// Wiped when dropped.
struct Password(Zeroizing<String>);

impl<'de> Deserialize<'de> for Password {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Zeroizing::new(text)))
    }
}

/// A number, or a number as text: AWS's own tools write both.
struct Port(u16);

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = Port;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port")
            }
            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Port, E> {
                u16::try_from(number).map(Port).map_err(|_| E::custom("not a port"))
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Port, E> {
                text.parse().map(Port).map_err(|_| E::custom("not a port"))
            }
        }
        let port = deserializer.deserialize_any(Either)?;
        if port.0 == 0 { Err(D::Error::custom("not a port")) } else { Ok(port) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<LoginValue, MalformedValue> {
        LoginValue::parse(&SecretValue::new(text.as_bytes().to_vec()))
    }

    fn problem(text: &str) -> String {
        match parse(text) {
            Ok(_) => panic!("{text} was taken"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        let written = LoginValue {
            endpoint: Endpoint { host: "db.internal".into(), port: 6432 },
            username: "payments_db_v3".into(),
            password: Zeroizing::new("\"quoted\\".into()),
            database: "payments".into(),
            draw: Some("00ff".into()),
        };
        let read = LoginValue::parse(&written.write()).ok().unwrap();
        assert_eq!(read.endpoint, written.endpoint);
        assert_eq!(read.username, written.username);
        assert_eq!(*read.password, *written.password);
        assert_eq!(read.database, written.database);
        assert_eq!(read.draw, written.draw);
    }

    #[test]
    fn values_of_other_tools_are_read() {
        let read =
            parse(r#"{"host":"h","username":"u","password":"p","port":"5433","masterarn":{"a":1}}"#).ok().unwrap();
        assert_eq!(read.endpoint, Endpoint { host: "h".into(), port: 5433 });
        assert_eq!(read.database, "postgres");
    }

    #[test]
    fn a_malformed_value_is_not_repeated() {
        for text in [
            "postgres://u:hunter2@h/db",
            r#""hunter2""#,
            r#"{"password":"hunter2""#,
            r#"{"host":"h","username":"u","password":["hunter2"]}"#,
            r#"{"host":"h","username":"u","password":"hunter2","port":"hunter2"}"#,
            r#"{"host":"h","username":"u","password":"hunter2","port":0}"#,
            r#"{"host":"h","username":"u","password":"hunter2","port":65536}"#,
            r#"{"host":"h","username":"","password":"hunter2"}"#,
            r#"{"username":"hunter2","password":"hunter2"}"#,
            r#"{"host":"h","username":"hunter2","password":""}"#,
            r#"{"engine":"hunter2","host":"h","username":"u","password":"hunter2"}"#,
            r#"{"host":"h","username":"u\u0000","password":"hunter2"}"#,
            r#"{"host":"h","username":"u","password":"hunter2\u0000"}"#,
        ] {
            let problem = problem(text);
            assert!(problem.starts_with("the value") && !problem.contains("hunter2"), "{problem}");
        }
        let long = format!(r#"{{"host":"h","username":"{}","password":"p"}}"#, "u".repeat(64));
        assert!(problem(&long).contains("63 bytes"));
    }
}
