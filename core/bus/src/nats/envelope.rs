//! Envelopes as NATS messages: attributes in headers.

use async_nats::{HeaderMap, HeaderValue};
use bytes::Bytes;
use rotacast_proto::{Envelope, EnvelopeError};

use crate::BusError;

/// The headers of a message.
pub(super) fn headers(envelope: &Envelope, endpoint: &str) -> Result<HeaderMap, BusError> {
    let mut headers = HeaderMap::new();
    for (name, value) in envelope.headers() {
        let value: HeaderValue = value.parse().map_err(|_| BusError::Denied {
            endpoint: endpoint.to_owned(),
            problem: format!("header {name} contains a line break"),
        })?;
        headers.insert(name, value);
    }
    Ok(headers)
}

/// The envelope of a message.
pub(super) fn read(headers: Option<&HeaderMap>, payload: Bytes) -> Result<Envelope, EnvelopeError> {
    let pairs = headers.into_iter().flat_map(HeaderMap::iter).filter_map(|(name, values)| {
        let name: &str = name.as_ref();
        values.last().map(|value| (name, value.as_str()))
    });
    Envelope::from_headers(pairs, payload)
}
