//! Files that the configuration names.

use std::path::Path;

use anyhow::Context as _;
use zeroize::Zeroizing;

/// What a file holds, but for line ends behind it.
pub(super) fn secret(setting: &str, path: &Path) -> anyhow::Result<Zeroizing<String>> {
    Ok(Zeroizing::new(text(setting, path)?.trim_end_matches(['\r', '\n']).to_owned()))
}

/// Whether a file that a library opens can be read.
pub(super) fn readable(setting: &str, path: &Path) -> anyhow::Result<()> {
    text(setting, path).map(drop)
}

/// The text of a file.
pub(super) fn text(setting: &str, path: &Path) -> anyhow::Result<Zeroizing<String>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{setting}: cannot read {}", path.display()))?;
    Ok(Zeroizing::new(text))
}
