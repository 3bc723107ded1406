//! Files that a running program opens and reads: logins, certificates, settings, its own log.
//!
//! Such a file is often on a mount that a driver serves. What is in its place may be anything, and its file system may not
//! answer. Neither may stop what does not need the file.

use std::collections::BTreeMap;
use std::fs::{File, FileType, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::sync::oneshot;
use zeroize::Zeroizing;

/// Most that is read of a file, in bytes. A bundle of all public authorities is a quarter of it; a configuration with a
/// section for each of a thousand services is a tenth.
pub const MAX_FILE_BYTES: usize = 1024 * 1024;

/// Longest wait for a file to be read: a remote file system that works answers well within it.
pub const FILE_DEADLINE: Duration = Duration::from_secs(5);

/// Longest wait for a file where the program goes on with what it read earlier. A local file takes less than a millisecond.
/// The wait may hold a thread that others need, once for each time that the file's file system stops answering.
pub const LOOK_PATIENCE: Duration = Duration::from_millis(250);

/// First guess at a file's size where the file system does not say it, as in `/proc`.
const UNKNOWN_SIZE: usize = 4096;

/// A file of ours that cannot be used. No server has a part in it.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum FileError {
    /// The operating system says no.
    #[error("cannot read {path}: {problem}; put a file there that this process may read", path = .path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What it says.
        problem: String,
    },
    /// A FIFO, a directory, a device.
    #[error("cannot read {path}: it is a {found}; expected a regular file: put one in its place", path = .path.display())]
    Irregular {
        /// What is there.
        path: PathBuf,
        /// Of what kind it is.
        found: &'static str,
    },
    /// More than [`MAX_FILE_BYTES`].
    #[error("cannot read {path}: it has more than {MAX_FILE_BYTES} bytes; put the right file in its place", path = .path.display())]
    TooLong {
        /// Which file.
        path: PathBuf,
    },
    /// Bytes that are no text.
    #[error("cannot read {path}: it is not UTF-8; put a text file in its place", path = .path.display())]
    NoText {
        /// Which file.
        path: PathBuf,
    },
    /// Its file system does not answer.
    #[error(
        "cannot read {path}: its file system has not answered within {} ms; mend the mount that it is on \
         (`timeout 5 stat {path}` says whether it answers)", .waited.as_millis(), path = .path.display()
    )]
    Hangs {
        /// Which file.
        path: PathBuf,
        /// How long this call, or the one it would have had to wait for, has waited at least.
        waited: Duration,
    },
}

/// Why [`open_regular`] has opened nothing.
pub(crate) enum NotOpened {
    Io(io::Error),
    Irregular(&'static str),
}

/// Opens a file as the options say, and nothing that is no regular file: opening a FIFO would wait for its other end, and a
/// device never ends.
///
/// # Errors
/// What the operating system says, or what is in the file's place.
pub fn open_regular(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    open(path, options).map_err(|problem| match problem {
        NotOpened::Io(error) => error,
        NotOpened::Irregular(found) => {
            io::Error::new(io::ErrorKind::InvalidInput, format!("it is a {found}; expected a regular file"))
        }
    })
}

pub(crate) fn open(path: &Path, options: &mut OpenOptions) -> Result<File, NotOpened> {
    let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).expect("O_NONBLOCK is a small constant");
    let file = match options.custom_flags(flags).open(path) {
        Ok(file) => file,
        // What a directory, a socket or a FIFO without its other end says instead names neither.
        Err(error) => match std::fs::metadata(path) {
            Ok(there) if !there.is_file() => return Err(NotOpened::Irregular(kind(there.file_type()))),
            _ => return Err(NotOpened::Io(error)),
        },
    };
    // Of the opened file, so that nothing can be put in its place in between.
    let opened = file.metadata().map_err(NotOpened::Io)?;
    if opened.is_file() { Ok(file) } else { Err(NotOpened::Irregular(kind(opened.file_type()))) }
}

fn kind(found: FileType) -> &'static str {
    match found {
        found if found.is_dir() => "directory",
        found if found.is_fifo() => "FIFO",
        found if found.is_socket() => "socket",
        _ => "device",
    }
}

