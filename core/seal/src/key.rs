//! The X25519 keys that data keys are wrapped for, and how they are kept in key files.
//!
//! A key pair of its own, not one converted from the Ed25519 key beside it: signing and decrypting then never share a secret,
//! each is replaced without the other, and a service that reads no store need not have one.

use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use hpke::{Deserializable as _, Kem as _, Serializable as _};
use rotacast_proto::{
    KeyError, KeyFileError, KeyId, SigningKey, create_private_file, decode_key, read_private_file, replace_private_file,
};
use rotacast_protocol::ServiceName;
use zeroize::Zeroizing;

use crate::cipher::{self, Kem};

const PRIVATE_PREFIX: &str = "rotacast-sealing-private-1:";
const PUBLIC_PREFIX: &str = "rotacast-sealing-public-1:";

/// Who can open a sealed value.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ReaderName {
    /// The cluster's broadcasters, which share a key.
    Broadcasters,
    /// A service, with its own key.
    Service(ServiceName),
    /// All services that the configuration does not name, which share a key.
    OtherServices,
}

impl fmt::Display for ReaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broadcasters => f.write_str("the broadcasters"),
            Self::Service(name) => write!(f, "service {name}"),
            Self::OtherServices => f.write_str("services that are not named"),
        }
    }
}

/// A private sealing key. Wiped when dropped; no `Debug`.
#[derive(Clone)]
pub struct SealingKey {
    secret: Zeroizing<[u8; 32]>,
    public: SealingPublicKey,
}

impl SealingKey {
    /// Draws a new key from the operating system's randomness.
    #[must_use]
    pub fn generate() -> Self {
        let mut secret = Zeroizing::new([0_u8; 32]);
        rand::Rng::fill(&mut rand::rng(), &mut secret[..]);
        Self::from_bytes(secret)
    }

    /// The key of 32 bytes: for test vectors, and for reading key files.
    #[must_use]
    pub fn from_bytes(secret: Zeroizing<[u8; 32]>) -> Self {
        let public = Kem::sk_to_pk(&private(&secret));
        Self { public: SealingPublicKey::from_bytes(public.to_bytes().into()), secret }
    }

    /// Reads what [`SealingKey::to_text`] writes; surrounding white space is allowed.
    ///
    /// # Errors
    /// [`KeyError`] says what is wrong, without the text.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        decode_key(text, "private sealing", PRIVATE_PREFIX, PUBLIC_PREFIX).map(Self::from_bytes)
    }

    /// The key as text, for a file that only its owner may read.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{PRIVATE_PREFIX}{}", BASE64.encode(&self.secret[..])))
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> &SealingPublicKey {
        &self.public
    }

    pub(crate) fn private(&self) -> <Kem as hpke::Kem>::PrivateKey {
        private(&self.secret)
    }
}

fn private(secret: &[u8; 32]) -> <Kem as hpke::Kem>::PrivateKey {
    <Kem as hpke::Kem>::PrivateKey::from_bytes(secret).expect("any 32 bytes are an X25519 private key")
}

/// A public sealing key.
#[derive(Clone, PartialEq, Eq)]
pub struct SealingPublicKey {
    bytes: [u8; 32],
    id: KeyId,
}

impl SealingPublicKey {
    fn from_bytes(bytes: [u8; 32]) -> Self {
        Self { id: KeyId::of(&bytes), bytes }
    }

    /// Reads what [`SealingPublicKey::to_text`] writes; surrounding white space is allowed.
    ///
    /// # Errors
    /// [`KeyError`] says what is wrong.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let key = Self::from_bytes(*decode_key(text, "public sealing", PUBLIC_PREFIX, PRIVATE_PREFIX)?);
        match cipher::can_be_wrapped_for(&key) {
            true => Ok(key),
            false => Err(KeyError::new(
                "public sealing",
                PUBLIC_PREFIX,
                "no value can be sealed for it: it is a point of low order",
            )),
        }
    }

    /// The key as text.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!("{PUBLIC_PREFIX}{}", BASE64.encode(self.bytes))
    }

    /// What names this key in the store and in messages.
    #[must_use]
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    pub(crate) fn public(&self) -> <Kem as hpke::Kem>::PublicKey {
        <Kem as hpke::Kem>::PublicKey::from_bytes(&self.bytes).expect("any 32 bytes are an X25519 public key")
    }
}

impl fmt::Debug for SealingPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealingPublicKey({})", self.id)
    }
}

/// The sealing keys of one process, in the order of its key file. All of them open; values are sealed for the first.
#[derive(Clone, Default)]
pub struct SealingKeys(Vec<SealingKey>);

