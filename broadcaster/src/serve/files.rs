//! Files that the configuration names.

use std::path::Path;

use anyhow::Context as _;
use zeroize::Zeroizing;

/// Whether a file that a library opens can be read.
pub(super) fn readable(setting: &str, path: &Path) -> anyhow::Result<()> {
    text(setting, path).map(drop)
}

/// The text of a file.
pub(super) fn text(setting: &str, path: &Path) -> anyhow::Result<Zeroizing<String>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{setting}: cannot read {}", path.display()))?;
    Ok(Zeroizing::new(text))
}