/// The text of a file, for a thread of its own or the start of a program.
///
/// # Errors
/// [`FileError`]; [`FileError::Hangs`] once `patience` is over.
pub fn read_file(path: &Path, patience: Duration) -> Result<Zeroizing<String>, FileError> {
    let (done, outcome) = mpsc::sync_channel(1);
    // The caller may have given up.
    request(path, Box::new(move |read| drop(done.send(read))))?;
    outcome.recv_timeout(patience).map_err(|_| FileError::Hangs { path: path.into(), waited: patience })?
}

/// The text of a file. Waits up to [`FILE_DEADLINE`] and holds no thread of the runtime meanwhile.
///
/// # Errors
/// [`FileError`].
pub async fn fetch_file(path: &Path) -> Result<Zeroizing<String>, FileError> {
    let (done, outcome) = oneshot::channel();
    request(path, Box::new(move |read| drop(done.send(read))))?;
    let hangs = || FileError::Hangs { path: path.into(), waited: FILE_DEADLINE };
    match tokio::time::timeout(FILE_DEADLINE, outcome).await {
        Ok(Ok(read)) => read,
        Ok(Err(_)) | Err(_) => Err(hangs()),
    }
}

type Outcome = Result<Zeroizing<String>, FileError>;
type Waiter = Box<dyn FnOnce(Outcome) + Send>;

/// A file that is being read.
struct Reading {
    begun: Instant,
    /// They came while it was read, and need what it holds since.
    waiting: Vec<Waiter>,
}

/// At most one read, and so at most one thread, for each file: those that hang do not pile up.
static READINGS: Mutex<BTreeMap<PathBuf, Reading>> = Mutex::new(BTreeMap::new());

fn readings() -> MutexGuard<'static, BTreeMap<PathBuf, Reading>> {
    // Whole after every call on it.
    READINGS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has a thread of its own read the file. It is none of a runtime's, which would wait for it when it ends.
fn request(path: &Path, waiter: Waiter) -> Result<(), FileError> {
    let mut readings = readings();
    if let Some(reading) = readings.get_mut(path) {
        let waited = reading.begun.elapsed();
        // Later ones would wait in vain, and without a bound on their number.
        if waited >= FILE_DEADLINE {
            return Err(FileError::Hangs { path: path.into(), waited });
        }
        reading.waiting.push(waiter);
        return Ok(());
    }
    let its = path.to_owned();
    let thread = std::thread::Builder::new().name("file".into()).spawn(move || read_for_all(&its));
    thread.map_err(|problem| FileError::Io { path: path.into(), problem: problem.to_string() })?;
    readings.insert(path.into(), Reading { begun: Instant::now(), waiting: vec![waiter] });
    Ok(())
}

fn read_for_all(path: &Path) {
    loop {
        let waiting = {
            let mut readings = readings();
            let Some(reading) = readings.get_mut(path) else { return };
            if reading.waiting.is_empty() {
                readings.remove(path);
                return;
            }
            reading.begun = Instant::now();
            std::mem::take(&mut reading.waiting)
        };
        let read = read_now(path);
        for waiter in waiting {
            waiter(read.clone());
        }
    }
}

