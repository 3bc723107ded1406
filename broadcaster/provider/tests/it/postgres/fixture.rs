//! What the suite needs from PostgreSQL.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use rotacast_proto::SecretValue;
use rotacast_protocol::{SecretName, Version};
use rotacast_provider::conformance::{Cut, Fixture, Held, LoginFixture};
use rotacast_provider::postgres::{Endpoint, OnLiveSessions, PostgresProvider, PostgresSettings};
use rotacast_provider::{Credential, Provider};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_postgres::{Client, NoTls};

use super::server::{Server, server};

pub(crate) struct Postgres {
    pub(crate) server: &'static Server,
    number: u64,
}

/// A fixture on the shared server, or `None` without one.
pub(crate) async fn start() -> Option<Postgres> {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    Some(Postgres { server: server().await?, number: NUMBER.fetch_add(1, Ordering::Relaxed) })
}

impl Postgres {
    pub(crate) fn settings(&self) -> PostgresSettings {
        PostgresSettings {
            cluster: "suite".into(),
            max_connections: PostgresSettings::MAX_CONNECTIONS,
            settle: Duration::from_millis(600),
            test_every: PostgresSettings::TEST_EVERY,
            admin: self.server.admin(self.server.port()).into(),
            group_role: "app_owner".into(),
            role_name: PostgresSettings::ROLE_NAME.into(),
            database: "app".into(),
            endpoint: Endpoint { host: "127.0.0.1".into(), port: self.server.port() },
            also_at: Vec::new(),
            on_live_sessions: OnLiveSessions::Wait,
            in_the_clear: false,
        }
    }

    pub(crate) fn with(&self, change: impl FnOnce(&mut PostgresSettings)) -> Arc<dyn Provider> {
        let mut settings = self.settings();
        change(&mut settings);
        Arc::new(PostgresProvider::new(settings).expect("valid settings"))
    }

    /// A value as another client writes it.
    pub(crate) fn value(&self, version: u64, username: &str, password: &str) -> Credential {
        let value = json!({
            "engine": "postgres", "host": "127.0.0.1", "port": self.server.port(),
            "username": username, "password": password, "dbname": "app",
        });
        self.credential(version, &value)
    }

    pub(crate) fn credential(&self, version: u64, value: &Value) -> Credential {
        let version = Version::new(version).expect("from 1");
        Credential { secret: self.secret(), version, value: SecretValue::new(value.to_string().into_bytes()) }
    }

    /// A name that no other fixture uses.
    pub(crate) fn name(&self, base: &str) -> String {
        format!("{base}_{}", self.number)
    }

    /// Connects as a service does.
    pub(crate) async fn connect(&self, credential: &Credential) -> Option<Session> {
        let value: Value = fields(credential);
        let text = |name: &str| value[name].as_str().expect("a text field").to_owned();
        let port = u16::try_from(value["port"].as_u64().expect("a port")).expect("a port");
        let mut config = tokio_postgres::Config::new();
        config.host(text("host")).port(port).user(text("username")).password(text("password")).dbname(text("dbname"));
        let (client, connection) = config.application_name("payments-api").connect(NoTls).await.ok()?;
        tokio::spawn(connection);
        let pid = client.query_one("SELECT pg_backend_pid()", &[]).await.expect("an answer").get(0);
        Some(Session { client, pid, watcher: self.server.superuser("postgres").await })
    }

    /// A session that was logged in with a credential that works.
    pub(crate) async fn logged_in(&self, credential: &Credential) -> Session {
        self.connect(credential).await.expect("the credential logs in")
    }
}

pub(crate) fn fields(credential: &Credential) -> Value {
    serde_json::from_slice(credential.value.expose()).expect("a value is JSON")
}

pub(crate) fn field(credential: &Credential, name: &str) -> String {
    fields(credential)[name].as_str().expect("a text field").to_owned()
}

pub(crate) struct Session {
    pub(crate) client: Client,
    pid: i32,
    watcher: Client,
}

#[async_trait]
impl Held for Session {
    async fn works(&mut self) -> bool {
        self.client.simple_query("SELECT 1").await.is_ok()
    }

