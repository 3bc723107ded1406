//! Publishing what the stream acknowledges, and what JetStream says when it does not.

use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::{self, ErrorCode};
use rotacast_proto::Envelope;

use crate::BusError;
use crate::feed::{LastProblem, next_pause, pauses};
use crate::nats::stream::Kind;
use crate::nats::{NatsBus, envelope};

/// How a publish failed.
pub(super) enum PublishFailure {
    /// Another broadcaster published the subject meanwhile, or the stream is another.
    WrongSequence,
    NoStream,
    Other(BusError),
}

impl NatsBus {
    pub(super) fn full(&self, problem: impl Into<String>) -> BusError {
        BusError::Full { endpoint: self.inner.endpoint.clone(), problem: problem.into() }
    }

    /// What a JetStream API says.
    pub(super) fn api_error(&self, error: &jetstream::Error) -> BusError {
        match error.error_code() {
            ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => {
                self.misconfigured(format!("{error}; start the server with JetStream (nats-server -js)"))
            }
            ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
            | ErrorCode::CLUSTER_NO_PEERS
            | ErrorCode::INSUFFICIENT_RESOURCES
            | ErrorCode::MAXIMUM_CONSUMERS_LIMIT
            | ErrorCode::MAXIMUM_STREAMS_LIMIT
            | ErrorCode::MEMORY_RESOURCES_EXCEEDED
            | ErrorCode::STORAGE_RESOURCES_EXCEEDED
            | ErrorCode::STREAM_STORE_FAILED => {
                self.full(format!("{error}; give JetStream more room, or set smaller sizes in [bus.streams]"))
            }
            // What a cluster says while it elects a leader.
            ErrorCode::CLUSTER_NOT_AVAILABLE | ErrorCode::CLUSTER_NOT_LEADER => self.unreachable(error.to_string()),
            _ if error.code() == 503 => self.unreachable(error.to_string()),
            _ if error.code() < 500 => self.misconfigured(error.to_string()),
            _ => BusError::Unknown { endpoint: self.inner.endpoint.clone(), problem: error.to_string() },
        }
    }

    /// A request that got no answer.
    pub(super) fn request_error(&self, problem: &dyn std::fmt::Display) -> BusError {
        if self.is_connected() && !self.inner.client.server_info().jetstream {
            return self.misconfigured("no JetStream; start the server with it (nats-server -js)");
        }
        self.unanswered(problem)
    }

    pub(super) fn publish_failure(&self, problem: &PublishError) -> PublishFailure {
        let api = std::error::Error::source(problem).and_then(|source| source.downcast_ref::<jetstream::Error>());
        match (problem.kind(), api) {
            (PublishErrorKind::WrongLastSequence, _) => PublishFailure::WrongSequence,
            (_, Some(error)) if error.error_code() == ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT => {
                PublishFailure::WrongSequence
            }
            (PublishErrorKind::StreamNotFound, _) => PublishFailure::NoStream,
            (_, Some(error)) => PublishFailure::Other(self.api_error(error)),
            (_, None) => PublishFailure::Other(self.request_error(problem)),
        }
    }

    /// Publishes until it is acknowledged. Doubling is harmless: it is the whole state of its key. No message
    /// id here: the server would take a message for a duplicate although its first copy was pruned meanwhile.
    pub(super) async fn publish_durably(
        &self,
        kind: Kind,
        subject: String,
        envelope: &Envelope,
    ) -> Result<(), BusError> {
        let last = LastProblem::default();
        self.within_or(&last, self.publish_until_durable(kind, subject, envelope, &last)).await
    }

    async fn publish_until_durable(
        &self,
        kind: Kind,
        subject: String,
        envelope: &Envelope,
        last: &LastProblem,
    ) -> Result<(), BusError> {
        let headers = envelope::headers(envelope, &self.inner.endpoint)?;
        let mut row = pauses();
        loop {
            let sent = self
                .inner
                .context
                .publish_with_headers(subject.clone(), headers.clone(), envelope.payload.clone())
                .await;
            let outcome = match sent {
                Ok(acknowledgement) => acknowledgement.await,
                Err(problem) => Err(problem),
            };
            let Err(problem) = outcome else { return Ok(()) };
            match self.publish_failure(&problem) {
                PublishFailure::NoStream => {
                    self.make(kind).await?;
                }
                PublishFailure::WrongSequence => return Err(self.unreachable(problem.to_string())),
                PublishFailure::Other(problem) if problem.is_transient() => {
                    tracing::debug!(%problem, %subject, "publish repeated");
                    last.note(problem);
                }
                PublishFailure::Other(problem) => return Err(problem),
            }
            tokio::time::sleep(next_pause(&mut row)).await;
        }
    }
}
