//! PostgreSQL.

use std::ffi::OsString;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use tokio::process::Command;
use tokio::sync::OnceCell;
use tokio_postgres::{Client, NoTls};

use crate::probe::Probe;
use crate::server::{DATA, Plan};
use crate::{Scratch, Server, Shared, find, free_port};

/// The superuser's password in these throw-away servers; logins are checked with SCRAM as in real ones.
const PASSWORD: &str = "only-for-throw-away-tests";

/// A PostgreSQL server with its data in a scratch folder. [`Server`] has everything about its process.
///
/// PostgreSQL refuses to run as root. If the tests run as root, it runs as `postgres` or `nobody`.
#[derive(Debug)]
pub struct Postgres {
    server: Server,
    port: u16,
}

impl Postgres {
    /// Starts one; `None` if PostgreSQL is missing, after counting the test as skipped ([`crate::skip`]).
    ///
    /// # Panics
    /// If it is there and does not start.
    pub async fn start() -> Option<Self> {
        Self::start_with(&[]).await
    }

    /// Starts one with further settings, such as `max_connections=20`.
    ///
    /// # Panics
    /// As [`Postgres::start`].
    pub async fn start_with(settings: &[&str]) -> Option<Self> {
        let Some(folder) = find::postgres_folder() else {
            find::skip("PostgreSQL");
            return None;
        };
        let scratch = Scratch::new("postgres");
        let account = Account::choose();
        account.own(scratch.path());
        copy_initialised(&folder, &scratch, &account).await;
        let mut port = 0;
        let server = Server::start(scratch, |scratch| {
            port = free_port();
            plan(&folder, scratch, &account, port, settings)
        })
        .await;
        Some(Self { server, port })
    }

    /// The one all tests of this binary share; `None` as with [`Postgres::start`].
    ///
    /// # Panics
    /// As [`Postgres::start`].
    pub async fn shared() -> Option<Shared<Self>> {
        static SHARED: OnceCell<Option<Postgres>> = OnceCell::const_new();
        match SHARED.get_or_init(Self::start).await {
            Some(server) => Some(Shared::new(server)),
            None => {
                find::skip("PostgreSQL");
                None
            }
        }
    }

    /// The port on loopback.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The superuser's name.
    #[must_use]
    pub fn admin_user(&self) -> &'static str {
        "postgres"
    }

    /// The superuser's password.
    #[must_use]
    pub fn admin_password(&self) -> &'static str {
        PASSWORD
    }

    /// How the superuser reaches `database`; `postgres` is always there.
    #[must_use]
    pub fn admin_url(&self, database: &str) -> String {
        format!("postgres://postgres:{PASSWORD}@127.0.0.1:{}/{database}", self.port)
    }

    /// A superuser's session in `database`, driven by the current tokio runtime.
    ///
    /// # Panics
    /// If it cannot be opened.
    pub async fn admin(&self, database: &str) -> Client {
        let (client, connection) =
            tokio_postgres::connect(&self.admin_url(database), NoTls).await.expect("the superuser can log in");
        // Ends with the client, or with the server: the user of the client sees the error.
        tokio::spawn(connection);
        client
    }

    /// Makes the empty database `name`, such as [`Shared::name`] gives.
    ///
    /// # Panics
    /// If it cannot be made.
    pub async fn create_database(&self, name: &str) {
        assert!(!name.contains('"'), "expected a database name without quotes, found {name}");
        let made = self.admin("postgres").await.batch_execute(&format!("CREATE DATABASE \"{name}\"")).await;
        made.unwrap_or_else(|error| panic!("cannot create database {name}: {error}"));
    }
}

impl Deref for Postgres {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl DerefMut for Postgres {
    fn deref_mut(&mut self) -> &mut Server {
        &mut self.server
    }
}

/// The account that the server runs as: this process's user, or an unprivileged one if that is root.
#[derive(Debug)]
struct Account(Option<(u32, u32)>);

impl Account {
    fn choose() -> Self {
        if !rustix::process::geteuid().is_root() {
            return Self(None);
        }
        let users = std::fs::read_to_string("/etc/passwd").expect("every Unix has /etc/passwd");
        let ids = |name: &str| {
            let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
            let mut fields = line.split(':').skip(2);
            Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
        };
        let found = ids("postgres").or_else(|| ids("nobody"));
        assert!(
            found.is_some(),
            "PostgreSQL refuses to run as root: expected a user postgres or nobody, found neither"
        );
        Self(found)
    }

    fn own(&self, folder: &Path) {
        if let Some((user, group)) = self.0 {
            std::os::unix::fs::chown(folder, Some(user), Some(group)).expect("root may give its folders away");
        }
    }

