//! What we prove to a server who we are with.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::file::{FileError, fetch_file, read_file};

/// A password, a token, a certificate, a key, or a whole login. A program reads one in a file when it needs it, and again
/// when a server refuses what the file held: a login that is renewed there needs no restart.
#[derive(Clone)]
pub enum LoginSecret {
    /// The text itself.
    Text(Zeroizing<String>),
    /// A file that holds it, up to line ends behind it.
    File(PathBuf),
}

impl LoginSecret {
    /// As it is now. Blocks the thread for up to `patience`: for the start of a program, and threads of its own.
    ///
    /// # Errors
    /// Why the file cannot be read.
    pub fn read(&self, patience: Duration) -> Result<Zeroizing<String>, FileError> {
        match self {
            Self::Text(text) => Ok(text.clone()),
            Self::File(path) => read_file(path, patience).map(|text| without_line_end(&text)),
        }
    }

    /// As it is now. Waits up to [`FILE_DEADLINE`](crate::FILE_DEADLINE), and holds no thread of the runtime meanwhile.
    ///
    /// # Errors
    /// Why the file cannot be read.
    pub async fn fetch(&self) -> Result<Zeroizing<String>, FileError> {
        match self {
            Self::Text(text) => Ok(text.clone()),
            Self::File(path) => fetch_file(path).await.map(|text| without_line_end(&text)),
        }
    }
}

fn without_line_end(text: &str) -> Zeroizing<String> {
    Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned())
}

impl From<Zeroizing<String>> for LoginSecret {
    fn from(text: Zeroizing<String>) -> Self {
        Self::Text(text)
    }
}

impl From<String> for LoginSecret {
    fn from(text: String) -> Self {
        Self::Text(Zeroizing::new(text))
    }
}

impl From<&str> for LoginSecret {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl fmt::Debug for LoginSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("LoginSecret::Text"),
            Self::File(path) => write!(f, "LoginSecret::File({})", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FILE_DEADLINE;

    #[tokio::test]
    async fn a_file_is_read_anew_each_time_and_nothing_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        let secret = LoginSecret::File(path.clone());
        assert!(secret.read(FILE_DEADLINE).unwrap_err().to_string().contains("cannot read"));
        for held in ["canary-first", "canary-second"] {
            std::fs::write(&path, format!("{held}\r\n")).unwrap();
            assert_eq!(secret.read(FILE_DEADLINE).unwrap().as_str(), held);
            assert_eq!(secret.fetch().await.unwrap().as_str(), held);
        }
        let text = LoginSecret::from("canary".to_owned());
        assert_eq!(text.read(FILE_DEADLINE).unwrap().as_str(), "canary");
        assert!(!format!("{secret:?}{text:?}").contains("canary"));
    }
}
