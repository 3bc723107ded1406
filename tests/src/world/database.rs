//! PostgreSQL with the rights that `docs/operate/providers.md` asks for, and no more.

use std::collections::BTreeSet;
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde_json::json;
use tokio_postgres::{Client, NoTls};

use super::LIMIT;
use crate::servers::{Postgres, until};

/// The role that owns the objects; every version's login is a member.
pub const GROUP: &str = "payments_owner";
/// The file with the administrator's connection, beside the configuration.
pub(super) const ADMIN_FILE: &str = "payments-pg-admin";

const NAME: &str = "payments";
const ADMIN: &str = "rotacast_admin";
const ADMIN_PASSWORD: &str = "only-for-tests-too";

/// The server, and the database that the services query.
#[derive(Debug)]
pub struct Database {
    server: Postgres,
    /// The roles that existed before any version.
    known: BTreeSet<u32>,
}

impl Database {
    pub(super) async fn start() -> Option<Self> {
        // Every login, logout and change of a role goes into the server's log, in order.
        let settings =
            ["log_connections=on", "log_disconnections=on", "log_statement=ddl", "log_line_prefix=%m [%p] user=%u "];
        let server = Postgres::start_with(&settings).await?;
        server.create_database(NAME).await;
        // As in docs/operate/providers.md, up to the table.
        let prepare = format!(
            "CREATE ROLE {GROUP} NOLOGIN;
             GRANT CREATE, USAGE ON SCHEMA public TO {GROUP};
             CREATE ROLE {ADMIN} LOGIN CREATEROLE PASSWORD '{ADMIN_PASSWORD}';
             GRANT {GROUP} TO {ADMIN} WITH ADMIN OPTION;
             GRANT pg_read_all_stats TO {ADMIN};
             GRANT pg_signal_backend TO {ADMIN};
             CREATE TABLE payments (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, amount bigint NOT NULL);
             ALTER TABLE payments OWNER TO {GROUP};"
        );
        let superuser = server.admin(NAME).await;
        superuser.batch_execute(&prepare).await.expect("a superuser may");
        let roles = superuser.query("SELECT oid FROM pg_roles", &[]).await.expect("a superuser may");
        Some(Self { server, known: roles.iter().map(|row| row.get(0)).collect() })
    }

    /// The database's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        NAME
    }

    /// A superuser's session.
    pub async fn superuser(&self) -> Client {
        self.server.admin(NAME).await
    }

    /// The ids of the roles that belong to no version.
    pub(super) fn known(&self) -> Vec<u32> {
        self.known.iter().copied().collect()
    }

    /// The roles of versions that exist, by name.
    ///
    /// # Panics
    /// If PostgreSQL does not answer.
    pub async fn logins(&self) -> Vec<String> {
        let query = "SELECT rolname::text FROM pg_roles WHERE oid <> ALL($1) ORDER BY oid";
        let rows = self.superuser().await.query(query, &[&self.known()]).await.expect("a superuser may");
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// The name of a login role that [`Database::make_login`] made. Roles that Rotacast makes are called
    /// `payments_db_v3`.
    #[must_use]
    pub fn login_by_hand(version: u64) -> String {
        format!("by_hand_{version}")
    }

    /// Makes a login role for a version without Rotacast, and returns the value to be stored.
    ///
    /// # Panics
    /// If there is one already.
    pub async fn make_login(&self, version: u64) -> String {
        let (name, password) = (Self::login_by_hand(version), format!("password-{version}"));
        let statement = format!("CREATE ROLE {name} LOGIN PASSWORD '{password}' IN ROLE {GROUP}");
        self.superuser().await.batch_execute(&statement).await.expect("a superuser may, once");
        self.value(&name, &password)
    }

    /// Drops a role as a database administrator would: once it has no session.
    ///
    /// # Panics
    /// If it still has one, or cannot be dropped.
    pub async fn drop_unused(&self, name: &str) {
        let client = self.superuser().await;
        let query = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1";
        until(&format!("{name} to have no session"), LIMIT, async || {
            let row = client.query_one(query, &[&name]).await.expect("a superuser may");
            (row.get::<_, i64>(0) == 0).then_some(())
        })
        .await;
        client.batch_execute(&format!("DROP ROLE {name}")).await.expect("a superuser may, and it owns nothing");
    }

    /// A credential as it is stored.
    #[must_use]
    pub fn value(&self, username: &str, password: &str) -> String {
        json!({
            "engine": "postgres", "host": "127.0.0.1", "port": self.server.port(), "dbname": NAME,
            "username": username, "password": password,
        })
        .to_string()
    }

    /// A session with a stored credential.
    pub(super) async fn session(&self, value: &str) -> Client {
        let value: serde_json::Value = serde_json::from_str(value).expect("a credential as it is stored");
        let text = |field: &str| value[field].as_str().expect("a credential has this field").to_owned();
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(self.server.port()).dbname(text("dbname"));
        config.user(text("username")).password(text("password")).application_name("a hidden session");
        let (client, connection) = config.connect(NoTls).await.expect("the credential logs in");
        // Ends with the client, or with the server.
        tokio::spawn(connection);
        client
    }

    pub(super) fn write_admin_file(&self, folder: &Path) {
        use std::io::Write as _;
        let text = format!("postgres://{ADMIN}:{ADMIN_PASSWORD}@127.0.0.1:{}/{NAME}\n", self.server.port());
        let file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(folder.join(ADMIN_FILE));
        file.and_then(|mut file| file.write_all(text.as_bytes())).expect("the folder is ours");
    }
}

impl Deref for Database {
    type Target = Postgres;

    fn deref(&self) -> &Postgres {
        &self.server
    }
}

impl DerefMut for Database {
    fn deref_mut(&mut self) -> &mut Postgres {
        &mut self.server
    }
}
