//! Consul.

use std::ffi::OsString;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;

use rustix::process::Signal;
use tokio::sync::OnceCell;

use crate::probe::Probe;
use crate::server::Plan;
use crate::{Scratch, Server, Shared, find, free_port};

/// A single Consul server with its data in a scratch folder. [`Server`] has everything about its process.
#[derive(Debug)]
pub struct Consul {
    server: Server,
    port: u16,
    https_port: Option<u16>,
    token: Option<String>,
    program: PathBuf,
}

/// How to start it.
#[derive(Debug, Clone, Default)]
pub struct ConsulConfig<'a> {
    /// Turns access control on and denies everything without a token. This is the token that may do everything.
    pub management_token: Option<&'a str>,
    /// Serves HTTPS on a port of its own as well.
    pub tls: Option<ConsulCertificates>,
    /// Further configuration in Consul's own language.
    pub hcl: &'a str,
}

/// Files in PEM.
#[derive(Debug, Clone)]
pub struct ConsulCertificates {
    /// Of the authority that signed the clients' certificates.
    pub authority: PathBuf,
    /// The server's own certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Whether clients must show a certificate.
    pub ask_clients: bool,
}

impl Consul {
    /// Starts one; `None` if Consul is missing, after counting the test as skipped ([`crate::skip`]).
    ///
    /// # Panics
    /// If it is there and does not start.
    pub async fn start() -> Option<Self> {
        Self::start_with(ConsulConfig::default()).await
    }

    /// Starts one with further configuration.
    ///
    /// # Panics
    /// As [`Consul::start`].
    pub async fn start_with(config: ConsulConfig<'_>) -> Option<Self> {
        let Some(program) = find::binary("ROTACAST_CONSUL", "consul") else {
            find::skip("consul");
            return None;
        };
        let mut port = 0;
        let mut https_port = None;
        let server = Server::start(Scratch::new("consul"), |scratch| {
            port = free_port();
            https_port = config.tls.is_some().then(free_port);
            plan(program.clone(), scratch, port, https_port, &config)
        })
        .await;
        Some(Self { server, port, https_port, token: config.management_token.map(str::to_owned), program })
    }

    /// The one all tests of this binary share; `None` as with [`Consul::start`].
    ///
    /// # Panics
    /// As [`Consul::start`].
    pub async fn shared() -> Option<Shared<Self>> {
        static SHARED: OnceCell<Option<Consul>> = OnceCell::const_new();
        match SHARED.get_or_init(Self::start).await {
            Some(server) => Some(Shared::new(server)),
            None => {
                find::skip("consul");
                None
            }
        }
    }

    /// The HTTP port on loopback.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `http://127.0.0.1:<port>`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// `https://127.0.0.1:<port>`, if it was started with certificates.
    #[must_use]
    pub fn https_endpoint(&self) -> Option<String> {
        Some(format!("https://127.0.0.1:{}", self.https_port?))
    }

    /// Runs `consul` against it, as an operator with the management token would, in the server's folder, and returns
    /// its standard output.
    ///
    /// # Panics
    /// If it fails.
    pub async fn ctl(&self, arguments: &[&str]) -> String {
        let mut command = tokio::process::Command::new(&self.program);
        command.env("CONSUL_HTTP_ADDR", self.endpoint()).current_dir(self.server.scratch().path());
        if let Some(token) = &self.token {
            command.env("CONSUL_HTTP_TOKEN", token);
        }
        let output = command.args(arguments).kill_on_drop(true).output().await.expect("consul was started above");
        assert!(
            output.status.success(),
            "consul {}: {}: {}{}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("consul prints UTF-8")
    }
}

impl Deref for Consul {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl DerefMut for Consul {
    fn deref_mut(&mut self) -> &mut Server {
        &mut self.server
    }
}

fn plan(program: PathBuf, scratch: &Scratch, port: u16, https_port: Option<u16>, config: &ConsulConfig<'_>) -> Plan {
    let mut arguments: Vec<OsString> = vec!["agent".into(), "-data-dir".into(), scratch.path().join("data").into()];
    for argument in [
        "-server",
        "-bootstrap-expect=1",
        "-node=rotacast",
        "-bind=127.0.0.1",
        "-client=127.0.0.1",
        "-log-level=warn",
        "-dns-port=-1",
        "-grpc-port=-1",
        "-serf-wan-port=-1",
        // The shortest election times: a single server needs no longer ones.
        "-hcl=performance { raft_multiplier = 1 } disable_update_check = true connect { enabled = false }",
    ] {
        arguments.push(argument.into());
    }
    arguments.push(format!("-http-port={port}").into());
    arguments.push(format!("-serf-lan-port={}", free_port()).into());
    arguments.push(format!("-server-port={}", free_port()).into());
    if let Some(token) = config.management_token {
        arguments.push(
            format!(
                "-hcl=acl {{ enabled = true default_policy = \"deny\" down_policy = \"extend-cache\" \
                 tokens {{ master = \"{token}\" agent = \"{token}\" }} }}"
            )
            .into(),
        );
    }
    if let (Some(tls), Some(https_port)) = (&config.tls, https_port) {
        arguments.push(format!("-https-port={https_port}").into());
        arguments.push(
            format!(
                "-hcl=ca_file = {:?} cert_file = {:?} key_file = {:?} verify_incoming_https = {}",
                tls.authority.display().to_string(),
                tls.certificate.display().to_string(),
                tls.key.display().to_string(),
                tls.ask_clients
            )
            .into(),
        );
    }
    if !config.hcl.is_empty() {
        arguments.push(format!("-hcl={}", config.hcl).into());
    }
    Plan {
        name: "consul",
        program,
        arguments,
        variables: Vec::new(),
        // Answers once the server leads and has applied its log.
        probe: Probe::Http { port, path: "/v1/session/list?consistent", expected: "[" },
        stop: Signal::TERM,
    }
}
