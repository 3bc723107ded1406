//! etcd.

use std::ffi::OsStr;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use tokio::sync::OnceCell;

use crate::probe::Probe;
use crate::server::Plan;
use crate::{Scratch, Server, Shared, find, free_port};

/// A single etcd member with its data in a scratch folder. [`Server`] has everything about its process.
#[derive(Debug)]
pub struct Etcd {
    server: Server,
    port: u16,
    https_port: Option<u16>,
}

impl Etcd {
    /// Starts one; `None` if etcd is missing, after counting the test as skipped ([`crate::skip`]).
    ///
    /// # Panics
    /// If it is there and does not start.
    pub async fn start() -> Option<Self> {
        Self::start_with(&[]).await
    }

    /// Starts one with further arguments, such as `--quota-backend-bytes=1048576`.
    ///
    /// # Panics
    /// As [`Etcd::start`].
    pub async fn start_with(arguments: &[&str]) -> Option<Self> {
        Self::launch(arguments, false).await
    }

    /// Starts one that serves HTTPS on a port of its own as well, with a certificate and its key in PEM.
    ///
    /// # Panics
    /// As [`Etcd::start`].
    pub async fn start_with_certificate(certificate: &Path, key: &Path) -> Option<Self> {
        let arguments = [format!("--cert-file={}", certificate.display()), format!("--key-file={}", key.display())];
        Self::launch(&arguments.each_ref().map(String::as_str), true).await
    }

    async fn launch(arguments: &[&str], https: bool) -> Option<Self> {
        let Some(program) = find::binary("ROTACAST_ETCD", "etcd") else {
            find::skip("etcd");
            return None;
        };
        let mut port = 0;
        let mut https_port = None;
        let server = Server::start(Scratch::new("etcd"), |scratch| {
            port = free_port();
            https_port = https.then(free_port);
            plan(program.clone(), scratch, (port, https_port, free_port()), arguments)
        })
        .await;
        Some(Self { server, port, https_port })
    }

    /// The one all tests of this binary share; `None` as with [`Etcd::start`].
    ///
    /// # Panics
    /// As [`Etcd::start`].
    pub async fn shared() -> Option<Shared<Self>> {
        static SHARED: OnceCell<Option<Etcd>> = OnceCell::const_new();
        match SHARED.get_or_init(Self::start).await {
            Some(server) => Some(Shared::new(server)),
            None => {
                find::skip("etcd");
                None
            }
        }
    }

    /// The client port on loopback.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `http://127.0.0.1:<port>`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// `https://127.0.0.1:<port>`, if it was started with a certificate.
    #[must_use]
    pub fn https_endpoint(&self) -> Option<String> {
        Some(format!("https://127.0.0.1:{}", self.https_port?))
    }

    /// Runs `etcdctl` against it, as an operator would, and returns its standard output.
    ///
    /// # Panics
    /// If etcdctl is missing or fails.
    pub async fn ctl<A: AsRef<OsStr>>(&self, arguments: &[A]) -> String {
        let program = find::binary("ROTACAST_ETCDCTL", "etcdctl").expect("etcdctl comes with 'tools/servers install'");
        let output = tokio::process::Command::new(program)
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={}", self.endpoint()))
            .args(arguments)
            .kill_on_drop(true)
            .output()
            .await
            .expect("etcdctl was found above");
        assert!(output.status.success(), "etcdctl: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("etcdctl prints UTF-8")
    }

    /// Makes it forget the history of changes up to now, and returns when it has.
    ///
    /// # Panics
    /// If etcdctl is missing or fails.
    pub async fn compact(&self) {
        let status = self.ctl(&["endpoint", "status", "--write-out=fields"]).await;
        let line = status.lines().find_map(|line| line.trim().strip_prefix("\"Revision\" : "));
        let revision = line.expect("the status names the revision").trim();
        self.ctl(&["compact", "--physical=true", revision]).await;
    }
}

impl Deref for Etcd {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl DerefMut for Etcd {
    fn deref_mut(&mut self) -> &mut Server {
        &mut self.server
    }
}

fn plan(
    program: PathBuf,
    scratch: &Scratch,
    (port, https_port, peer_port): (u16, Option<u16>, u16),
    more: &[&str],
) -> Plan {
    let client = format!("http://127.0.0.1:{port}");
    let https = https_port.map(|port| format!(",https://127.0.0.1:{port}")).unwrap_or_default();
    let peer = format!("http://127.0.0.1:{peer_port}");
    let mut arguments: Vec<std::ffi::OsString> = vec!["--data-dir".into(), scratch.path().join("data").into()];
    for argument in [
        "--name=rotacast",
        &format!("--listen-client-urls={client}{https}"),
        &format!("--advertise-client-urls={client}"),
        &format!("--listen-peer-urls={peer}"),
        &format!("--initial-advertise-peer-urls={peer}"),
        &format!("--initial-cluster=rotacast={peer}"),
        "--logger=zap",
        "--log-level=warn",
    ] {
        arguments.push(argument.into());
    }
    arguments.extend(more.iter().map(Into::into));
    Plan {
        name: "etcd",
        program,
        arguments,
        variables: Vec::new(),
        probe: Probe::Http { port, path: "/health", expected: "\"health\":\"true\"" },
        stop: Signal::TERM,
    }
}
