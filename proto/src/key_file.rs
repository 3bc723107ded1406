//! Keys in files.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use thiserror::Error;
use zeroize::Zeroizing;

use crate::file::{self, NotOpened};
use crate::key::{KeyError, SigningKey, VerifyingKey};

/// Longest key file that is read, in bytes: some dozens of keys. One that is longer is something else.
const MAX_FILE_BYTES: usize = 4096;

/// Begins a line with a sealing key: what reads signing keys passes over it.
const SEALING_KEY: &str = "rotacast-sealing-";

/// Permission bits of group and others.
const OTHERS: u32 = 0o077;

/// A key file that cannot be used.
#[derive(Debug, Error)]
pub enum KeyFileError {
    /// The file cannot be read, or not be made.
    #[error("{path}: cannot {action} the key file: {problem}", path = .path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why not. No `source`: the text above says it, and a printed chain would say it twice.
        problem: std::io::Error,
    },
    /// Something is there already; a key is never overwritten.
    #[error("{path}: exists already, expected no file; a key is never overwritten: name another file or move this one away", path = .path.display())]
    Exists {
        /// Which file.
        path: PathBuf,
    },
    /// A folder, a pipe, a device.
    #[error("{path}: a {found}, not a regular file; expected a key file as `rotacast keygen` writes it", path = .path.display())]
    NotAFile {
        /// Which path.
        path: PathBuf,
        /// What is there.
        found: &'static str,
    },
    /// Others than the owner may read or write a private key.
    #[error("{path}: private key with mode {found:04o}, expected 0600 or less (no access for group and others); run: chmod 600 {path}", path = .path.display())]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        found: u32,
    },
    /// Too long for a key.
    #[error("{path}: more than {MAX_FILE_BYTES} bytes, expected a key file as `rotacast keygen` writes it", path = .path.display())]
    TooLong {
        /// Which file.
        path: PathBuf,
    },
    /// The contents are no key of the kind expected.
    #[error("{path}: {source}", path = .path.display())]
    NoKey {
        /// Which file.
        path: PathBuf,
        /// What is wrong with the text.
        source: KeyError,
    },
}

/// The signing keys of one process, in the order of its key file: the first signs. The others are those that may sign in its place
/// soon, or did until now.
#[derive(Clone)]
pub struct SigningKeys {
    first: SigningKey,
    others: Vec<SigningKey>,
}

impl From<SigningKey> for SigningKeys {
    fn from(first: SigningKey) -> Self {
        Self { first, others: Vec::new() }
    }
}

impl SigningKeys {
    /// These keys, the one that signs first.
    #[must_use]
    pub fn new(first: SigningKey, others: Vec<SigningKey>) -> Self {
        Self { first, others }
    }

    /// Reads the signing keys of a private key file: its lines that begin with `rotacast-private-1:`. Only its owner may have
    /// access to it.
    ///
    /// # Errors
    /// [`KeyFileError`]: missing, unreadable, open to group or others, or no private key.
    pub fn read_file(path: impl AsRef<Path>) -> Result<Self, KeyFileError> {
        let path = path.as_ref();
        let no_key = |source| KeyFileError::NoKey { path: path.into(), source };
        let text = read_private_file(path)?;
        let mut lines = text.lines().filter(|line| is_signing_line(line));
        // Of an empty text, the parser says what is missing.
        let first = SigningKey::parse(lines.next().unwrap_or_default()).map_err(no_key)?;
        let others = lines.map(SigningKey::parse).collect::<Result<_, _>>().map_err(no_key)?;
        Ok(Self { first, others })
    }

    /// The key that signs.
    #[must_use]
    pub fn first(&self) -> &SigningKey {
        &self.first
    }

    /// All of them, the one that signs first.
    pub fn iter(&self) -> impl Iterator<Item = &SigningKey> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// The public half of the key with this id.
    #[must_use]
    pub fn find(&self, id: &str) -> Option<&VerifyingKey> {
        self.iter().map(SigningKey::public).find(|key| key.id().as_str() == id)
    }
}

impl SigningKey {
    /// Reads the key of a private key file that signs. Only its owner may have access to it.
    ///
    /// # Errors
    /// As [`SigningKeys::read_file`].
    pub fn read_file(path: impl AsRef<Path>) -> Result<Self, KeyFileError> {
        SigningKeys::read_file(path).map(|keys| keys.first)
    }

