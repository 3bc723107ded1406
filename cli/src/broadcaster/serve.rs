//! `rotacast serve`.

use std::path::PathBuf;

use clap::Args;
use tracing::info;

use crate::build;

#[derive(Args, Clone, Debug)]
pub(crate) struct ServeArgs {
    /// The configuration file (TOML).
    #[arg(long, env = "ROTACAST_CONFIG", value_name = "FILE")]
    pub(crate) config: PathBuf,
}

pub(crate) async fn run(args: ServeArgs) -> anyhow::Result<()> {
    // Who reads a log later knows what wrote it.
    let build = build::INFO;
    info!(
        version = build.version,
        commit = build.commit,
        features = build.features_text(),
        rustc = build.rustc,
        platform = build.target,
        profile = build.profile,
        "rotacast starts"
    );
    rotacast_broadcaster::serve::run(args.config).await
}
