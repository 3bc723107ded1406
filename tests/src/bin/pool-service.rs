//! See [`rotacast_tests::pool_service`].

use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider};
use rotacast_tests::pool_service::{self, Settings};

/// How long spans are collected before they are sent: a test waits for them.
const LINGER: Duration = Duration::from_millis(200);

/// How long the last spans may take at the end.
const LAST_SPANS: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    let traces = start_traces()?;
    let result = pool_service::run(Settings::parse()).await;
    // A collector that hangs does not keep a service from ending cleanly either.
    if let Some(Err(problem)) = traces.map(|provider| provider.shutdown_with_timeout(LAST_SPANS)) {
        tracing::warn!(%problem, "the last spans are lost");
    }
    result
}

/// Sets OpenTelemetry up as any service does, if an endpoint is set.
fn start_traces() -> anyhow::Result<Option<SdkTracerProvider>> {
    if std::env::var_os("OTEL_EXPORTER_OTLP_ENDPOINT").is_none() {
        return Ok(None);
    }
    // An error means that a provider is installed already, which is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let exporter = SpanExporter::builder().with_http().build().context("the exporter of spans")?;
    let config = BatchConfigBuilder::default().with_scheduled_delay(LINGER).build();
    let batches = BatchSpanProcessor::builder(exporter).with_batch_config(config).build();
    let provider = SdkTracerProvider::builder().with_span_processor(batches).build();
    opentelemetry::global::set_tracer_provider(provider.clone());
    Ok(Some(provider))
}
