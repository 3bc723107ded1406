//! Over OpenTelemetry's API: the service's own tracer provider decides what becomes of the spans.

use std::collections::BTreeMap;
use std::fmt::Display;

use opentelemetry::trace::{
    FutureExt as _, SpanContext, SpanId, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState, Tracer as _,
};
use opentelemetry::{Context, InstrumentationScope, KeyValue, global};
use rotacast_holder::{Holder, Step};
use rotacast_protocol::message::SecretState;
use rotacast_protocol::{InstanceKey, Revision, RotationId, SecretName, Version};

/// The W3C trace context at this place, for a hook to hand on; `None` outside of any span.
///
/// A service that uses OpenTelemetry, or `tracing` with its layer, does not need it: in a hook, the current context is that of the
/// rotation already.
#[must_use]
pub fn traceparent() -> Option<String> {
    let context = Context::current();
    let span = context.span();
    let span = span.span_context();
    let flags = span.trace_flags().to_u8();
    span.is_valid().then(|| format!("00-{}-{}-{flags:02x}", span.trace_id(), span.span_id()))
}

/// A header as this version of the standard has it; a later version begins the same way.
fn parse(header: &str) -> Option<SpanContext> {
    let parts: Vec<&str> = header.splitn(5, '-').collect();
    let (version, trace, span, flags) = match &*parts {
        [version, trace, span, flags] => (version, trace, span, flags),
        [version, trace, span, flags, _] if *version != "00" => (version, trace, span, flags),
        _ => return None,
    };
    let hex = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    if !(hex(version, 2) && hex(trace, 32) && hex(span, 16) && hex(flags, 2)) || *version == "ff" {
        return None;
    }
    let flags = u8::from_str_radix(flags, 16).ok()?;
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    let flags = TraceFlags::new(flags) & TraceFlags::SAMPLED;
    let context = SpanContext::new(trace, span, flags, true, TraceState::NONE);
    context.is_valid().then_some(context)
}

/// The spans of one secret.
pub(crate) struct SecretTrace {
    attributes: [KeyValue; 2],
    /// The newest desired state's revision: an older one that arrives late does not replace it.
    revision: Option<Revision>,
    rotation: Option<(RotationId, SpanContext)>,
    /// Versions on their way out, from the switch until they are released. At most those that are loaded.
    drains: BTreeMap<Version, Running>,
    serving: Option<Version>,
}

impl SecretTrace {
    pub(crate) fn new(secret: &SecretName, key: &InstanceKey) -> Self {
        let instance = format!("{}/{}", key.service, key.instance);
        Self {
            attributes: [
                KeyValue::new("rotacast.secret", secret.to_string()),
                KeyValue::new("rotacast.instance", instance),
            ],
            revision: None,
            rotation: None,
            drains: BTreeMap::new(),
            serving: None,
        }
    }

    /// A desired state has come, with its message's trace context; empty if it came without one.
    pub(crate) fn told(&mut self, state: &SecretState, traceparent: &str) {
        if self.revision > Some(state.revision) {
            return;
        }
        self.revision = Some(state.revision);
        let context = parse(traceparent);
        self.rotation = match (&state.rotation, context, self.rotation.take()) {
            (Some(id), Some(context), _) => Some((id.clone(), context)),
            // Read from the store, say: the rotation is known all the same.
            (Some(id), None, Some(known)) if known.0 == *id => Some(known),
            _ => None,
        };
    }

    pub(crate) fn load(&self, version: Version) -> Running {
        self.begin("rotacast load", version, &self.parent())
    }

    pub(crate) fn step(&self, step: Step, version: Version) -> Running {
        match step {
            Step::Prepare => self.begin("rotacast prepare", version, &self.parent()),
            Step::Switch => self.begin("rotacast switch", version, &self.parent()),
            Step::Release => {
                let parent = self.drains.get(&version).map_or_else(|| self.parent(), |drain| drain.0.clone());
                self.begin("rotacast release", version, &parent)
            }
        }
    }

    /// Follows which version is served, and which are still there.
    pub(crate) fn in_step(&mut self, holder: &Holder) {
        let serving = holder.serving();
        if let Some(version) = serving
            && serving != self.serving
        {
            // Wanted again, after a rollback.
            self.end(version);
            if let Some(old) = self.serving {
                let drain = self.begin("rotacast drain", old, &self.parent());
                self.drains.insert(old, drain);
            }
            self.serving = serving;
        }
        if self.drains.is_empty() {
            return;
        }
        let loaded: Vec<Version> = holder.loaded().collect();
        let gone: Vec<Version> = self.drains.keys().copied().filter(|version| !loaded.contains(version)).collect();
        gone.into_iter().for_each(|version| self.end(version));
    }

    fn end(&mut self, version: Version) {
        // Ends with its last clone.
        drop(self.drains.remove(&version));
    }

    fn parent(&self) -> Context {
        let context = Context::new();
        match &self.rotation {
            Some((_, span)) => context.with_remote_span_context(span.clone()),
            None => context,
        }
    }

    fn begin(&self, name: &'static str, version: Version, parent: &Context) -> Running {
        // Asked each time: the service may set its provider after it has made its subscriber.
        let scope =
            InstrumentationScope::builder("rotacast-subscriber").with_version(env!("CARGO_PKG_VERSION")).build();
        let tracer = global::tracer_with_scope(scope);
        let mut attributes = self.attributes.to_vec();
        attributes.push(KeyValue::new("rotacast.version", i64::try_from(version.get()).unwrap_or(i64::MAX)));
        if let Some((rotation, _)) = &self.rotation {
            attributes.push(KeyValue::new("rotacast.rotation", rotation.to_string()));
        }
        let span = tracer.build_with_context(tracer.span_builder(name).with_attributes(attributes), parent);
        Running(parent.with_span(span))
    }
}

/// A span that has begun; it ends when this is dropped.
pub(crate) struct Running(Context);

impl Running {
    /// Does the work with this span as the current one, and ends it with the work.
    pub(crate) async fn run<T, E: Display>(self, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let result = work.with_context(self.0.clone()).await;
        if let Err(problem) = &result {
            self.0.span().set_status(Status::error(problem.to_string()));
        }
        result
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.span().end();
    }
}