    /// Writes the private key to a new file with mode 0600; when this returns, it is on disk.
    ///
    /// # Errors
    /// [`KeyFileError::Exists`] if there is anything at `path`; [`KeyFileError::Io`].
    pub fn create_file(&self, path: impl AsRef<Path>) -> Result<(), KeyFileError> {
        create_private_file(path.as_ref(), &self.to_text())
    }
}

/// Writes a private key file of these lines, with mode 0600; when this returns, it is on disk.
///
/// # Errors
/// [`KeyFileError::Exists`] if there is anything at `path`; [`KeyFileError::Io`].
pub fn create_private_file(path: &Path, lines: &str) -> Result<(), KeyFileError> {
    let io = |action| move |problem| KeyFileError::Io { path: path.into(), action, problem };
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = match file {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(KeyFileError::Exists { path: path.into() });
        }
        file => file.map_err(io("create"))?,
    };
    file.write_all(lines.as_bytes()).and_then(|()| file.write_all(b"\n")).map_err(io("write"))?;
    file.sync_all().map_err(io("sync"))?;
    sync_folder_of(path).map_err(io("sync the folder of"))
}

/// Replaces a private key file by these lines in one step; when this returns, it is on disk.
///
/// # Errors
/// [`KeyFileError::Io`]; [`KeyFileError::Exists`] if an earlier attempt broke off and left its file beside this one.
pub fn replace_private_file(path: &Path, lines: &str) -> Result<(), KeyFileError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    create_private_file(&beside, lines)?;
    std::fs::rename(&beside, path).and_then(|()| sync_folder_of(path)).map_err(|problem| KeyFileError::Io {
        path: path.into(),
        action: "replace",
        problem,
    })
}

/// The name of a file is only on disk once its folder is.
fn sync_folder_of(path: &Path) -> std::io::Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(folder)?.sync_all()
}

/// The text of a private key file. Only its owner may have access to it.
///
/// # Errors
/// [`KeyFileError`]: missing, unreadable, open to group or others, too long.
pub fn read_private_file(path: &Path) -> Result<Zeroizing<String>, KeyFileError> {
    read(path, true)
}

/// Whether a line of a private key file is to hold a signing key: it is neither empty nor a sealing key.
fn is_signing_line(line: &str) -> bool {
    let line = line.trim();
    !line.is_empty() && !line.starts_with(SEALING_KEY)
}

impl VerifyingKey {
    /// Reads a public key's file, whatever its mode.
    ///
    /// # Errors
    /// [`KeyFileError`]: missing, unreadable, or no public key.
    pub fn read_file(path: impl AsRef<Path>) -> Result<Self, KeyFileError> {
        let path = path.as_ref();
        let text = read(path, false)?;
        Self::parse(&text).map_err(|source| KeyFileError::NoKey { path: path.into(), source })
    }

    /// Reads a file of public keys, one a line, whatever its mode. There is at least one.
    ///
    /// # Errors
    /// [`KeyFileError`]: missing, unreadable, or a line that is no public key.
    pub fn read_list(path: impl AsRef<Path>) -> Result<Vec<Self>, KeyFileError> {
        let path = path.as_ref();
        let no_key = |source| KeyFileError::NoKey { path: path.into(), source };
        let text = read(path, false)?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let keys: Vec<Self> = lines.map(Self::parse).collect::<Result<_, _>>().map_err(no_key)?;
        // Of an empty text, the parser says what is missing.
        if keys.is_empty() { Self::parse("").map(|key| vec![key]).map_err(no_key) } else { Ok(keys) }
    }
}

