//! The log of a broadcaster: one line for each event, as text for people or as JSON for programs.
//!
//! What a span says of itself (which secret, rotation, phase) becomes fields of every line logged within it, flat beside the
//! event's own, so that a log pipeline finds them under one name in every line.

mod fields;
mod line;

use std::io::Write;
use std::sync::Mutex;

use thiserror::Error;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::Context;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer};

use crate::config::LogFormat;
use fields::Fields;
use line::Line;

/// Starts the log of this process, on standard error.
///
/// # Errors
/// A filter that is none, or a log that has been started already.
pub fn start(filter: &str, format: LogFormat, colours: bool) -> Result<(), LogError> {
    let parsed = filter_of(filter)?;
    let layer = LogLayer::new(format, colours, std::io::stderr());
    tracing_subscriber::registry().with(parsed).with(layer).try_init().map_err(|_| LogError::Started)
}

/// What any client that connects can make the TLS library warn of, without a bound: the listener counts failed handshakes,
/// and logs a few of them.
const QUIET: &str = "rustls=error";

fn filter_of(filter: &str) -> Result<EnvFilter, LogError> {
    let wrong = |problem: String| LogError::Filter { filter: filter.to_owned(), problem };
    let parsed = EnvFilter::try_new(filter).map_err(|problem| wrong(problem.to_string()))?;
    match filter.contains("rustls") {
        true => Ok(parsed),
        false => Ok(parsed.add_directive(QUIET.parse().expect("the directive is a constant that is tested"))),
    }
}

/// Why the log cannot be started.
#[derive(Debug, Error)]
pub enum LogError {
    /// Not a list of directives.
    #[error("log filter {filter:?}: {problem}")]
    Filter {
        /// As given.
        filter: String,
        /// Why not.
        problem: String,
    },
    /// This process has a log.
    #[error("the log of this process has been started before")]
    Started,
}

/// Writes lines.
pub struct LogLayer<W> {
    format: LogFormat,
    colours: bool,
    out: Mutex<W>,
}

impl<W: Write> LogLayer<W> {
    /// To `out`; colours are for text only.
    pub fn new(format: LogFormat, colours: bool, out: W) -> Self {
        Self { format, colours, out: Mutex::new(out) }
    }
}

impl<S, W> Layer<S> for LogLayer<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: Write + Send + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, record: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            record.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        // The nearest word counts: the event's own, then that of the span it is in, then that of the span around it.
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(of_span) = span.extensions().get::<Fields>() {
                fields.add(of_span);
            }
        }
        let metadata = event.metadata();
        let line = Line { time: rotacast_clock::wall(), level: *metadata.level(), target: metadata.target(), fields };
        let mut text = match self.format {
            LogFormat::Json => line.json(),
            LogFormat::Text => line.text(self.colours),
        };
        text.push('\n');
        let mut out = self.out.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // A log that cannot be written must not end a broadcaster.
        let _ = out.write_all(text.as_bytes());
    }
}

#[cfg(test)]
mod tests;
