//! Where clients and instances reach the broadcaster.

use std::net::SocketAddr;
use std::path::PathBuf;

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
        None => Some(Listen { grpc, tls: None, advertise }),
        Some(tls) => Some(Listen { grpc, tls: Some(tls?), advertise }),
    }
}

fn is_address(text: &str) -> bool {
    let parsed = text.parse::<tonic::transport::Uri>();
    let known =
        |uri: &tonic::transport::Uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some();
    text.len() <= MAX_ADVERTISE && parsed.is_ok_and(|uri| known(&uri))
}
