//! Files that the configuration names.

use std::path::Path;

use anyhow::Context as _;
use rotacast_proto::{FILE_DEADLINE, read_file};
use zeroize::Zeroizing;

/// Whether a file that a library opens can be read.
pub(super) fn readable(setting: &str, path: &Path) -> anyhow::Result<()> {
    text(setting, path).map(drop)
}

/// The text of a file. Blocks the thread for up to [`FILE_DEADLINE`].
pub(super) fn text(setting: &str, path: &Path) -> anyhow::Result<Zeroizing<String>> {
    read_file(path, FILE_DEADLINE).with_context(|| setting.to_owned())
}
