//! What the log is written to: a file, or in tests something that fails on demand.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rotacast_proto::open_regular;

/// An append-only file.
pub(super) trait Medium: Send {
    /// Writes at the end. After an error, part of it may be there.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes everything durable.
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts the end off.
    fn truncate(&mut self, length: u64) -> io::Result<()>;
    /// Whether the path still leads to this file, and nothing but this has written to it; otherwise what is wrong.
    fn disturbed(&self, length: u64) -> io::Result<Option<String>>;
}

/// The real one.
pub(super) struct FileMedium {
    path: PathBuf,
    file: File,
    /// The file's times after our own last write: another program that writes to it changes them, whatever the length.
    times: Times,
}

/// When a file was last written, and when anything about it was last changed.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Times([i64; 4]);

impl Times {
    fn of(file: &File) -> io::Result<Self> {
        let it = file.metadata()?;
        Ok(Self([it.mtime(), it.mtime_nsec(), it.ctime(), it.ctime_nsec()]))
    }
}

impl FileMedium {
    /// Opens for appending, readable by its owner only: entries name people and hosts.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = open_regular(path, OpenOptions::new().append(true).create(true).mode(0o600))?;
        let times = Times::of(&file)?;
        Ok(Self { path: path.into(), file, times })
    }
}

impl Medium for FileMedium {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.times = Times::of(&self.file)?;
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.file.set_len(length)?;
        self.times = Times::of(&self.file)?;
        Ok(())
    }

    fn disturbed(&self, length: u64) -> io::Result<Option<String>> {
        let ours = self.file.metadata()?;
        let there = match std::fs::metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some("the file is gone".into())),
            there => there?,
        };
        if (ours.dev(), ours.ino()) != (there.dev(), there.ino()) {
            return Ok(Some("another file is in its place".into()));
        }
        if ours.len() != length {
            return Ok(Some(format!("{} bytes long, expected {length}", ours.len())));
        }
        if Times::of(&self.file)? != self.times {
            return Ok(Some("another program has written to it".into()));
        }
        Ok(None)
    }
}
