//! The log's files: the one in use, and full ones beside it named after their first entry.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Digits of a sequence in a file's name, so that names sort like numbers.
const DIGITS: usize = 20;

/// `path` with `.suffix` behind it.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

/// What the file that begins with entry `first` is renamed to when it is full.
pub(super) fn full(path: &Path, first: u64) -> PathBuf {
    with_suffix(path, &format!("{first:0DIGITS$}"))
}

/// The full files, oldest first.
pub(super) fn all_full(path: &Path) -> io::Result<Vec<PathBuf>> {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file name in UTF-8"));
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder(path))? {
        let entry = entry?;
        let file = entry.file_name();
        let suffix = file.to_str().and_then(|file| file.strip_prefix(name)).and_then(|rest| rest.strip_prefix('.'));
        if suffix.is_some_and(|suffix| suffix.len() == DIGITS && suffix.bytes().all(|b| b.is_ascii_digit())) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// The folder a file is in.
pub(super) fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes names made or changed in the file's folder durable.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder(path))?.sync_all()
}
