//! Asking for a Sync over core NATS: request and reply, with nothing stored.

use std::time::Duration;

use async_nats::{Request, RequestErrorKind};
use rotacast_proto::Envelope;

use super::{NatsBus, envelope};
use crate::BusError;

/// One Sync. Without a subscriber: `NoLeader` at once.
pub(super) async fn ask(bus: &NatsBus, request: &Envelope, timeout: Duration) -> Result<Envelope, BusError> {
    let endpoint = &bus.inner.endpoint;
    let message = Request::new()
        .headers(envelope::headers(request, endpoint)?)
        .payload(request.payload.clone())
        .timeout(Some(timeout));
    let no_leader = |problem: &str| BusError::NoLeader { endpoint: endpoint.clone(), problem: problem.to_owned() };
    let silent = || match bus.inner.violations.last() {
        Some(_) => bus.unanswered("no answer in time"),
        None => no_leader("no answer in time"),
    };
    // The client's own timeout begins only once the request has a place in its queue.
    let asked = bus.inner.client.send_request(bus.inner.names.sync(&bus.inner.options.party), message);
    let reply = match tokio::time::timeout(timeout, asked).await {
        Ok(Ok(reply)) => reply,
        Ok(Err(problem)) => {
            return Err(match problem.kind() {
                RequestErrorKind::NoResponders => no_leader("no broadcaster leads here"),
                RequestErrorKind::TimedOut if bus.is_connected() => silent(),
                RequestErrorKind::MaxPayloadExceeded
                | RequestErrorKind::InvalidSubject
                | RequestErrorKind::TimedOut
                | RequestErrorKind::Other => bus.unreachable(problem.to_string()),
            });
        }
        Err(_) if bus.is_connected() => return Err(silent()),
        Err(_) => return Err(bus.unreachable("not connected; reconnecting")),
    };
    envelope::read(reply.headers.as_ref(), reply.payload)
        .map_err(|problem| no_leader(&format!("the answer does not read: {problem}")))
}
