//! Envelopes as Kafka records: attributes in headers, the key beside them.

use bytes::Bytes;
use rdkafka::message::{Header, Headers as _, Message, OwnedHeaders};
use rotacast_proto::Envelope;
use rotacast_protocol::Revision;

/// The revision of a state, so that a publisher can tell whose is newer without reading the payload.
const REVISION: &str = "rotacast-revision";

/// The headers of a record.
pub(super) fn headers(envelope: &Envelope, revision: Option<Revision>) -> OwnedHeaders {
    let insert = |headers: OwnedHeaders, key, value: &str| headers.insert(Header { key, value: Some(value) });
    let headers =
        envelope.headers().iter().fold(OwnedHeaders::new(), |headers, (name, value)| insert(headers, name, value));
    match revision {
        Some(revision) => insert(headers, REVISION, &revision.0.to_string()),
        None => headers,
    }
}

/// What a record of ours holds. `Err`: none of ours.
pub(super) fn read<M: Message>(record: &M) -> Result<(Envelope, Revision), String> {
    let payload = record.payload().unwrap_or_default();
    let mut pairs = Vec::new();
    for header in record.headers().into_iter().flat_map(|headers| headers.iter()) {
        if let Some(Ok(value)) = header.value.map(std::str::from_utf8) {
            pairs.push((header.key, value));
        }
    }
    let revision = pairs.iter().rfind(|(name, _)| *name == REVISION).and_then(|(_, value)| value.parse().ok());
    let envelope =
        Envelope::from_headers(pairs, Bytes::copy_from_slice(payload)).map_err(|problem| problem.to_string())?;
    envelope.check_size().map_err(|problem| problem.to_string())?;
    Ok((envelope, Revision(revision.unwrap_or_default())))
}
