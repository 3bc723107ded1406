//! Sends spans in batches, from a queue with a bound.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use opentelemetry::KeyValue;
use opentelemetry_otlp::{SpanExporter as OtlpExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use rotacast_proto::{FILE_DEADLINE, read_file};
use rotacast_protocol::ClusterName;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::client::Client;
use super::{Counts, Exporting, Traces};
use crate::config::TelemetryConfig;

/// Spans that wait, as OpenTelemetry's own processor has it: some hundred rotations' worth, about a megabyte.
pub const MAX_WAITING: usize = 2048;

/// Spans in one request.
pub const MAX_BATCH: usize = 512;

/// How long the first span of a batch waits for company.
pub const LINGER: Duration = Duration::from_secs(1);

/// How long one batch is tried for, retries included. What waits meanwhile has room for the spans of minutes.
pub const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// Largest file of headers: a few tokens.
const MAX_HEADERS_FILE: usize = 64 * 1024;

/// Begins to send spans to the collector that the configuration names; `None` if it names none.
///
/// # Errors
/// What is wrong with the settings and their files. A collector that is not there is no error.
pub fn start(config: &TelemetryConfig, cluster: &ClusterName, replica: &str) -> anyhow::Result<Option<Exporting>> {
    let Some(exporter) = exporter(config)? else { return Ok(None) };
    Ok(Some(start_with(exporter, cluster, replica)))
}

/// Whether [`start`] would find something wrong.
pub(crate) fn check(config: &TelemetryConfig) -> anyhow::Result<()> {
    exporter(config).map(drop)
}

/// The exporter, as far as it can be made without a collector.
fn exporter(config: &TelemetryConfig) -> anyhow::Result<Option<OtlpExporter>> {
    let Some(url) = &config.traces_url else { return Ok(None) };
    let headers = config.headers_file.as_deref().map(read_headers).transpose()?;
    // An error means that one is installed already, which is just as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut client = reqwest::Client::builder().timeout(EXPORT_TIMEOUT).redirect(reqwest::redirect::Policy::none());
    if let Some(file) = &config.ca {
        let pem = read_file(file, FILE_DEADLINE).context("telemetry.otlp_ca")?;
        let certificates = reqwest::Certificate::from_pem_bundle(pem.as_bytes())
            .with_context(|| format!("telemetry.otlp_ca: {}", file.display()))?;
        anyhow::ensure!(!certificates.is_empty(), "telemetry.otlp_ca: {} holds no certificate", file.display());
        client = client.tls_certs_only(certificates);
    }
    let client = client.build().context("telemetry: the HTTP client")?;
    let exporter = OtlpExporter::builder()
        .with_http()
        .with_http_client(Client(client))
        .with_endpoint(url)
        .with_timeout(EXPORT_TIMEOUT)
        .with_headers(headers.unwrap_or_default())
        .build()
        .context("telemetry")?;
    Ok(Some(exporter))
}

fn read_headers(file: &Path) -> anyhow::Result<HashMap<String, String>> {
    let setting = || format!("telemetry.otlp_headers_file: {}", file.display());
    let text = read_file(file, FILE_DEADLINE).context("telemetry.otlp_headers_file")?;
    let size = text.len();
    anyhow::ensure!(size <= MAX_HEADERS_FILE, "{}: {size} bytes; expected at most {MAX_HEADERS_FILE}", setting());
    let mut headers = HashMap::new();
    for (line, text) in text.lines().enumerate().filter(|(_, text)| !text.trim().is_empty()) {
        let header = text.split_once(':').map(|(name, value)| (name.trim(), value.trim())).filter(|(name, value)| {
            reqwest::header::HeaderName::try_from(*name).is_ok()
                && reqwest::header::HeaderValue::try_from(*value).is_ok()
        });
        // The line itself may be a token: it is not repeated.
        let (name, value) = header.with_context(|| format!("{}:{}: expected `name: value`", setting(), line + 1))?;
        headers.insert(name.to_owned(), value.to_owned());
    }
    Ok(headers)
}

/// Begins to send spans by this exporter.
pub(super) fn start_with(mut exporter: impl SpanExporter + 'static, cluster: &ClusterName, replica: &str) -> Exporting {
    // OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES go over these.
    let ours = [
        KeyValue::new("service.name", "rotacast"),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", replica.to_owned()),
        KeyValue::new("rotacast.cluster", cluster.to_string()),
    ];
    let given = Resource::builder().build();
    let named = std::env::var_os("OTEL_SERVICE_NAME").is_some()
        || std::env::var("OTEL_RESOURCE_ATTRIBUTES").is_ok_and(|text| text.contains("service.name="));
    let ours = ours.into_iter().filter(|ours| {
        let key = ours.key.as_str();
        if key == "service.name" { !named } else { given.get(&ours.key).is_none() }
    });
    exporter.set_resource(&Resource::builder().with_attributes(ours).build());
    let (queue, waiting) = mpsc::channel(MAX_WAITING);
    let counts = Arc::new(Counts::default());
    let stop = CancellationToken::new();
    let task = tokio::spawn(run(exporter, waiting, Arc::clone(&counts), stop.clone()));
    Exporting { traces: Traces::new(cluster.clone(), queue, counts), task, stop }
}

async fn run(
    exporter: impl SpanExporter,
    mut waiting: mpsc::Receiver<SpanData>,
    counts: Arc<Counts>,
    stop: CancellationToken,
) {
    let (mut lost, mut losing) = (0, false);
    let mut batch = Vec::with_capacity(MAX_BATCH);
    loop {
        let first = tokio::select! {
            biased;
            first = waiting.recv() => first,
            () = stop.cancelled() => None,
        };
        let Some(first) = first else { break };
        batch.push(first);
        let over = tokio::time::Instant::now() + LINGER;
        while batch.len() < MAX_BATCH {
            let room = MAX_BATCH - batch.len();
            tokio::select! {
                biased;
                count = waiting.recv_many(&mut batch, room) => if count == 0 { break },
                () = tokio::time::sleep_until(over) => break,
                () = stop.cancelled() => break,
            }
        }
        let count = batch.len() as u64;
        // The exporter has a timeout of its own; this is for one that does not keep to it.
        let sent = tokio::time::timeout(EXPORT_TIMEOUT * 2, exporter.export(std::mem::take(&mut batch))).await;
        let problem = match sent {
            Ok(Ok(())) => None,
            Ok(Err(problem)) => Some(problem.to_string()),
            Err(_) => Some("no answer in time".to_owned()),
        };
        match problem {
            None => counts.sent.fetch_add(count, Ordering::Relaxed),
            Some(_) => counts.lost.fetch_add(count, Ordering::Relaxed),
        };
        let grew = counts.lost() > lost;
        lost = counts.lost();
        if grew && !losing {
            // Once for an outage, however long: the count says more.
            let problem = problem.unwrap_or_else(|| "there are more than it takes".into());
            warn!(problem, lost, "the collector of traces does not get every span; rotations go on all the same");
        } else if losing && !grew {
            info!(lost, "the collector of traces gets the spans again");
        }
        losing = grew;
    }
}

#[cfg(test)]
mod tests;
