//! Answering Syncs over core NATS.

use async_nats::{Client, Subject};
use futures::StreamExt as _;
use futures::stream::{BoxStream, FuturesUnordered};
use rotacast_log_limit::LogLimit;
use rotacast_proto::Envelope;
use tokio::sync::mpsc;

use crate::bus::message_bytes;
use crate::feed::{self, next_pause, pauses};
use crate::nats::{NatsBus, envelope};
use crate::{BusError, CALL_TIMEOUT, Replier, SyncCall};

/// Requests waiting for the leader. A leader that is this far behind is as good as none: callers ask again.
const SYNC_QUEUE: usize = 1024;
/// Requests the leader has taken and not answered yet. Beyond it new ones are dropped: callers ask again.
const MAX_UNANSWERED: usize = 16 * 1024;

/// Listens for Syncs as long as the stream is held.
pub(super) fn serve(bus: NatsBus) -> BoxStream<'static, Result<SyncCall, BusError>> {
    feed::spawn(SYNC_QUEUE, move |out| async move {
        let mut row = pauses();
        loop {
            // The client itself subscribes again after a reconnect.
            match bus.inner.client.subscribe(bus.inner.names.sync()).await {
                Ok(requests) => answer(&bus, requests, &out).await,
                Err(problem) => tracing::warn!(%problem, "cannot listen for Syncs"),
            }
            tokio::time::sleep(next_pause(&mut row)).await;
        }
    })
}

async fn answer(bus: &NatsBus, mut requests: async_nats::Subscriber, out: &mpsc::Sender<Result<SyncCall, BusError>>) {
    let mut unanswered = FuturesUnordered::new();
    loop {
        tokio::select! {
            request = requests.next() => {
                let Some(request) = request else { return };
                let Some(way_back) = request.reply else { continue };
                let envelope = match envelope::read(request.headers.as_ref(), request.payload) {
                    Ok(envelope) => envelope,
                    Err(problem) => {
                        static LIMIT: LogLimit = LogLimit::new();
                        if let Some(left_out) = LIMIT.admit() {
                            tracing::warn!(%problem, left_out, "Sync that is none of ours");
                        }
                        continue;
                    }
                };
                if unanswered.len() >= MAX_UNANSWERED {
                    tracing::debug!("too many Syncs unanswered; one dropped");
                    continue;
                }
                let (reply, answer) = Replier::channel();
                if out.try_send(Ok(SyncCall { request: envelope, reply })).is_err() {
                    tracing::debug!("too many Syncs waiting; one dropped");
                    continue;
                }
                // No instance waits longer than this for a reply.
                unanswered.push(async move { (way_back, tokio::time::timeout(CALL_TIMEOUT, answer).await) });
            }
            Some((way_back, outcome)) = unanswered.next(), if !unanswered.is_empty() => {
                // A dropped replier or one that took too long: the caller's own timeout tells it.
                if let Ok(Ok(reply)) = outcome {
                    send(bus, way_back, reply).await;
                }
            }
        }
    }
}

async fn send(bus: &NatsBus, way_back: Subject, reply: Envelope) {
    if !fits(&bus.inner.client, &reply) {
        static LIMIT: LogLimit = LogLimit::new();
        if let Some(left_out) = LIMIT.admit() {
            let subject = &reply.subject;
            tracing::error!(%subject, left_out, "reply to a Sync is beyond the server's max_payload; dropped");
        }
        return;
    }
    let headers = match envelope::headers(&reply, &bus.inner.endpoint) {
        Ok(headers) => headers,
        Err(problem) => {
            static LIMIT: LogLimit = LogLimit::new();
            if let Some(left_out) = LIMIT.admit() {
                tracing::error!(%problem, left_out, "reply to a Sync dropped");
            }
            return;
        }
    };
    if let Err(problem) = bus.inner.client.publish_with_headers(way_back, headers, reply.payload).await {
        tracing::debug!(%problem, "reply to a Sync not sent; the caller asks again");
    }
}

/// Whether a reply fits the server.
fn fits(client: &Client, envelope: &Envelope) -> bool {
    message_bytes(envelope) <= client.max_payload()
}
