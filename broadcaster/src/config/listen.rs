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
    section.finish();
    let grpc = grpc?;
    if tls.is_none() && !grpc.ip().is_loopback() {
        section.problem(
            "grpc",
            format!(
                "{grpc} can be reached by other machines, and without TLS anybody there can read along; \
                 set [listen.tls] cert and key, or listen on 127.0.0.1:{}",
                grpc.port()
            ),
        );
        return None;
    }
    match tls {
        None => Some(Listen { grpc, tls: None }),
        Some(tls) => Some(Listen { grpc, tls: Some(tls?) }),
    }
}
