//! The bus of a world: which one, and how broadcaster and services are told of it.

use crate::servers::{Kafka, Nats};

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
    pub(super) async fn start(kind: BusKind) -> Option<Self> {
        Some(match kind {
            BusKind::Embedded => Self::Embedded,
            BusKind::Nats => Self::Nats(Nats::start().await?),
            BusKind::Kafka => Self::Kafka(Kafka::start().await?),
        })
    }

    /// The port of a bus that may stand behind a proxy: Kafka's brokers say themselves where they are.
    pub(super) fn port(&self) -> Option<u16> {
        if let Self::Nats(nats) = self { Some(nats.port()) } else { None }
    }

    /// The settings in `[bus]`; `port`: where NATS is reached.
    pub(super) fn settings(&self, port: Option<u16>) -> String {
        match self {
            Self::Embedded => "kind = \"embedded\"\n".into(),
            Self::Nats(nats) => {
                format!("kind = \"nats\"\nurl = \"nats://127.0.0.1:{}\"\n", port.unwrap_or(nats.port()))
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

    /// To be paused or killed.
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
