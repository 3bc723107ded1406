//! A PostgreSQL server of this test process alone, which ends with it.

use std::ffi::OsString;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use tokio_postgres::{Client, NoTls};

pub(crate) const SUPERUSER: (&str, &str) = ("root_of_tests", "superuser-Password-4711-canary");
const ADMIN: (&str, &str) = ("rotacast_admin", "admin-Password-4711-canary");

/// What `docs/operate/providers.md` tells people to run, by a superuser.
pub(crate) const SETUP: &str = include_str!("setup.sql");

/// Runs a server until standard input ends, which it does with the test process however that ends; then tidies up.
const KEEPER: &str =
    r#"dir=$1; shift; "$@" >"$dir/log" 2>&1 & pid=$!; cat >/dev/null; kill -INT $pid; wait $pid; rm -rf "$dir""#;

pub(crate) struct Server {
    pub(crate) port: u16,
    folder: PathBuf,
    /// Ends the server when its input closes.
    _keeper: Child,
}

/// The server, started once; `None` when this machine has none, which fails in CI.
pub(crate) async fn server() -> Option<&'static Server> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    let server =
        tokio::task::spawn_blocking(|| SERVER.get_or_init(start).as_ref()).await.expect("the server starts")?;
    server.answers().await;
    Some(server)
}

fn binaries() -> Option<PathBuf> {
    let mut folders: Vec<PathBuf> = std::env::var_os("ROTACAST_POSTGRES").map(PathBuf::from).into_iter().collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for parent in [PathBuf::from("/usr/lib/postgresql"), root.join(".servers/root/usr/lib/postgresql")] {
        let entries = fs::read_dir(parent).into_iter().flatten().flatten();
        folders.extend(entries.map(|entry| entry.path().join("bin")));
    }
    folders.into_iter().find(|folder| folder.join("initdb").exists())
}

fn start() -> Option<Server> {
    let Some(binaries) = binaries() else {
        assert!(std::env::var_os("CI").is_none(), "PostgreSQL is missing; run tools/servers install");
        eprintln!(
            "SKIPPED: PostgreSQL is missing; run tools/servers install, or set ROTACAST_POSTGRES to its bin folder"
        );
        return None;
    };
    let folder = tempfile::Builder::new().prefix("rotacast-postgres-").tempdir().expect("a folder").keep();
    fs::write(folder.join("password"), SUPERUSER.1).expect("a password file");
    let is_root = fs::metadata("/proc/self").expect("procfs").uid() == 0;
    let unprivileged: Vec<OsString> = if is_root {
        // PostgreSQL refuses to run as root; 65534 is nobody everywhere.
        for path in [folder.clone(), folder.join("password")] {
            chown(path, Some(65534), Some(65534)).expect("root may give files away");
        }
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"].map(OsString::from).to_vec()
    } else {
        Vec::new()
    };
    let command = |program: &str, arguments: &[&str]| -> Vec<OsString> {
        let program = binaries.join(program).into_os_string();
        unprivileged.iter().cloned().chain([program]).chain(arguments.iter().map(OsString::from)).collect()
    };
    let (data, password) = (folder.join("data"), folder.join("password"));
    let (data, password) = (data.to_str().expect("UTF-8"), password.to_str().expect("UTF-8"));
    let password = format!("--pwfile={password}");
    let initdb = command(
        "initdb",
        &["-D", data, "-U", SUPERUSER.0, &password, "--auth=scram-sha-256", "-E", "UTF8", "--no-sync"],
    );
    let made = Command::new(&initdb[0]).args(&initdb[1..]).current_dir("/").output().expect("initdb runs");
    assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
    let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
    let number = port.to_string();
    // Logs every statement: a test looks for passwords there.
    let postgres = command(
        "postgres",
        &[
            "-D",
            data,
            "-p",
            &number,
            "-h",
            "127.0.0.1",
            "-k",
            "",
            "-F",
            "-c",
            "log_statement=all",
            "-c",
            "log_connections=on",
            "-c",
            "log_parameter_max_length=-1",
            "-c",
            "max_connections=200",
        ],
    );
    let mut keeper = Command::new("sh");
    keeper.args(["-c", KEEPER, "keeper"]).arg(&folder).args(postgres).current_dir("/").stdin(Stdio::piped());
    Some(Server { port, folder, _keeper: keeper.spawn().expect("sh runs") })
}

impl Server {
    pub(crate) async fn connect(&self, (user, password): (&str, &str), database: &str) -> Client {
        let text = format!("host=127.0.0.1 port={} user={user} password={password} dbname={database}", self.port);
        let (client, connection) = tokio_postgres::connect(&text, NoTls).await.expect("a login");
        tokio::spawn(connection);
        client
    }

    pub(crate) async fn superuser(&self, database: &str) -> Client {
        self.connect(SUPERUSER, database).await
    }

    pub(crate) fn admin(&self, port: u16) -> String {
        format!("postgres://{}:{}@127.0.0.1:{port}/app", ADMIN.0, ADMIN.1)
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).expect("the server's log")
    }

    /// Waits until it answers, and sets it up once.
    async fn answers(&self) {
        static READY: tokio::sync::OnceCell<()> = tokio::sync::OnceCell::const_new();
        READY.get_or_init(|| self.set_up()).await;
    }

    async fn set_up(&self) {
        let (user, password) = SUPERUSER;
        let text = format!("host=127.0.0.1 port={} user={user} password={password} dbname=postgres", self.port);
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
        while let Err(error) = tokio_postgres::connect(&text, NoTls).await {
            assert!(tokio::time::Instant::now() < deadline, "no answer: {error}\n{}", self.log());
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        let client = self.superuser("postgres").await;
        for database in ["app", "elsewhere"] {
            client.batch_execute(&format!("CREATE DATABASE {database}")).await.expect("a database");
        }
        let client = self.superuser("app").await;
        client.batch_execute(SETUP).await.expect("the documented setup");
        let password = postgres_protocol::password::scram_sha_256(ADMIN.1.as_bytes());
        let admin = format!("ALTER ROLE {} PASSWORD '{password}'", ADMIN.0);
        client.batch_execute(&admin).await.expect("the administrator's password");
    }
}