impl SealingKeys {
    /// These keys, the one to seal for first.
    #[must_use]
    pub fn new(keys: Vec<SealingKey>) -> Self {
        Self(keys)
    }

    /// Reads the sealing keys of a private key file: its lines that begin with `rotacast-sealing-private-1:`. There may be none.
    ///
    /// # Errors
    /// [`KeyFileError`]: missing, unreadable, open to group or others, or a sealing key that is none.
    pub fn read_file(path: impl AsRef<Path>) -> Result<Self, KeyFileError> {
        let path = path.as_ref();
        let text = read_private_file(path)?;
        let lines = text.lines().filter(|line| is_sealing_line(line));
        let keys = lines.map(SealingKey::parse).collect::<Result<_, _>>();
        keys.map(Self).map_err(|source| KeyFileError::NoKey { path: path.into(), source })
    }

    /// The key that values are sealed for.
    #[must_use]
    pub fn first(&self) -> Option<&SealingKey> {
        self.0.first()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &SealingKey> {
        self.0.iter()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Writes a signing key and a sealing key to a new file with mode 0600; when this returns, it is on disk.
///
/// # Errors
/// [`KeyFileError::Exists`] if there is anything at `path`; [`KeyFileError::Io`].
pub fn create_key_file(path: impl AsRef<Path>, signing: &SigningKey, sealing: &SealingKey) -> Result<(), KeyFileError> {
    let mut lines = signing.to_text();
    lines.push('\n');
    lines.push_str(&sealing.to_text());
    create_private_file(path.as_ref(), &lines)
}

/// What a key of a private key file is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyUse {
    /// It signs.
    Signing,
    /// It opens sealed values.
    Sealing,
}

impl KeyUse {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Signing, Self::Sealing];

    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Signing => "signing",
            Self::Sealing => "sealing",
        }
    }
}

impl fmt::Display for KeyUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A private key file whose keys are changed. Of each use, the first key is the one in use.
pub struct KeyFile {
    path: PathBuf,
    signing: Vec<SigningKey>,
    sealing: SealingKeys,
}

