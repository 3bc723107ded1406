//! The data folder of `rotacast dev`: databases, audit log and keys.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rotacast_proto::{SigningKey, create_private_folder};
use rotacast_seal::{SealingKey, SealingKeys, create_key_file};

use crate::token::{Token, TokenDigest};

/// What signs in to the dashboard.
const TOKEN: &str = "operator.token";
/// The folder with the keys.
const KEYS: &str = "keys";

/// An opened folder, with keys made on the fly.
#[derive(Clone)]
pub struct Folder {
    path: PathBuf,
    broadcaster: Pair,
    identity: Pair,
    operator: Pair,
    token: TokenDigest,
}

/// What one key file holds.
#[derive(Clone)]
struct Pair {
    signing: SigningKey,
    sealing: SealingKey,
}

impl Folder {
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let keys = path.join(KEYS);
        create_private_folder(&keys).with_context(|| format!("cannot create {}", keys.display()))?;
        Ok(Self {
            broadcaster: key(&keys, "broadcaster")?,
            identity: key(&keys, "identity")?,
            operator: key(&keys, "operator")?,
            token: token(&keys.join(TOKEN))?,
            path: path.to_owned(),
        })
    }

    /// Signs states and replies.
    #[must_use]
    pub fn broadcaster(&self) -> &SigningKey {
        &self.broadcaster.signing
    }

    /// Opens sealed values.
    pub(super) fn broadcaster_sealing(&self) -> &SealingKey {
        &self.broadcaster.sealing
    }

    /// Signs for every service.
    #[must_use]
    pub fn identity(&self) -> &SigningKey {
        &self.identity.signing
    }

    /// Opens sealed values for every service.
    pub(super) fn identity_sealing(&self) -> &SealingKey {
        &self.identity.sealing
    }

    /// Signs orders.
    #[must_use]
    pub fn operator(&self) -> &SigningKey {
        &self.operator.signing
    }

    /// Of the token with which the operator signs in to the dashboard.
    pub(super) fn token(&self) -> TokenDigest {
        self.token
    }

    pub(super) fn store(&self) -> PathBuf {
        self.path.join("store.db")
    }

    pub(super) fn bus(&self) -> PathBuf {
        self.path.join("bus.db")
    }

    pub(super) fn audit(&self) -> PathBuf {
        self.path.join("audit.jsonl")
    }

    /// Where everything is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the keys are, and the token.
    #[must_use]
    pub fn keys(&self) -> PathBuf {
        self.path.join(KEYS)
    }

    /// The file with the token that signs in to the dashboard.
    #[must_use]
    pub fn token_file(&self) -> PathBuf {
        self.keys().join(TOKEN)
    }
}

/// Reads the token's digest, or makes a token.
fn token(file: &Path) -> anyhow::Result<TokenDigest> {
    if !file.exists() {
        Token::generate().create_file(file).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Token::digest_of_file(file).with_context(|| format!("cannot read {}", file.display()))
}

/// Reads the keys of a file, or makes them, with their public halves beside them.
fn key(folder: &Path, name: &str) -> anyhow::Result<Pair> {
    let file = folder.join(format!("{name}.key"));
    if !file.exists() {
        create_key_file(&file, &SigningKey::generate(), &SealingKey::generate())?;
    }
    let sealing = SealingKeys::read_file(&file)?.first().cloned();
    let sealing = sealing.with_context(|| {
        let file = file.display();
        format!("{file} has no sealing key; add one with `rotacast keys new --for sealing --file {file}`")
    })?;
    let key = Pair { signing: SigningKey::read_file(&file)?, sealing };
    for (ending, text) in [("pub", key.signing.public().to_text()), ("sealing.pub", key.sealing.public().to_text())] {
        let public = folder.join(format!("{name}.{ending}"));
        write_public(&public, &text).with_context(|| format!("cannot write {}", public.display()))?;
    }
    Ok(key)
}

/// Writable by its owner alone: services and operators trust what it holds.
fn write_public(file: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file)?;
    writeln!(file, "{text}")
}
