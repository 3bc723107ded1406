//! Connections: the administrator's, and what the server's answers mean for the caller.

use std::time::Duration;

use rotacast_proto::LoginSecret;
use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls};

use super::foreign;
use super::role::Problem;
use super::settings::InvalidSettings;

/// Longest wait for a connection: a server that takes longer is overloaded, and the call comes again.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection may take to say goodbye before it is cut.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection and the task that drives it; cut when dropped.
pub(super) struct Connection {
    client: Option<Client>,
    driver: JoinHandle<()>,
}

impl Connection {
    pub(super) async fn open(config: &Config) -> Result<Self, tokio_postgres::Error> {
        let (client, connection) = config.connect(NoTls).await?;
        let driver = tokio::spawn(async move {
            // A call on the client ends with an error of its own.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a PostgreSQL connection ended");
            }
        });
        Ok(Self { client: Some(client), driver })
    }

    pub(super) fn client(&mut self) -> &mut Client {
        self.client.as_mut().expect("taken by close alone, which consumes the connection")
    }

    /// Says goodbye.
    pub(super) async fn close(mut self) {
        drop(self.client.take());
        // Too late or not, the drop cuts it.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, &mut self.driver).await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The administrator's connection as it is described now.
pub(super) fn config(login: &LoginSecret) -> Result<Config, InvalidSettings> {
    let text = login.read().map_err(InvalidSettings::AdminFile)?;
    let mut config: Config = text.trim().parse().map_err(|_| InvalidSettings::Admin)?;
    if config.get_hosts().is_empty() || config.get_user().is_none() {
        return Err(InvalidSettings::Admin);
    }
    config.application_name("rotacast").connect_timeout(CONNECT_TIMEOUT);
    Ok(config)
}

/// Opens the administrator's connection.
pub(super) async fn open(login: &LoginSecret) -> Result<Connection, Problem> {
    let config = config(login).map_err(|problem| Problem::Denied(problem.to_string()))?;
    let connecting = tokio::time::timeout(CONNECT_TIMEOUT, Connection::open(&config)).await;
    match connecting {
        Err(_) => Err(Problem::Unreachable("no answer to the administrator's login within 5 s".into())),
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(match error.code() {
            Some(code)
                if code == &SqlState::INVALID_PASSWORD || code == &SqlState::INVALID_AUTHORIZATION_SPECIFICATION =>
            {
                Problem::Denied(format!("its login is refused ({})", told(&error)))
            }
            Some(code) if code == &SqlState::INVALID_CATALOG_NAME => {
                Problem::Denied(format!("its database does not exist ({})", told(&error)))
            }
            _ => Problem::Unreachable(told(&error)),
        }),
    }
}

/// What an error of the administrator's statements means. No statement carries a password, so that the server's
/// words may be repeated.
impl From<tokio_postgres::Error> for Problem {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.code() {
            Some(code) if code == &SqlState::INSUFFICIENT_PRIVILEGE => Problem::Denied(told(&error)),
            _ => Problem::Unreachable(told(&error)),
        }
    }
}

/// The error and its cause in one line, without what drives a terminal: the server quotes names that others chose.
pub(super) fn told(error: &tokio_postgres::Error) -> String {
    use std::error::Error as _;
    if let Some(server) = error.as_db_error() {
        return foreign::told(&format!("{} {}", server.code().code(), server.message()));
    }
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
