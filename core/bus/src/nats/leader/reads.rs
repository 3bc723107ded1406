//! Reading states for services.
//!
//! A service does not ask the stream itself: NATS would answer wherever the request says, with rights of its own. A
//! broadcaster looks where the answer goes. Every broadcaster answers, also one that does not lead.

use std::sync::Arc;

use async_nats::jetstream::context::Context;
use async_nats::jetstream::stream::DirectGetErrorKind;
use async_nats::{Client, HeaderMap, HeaderValue, Message, StatusCode, Subject};
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use rotacast_log_limit::LogLimit;

use super::StrayCounts;
use crate::Stray;
use crate::feed::{next_pause, pauses};
use crate::nats::envelope;
use crate::nats::following::SEQUENCE;
use crate::nats::stream::Kind;
use crate::nats::subject::Names;

/// Reads under way at once. Beyond it requests wait in the subscription, and askers that get no answer ask again.
const MAX_READS: usize = 256;
/// The broadcasters share the requests.
const QUEUE: &str = "broadcasters";

/// What reads.
pub(in crate::nats) struct Reads {
    pub(in crate::nats) client: Client,
    pub(in crate::nats) context: Context,
    pub(in crate::nats) names: Names,
    pub(in crate::nats) strays: Arc<StrayCounts>,
}

impl Reads {
    /// Answers until it is dropped.
    pub(in crate::nats) async fn serve(self) {
        let mut row = pauses();
        loop {
            // The client itself subscribes again after a reconnect.
            match self.client.queue_subscribe(self.names.reads(), QUEUE.into()).await {
                Ok(mut requests) => {
                    let mut reads = FuturesUnordered::new();
                    loop {
                        tokio::select! {
                            request = requests.next(), if reads.len() < MAX_READS => match request {
                                Some(request) => reads.push(self.answer(request)),
                                None => break,
                            },
                            Some(()) = reads.next(), if !reads.is_empty() => {}
                        }
                    }
                }
                Err(problem) => tracing::warn!(%problem, "cannot listen for reads of states"),
            }
            tokio::time::sleep(next_pause(&mut row)).await;
        }
    }

    async fn answer(&self, request: Message) {
        let Message { subject, reply: Some(way_back), .. } = request else { return };
        let Some((asker, state)) = self.names.read_of(&subject) else { return };
        if !asker.owns(&self.names, &way_back) {
            static LIMIT: LogLimit = LogLimit::new();
            self.strays.note(Stray::ReplyTo);
            if let Some(left_out) = LIMIT.admit() {
                tracing::warn!(%subject, %way_back, left_out, "refused to read a state: it was to go elsewhere than into the asker's inbox");
            }
            return;
        }
        if let Err(problem) = self.read(state, way_back).await {
            tracing::debug!(problem, %subject, "a state was not read; the asker asks again");
        }
    }

    async fn read(&self, state: String, way_back: Subject) -> Result<(), String> {
        let stream = self.context.get_stream_no_info(Kind::State.stream(&self.names)).await;
        let read = stream.map_err(|problem| problem.to_string())?.direct_get_last_for_subject(state).await;
        let stored = match read {
            Ok(stored) => Some(stored),
            Err(problem) => match problem.kind() {
                DirectGetErrorKind::NotFound | DirectGetErrorKind::ErrorResponse(StatusCode::NO_RESPONDERS, _) => None,
                _ => return Err(problem.to_string()),
            },
        };
        let sequence = stored.as_ref().map_or(0, |stored| stored.sequence);
        let envelope = stored.and_then(|stored| envelope::read(Some(&stored.headers), stored.payload).ok());
        let (mut headers, payload) = match envelope {
            Some(state) => (envelope::headers(&state, "NATS").map_err(|problem| problem.to_string())?, state.payload),
            None => (HeaderMap::new(), Bytes::new()),
        };
        headers.insert(SEQUENCE, HeaderValue::from(sequence));
        let sent = self.client.publish_with_headers(way_back, headers, payload).await;
        sent.map_err(|problem| problem.to_string())
    }
}
