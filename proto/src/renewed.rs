//! What is made of files that may be renewed while the program runs: certificates, above all.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::{info, warn};
use zeroize::Zeroizing;

use crate::{FILE_DEADLINE, FileError, LOOK_PATIENCE, LoginSecret};

/// How often files are read again, at most: three small ones, whatever the number of handshakes. It is also how long a
/// renewed certificate may take to count.
pub const RENEWED_WITHIN: Duration = Duration::from_secs(5);

/// A thing made of what files hold. It is made again when they hold something else. As long as they hold nothing it can
/// be made of, the last one stays in force.
pub struct Renewed<M, T> {
    what: String,
    read: Reads<M>,
    make: Makes<M, T>,
    state: Mutex<State<M, T>>,
}

/// Waits for files for no longer than this.
type Reads<M> = Box<dyn Fn(Duration) -> Result<M, String> + Send + Sync>;
type Makes<M, T> = Box<dyn Fn(&M) -> Result<T, String> + Send + Sync>;

struct State<M, T> {
    looked: Instant,
    made_of: M,
    made: T,
    /// Why it could not be made at the last look.
    broken: Option<String>,
}

impl<M: PartialEq, T: Clone> Renewed<M, T> {
    /// `what` it is, for the log.
    ///
    /// # Errors
    /// Why it cannot be made at all.
    pub fn new(
        what: impl Into<String>,
        read: impl Fn(Duration) -> Result<M, String> + Send + Sync + 'static,
        make: impl Fn(&M) -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Self, String> {
        let made_of = read(FILE_DEADLINE)?;
        let made = make(&made_of)?;
        let state = State { looked: Instant::now(), made_of, made, broken: None };
        Ok(Self { what: what.into(), read: Box::new(read), make: Box::new(make), state: Mutex::new(state) })
    }

    /// As the files have it; as they had it up to [`RENEWED_WITHIN`] ago. Blocks for up to
    /// [`LOOK_PATIENCE`] for each file whose file system stops answering.
    pub fn current(&self) -> T {
        let mut state = self.state();
        if state.looked.elapsed() >= RENEWED_WITHIN {
            self.look(&mut state);
        }
        state.made.clone()
    }

    /// As the files have it now.
    pub fn look_now(&self) -> T {
        let mut state = self.state();
        self.look(&mut state);
        state.made.clone()
    }

    /// Puts one made of the same files in its place.
    pub fn put(&self, made: T) {
        self.state().made = made;
    }

    fn look(&self, state: &mut State<M, T>) {
        state.looked = Instant::now();
        let outcome = (self.read)(LOOK_PATIENCE).and_then(|read| {
            if read == state.made_of {
                return Ok(None);
            }
            (self.make)(&read).map(|made| Some((read, made)))
        });
        match outcome {
            Ok(renewed) => {
                if let Some((made_of, made)) = renewed {
                    info!(what = self.what, "renewed: new connections use what its files hold now");
                    (state.made_of, state.made) = (made_of, made);
                }
                state.broken = None;
            }
            Err(problem) => {
                if state.broken.as_ref() != Some(&problem) {
                    warn!(what = self.what, problem, "its files cannot be used: the earlier ones stay in force");
                }
                state.broken = Some(problem);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State<M, T>> {
        // Whole after every call on it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M, T> fmt::Debug for Renewed<M, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Renewed({})", self.what)
    }
}

/// What the first line of a certificate in PEM ends with.
pub const CERTIFICATE: &str = "CERTIFICATE";
/// What the first line of a private key in PEM ends with, whatever its kind.
pub const PRIVATE_KEY: &str = "PRIVATE KEY";

impl LoginSecret {
    /// As it is now: PEM that holds at least one of these. Libraries take a file without any for an empty list. Blocks the
    /// thread for up to `patience`.
    ///
    /// # Errors
    /// That the file cannot be read or is no such PEM, in words that name it.
    pub fn read_pem(&self, label: &str, patience: Duration) -> Result<Zeroizing<String>, String> {
        self.pem(self.read(patience), label)
    }

    /// As [`Self::read_pem`], and holds no thread of the runtime while it waits.
    ///
    /// # Errors
    /// As [`Self::read_pem`].
    pub async fn fetch_pem(&self, label: &str) -> Result<Zeroizing<String>, String> {
        self.pem(self.fetch().await, label)
    }

    fn pem(&self, text: Result<Zeroizing<String>, FileError>, label: &str) -> Result<Zeroizing<String>, String> {
        let text = text.map_err(|problem| problem.to_string())?;
        let begins =
            |line: &str| line.starts_with("-----BEGIN ") && line.trim_end().ends_with(&format!("{label}-----"));
        if text.lines().any(begins) {
            return Ok(text);
        }
        let place = match self {
            Self::Text(_) => "the text".to_owned(),
            Self::File(path) => path.display().to_string(),
        };
        Err(format!("{place} holds no {}; expected PEM", label.to_lowercase()))
    }
}

/// Whom a client trusts and who it is, in PEM.
#[derive(Clone, Debug)]
pub struct ClientTls {
    /// The authorities that signed the servers' certificates.
    pub authority: LoginSecret,
    /// Our own certificate chain and its private key, where servers ask for one.
    pub identity: Option<(LoginSecret, LoginSecret)>,
    /// The name expected in the servers' certificates, if not the address's.
    pub server_name: Option<String>,
}

/// What [`ClientTls`] holds at one moment.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientPem {
    /// The authorities.
    pub authority: Zeroizing<String>,
    /// Certificate chain and private key.
    pub identity: Option<(Zeroizing<String>, Zeroizing<String>)>,
}

impl ClientTls {
    /// Trusts these authorities, and shows no certificate.
    #[must_use]
    pub fn trusting(authority: LoginSecret) -> Self {
        Self { authority, identity: None, server_name: None }
    }

    /// As it is now. Blocks the thread for up to `patience` for each file.
    ///
    /// # Errors
    /// Which file cannot be read or is no PEM, and why.
    pub fn read(&self, patience: Duration) -> Result<ClientPem, String> {
        let identity = match &self.identity {
            Some((certificate, key)) => {
                Some((certificate.read_pem(CERTIFICATE, patience)?, key.read_pem(PRIVATE_KEY, patience)?))
            }
            None => None,
        };
        Ok(ClientPem { authority: self.authority.read_pem(CERTIFICATE, patience)?, identity })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renewed_file_counts_and_a_broken_one_leaves_the_last_in_force() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("number");
        let write = |text: &str| std::fs::write(&path, text).unwrap();
        let file = LoginSecret::File(path.clone());
        let number = |text: &Zeroizing<String>| text.parse::<u32>().map_err(|_| "no number".to_owned());
        let make = || {
            let file = file.clone();
            Renewed::new("number", move |patience| file.read(patience).map_err(|problem| problem.to_string()), number)
        };
        assert!(make().unwrap_err().contains("cannot read"));
        write("1");
        let renewed = make().unwrap();
        assert_eq!(renewed.look_now(), 1);
        write("2");
        assert_eq!(renewed.current(), 1, "looked at a moment ago");
        assert_eq!(renewed.look_now(), 2);
        write("x");
        assert_eq!(renewed.look_now(), 2);
        assert_eq!(renewed.state().broken.as_deref(), Some("no number"));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(renewed.look_now(), 2);
        write("3");
        assert_eq!((renewed.look_now(), renewed.state().broken.clone()), (3, None));
    }
}
