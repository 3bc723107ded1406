//! Folders that hold keys, values or the audit log.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

/// Makes a folder, and what is missing above it, that only its owner may enter, whatever the umask. A folder that is
/// there keeps its mode.
///
/// # Errors
/// What the file system says.
pub fn create_private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}
