//! Where clients and instances reach the broadcaster.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::DEFAULT_LISTEN;
use super::reader::Section;

/// An address, and what protects it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listen {
    /// For gRPC.
    pub grpc: SocketAddr,
    /// Required unless the address is loopback.
    pub tls: Option<ServerTls>,
    /// Where others reach it, if that is another address.
    pub advertise: Option<String>,
    /// What its peers may hold.
    pub limits: ListenLimits,
}

/// What the peers of an address may hold, all together and each. A peer is an IPv4 address or the /64 network of an IPv6
/// address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListenLimits {
    /// Connections; none: as many as the limit on open files allows, up to 16,384.
    pub connections: Option<NonZeroUsize>,
    pub connections_per_peer: NonZeroUsize,
    /// Calls and watches of instances that are open at once.
    pub instance_calls: NonZeroUsize,
    pub instance_calls_per_peer: NonZeroUsize,
    /// Requests, watches and event streams of operators, dashboards and monitors that are open at once.
    pub calls: NonZeroUsize,
    pub calls_per_peer: NonZeroUsize,
    /// From the connection to its first complete request head, TLS handshake included.
    pub first_request_timeout: Duration,
    /// How long a connection may rest without a request.
    pub idle_timeout: Duration,
}

const fn count(count: usize) -> NonZeroUsize {
    match NonZeroUsize::new(count) {
        Some(count) => count,
        None => panic!("a bound of zero lets no peer in"),
    }
}

impl Default for ListenLimits {
    fn default() -> Self {
        Self {
            connections: None,
            // A node's worth of instances behind one address, and more.
            connections_per_peer: count(1024),
            // Each costs a few KiB.
            instance_calls: count(65_536),
            // A watch and a call for each connection.
            instance_calls_per_peer: count(2048),
            // A page of the dashboard is one stream.
            calls: count(512),
            calls_per_peer: count(128),
            first_request_timeout: Duration::from_secs(10),
            // Longer than monitors usually rest between two requests.
            idle_timeout: Duration::from_secs(120),
        }
    }
}

/// A second is enough on one network; a minute is what HTTP servers allow at most.
const FIRST_REQUEST_TIMEOUT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(60);
const IDLE_TIMEOUT: RangeInclusive<Duration> = Duration::from_secs(5)..=Duration::from_secs(3600);

fn read_limits(section: &Section<'_, '_>) -> ListenLimits {
    let default = ListenLimits::default();
    let count = |key, default| section.integer(key).unwrap_or(default);
    ListenLimits {
        connections: section.integer("max_connections"),
        connections_per_peer: count("max_connections_per_peer", default.connections_per_peer),
        instance_calls: count("max_instance_calls", default.instance_calls),
        instance_calls_per_peer: count("max_instance_calls_per_peer", default.instance_calls_per_peer),
        calls: count("max_calls", default.calls),
        calls_per_peer: count("max_calls_per_peer", default.calls_per_peer),
        first_request_timeout: section
            .duration_within("first_request_timeout", &FIRST_REQUEST_TIMEOUT)
            .unwrap_or(default.first_request_timeout),
        idle_timeout: section.duration_within("idle_timeout", &IDLE_TIMEOUT).unwrap_or(default.idle_timeout),
    }
}

/// Longest address that refusals name: it travels in headers.
const MAX_ADVERTISE: usize = 200;

impl Listen {
    /// The address that the leader's refusing followers name: as configured, or the one listened on unless that is every
    /// address of the machine.
    #[must_use]
    pub fn advertised(&self) -> Option<String> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let own = || (!self.grpc.ip().is_unspecified()).then(|| format!("{scheme}://{}", self.grpc));
        self.advertise.clone().or_else(own)
    }
}

/// Certificates of a server, in PEM files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerTls {
    /// The certificate chain.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authority whose clients are let in; none: every client.
    pub client_ca: Option<PathBuf>,
}

pub(super) fn read(section: &Section<'_, '_>) -> Option<Listen> {
    let grpc: Option<SocketAddr> = section.parse_or("grpc", Some("ROTACAST_LISTEN_GRPC"), || Some(DEFAULT_LISTEN));
    let tls_section = section.section("tls");
    let tls = tls_section.exists().then(|| {
        let cert = tls_section.required_text("cert", "the file of the server's certificate chain");
        let key = tls_section.required_text("key", "the file of the certificate's private key");
        let client_ca = tls_section.path("client_ca");
        Some(ServerTls { cert: tls_section.resolve(cert?), key: tls_section.resolve(key?), client_ca })
    });
    tls_section.finish();
    let advertise = section.text("advertise");
    if let Some(address) = &advertise
        && !is_address(address)
    {
        section.problem("advertise", format!("{address:?}: expected such as \"https://broadcaster-a.example:7400\""));
        return None;
    }
    let limits = read_limits(section);
    section.finish();
    let grpc = grpc?;
    if tls.is_none() && !grpc.ip().is_loopback() {
        section.problem(
            "grpc",
            format!(
                "{grpc} can be reached by other machines, and without TLS the network can read along; \
                 set [listen.tls] cert and key, or listen on 127.0.0.1:{}",
                grpc.port()
            ),
        );
        return None;
    }
    match tls {
        None => Some(Listen { grpc, tls: None, advertise, limits }),
        Some(tls) => Some(Listen { grpc, tls: Some(tls?), advertise, limits }),
    }
}

fn is_address(text: &str) -> bool {
    let parsed = text.parse::<tonic::transport::Uri>();
    let known =
        |uri: &tonic::transport::Uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some();
    text.len() <= MAX_ADVERTISE && parsed.is_ok_and(|uri| known(&uri))
}
