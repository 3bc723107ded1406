//! A minimal collector of OpenTelemetry traces: OTLP over HTTP with protobuf, kept in memory.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message as _;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::servers::until;
use crate::world::LIMIT;

/// One span as it was received.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Span {
    /// Its trace, in hexadecimal digits.
    pub trace: String,
    /// Its own id.
    pub id: String,
    /// Its parent's id; empty for a root.
    pub parent: String,
    /// Its name.
    pub name: String,
    /// The sender: `service.name` of its resource.
    pub service: String,
    /// The sender's instance: `service.instance.id` of its resource, if it has one.
    pub instance: String,
    /// Its attributes, as text.
    pub attributes: BTreeMap<String, String>,
    /// The error's text, if it is one.
    pub error: Option<String>,
    /// From when to when, in nanoseconds since the Unix epoch.
    pub times: (u64, u64),
}

/// What a collector does with requests.
#[derive(Clone, Copy)]
#[repr(u8)]
pub enum Mood {
    /// It takes them.
    Takes,
    /// It answers 400, after which no sender retries.
    Refuses,
    /// It never answers.
    Hangs,
}

#[derive(Default)]
struct Received {
    spans: Vec<Span>,
    raw: Vec<Vec<u8>>,
}

/// The collector. Ends when it is dropped.
pub struct Collector {
    port: u16,
    received: Arc<Mutex<Received>>,
    mood: Arc<AtomicU8>,
    task: JoinHandle<()>,
}

impl Collector {
    /// Starts one on a free port.
    ///
    /// # Panics
    /// If there is none.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let port = listener.local_addr().expect("it listens").port();
        let received: Arc<Mutex<Received>> = Arc::default();
        let mood = Arc::new(AtomicU8::new(Mood::Takes as u8));
        let task = tokio::spawn(serve(listener, Arc::clone(&received), Arc::clone(&mood)));
        Self { port, received, mood, task }
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Sets what it does with further requests.
    pub fn set_mood(&self, mood: Mood) {
        self.mood.store(mood as u8, Ordering::SeqCst);
    }

    /// Everything so far.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        lock(&self.received).spans.clone()
    }

    /// The bodies of all requests so far, whether or not they were accepted.
    #[must_use]
    pub fn raw(&self) -> Vec<Vec<u8>> {
        lock(&self.received).raw.clone()
    }

    /// Waits until the received spans match.
    ///
    /// # Panics
    /// If it does not within [`LIMIT`].
    pub async fn until<T>(&self, what: &str, mut fits: impl FnMut(&[Span]) -> Option<T>) -> T {
        until(what, LIMIT, async || fits(&self.spans())).await
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(received: &Mutex<Received>) -> MutexGuard<'_, Received> {
    received.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(listener: TcpListener, received: Arc<Mutex<Received>>, mood: Arc<AtomicU8>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        connections.spawn(talk(stream, Arc::clone(&received), Arc::clone(&mood)));
        while connections.try_join_next().is_some() {}
    }
}

/// One connection: requests with a `content-length`, answered in order.
async fn talk(stream: TcpStream, received: Arc<Mutex<Received>>, mood: Arc<AtomicU8>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut first = String::new();
        if stream.read_line(&mut first).await.ok()? == 0 {
            return None;
        }
        let mut length = 0;
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await.ok()?;
            let Some((name, value)) = line.split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().expect("a length is a number");
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        assert!(first.starts_with("POST /v1/traces "), "asked for {first:?}");
        let mood = mood.load(Ordering::SeqCst);
        let taken = mood == Mood::Takes as u8;
        {
            let mut received = lock(&received);
            if taken {
                received.spans.extend(spans(&body));
            }
            received.raw.push(body);
        }
        if mood == Mood::Hangs as u8 {
            std::future::pending::<()>().await;
        }
        let status = if taken { "200 OK" } else { "400 Bad Request" };
        let answer = format!("HTTP/1.1 {status}\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n");
        stream.get_mut().write_all(answer.as_bytes()).await.ok()?;
    }
}

fn spans(body: &[u8]) -> Vec<Span> {
    let request = ExportTraceServiceRequest::decode(body).expect("the body is what the protocol says");
    let mut spans = Vec::new();
    for resource in request.resource_spans {
        let of = texts(&resource.resource.map(|resource| resource.attributes).unwrap_or_default());
        let of = |name: &str| of.get(name).cloned().unwrap_or_default();
        for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            let status = span.status.unwrap_or_default();
            spans.push(Span {
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                name: span.name,
                service: of("service.name"),
                instance: of("service.instance.id"),
                attributes: texts(&span.attributes),
                error: (status.code == StatusCode::Error as i32).then_some(status.message),
                times: (span.start_time_unix_nano, span.end_time_unix_nano),
            });
        }
    }
    spans
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    attributes.iter().map(|it| (it.key.clone(), it.value.as_ref().map(text).unwrap_or_default())).collect()
}

fn text(value: &AnyValue) -> String {
    match &value.value {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}
