//! How to reach Consul.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::HeaderName;
use rotacast_proto::{ClientPem, ClientTls, Renewed, leaves_this_machine};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::{LoginSecret, StoreError};

/// How long a connection may take to come up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A silent connection is asked for a sign of life this often, and given up after this many without one: a half-open
/// connection ends a watch within 15 seconds.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
const KEEP_ALIVE_RETRIES: u32 = 2;
/// Idle connections that are kept: a few calls at once. Consul allows 200 of one client.
const IDLE_CONNECTIONS: usize = 8;
/// How long they are kept: shorter than any proxy's or agent's own limit.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// What tells Consul who we are.
pub(super) const TOKEN_HEADER: HeaderName = HeaderName::from_static("x-consul-token");

/// Where a Consul agent is and who we are to it.
#[derive(Clone, Default)]
pub struct ConsulOptions {
    /// `http://host:port` or `https://host:port` of an agent, usually the one on this machine.
    pub address: String,
    /// The ACL token, where ACLs are on.
    pub token: Option<LoginSecret>,
    /// The datacenter, if not the agent's own.
    pub datacenter: Option<String>,
    /// For an `https` address, and only for one.
    pub tls: Option<ClientTls>,
}

impl fmt::Debug for ConsulOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = if self.token.is_some() { "with token" } else { "no token" };
        write!(f, "ConsulOptions({}, {token}, {:?}, {:?})", self.address, self.datacenter, self.tls)
    }
}

fn invalid(problem: impl Into<String>) -> StoreError {
    StoreError::Invalid { what: "consul options".into(), problem: problem.into() }
}

impl ConsulOptions {
    /// Checks them; the address as a URL.
    fn validate(&self) -> Result<reqwest::Url, StoreError> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        if !self.address.starts_with(&format!("{scheme}://")) {
            let tls = if self.tls.is_some() { "with" } else { "without" };
            let found = &self.address;
            return Err(invalid(format!(
                "store.address is {found:?}: expected it to begin with {scheme}:// {tls} TLS options, such as \
                 {scheme}://127.0.0.1:8500"
            )));
        }
        let base = reqwest::Url::parse(&self.address)
            .map_err(|problem| invalid(format!("store.address {:?}: {problem}", self.address)))?;
        if !base.username().is_empty() || base.password().is_some() {
            return Err(invalid("store.address holds a user name; Consul knows tokens only (store.token_file)"));
        }
        if base.path() != "/" || base.query().is_some() || base.fragment().is_some() {
            return Err(invalid(format!("store.address is {:?}: expected nothing behind the port", self.address)));
        }
        if self.tls.is_none() && leaves_this_machine(&self.address) {
            tracing::warn!("values and the Consul token go to {} without TLS; set store.tls", self.address);
        }
        Ok(base)
    }

    /// Checks them; the URL that the client must be given, in which another server name stands in for the host.
    pub(super) fn client(&self) -> Result<(Http, reqwest::Url), StoreError> {
        let mut base = self.validate()?;
        let mut stand_in = None;
        if let Some(name) = self.tls.as_ref().and_then(|tls| tls.server_name.as_ref()) {
            stand_in = Some(base.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned());
            base.set_host(Some(name)).map_err(|problem| invalid(format!("TLS server name {name:?}: {problem}")))?;
        }
        let tls = self.tls.clone();
        let read = move |patience| tls.as_ref().map(|tls: &ClientTls| tls.read(patience)).transpose();
        let make = move |pem: &Option<ClientPem>| {
            let mut client = reqwest::Client::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .tcp_keepalive(KEEP_ALIVE)
                .tcp_keepalive_interval(KEEP_ALIVE)
                .tcp_keepalive_retries(KEEP_ALIVE_RETRIES)
                .tcp_nodelay(true)
                .pool_max_idle_per_host(IDLE_CONNECTIONS)
                .pool_idle_timeout(IDLE_TIMEOUT)
                // Keys are part of the path: an answer that points elsewhere is one about another key.
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy()
                .tls_backend_preconfigured(tls_config(pem.as_ref())?);
            if let Some(host) = stand_in.clone() {
                client = client.dns_resolver(Arc::new(StandIn { host }));
            }
            client.build().map_err(|problem| problem.to_string())
        };
        Ok((Renewed::new("store.tls", read, make).map_err(invalid)?, base))
    }
}

/// The client, with the certificates as they are now.
pub(super) type Http = Renewed<Option<ClientPem>, reqwest::Client>;

fn tls_config(pem: Option<&ClientPem>) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|problem| problem.to_string())?;
    let mut roots = RootCertStore::empty();
    let Some(pem) = pem else { return Ok(builder.with_root_certificates(roots).with_no_client_auth()) };
    for certificate in certificates(&pem.authority, "store.tls.ca")? {
        roots.add(certificate).map_err(|problem| format!("store.tls.ca: {problem}"))?;
    }
    let builder = builder.with_root_certificates(roots);
    let Some((chain, key)) = &pem.identity else { return Ok(builder.with_no_client_auth()) };
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|problem| format!("store.tls.key: {problem}"))?;
    builder
        .with_client_auth_cert(certificates(chain, "store.tls.cert")?, key)
        .map_err(|problem| format!("store.tls.cert and store.tls.key: {problem}"))
}

fn certificates(pem: &str, setting: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|problem| format!("{setting}: {problem}"))
}

/// Finds the agent's host whatever name is asked for.
struct StandIn {
    host: String,
}

impl Resolve for StandIn {
    fn resolve(&self, _name: Name) -> Resolving {
        let host = self.host.clone();
        Box::pin(async move {
            // The port is the URL's.
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host, 0)).await?.collect();
            let found: Addrs = Box::new(found.into_iter());
            Ok(found)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_cannot_work_are_refused() {
        let of = |address: &str, tls: bool| ConsulOptions {
            address: address.into(),
            tls: tls.then(|| ClientTls::trusting("".into())),
            ..ConsulOptions::default()
        };
        assert!(of("http://127.0.0.1:8500", false).validate().is_ok());
        assert!(of("https://a:8501", true).validate().is_ok());
        let bad = [
            ("", false),
            ("a:1", false),
            ("http://a:1", true),
            ("https://a:1", false),
            ("http://u@a:1", false),
            ("http://a:1/ui", false),
        ];
        for (address, tls) in bad {
            assert!(of(address, tls).validate().is_err(), "{address:?}");
        }
        let refused = of("https://a:8501", true).client().unwrap_err();
        assert!(refused.to_string().contains("holds no certificate"), "{refused}");
    }

    #[test]
    fn a_token_is_not_printed() {
        let options = ConsulOptions { token: Some("canary".to_owned().into()), ..ConsulOptions::default() };
        assert!(!format!("{options:?}").contains("canary"));
    }
}
