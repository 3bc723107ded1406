//! What we prove to a server who we are with.

use std::fmt;
use std::path::PathBuf;

use zeroize::Zeroizing;

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
    /// As it is now. A small file of this machine: reading it blocks no longer than a lock does.
    ///
    /// # Errors
    /// That the file cannot be read, in words that name it.
    pub fn read(&self) -> Result<Zeroizing<String>, String> {
        match self {
            Self::Text(text) => Ok(text.clone()),
            Self::File(path) => {
                let text = std::fs::read_to_string(path).map(Zeroizing::new);
                let text = text.map_err(|problem| format!("cannot read {}: {problem}", path.display()))?;
                Ok(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()))
            }
        }
    }
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

    #[test]
    fn a_file_is_read_anew_each_time_and_nothing_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        let secret = LoginSecret::File(path.clone());
        assert!(secret.read().unwrap_err().contains("cannot read"));
        for held in ["canary-first", "canary-second"] {
            std::fs::write(&path, format!("{held}\r\n")).unwrap();
            assert_eq!(secret.read().unwrap().as_str(), held);
        }
        let text = LoginSecret::from("canary".to_owned());
        assert_eq!(text.read().unwrap().as_str(), "canary");
        assert!(!format!("{secret:?}{text:?}").contains("canary"));
    }
}
