//! Answering Syncs over core NATS.

use async_nats::{Client, Subject};
use futures::StreamExt as _;
use futures::stream::{BoxStream, FuturesUnordered};
use rotacast_log_limit::LogLimit;
use rotacast_proto::Envelope;
use rotacast_protocol::InstanceKey;
use tokio::sync::mpsc;

use crate::bus::message_bytes;
use crate::feed::{self, next_pause, pauses};
use crate::nats::{NatsBus, envelope};
use crate::{BusError, CALL_TIMEOUT, MAX_MESSAGE_BYTES, Replier, Stray, SyncCall};

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
            match bus.inner.client.subscribe(bus.inner.names.syncs()).await {
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
                let Some((way_back, envelope)) = take(bus, request) else { continue };
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

/// A Sync and the way back, if the login that sent it may send it. That login is the one that the subject names: the server
/// lets no other publish there.
fn take(bus: &NatsBus, request: async_nats::Message) -> Option<(Subject, Envelope)> {
    let async_nats::Message { subject, reply, headers, payload, .. } = request;
    let dropped = |stray: Stray, problem: &dyn std::fmt::Display| {
        static LIMIT: LogLimit = LogLimit::new();
        bus.inner.strays.note(stray);
        if let Some(left_out) = LIMIT.admit() {
            tracing::warn!(%subject, %problem, left_out, "refused a Sync");
        }
    };
    // Without a way back there is nothing to answer.
    let way_back = reply?;
    let Some(sender) = bus.inner.names.sync_sender(&subject) else {
        dropped(Stray::Sync, &"its subject names no login");
        return None;
    };
    // The leader may publish where the sender may not: a reply anywhere else would be the sender's message there.
    if !sender.owns(&bus.inner.names, &way_back) {
        dropped(Stray::ReplyTo, &format!("its reply was to go to {way_back}, which is not the sender's inbox"));
        return None;
    }
    if payload.len() > MAX_MESSAGE_BYTES {
        dropped(Stray::Unreadable, &format!("it has {} bytes, expected at most {MAX_MESSAGE_BYTES}", payload.len()));
        return None;
    }
    match envelope::read(headers.as_ref(), payload) {
        Ok(envelope) if InstanceKey::of_full_name(&envelope.subject).is_some_and(|key| sender.speaks_for(&key)) => {
            Some((way_back, envelope))
        }
        Ok(envelope) => {
            let about: String = envelope.subject.chars().take(300).collect();
            dropped(Stray::Sync, &format!("it is about {about:?}, an instance of another service"));
            None
        }
        Err(problem) => {
            dropped(Stray::Unreadable, &problem);
            None
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