    async fn close(self: Box<Self>) {
        let Session { client, pid, watcher } = *self;
        drop(client);
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        let there = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1";
        while watcher.query_one(there, &[&pid]).await.expect("an answer").get::<_, i64>(0) > 0 {
            assert!(tokio::time::Instant::now() < deadline, "the session does not end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Fixture for Postgres {
    fn provider(&self) -> Arc<dyn Provider> {
        self.with(|_| ())
    }

    fn secret(&self) -> SecretName {
        SecretName::new(format!("case-{}/db", self.number)).expect("a valid name")
    }
}

#[async_trait]
impl LoginFixture for Postgres {
    async fn log_in(&self, credential: &Credential) -> Option<Box<dyn Held>> {
        Some(Box::new(self.connect(credential).await?))
    }

    fn terminating(&self) -> Arc<dyn Provider> {
        self.with(|settings| settings.on_live_sessions = OnLiveSessions::Terminate { after: Duration::ZERO })
    }

    fn unreachable(&self) -> Arc<dyn Provider> {
        // Port 1 is reserved and answers nowhere.
        self.with(|settings| {
            settings.admin = self.server.admin(1).into();
            settings.endpoint.port = 1;
        })
    }

    async fn cut(&self, request: usize, arrives: bool) -> Cut {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let cut = Arc::new(AtomicBool::new(false));
        let line = Line { server: self.server.port(), requests: Arc::default(), request, arrives, cut: cut.clone() };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(line.clone().carry(client));
            }
        });
        Cut {
            provider: self.with(|settings| settings.admin = self.server.admin(port).into()),
            was_cut: Box::new(move || cut.load(Ordering::SeqCst)),
        }
    }

    fn sharing(&self, credential: &Credential, version: Version) -> Credential {
        Credential { version, ..credential.clone() }
    }

    async fn superuser(&self) -> Credential {
        let (user, password) = self.server.superuser_login();
        self.value(1, user, password)
    }

    async fn outsider(&self) -> Credential {
        let (name, password) = (self.name("outsider"), "outsider-Password-4711-canary");
        let client = self.server.superuser("app").await;
        client.batch_execute(&format!("CREATE ROLE {name} LOGIN PASSWORD '{password}'")).await.expect("a role");
        self.value(1, &name, password)
    }

    fn of_another_cluster(&self) -> Arc<dyn Provider> {
        self.with(|settings| settings.cluster = "another".into())
    }

    async fn insider(&self) -> Credential {
        let (name, password) = (self.name("insider"), "insider-Password-4711-canary");
        let client = self.server.superuser("app").await;
        let made = format!("CREATE ROLE {name} LOGIN PASSWORD '{password}' IN ROLE app_owner");
        client.batch_execute(&made).await.expect("a role");
        self.value(1, &name, password)
    }

    fn mistaken(&self, credential: &Credential) -> Credential {
        let mut changed = fields(credential);
        changed["password"] = "mistaken-Password-4711-canary".into();
        self.credential(credential.version.get(), &changed)
    }

    async fn failed_logins(&self, credential: &Credential) -> usize {
        let refused = format!("password authentication failed for user \"{}\"", field(credential, "username"));
        self.server.log().matches(&refused).count()
    }

    fn elsewhere(&self, credential: &Credential) -> Credential {
        let mut changed = fields(credential);
        changed["host"] = "elsewhere.invalid".into();
        self.credential(credential.version.get(), &changed)
    }

    async fn rename(&self, credential: &Credential, to: &str) -> Credential {
        let from = field(credential, "username");
        let to = if to.is_empty() { from.trim_start_matches("renamed_").to_owned() } else { format!("{to}_{from}") };
        let client = self.server.superuser("app").await;
        client.batch_execute(&format!("ALTER ROLE {from} RENAME TO {to}")).await.expect("a new name");
        let mut changed = fields(credential);
        changed["username"] = to.into();
        self.credential(credential.version.get(), &changed)
    }

    fn canary(&self, credential: &Credential) -> String {
        field(credential, "password")
    }
}

/// Carries bytes between a client and the server, and is cut at the client's nth request, counted over all connections.
#[derive(Clone)]
struct Line {
    server: u16,
    requests: Arc<AtomicUsize>,
    request: usize,
    arrives: bool,
    cut: Arc<AtomicBool>,
}

impl Line {
    async fn carry(self, mut client: TcpStream) -> std::io::Result<()> {
        let mut server = TcpStream::connect(("127.0.0.1", self.server)).await?;
        let (mut request, mut reply) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
        loop {
            tokio::select! {
                read = client.read(&mut request) => {
                    let read = read?;
                    if read == 0 {
                        return Ok(());
                    }
                    let is_cut = self.requests.fetch_add(1, Ordering::SeqCst) == self.request;
                    if !is_cut || self.arrives {
                        server.write_all(&request[..read]).await?;
                    }
                    if is_cut {
                        self.cut.store(true, Ordering::SeqCst);
                        if self.arrives {
                            // The server has carried it out, and the answer is lost.
                            let _lost = server.read(&mut reply).await?;
                        }
                        return Ok(());
                    }
                }
                read = server.read(&mut reply) => {
                    let read = read?;
                    if read == 0 {
                        return Ok(());
                    }
                    client.write_all(&reply[..read]).await?;
                }
            }
        }
    }
}
