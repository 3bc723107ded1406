//! The bus that carries the messages of one round, for Rotacast and for the floor below it.

use std::sync::Arc;

use bytes::Bytes;
use rotacast_bus::{InstanceBus, LeaderBus};
use rotacast_protocol::ClusterName;

/// A bus to measure over, with a server of its own.
pub(super) trait Carrier: Sized {
    /// As headings name it.
    const NAME: &'static str;
    /// How many instances take part: as many as the client library can be started for.
    const INSTANCES: usize;
    /// The client library alone.
    type Link: Link;

    /// `None`: the server is missing.
    async fn start() -> Option<Self>;

    /// A broadcaster's side.
    async fn leader(&self) -> Arc<dyn LeaderBus>;

    /// One process's side: it shares nothing with another one.
    async fn instance(&self) -> Arc<dyn InstanceBus>;

    /// The same for the floor. Everything that is published to `reads` once all links are there is read.
    async fn link(&self, reads: &str, writes: &str) -> Self::Link;
}

/// Messages from one subject or topic, and messages to another.
pub(super) trait Link: Send + 'static {
    /// As durable as announcements and reports on this bus, or less.
    fn publish(&mut self, message: Bytes) -> impl Future<Output = ()> + Send;

    fn next(&mut self) -> impl Future<Output = Bytes> + Send;
}

pub(super) fn cluster() -> ClusterName {
    ClusterName::new("bench").unwrap()
}
