//! The PostgreSQL server that all tests of this binary share, set up as the documentation says.

use rotacast_test_servers::Postgres;
use tokio::sync::OnceCell;
use tokio_postgres::Client;

const ADMIN: (&str, &str) = ("rotacast_admin", "admin-Password-4711-canary");

/// The statements of `docs/operate/providers.md`, which a superuser runs.
pub(crate) const SETUP: &str = include_str!("setup.sql");

pub(crate) struct Server {
    postgres: Postgres,
}

/// The server, started once; `None` when it is missing and its tests are to be skipped.
pub(crate) async fn server() -> Option<&'static Server> {
    static SERVER: OnceCell<Option<Server>> = OnceCell::const_new();
    let server = SERVER.get_or_init(start).await.as_ref();
    if server.is_none() {
        rotacast_test_servers::skip("PostgreSQL");
    }
    server
}

async fn start() -> Option<Server> {
    // Every statement is logged: a test searches the log for passwords.
    let settings = ["log_statement=all", "log_connections=on", "log_parameter_max_length=-1"];
    let server = Server { postgres: Postgres::start_with(&settings).await? };
    let client = server.superuser("postgres").await;
    for database in ["app", "elsewhere"] {
        client.batch_execute(&format!("CREATE DATABASE {database}")).await.expect("a database");
    }
    let client = server.superuser("app").await;
    client.batch_execute(SETUP).await.expect("the documented setup");
    let password = postgres_protocol::password::scram_sha_256(ADMIN.1.as_bytes());
    let admin = format!("ALTER ROLE {} PASSWORD '{password}'", ADMIN.0);
    client.batch_execute(&admin).await.expect("the administrator's password");
    Some(server)
}

impl Server {
    pub(crate) fn port(&self) -> u16 {
        self.postgres.port()
    }

    pub(crate) fn superuser_login(&self) -> (&'static str, &'static str) {
        (self.postgres.admin_user(), self.postgres.admin_password())
    }

    pub(crate) async fn superuser(&self, database: &str) -> Client {
        self.postgres.admin(database).await
    }

    pub(crate) fn admin(&self, port: u16) -> String {
        format!("postgres://{}:{}@127.0.0.1:{port}/app", ADMIN.0, ADMIN.1)
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.postgres.scratch().path().join("log")).expect("the server's log")
    }
}