    /// `program` with `arguments`, run as this account.
    fn run(&self, program: PathBuf, mut arguments: Vec<OsString>) -> (PathBuf, Vec<OsString>) {
        let Some((user, group)) = self.0 else { return (program, arguments) };
        let mut wrapped: Vec<OsString> = vec![
            format!("--reuid={user}").into(),
            format!("--regid={group}").into(),
            "--clear-groups".into(),
            "--".into(),
        ];
        wrapped.push(program.into());
        wrapped.append(&mut arguments);
        // The shell replaces itself by the program: the process id is the server's.
        ("setpriv".into(), wrapped)
    }
}

/// Makes the data folder: a copy of one that `initdb` makes once per test binary, since that takes longer than all the rest.
async fn copy_initialised(folder: &Path, scratch: &Scratch, account: &Account) {
    static INITIALISED: OnceCell<Scratch> = OnceCell::const_new();
    let initialised = INITIALISED.get_or_init(async || {
        let scratch = Scratch::new("postgres-initialised");
        account.own(scratch.path());
        initialise(folder, &scratch, account).await;
        scratch
    });
    let from = initialised.await.path().join(DATA);
    // The account makes the copy, because it must own it, with the owner's rights alone, which PostgreSQL requires.
    let arguments = vec!["-Rp".into(), from.into(), scratch.path().join(DATA).into()];
    let (program, arguments) = account.run("cp".into(), arguments);
    let mut command = Command::new(program);
    command.args(arguments);
    complete("cp", command).await;
}

/// Runs a command to its end.
async fn complete(what: &str, mut command: Command) {
    let output = command.kill_on_drop(true).output().await;
    let output = output.unwrap_or_else(|error| panic!("cannot run {what}: {error}"));
    assert!(output.status.success(), "{what}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
}

/// Makes the data folder. Not flushed to disk: it need not survive a power cut of the test machine.
async fn initialise(folder: &Path, scratch: &Scratch, account: &Account) {
    let password = scratch.path().join("password");
    std::fs::write(&password, PASSWORD).unwrap_or_else(|error| panic!("cannot write {}: {error}", password.display()));
    account.own(&password);
    let arguments: Vec<OsString> = vec![
        "--pgdata".into(),
        scratch.path().join(DATA).into(),
        "--pwfile".into(),
        password.into(),
        "--username=postgres".into(),
        "--auth=scram-sha-256".into(),
        "--encoding=UTF8".into(),
        "--no-locale".into(),
        "--no-sync".into(),
    ];
    let (program, arguments) = account.run(folder.join("initdb"), arguments);
    let mut command = Command::new(program);
    command.args(arguments).envs(variables(folder)).current_dir(scratch.path());
    complete("initdb", command).await;
}

fn plan(folder: &Path, scratch: &Scratch, account: &Account, port: u16, settings: &[&str]) -> Plan {
    let mut arguments: Vec<OsString> = vec!["-D".into(), scratch.path().join(DATA).into()];
    let ours = [
        format!("port={port}"),
        "listen_addresses=127.0.0.1".into(),
        "unix_socket_directories=".into(),
        "max_connections=200".into(),
        "shared_buffers=32MB".into(),
        // A killed process loses nothing by this. Only a machine that loses power does.
        "fsync=off".into(),
        "log_line_prefix=%m [%p] %q%u@%d ".into(),
    ];
    for setting in ours.iter().map(String::as_str).chain(settings.iter().copied()) {
        arguments.extend(["-c".into(), setting.into()]);
    }
    let (program, arguments) = account.run(folder.join("postgres"), arguments);
    // SIGINT is PostgreSQL's "fast" shutdown: sessions are ended, data is written.
    Plan {
        name: "postgres",
        program,
        arguments,
        variables: variables(folder).into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        probe: Probe::Postgres { port },
        stop: Signal::INT,
    }
}

/// The environment of both programs: the libraries that were fetched with them, and a fixed language.
fn variables(folder: &Path) -> Vec<(&'static str, OsString)> {
    let mut variables = vec![("LC_ALL", "C".into()), ("TZ", "UTC".into())];
    // <somewhere>/usr/lib/postgresql/<major>/bin
    let libraries = folder.ancestors().nth(3).unwrap_or(folder);
    if !libraries.starts_with("/usr") {
        let folders = std::fs::read_dir(libraries).into_iter().flatten().flatten().map(|entry| entry.path());
        let folders: Vec<PathBuf> = folders.filter(|path| path.to_string_lossy().contains("-linux-gnu")).collect();
        let joined = std::env::join_paths(folders).expect("library folders contain no colon");
        variables.push(("LD_LIBRARY_PATH", joined));
    }
    variables
}
