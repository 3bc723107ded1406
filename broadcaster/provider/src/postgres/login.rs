//! Logging in with a credential, as a service would.

use tokio_postgres::Config;
use tokio_postgres::error::SqlState;

use super::admin::{CONNECT_TIMEOUT, Connection};
use super::foreign;
use super::value::LoginValue;

/// How a login went.
pub(super) enum Login {
    /// It works; the session is open.
    In(Connection),
    /// The server refuses it, and will again. Nothing the server says is repeated, since it quotes the value.
    Refused {
        why: &'static str,
        /// The server refused the identity itself. Otherwise the login got further, or never came to it, which proves nothing
        /// about the credential.
        at_authentication: bool,
    },
    /// It cannot be told.
    Unclear(String),
}

/// What PgBouncer answers where it refuses a login itself, under the code of a protocol violation, as it does for whatever goes
/// wrong: `client.c` (`disconnect_client`), 1.17 to 1.25. Later releases also use 28P01. What else it says under that code, such
/// as that it is full or cannot reach the server, is about no login.
const POOLER_REFUSALS: [&str; 3] = ["password authentication failed", "SASL authentication failed", "no such user"];

/// Logs in with exactly what the value says. `name` shows as the session's application.
pub(super) async fn log_in(value: &LoginValue, name: &str) -> Login {
    let mut config = Config::new();
    config
        .host(&value.endpoint.host)
        .port(value.endpoint.port)
        .dbname(&value.database)
        .user(&value.username)
        .password(value.password.as_bytes())
        .application_name(name)
        .connect_timeout(CONNECT_TIMEOUT);
    let attempt = async {
        let mut connection = Connection::open(&config).await?;
        connection.client().simple_query("SELECT 1").await?;
        Ok::<_, tokio_postgres::Error>(connection)
    };
    let error = match tokio::time::timeout(CONNECT_TIMEOUT, attempt).await {
        Ok(Ok(connection)) => return Login::In(connection),
        Ok(Err(error)) => error,
        Err(_) => return Login::Unclear("no answer to the login within 5 s".into()),
    };
    match error.code() {
        Some(_) if is_poolers_refusal(&error) => {
            let why = "the pooler refuses the login, or does not know it (08P01)";
            Login::Refused { why, at_authentication: true }
        }
        Some(code) => match refusal(code) {
            Some(why) => Login::Refused { why, at_authentication: is_of_the_identity(&error) },
            None => Login::Unclear(format!("the server answers the login with {}", foreign::name(code.code()))),
        },
        None if error.is_closed() => Login::Unclear("the server closed the connection during the login".into()),
        // The client's own words: it never quotes what it was given.
        None => Login::Unclear(super::admin::told(&error)),
    }
}

/// Whether the server knows no such login. An address that `pg_hba.conf` does not list has the code of a role that may not log
/// in; the routine of the server's that refuses is another one.
fn is_of_the_identity(error: &tokio_postgres::Error) -> bool {
    let Some(error) = error.as_db_error() else { return false };
    *error.code() == SqlState::INVALID_PASSWORD
        || *error.code() == SqlState::INVALID_AUTHORIZATION_SPECIFICATION
            && error.routine() == Some("InitializeSessionUserId")
}

fn is_poolers_refusal(error: &tokio_postgres::Error) -> bool {
    let refusal = error.as_db_error().filter(|error| *error.code() == SqlState::PROTOCOL_VIOLATION);
    refusal.is_some_and(|error| POOLER_REFUSALS.contains(&error.message()))
}

fn refusal(code: &SqlState) -> Option<&'static str> {
    let refusals = [
        (&SqlState::INVALID_PASSWORD, "the password is wrong, or there is no such role (28P01)"),
        (
            &SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
            "the role does not exist, may not log in, or pg_hba.conf has no line for it from here (28000)",
        ),
        (&SqlState::INVALID_CATALOG_NAME, "the database does not exist (3D000)"),
        (&SqlState::INSUFFICIENT_PRIVILEGE, "the role may not connect to the database (42501)"),
    ];
    refusals.into_iter().find(|(refused, _)| *refused == code).map(|(_, why)| why)
}
