//! What this build was made from.

use std::sync::LazyLock;

use serde::Serialize;

use crate::error::Stop;
use crate::output::Output;

/// A build.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Build {
    /// The release.
    pub(crate) version: &'static str,
    /// The commit; `None` when it was not built from the project's own git tree.
    pub(crate) commit: Option<&'static str>,
    /// The optional parts that are in it.
    pub(crate) features: &'static [&'static str],
    /// The compiler.
    pub(crate) rustc: &'static str,
    /// What it runs on.
    pub(crate) target: &'static str,
    /// `release` or `debug`.
    pub(crate) profile: &'static str,
}

const FEATURES: &[&str] = if cfg!(not(feature = "broadcaster")) {
    &["client-only"]
} else if cfg!(feature = "kafka-tls") {
    &["kafka", "kafka-tls"]
} else if cfg!(feature = "kafka") {
    &["kafka"]
} else {
    &[]
};

const COMMIT: &str = env!("ROTACAST_COMMIT");

/// This one.
pub(crate) const INFO: Build = Build {
    version: env!("CARGO_PKG_VERSION"),
    commit: if COMMIT.is_empty() { None } else { Some(COMMIT) },
    features: FEATURES,
    rustc: env!("ROTACAST_RUSTC"),
    target: env!("ROTACAST_TARGET"),
    profile: env!("ROTACAST_PROFILE"),
};

impl Build {
    /// The optional parts, with commas; `none` without any.
    #[must_use]
    pub(crate) fn features_text(&self) -> String {
        if self.features.is_empty() { "none".into() } else { self.features.join(",") }
    }
}

/// What `--version` says behind the program's name.
pub(crate) static LONG: LazyLock<String> = LazyLock::new(|| {
    format!(
        "{}\ncommit: {}\nfeatures: {}\nrustc: {}\ntarget: {}\nprofile: {}",
        INFO.version,
        INFO.commit.unwrap_or("unknown"),
        INFO.features_text(),
        INFO.rustc,
        INFO.target,
        INFO.profile
    )
});

/// `rotacast version`.
pub(crate) fn tell(output: Output) -> Result<(), Stop> {
    match output.is_data() {
        true => output.data(&INFO),
        false => output.line(format_args!("rotacast {}", *LONG)),
    }
}