impl KeyFile {
    /// Reads the file.
    ///
    /// # Errors
    /// [`KeyFileError`]: missing, unreadable, open to group or others, or a line that is no private key.
    pub fn read(path: impl Into<PathBuf>) -> Result<Self, KeyFileError> {
        let path = path.into();
        let text = read_private_file(&path)?;
        let signing = text.lines().filter(|line| !line.trim().is_empty() && !is_sealing_line(line));
        let signing = signing.map(SigningKey::parse).collect::<Result<_, _>>();
        let signing = signing.map_err(|source| KeyFileError::NoKey { path: path.clone(), source })?;
        Ok(Self { signing, sealing: SealingKeys::read_file(&path)?, path })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its signing keys.
    #[must_use]
    pub fn signing(&self) -> &[SigningKey] {
        &self.signing
    }

    /// Its sealing keys.
    #[must_use]
    pub fn sealing(&self) -> &SealingKeys {
        &self.sealing
    }

    /// What a key is for, and whether it is the one in use. `None`: it is not there.
    #[must_use]
    pub fn find(&self, id: &KeyId) -> Option<(KeyUse, bool)> {
        let signing = self.signing.iter().position(|key| key.public().id() == id);
        let sealing = self.sealing.iter().position(|key| key.public().id() == id);
        let signing = signing.map(|at| (KeyUse::Signing, at == 0));
        signing.or_else(|| sealing.map(|at| (KeyUse::Sealing, at == 0)))
    }

    /// Draws a key and adds it behind the others of its use. Its id.
    pub fn add(&mut self, of: KeyUse) -> KeyId {
        match of {
            KeyUse::Signing => {
                let key = SigningKey::generate();
                let id = key.public().id().clone();
                self.signing.push(key);
                id
            }
            KeyUse::Sealing => {
                let key = SealingKey::generate();
                let id = key.public().id().clone();
                self.sealing.0.push(key);
                id
            }
        }
    }

    /// Makes a key the first of its use. Whether it is there.
    pub fn move_to_front(&mut self, id: &KeyId) -> bool {
        let signing = self.signing.iter().position(|key| key.public().id() == id);
        let sealing = self.sealing.iter().position(|key| key.public().id() == id);
        if let Some(at) = signing {
            self.signing[..=at].rotate_right(1);
        }
        if let Some(at) = sealing {
            self.sealing.0[..=at].rotate_right(1);
        }
        signing.is_some() || sealing.is_some()
    }

    /// Removes a key. Whether it was there.
    pub fn remove(&mut self, id: &KeyId) -> bool {
        let count = |file: &Self| file.signing.len() + file.sealing.0.len();
        let before = count(self);
        self.signing.retain(|key| key.public().id() != id);
        self.sealing.0.retain(|key| key.public().id() != id);
        count(self) < before
    }

    /// Replaces the file, in one step, with mode 0600; when this returns, it is on disk.
    ///
    /// # Errors
    /// [`KeyFileError::Io`]; [`KeyFileError::Exists`] if an earlier attempt broke off and left its file beside this one.
    pub fn write(&self) -> Result<(), KeyFileError> {
        let signing = self.signing.iter().map(SigningKey::to_text);
        let sealing = self.sealing.iter().map(SealingKey::to_text);
        let texts: Vec<Zeroizing<String>> = signing.chain(sealing).collect();
        // Of the final size: growing would leave copies behind.
        let mut lines = Zeroizing::new(String::with_capacity(texts.iter().map(|text| text.len() + 1).sum()));
        for text in &texts {
            lines.push_str(text);
            lines.push('\n');
        }
        replace_private_file(&self.path, lines.trim_end())
    }
}

fn is_sealing_line(line: &str) -> bool {
    line.trim_start().starts_with("rotacast-sealing-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_holds_a_signing_key_and_any_number_of_sealing_keys() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("payments-api.key");
        let (signing, sealing) = (SigningKey::generate(), SealingKey::generate());
        create_key_file(&path, &signing, &sealing).unwrap();
        assert_eq!(SigningKey::read_file(&path).ok().unwrap().public(), signing.public());
        let read = SealingKeys::read_file(&path).ok().unwrap();
        assert_eq!(read.iter().map(|key| key.public().clone()).collect::<Vec<_>>(), [sealing.public().clone()]);

        let newer = SealingKey::generate();
        let lines = format!("{}\n{}\n{}", *newer.to_text(), *signing.to_text(), *sealing.to_text());
        let both = folder.path().join("both.key");
        create_private_file(&both, &lines).unwrap();
        assert_eq!(SigningKey::read_file(&both).ok().unwrap().public(), signing.public());
        let read = SealingKeys::read_file(&both).ok().unwrap();
        assert_eq!(read.first().unwrap().public(), newer.public(), "the first line is the one to seal for");
        assert_eq!(read.iter().count(), 2);
    }

    #[test]
    fn keys_are_added_used_and_dropped_and_the_signing_key_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("broadcaster.key");
        let (signing, old) = (SigningKey::generate(), SealingKey::generate());
        create_key_file(&path, &signing, &old).unwrap();
        let ids = || {
            SealingKeys::read_file(&path)
                .unwrap_or_default()
                .iter()
                .map(|key| key.public().id().clone())
                .collect::<Vec<_>>()
        };
        let mut file = KeyFile::read(&path).unwrap_or_else(|error| panic!("{error}"));
        let new = file.add(KeyUse::Sealing);
        file.write().unwrap();
        assert_eq!(ids(), [old.public().id().clone(), new.clone()], "it opens, and is not sealed for yet");
        assert_eq!(file.find(&new), Some((KeyUse::Sealing, false)));
        assert!(file.move_to_front(&new));
        file.write().unwrap();
        assert_eq!(ids(), [new.clone(), old.public().id().clone()]);
        assert!(file.remove(old.public().id()) && !file.remove(old.public().id()));
        assert!(!file.move_to_front(old.public().id()));
        file.write().unwrap();
        assert_eq!(ids(), [new]);
        assert_eq!(SigningKey::read_file(&path).ok().unwrap().public(), signing.public());
        // The same of the key that signs.
        let next = file.add(KeyUse::Signing);
        assert_eq!(file.find(signing.public().id()), Some((KeyUse::Signing, true)));
        file.write().unwrap();
        assert_eq!(SigningKey::read_file(&path).ok().unwrap().public(), signing.public(), "it does not sign yet");
        assert!(file.move_to_front(&next) && file.remove(signing.public().id()));
        file.write().unwrap();
        assert_eq!(*SigningKey::read_file(&path).ok().unwrap().public().id(), next);
    }

    #[test]
    fn a_public_key_in_a_private_file_is_refused_by_name_and_without_its_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k");
        let key = SealingKey::generate();
        create_private_file(&path, &key.public().to_text()).unwrap();
        let problem = SealingKeys::read_file(&path).err().unwrap().to_string();
        assert!(problem.contains("private sealing key") && problem.contains("other half"), "{problem}");
        assert_eq!(SealingPublicKey::parse(&key.public().to_text()).unwrap(), *key.public());
        assert!(SealingPublicKey::parse(&key.to_text()).unwrap_err().to_string().contains("other half"));
    }
}
