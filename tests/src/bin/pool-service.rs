//! See [`rotacast_tests::pool_service`].

use clap::Parser;
use rotacast_tests::pool_service::{self, Settings};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    pool_service::run(Settings::parse()).await
}