/// The file's text. Type and mode are those of the opened file, so that it cannot be swapped in between.
fn read(path: &Path, private: bool) -> Result<Zeroizing<String>, KeyFileError> {
    let io = |problem| KeyFileError::Io { path: path.into(), action: "read", problem };
    let mut file = file::open(path, OpenOptions::new().read(true)).map_err(|problem| match problem {
        NotOpened::Io(problem) => io(problem),
        NotOpened::Irregular(found) => KeyFileError::NotAFile { path: path.into(), found },
    })?;
    let metadata = file.metadata().map_err(io)?;
    let mode = metadata.permissions().mode() & 0o7777;
    if private && mode & OTHERS != 0 {
        return Err(KeyFileError::Exposed { path: path.into(), found: mode });
    }
    // One buffer of the final size, so that growing leaves no copy of a private key behind.
    let mut bytes = Zeroizing::new(vec![0_u8; MAX_FILE_BYTES + 1]);
    let mut length = 0;
    loop {
        match file.read(&mut bytes[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(io(error)),
        }
        if length > MAX_FILE_BYTES {
            return Err(KeyFileError::TooLong { path: path.into() });
        }
    }
    // Text that is not UTF-8 is no key either: the parser says so, of an empty text.
    Ok(Zeroizing::new(std::str::from_utf8(&bytes[..length]).unwrap_or_default().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn error<T>(result: Result<T, KeyFileError>) -> String {
        result.err().expect("refused").to_string()
    }

    #[test]
    fn a_key_reads_back_from_a_file_only_its_owner_may_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("broadcaster.key");
        let key = SigningKey::generate();
        key.create_file(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(SigningKey::read_file(&path).ok().unwrap().public(), key.public());
        set_mode(&path, 0o400);
        assert!(SigningKey::read_file(&path).is_ok());
    }

    #[test]
    fn of_several_signing_keys_the_first_signs_and_a_list_of_public_keys_is_read_in_full() {
        let folder = tempfile::tempdir().unwrap();
        let (path, public) = (folder.path().join("k"), folder.path().join("p"));
        let (first, second) = (SigningKey::generate(), SigningKey::generate());
        create_private_file(&path, &format!("{}\n\n{}", *first.to_text(), *second.to_text())).unwrap();
        let keys = SigningKeys::read_file(&path).ok().unwrap();
        assert_eq!(keys.first().public(), first.public());
        assert_eq!(keys.iter().count(), 2);
        assert_eq!(keys.find(second.public().id().as_str()), Some(second.public()));
        assert_eq!(SigningKey::read_file(&path).ok().unwrap().public(), first.public());
        std::fs::write(&public, format!("{}\n{}\n", first.public().to_text(), second.public().to_text())).unwrap();
        assert_eq!(VerifyingKey::read_list(&public).unwrap(), [first.public().clone(), second.public().clone()]);
        std::fs::write(&public, "\n").unwrap();
        assert!(VerifyingKey::read_list(&public).is_err());
    }

    #[test]
    fn an_exposed_private_key_is_refused_with_the_fix() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k");
        SigningKey::generate().create_file(&path).unwrap();
        for mode in [0o640, 0o604, 0o620, 0o602, 0o644, 0o610] {
            set_mode(&path, mode);
            let text = error(SigningKey::read_file(&path));
            assert!(text.contains(&format!("mode {mode:04o}")), "{text}");
            assert!(text.ends_with(&format!("chmod 600 {}", path.display())), "{text}");
        }
    }

    #[test]
    fn a_key_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k");
        std::fs::write(&path, "precious").unwrap();
        assert!(error(SigningKey::generate().create_file(&path)).contains("exists already"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        // Nor through a link that points nowhere yet.
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path().join("elsewhere"), &link).unwrap();
        assert!(error(SigningKey::generate().create_file(&link)).contains("exists already"));
        assert!(!folder.path().join("elsewhere").exists());
    }

    #[test]
    fn what_is_no_key_is_refused_by_name_and_without_its_text() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let key = SigningKey::generate();
        std::fs::write(at("public"), key.public().to_text() + "\n").unwrap();
        set_mode(&at("public"), 0o644);
        assert_eq!(&VerifyingKey::read_file(at("public")).unwrap(), key.public());

        key.create_file(at("private")).unwrap();
        let swapped = error(VerifyingKey::read_file(at("private")));
        assert!(swapped.contains("other half"), "{swapped}");
        assert!(!swapped.contains(&key.to_text()["rotacast-private-1:".len()..]), "the error quotes the private key");

        std::fs::write(at("long"), "x".repeat(MAX_FILE_BYTES + 1)).unwrap();
        assert!(error(VerifyingKey::read_file(at("long"))).contains("more than 4096 bytes"));
        std::fs::write(at("binary"), [0xff; 62]).unwrap();
        assert!(error(VerifyingKey::read_file(at("binary"))).contains("the prefix is missing"));
        assert!(error(VerifyingKey::read_file(folder.path())).contains("not a regular file"));
        let missing = error(SigningKey::read_file(at("missing")));
        assert!(missing.starts_with(&at("missing").display().to_string()), "{missing}");
    }
}
