//! Connections: the administrator's, and what the server's answers mean for the caller.

use std::time::Duration;

use rotacast_proto::{FileError, InTheClear, LoginSecret, Unencrypted};
use tokio::task::JoinHandle;
use tokio_postgres::config::Host;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls};
use zeroize::Zeroizing;

use super::foreign;
use super::role::Problem;
use super::settings::{InvalidSettings, PostgresSettings};

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

/// A connection to PostgreSQL has no TLS yet.
const UNENCRYPTED: Unencrypted<'_> = Unencrypted {
    carries: "its statements, with the verifiers of new passwords, and the administrator's password if the server asks for \
              it as it is,",
    encrypt: "reach the server on this machine, such as through a tunnel, since the provider has no TLS yet",
    allow: "set in_the_clear = true in the provider's section",
};

/// The administrator's connection as it is described now.
pub(super) fn config(
    settings: &PostgresSettings,
    held: Result<Zeroizing<String>, FileError>,
) -> Result<Config, InvalidSettings> {
    let text = held.map_err(InvalidSettings::AdminFile)?;
    let mut config: Config = text.trim().parse().map_err(|_| InvalidSettings::Admin)?;
    if config.get_hosts().is_empty() || config.get_user().is_none() {
        return Err(InvalidSettings::Admin);
    }
    if !settings.in_the_clear {
        beyond_this_machine(&config).map_err(InvalidSettings::InTheClear)?;
    }
    config.application_name("rotacast").connect_timeout(CONNECT_TIMEOUT);
    Ok(config)
}

fn beyond_this_machine(config: &Config) -> Result<(), InTheClear> {
    for (at, host) in config.get_hosts().iter().enumerate() {
        // Without a network.
        let Host::Tcp(name) = host else { continue };
        // The address is connected to, and the name only compared with a certificate.
        let address = config.get_hostaddrs().get(at).map_or_else(|| name.clone(), ToString::to_string);
        UNENCRYPTED.to(&address)?;
    }
    Ok(())
}

/// Opens the administrator's connection.
pub(super) async fn open(settings: &PostgresSettings) -> Result<Connection, Problem> {
    let config = config(settings, settings.admin.fetch().await).map_err(|problem| match &settings.admin {
        LoginSecret::File(file) if !matches!(problem, InvalidSettings::AdminFile(_)) => {
            Problem::OwnFile(format!("{}: {problem}", file.display()))
        }
        _ => Problem::OwnFile(problem.to_string()),
    })?;
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

#[cfg(test)]
mod tests {
    use rotacast_proto::FILE_DEADLINE;

    use super::super::settings::{Endpoint, OnLiveSessions};
    use super::*;

    fn settings(admin: LoginSecret, in_the_clear: bool) -> PostgresSettings {
        PostgresSettings {
            cluster: "test".into(),
            admin,
            group_role: "app_owner".into(),
            role_name: PostgresSettings::ROLE_NAME.into(),
            database: "app".into(),
            endpoint: Endpoint { host: "localhost".into(), port: 5432 },
            also_at: Vec::new(),
            on_live_sessions: OnLiveSessions::Wait,
            max_connections: PostgresSettings::MAX_CONNECTIONS,
            settle: PostgresSettings::SETTLE,
            test_every: PostgresSettings::TEST_EVERY,
            in_the_clear,
        }
    }

    fn told_of(admin: &str, in_the_clear: bool) -> Option<String> {
        let settings = settings(admin.to_owned().into(), in_the_clear);
        config(&settings, settings.admin.read(FILE_DEADLINE)).err().map(|problem| problem.to_string())
    }

    #[test]
    fn the_administrators_connection_leaves_this_machine_only_if_that_is_allowed_by_name() {
        for here in [
            "postgres://root:canary@localhost/app",
            "postgres://root:canary@127.0.0.1:6432/app",
            "postgres://root:canary@[::1]/app",
            "host=/run/postgresql user=root",
            "host=pg.internal hostaddr=127.0.0.1 user=root",
        ] {
            assert_eq!(told_of(here, false), None, "{here}");
        }
        for (there, address) in [
            ("postgres://root:canary@pg.internal:5432/app", "pg.internal"),
            ("postgres://root:canary@localhost,10.0.0.1/app", "10.0.0.1"),
            ("host=localhost hostaddr=10.0.0.1 user=root password=canary", "10.0.0.1"),
        ] {
            assert_eq!(
                told_of(there, false).unwrap(),
                format!(
                    "the administrator's connection (admin, admin_file or admin_env): \"{address}\" is not encrypted and \
                     not on this machine: its statements, with the verifiers of new passwords, and the administrator's \
                     password if the server asks for it as it is, would cross the network in the clear; reach the server \
                     on this machine, such as through a tunnel, since the provider has no TLS yet, or set in_the_clear = \
                     true in the provider's section if something else protects the way there"
                )
            );
            assert_eq!(told_of(there, true), None, "{there}");
        }
    }

    /// On a runtime of one thread, which a single call that blocks would stop.
    #[test]
    fn a_fifo_in_place_of_the_administrators_file_is_our_fault_and_holds_up_no_other_work() {
        let (told, outcome) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("admin");
            assert!(std::process::Command::new("mkfifo").arg(&file).status().unwrap().success());
            let settings = settings(LoginSecret::File(file), false);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let other = async { "the third goes on" };
            told.send(runtime.block_on(async { tokio::join!(open(&settings), open(&settings), other) })).unwrap();
        });
        let (first, second, third) = outcome.recv_timeout(Duration::from_secs(30)).expect("nothing hangs");
        for refused in [first, second] {
            let Err(Problem::OwnFile(problem)) = refused else { panic!("expected a fault of our own file") };
            assert!(
                problem.ends_with("admin: it is a FIFO; expected a regular file: put one in its place"),
                "{problem}"
            );
        }
        assert_eq!(third, "the third goes on");
    }
}
