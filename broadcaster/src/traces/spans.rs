//! Spans as they are sent.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{SpanId, SpanKind, Status};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use rotacast_protocol::WallTime;

use super::RotationTrace;

/// Longest text in a span, in characters: reasons are sentences, and collectors cut them anyway.
const MAX_TEXT: usize = 300;

pub(super) fn time(wall: WallTime) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(wall.0)
}

pub(super) fn cut(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}

/// A span of this trace below `parent`.
pub(super) fn span(
    trace: &RotationTrace,
    id: SpanId,
    parent: SpanId,
    name: impl Into<Cow<'static, str>>,
    (start, end): (SystemTime, SystemTime),
    attributes: Vec<KeyValue>,
) -> SpanData {
    SpanData {
        span_context: trace.context(id),
        parent_span_id: parent,
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name: name.into(),
        start_time: start,
        // Two machines' wall clocks may disagree.
        end_time: end.max(start),
        attributes,
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: InstrumentationScope::builder("rotacast")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build(),
    }
}
