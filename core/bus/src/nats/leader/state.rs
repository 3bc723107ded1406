//! Publishing desired states so that an older leader cannot overwrite a newer one's.

use std::collections::HashMap;
use std::sync::PoisonError;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::message::{PublishMessage, StreamMessage};
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use async_nats::{HeaderMap, HeaderValue};
use bytes::Bytes;
use rotacast_proto::Envelope;
use rotacast_protocol::{Revision, SecretName};

use super::publish::PublishFailure;
use crate::BusError;
use crate::feed::{LastProblem, next_pause, pauses};
use crate::nats::stream::Kind;
use crate::nats::{NatsBus, envelope};

/// Most secrets whose place in the stream is remembered; beyond it all are forgotten and read again.
const MAX_REMEMBERED: usize = 100_000;

/// The revision of a state, so that a publisher can tell whose is newer without reading the payload.
const REVISION: &str = "rotacast-revision";

/// What was last published of each secret, as far as this process knows.
pub(in crate::nats) type LastStates = HashMap<SecretName, Last>;

/// The last message of one subject.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(in crate::nats) struct Last {
    /// Its sequence; 0: there is none.
    sequence: u64,
    revision: Revision,
    id: String,
    signature: Bytes,
}

impl NatsBus {
    /// Publishes on condition that nothing newer has been. A retry whose first attempt had landed succeeds.
    pub(super) async fn publish_state_fenced(
        &self,
        secret: &SecretName,
        revision: Revision,
        state: &Envelope,
        over: Option<&Envelope>,
        repeated: &LastProblem,
    ) -> Result<(), BusError> {
        let subject = self.inner.names.state(secret);
        let mut headers = envelope::headers(state, &self.inner.endpoint)?;
        set_revision(&mut headers, revision);
        let mut row = pauses();
        let mut deduplicate = true;
        loop {
            let last = match self.remembered(secret) {
                Some(last) => last,
                None => {
                    let last = self.read_last(&subject, repeated).await?;
                    if last.sequence > 0 && last.id == state.id && last.revision == revision {
                        self.remember(secret, last);
                        return Ok(());
                    }
                    last
                }
            };
            let counts = over.is_none_or(|over| over.signature != last.signature);
            if last.revision > revision && counts {
                return Err(BusError::Fenced { subject });
            }
            let mut publish = PublishMessage::build()
                .payload(state.payload.clone())
                .headers(headers.clone())
                .expected_last_subject_sequence(last.sequence);
            if deduplicate {
                publish = publish.message_id(&state.id);
            }
            let outcome = match self.inner.context.send_publish(subject.clone(), publish).await {
                Ok(acknowledgement) => acknowledgement.await,
                Err(problem) => Err(problem),
            };
            // Whatever goes wrong from here on: look at the server, not at our memory.
            self.forget_state(secret);
            match outcome {
                Ok(acknowledgement) if !acknowledgement.duplicate => {
                    let (id, signature) = (state.id.clone(), state.signature.clone());
                    self.remember(secret, Last { sequence: acknowledgement.sequence, revision, id, signature });
                    return Ok(());
                }
                // Stored once, but perhaps no longer: read, and if it is gone publish without the id.
                Ok(_) => deduplicate = false,
                Err(problem) => match self.publish_failure(&problem) {
                    PublishFailure::WrongSequence => tracing::debug!(%subject, "published by another meanwhile"),
                    PublishFailure::NoStream => {
                        self.ensure(Kind::State).await?;
                        deduplicate = false;
                    }
                    PublishFailure::Other(problem) if problem.is_transient() => {
                        tracing::debug!(%problem, %subject, "publish repeated");
                        repeated.note(problem);
                        tokio::time::sleep(next_pause(&mut row)).await;
                    }
                    PublishFailure::Other(problem) => return Err(problem),
                },
            }
        }
    }

    /// The last message of a subject, as the stream's leader has it.
    async fn read_last(&self, subject: &str, repeated: &LastProblem) -> Result<Last, BusError> {
        let Some(message) = self.read_message(subject, repeated).await? else { return Ok(Last::default()) };
        let sequence = message.sequence;
        // What is no state of ours is overwritten by one.
        let last = match envelope::read(Some(&message.headers), message.payload) {
            Ok(Envelope { id, signature, .. }) => {
                Last { sequence, revision: revision_of(&message.headers).unwrap_or_default(), id, signature }
            }
            Err(_) => Last { sequence, ..Last::default() },
        };
        Ok(last)
    }

    /// The last message of a subject of the states, if it is one of ours.
    pub(super) async fn read_envelope(&self, subject: &str) -> Result<Option<Envelope>, BusError> {
        let repeated = LastProblem::default();
        let message = self.within_or(&repeated, self.read_message(subject, &repeated)).await?;
        Ok(message.and_then(|message| envelope::read(Some(&message.headers), message.payload).ok()))
    }

    async fn read_message(&self, subject: &str, repeated: &LastProblem) -> Result<Option<StreamMessage>, BusError> {
        let mut row = pauses();
        loop {
            let name = Kind::State.stream(&self.inner.names);
            let stream =
                self.inner.context.get_stream_no_info(&name).await.map_err(|problem| self.request_error(&problem))?;
            let problem = match stream.get_last_raw_message_by_subject(subject).await {
                Ok(message) => {
                    repeated.take();
                    return Ok(Some(message));
                }
                Err(problem) => match problem.kind() {
                    LastRawMessageErrorKind::NoMessageFound => return Ok(None),
                    LastRawMessageErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                        self.ensure(Kind::State).await?;
                        return Ok(None);
                    }
                    LastRawMessageErrorKind::JetStream(error) => self.api_error(&error),
                    _ => self.request_error(&problem),
                },
            };
            if !problem.is_transient() {
                return Err(problem);
            }
            repeated.note(problem);
            tokio::time::sleep(next_pause(&mut row)).await;
        }
    }

    fn remembered(&self, secret: &SecretName) -> Option<Last> {
        self.last_states().get(secret).cloned()
    }

    fn remember(&self, secret: &SecretName, last: Last) {
        let mut states = self.last_states();
        if states.len() >= MAX_REMEMBERED {
            states.clear();
        }
        states.insert(secret.clone(), last);
    }

    fn forget_state(&self, secret: &SecretName) {
        self.last_states().remove(secret);
    }

    fn last_states(&self) -> std::sync::MutexGuard<'_, LastStates> {
        // A map is whole after every call on it, so a panic elsewhere poisons nothing.
        self.inner.last_states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn set_revision(headers: &mut HeaderMap, revision: Revision) {
    headers.insert(REVISION, HeaderValue::from(revision.0));
}

fn revision_of(headers: &HeaderMap) -> Option<Revision> {
    headers.get(REVISION).and_then(|value| value.as_str().parse().ok()).map(Revision)
}
