//! etcd.

use std::ops::{Deref, DerefMut};
use std::path::PathBuf;

use rustix::process::Signal;
use tokio::sync::OnceCell;

use crate::probe::Probe;
use crate::server::Plan;
use crate::{Scratch, Server, Shared, find, free_port};

/// A single etcd member with its data in a scratch folder. Everything about its life is in [`Server`].
#[derive(Debug)]
pub struct Etcd {
    server: Server,
    port: u16,
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
        let Some(program) = find::binary("ROTACAST_ETCD", "etcd") else {
            find::skip("etcd");
            return None;
        };
        let mut port = 0;
        let server = Server::start(Scratch::new("etcd"), |scratch| {
            port = free_port();
            plan(program.clone(), scratch, port, free_port(), arguments)
        })
        .await;
        Some(Self { server, port })
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

    /// Runs `etcdctl` against it, as an operator would, and returns its standard output.
    ///
    /// # Panics
    /// If etcdctl is missing or fails.
    pub async fn ctl(&self, arguments: &[&str]) -> String {
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

fn plan(program: PathBuf, scratch: &Scratch, port: u16, peer_port: u16, more: &[&str]) -> Plan {
    let client = format!("http://127.0.0.1:{port}");
    let peer = format!("http://127.0.0.1:{peer_port}");
    let mut arguments: Vec<std::ffi::OsString> = vec!["--data-dir".into(), scratch.path().join("data").into()];
    for argument in [
        "--name=rotacast",
        &format!("--listen-client-urls={client}"),
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
