//! Making a registration durable.
//!
//! The stream acknowledges no publish: NATS would answer wherever the client says, with rights of its own, and so a service
//! could have it publish for it. In place of that the stream announces what it has stored under a subject of its own, which
//! follows from the registration's.

use async_nats::{StatusCode, Subscriber};
use bytes::Bytes;
use futures::StreamExt as _;
use rotacast_proto::Envelope;
use rotacast_protocol::InstanceKey;

use super::stream::Kind;
use super::{NatsBus, REQUEST_TIMEOUT, envelope};
use crate::BusError;
use crate::feed::{LastProblem, next_pause, pauses};

/// What was heard of a registration.
enum Heard {
    Stored,
    NoStream,
    /// The client was closed.
    Nothing,
}

impl NatsBus {
    /// Publishes until it is stored. Doubling is harmless: it is the whole state of its key.
    pub(super) async fn register_until_stored(
        &self,
        key: &InstanceKey,
        registration: &Envelope,
        last: &LastProblem,
    ) -> Result<(), BusError> {
        let (subject, announced) = (self.inner.names.registration(key), self.inner.names.registered(key));
        let headers = envelope::headers(registration, &self.inner.endpoint)?;
        let client = &self.inner.client;
        let unsent = |problem: &dyn std::fmt::Display| self.unreachable(problem.to_string());
        let mut announcements = client.subscribe(announced.clone()).await.map_err(|problem| unsent(&problem))?;
        let mut row = pauses();
        loop {
            // The server says that a stream is missing where replies go.
            let sent = client.publish_with_reply_and_headers(
                subject.clone(),
                announced.clone(),
                headers.clone(),
                registration.payload.clone(),
            );
            sent.await.map_err(|problem| unsent(&problem))?;
            match tokio::time::timeout(REQUEST_TIMEOUT, hear(&mut announcements, registration)).await {
                Ok(Heard::Stored) => return Ok(()),
                Ok(Heard::NoStream) => self.make(Kind::Registrations).await?,
                Ok(Heard::Nothing) => return Err(self.unreachable("the client was closed")),
                Err(_) => {
                    tracing::debug!(%subject, "publish repeated");
                    last.note(self.unanswered("the stream of registrations has not stored it in time"));
                }
            }
            tokio::time::sleep(next_pause(&mut row)).await;
        }
    }
}

/// Until the stream says that it has stored this registration, or the server that there is no stream.
async fn hear(announcements: &mut Subscriber, registration: &Envelope) -> Heard {
    while let Some(message) = announcements.next().await {
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            return Heard::NoStream;
        }
        // An announcement has the headers alone; another registration of this incarnation has another signature.
        let stored = envelope::read(message.headers.as_ref(), Bytes::new());
        if stored.is_ok_and(|stored| stored.signature == registration.signature) {
            return Heard::Stored;
        }
    }
    Heard::Nothing
}