fn read_now(path: &Path) -> Outcome {
    let io = |error: io::Error| FileError::Io { path: path.into(), problem: error.to_string() };
    let mut file = open(path, OpenOptions::new().read(true)).map_err(|problem| match problem {
        NotOpened::Io(error) => io(error),
        NotOpened::Irregular(found) => FileError::Irregular { path: path.into(), found },
    })?;
    let size = usize::try_from(file.metadata().map_err(io)?.len()).unwrap_or(usize::MAX);
    // One byte more shows the end. Growing leaves no copy of a secret behind.
    let mut bytes = Zeroizing::new(vec![0; size.clamp(UNKNOWN_SIZE, MAX_FILE_BYTES) + 1]);
    let mut length = 0;
    loop {
        match file.read(&mut bytes[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(io(error)),
        }
        if length > MAX_FILE_BYTES {
            return Err(FileError::TooLong { path: path.into() });
        }
        if length == bytes.len() {
            let mut larger = Zeroizing::new(vec![0; (2 * length).min(MAX_FILE_BYTES + 1)]);
            larger[..length].copy_from_slice(&bytes);
            bytes = larger;
        }
    }
    let text = std::str::from_utf8(&bytes[..length]).map_err(|_| FileError::NoText { path: path.into() })?;
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn told(path: &Path) -> String {
        read_file(path, FILE_DEADLINE).unwrap_err().to_string()
    }

    fn make_fifo(path: &Path) {
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    }

    #[test]
    fn what_is_no_regular_file_is_refused_at_once_and_by_its_kind() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        make_fifo(&at("fifo"));
        std::os::unix::fs::symlink("/dev/zero", at("zero")).unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        for (path, found) in [
            (at("fifo"), "a FIFO"),
            (folder.path().to_owned(), "a directory"),
            (at("zero"), "a device"),
            (at("socket"), "a socket"),
        ] {
            let expected =
                format!("cannot read {}: it is {found}; expected a regular file: put one in its place", path.display());
            assert_eq!(told(&path), expected);
            for options in [OpenOptions::new().append(true), OpenOptions::new().read(true).write(true)] {
                let refused = open_regular(&path, options).unwrap_err().to_string();
                assert_eq!(refused, format!("it is {found}; expected a regular file"));
            }
        }
    }

    #[test]
    fn a_file_is_read_whole_up_to_the_bound_and_not_beyond() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for length in [0, 1, UNKNOWN_SIZE, UNKNOWN_SIZE + 1, MAX_FILE_BYTES] {
            std::fs::write(&path, "x".repeat(length)).unwrap();
            assert_eq!(read_file(&path, FILE_DEADLINE).unwrap().len(), length);
        }
        std::fs::write(&path, "x".repeat(MAX_FILE_BYTES + 1)).unwrap();
        assert!(told(&path).contains("more than 1048576 bytes"), "{}", told(&path));
        std::fs::write(&path, [0xff]).unwrap();
        assert!(told(&path).contains("not UTF-8"), "{}", told(&path));
        std::fs::remove_file(&path).unwrap();
        assert!(told(&path).contains("No such file"), "{}", told(&path));
        // Its size is not known in advance.
        assert!(read_file(Path::new("/proc/self/status"), FILE_DEADLINE).unwrap().contains("VmPeak"));
    }

    /// What a read that hangs looks like to those who come later.
    fn hang(path: &Path, since: Instant) {
        readings().insert(path.to_owned(), Reading { begun: since, waiting: Vec::new() });
    }

    #[tokio::test]
    async fn behind_a_read_that_hangs_callers_give_up_and_later_ones_do_not_wait() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hangs");
        std::fs::write(&path, "x").unwrap();
        hang(&path, Instant::now());
        let patience = Duration::from_millis(1);
        assert_eq!(read_file(&path, patience), Err(FileError::Hangs { path: path.clone(), waited: patience }));
        let Some(long_ago) = Instant::now().checked_sub(FILE_DEADLINE) else { return };
        hang(&path, long_ago);
        assert!(matches!(fetch_file(&path).await, Err(FileError::Hangs { waited, .. }) if waited >= FILE_DEADLINE));
        assert!(told(&path).contains("its file system has not answered"), "{}", told(&path));
        assert!(readings()[&path].waiting.is_empty());
        readings().remove(&path);
        assert_eq!(fetch_file(&path).await.unwrap().as_str(), "x", "it answers again");
    }

    #[tokio::test]
    async fn those_who_come_while_it_is_read_get_what_it_holds_then() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shared");
        std::fs::write(&path, "earlier").unwrap();
        hang(&path, Instant::now());
        let (reading, other) = (path.clone(), path.clone());
        let fetching = tokio::spawn(async move { fetch_file(&reading).await });
        let waiting = std::thread::spawn(move || read_file(&other, FILE_DEADLINE));
        while readings()[&path].waiting.len() < 2 {
            tokio::task::yield_now().await;
        }
        std::fs::write(&path, "later").unwrap();
        // The earlier read ends.
        read_for_all(&path);
        assert_eq!(fetching.await.unwrap().unwrap().as_str(), "later");
        assert_eq!(waiting.join().unwrap().unwrap().as_str(), "later");
        assert!(!readings().contains_key(&path), "the last one leaves nothing behind");
    }
}
