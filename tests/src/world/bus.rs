//! The bus of a world: which one, and how broadcaster and services are configured for it.

use std::path::Path;

use super::Options;
use super::permissions;
use crate::servers::{Kafka, Nats, NatsConfig};

/// The folder, in the world's, with the certificates of NATS and of the broadcasters.
pub const TLS: &str = "tls";

/// TLS for clients that ask for it, with certificates on both sides.
fn offers(folder: &Path) -> String {
    let path = |name: &str| folder.join(name);
    format!(
        "tls {{ cert_file: {:?}, key_file: {:?}, ca_file: {:?}, verify: true }}\nallow_non_tls: true",
        path("server.pem"),
        path("server.key"),
        path("ca.pem")
    )
}

/// Which bus.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BusKind {
    /// The broadcaster's own, over gRPC.
    Embedded,
    /// NATS.
    Nats,
    /// Kafka.
    Kafka,
}

impl BusKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Embedded, Self::Nats, Self::Kafka];
}

/// The bus, running.
#[derive(Debug)]
pub enum BusServer {
    /// In the broadcaster.
    Embedded,
    /// A server.
    Nats(Nats),
    /// A single broker.
    Kafka(Kafka),
}

impl BusServer {
    /// `tls`: the folder of NATS's certificates, if it has any.
    /// `variables`: for NATS's environment.
    pub(super) async fn start(kind: BusKind, tls: Option<&Path>, variables: &[(String, String)]) -> Option<Self> {
        Some(match kind {
            BusKind::Embedded => Self::Embedded,
            BusKind::Nats => {
                let top = tls.map(offers).unwrap_or_default();
                Self::Nats(Nats::start_in(NatsConfig { top: &top, jetstream: "" }, variables).await?)
            }
            BusKind::Kafka => Self::Kafka(Kafka::start().await?),
        })
    }

    /// The port of a bus that may stand behind a proxy. Kafka's brokers announce their own addresses, so Kafka's may
    /// not.
    pub(super) fn port(&self) -> Option<u16> {
        if let Self::Nats(nats) = self { Some(nats.port()) } else { None }
    }

    /// The settings in `[bus]`; `port`: where NATS is reached.
    pub(super) fn settings(&self, port: Option<u16>, options: &Options) -> String {
        match self {
            Self::Embedded => "kind = \"embedded\"\n".into(),
            Self::Nats(nats) => {
                let port = port.unwrap_or(nats.port());
                let login = if options.permissions { permissions::login() } else { String::new() };
                if options.bus_tls {
                    format!(
                        "kind = \"nats\"\nurl = \"tls://127.0.0.1:{port}\"\ntls = {{ ca = \"{TLS}/ca.pem\", cert = \"{TLS}/client.pem\", \
                         key = \"{TLS}/client.key\" }}\n"
                    )
                } else {
                    format!("kind = \"nats\"\nurl = \"nats://127.0.0.1:{port}\"\n{login}")
                }
            }
            Self::Kafka(kafka) => format!("kind = \"kafka\"\nbrokers = [\"{}\"]\n", kafka.broker()),
        }
    }

    /// What a service connects to; `broadcaster` is `http://host:port`.
    pub(super) fn url(&self, broadcaster: &str) -> String {
        match self {
            Self::Embedded => broadcaster.replacen("http://", "grpc://", 1),
            Self::Nats(nats) => nats.url(),
            Self::Kafka(kafka) => format!("kafka://{}", kafka.broker()),
        }
    }

    /// # Panics
    /// If it is another bus.
    #[must_use]
    pub fn nats(&self) -> &Nats {
        let Self::Nats(nats) = self else { panic!("expected a world on NATS, found {self:?}") };
        nats
    }

    /// The server, to be paused or killed.
    ///
    /// # Panics
    /// If it is another bus.
    #[must_use]
    pub fn nats_mut(&mut self) -> &mut Nats {
        let Self::Nats(nats) = self else { panic!("expected a world on NATS, found {self:?}") };
        nats
    }

    /// # Panics
    /// If it is another bus.
    #[must_use]
    pub fn kafka(&mut self) -> &mut Kafka {
        let Self::Kafka(kafka) = self else { panic!("expected a world on Kafka, found {self:?}") };
        kafka
    }
}
