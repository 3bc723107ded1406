//! What this build was made from.

use std::sync::LazyLock;

use serde::Serialize;

/// A build.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Build {
    /// The release.
    pub version: &'static str,
    /// The commit; `None` when it was not built from the project's own git tree.
    pub commit: Option<&'static str>,
    /// The optional parts that are in it.
    pub features: &'static [&'static str],
    /// The compiler.
    pub rustc: &'static str,
    /// What it runs on.
    pub target: &'static str,
    /// `release` or `debug`.
    pub profile: &'static str,
}

const FEATURES: &[&str] = if cfg!(feature = "kafka-tls") {
    &["kafka", "kafka-tls"]
} else if cfg!(feature = "kafka") {
    &["kafka"]
} else {
    &[]
};

const COMMIT: &str = env!("ROTACAST_COMMIT");

/// This one.
pub const INFO: Build = Build {
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
    pub fn features_text(&self) -> String {
        if self.features.is_empty() { "none".into() } else { self.features.join(",") }
    }
}

/// What `--version` says behind the program's name.
pub static LONG: LazyLock<String> = LazyLock::new(|| {
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
