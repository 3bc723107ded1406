//! The data folder of `rotacast dev`: databases, audit log and keys.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rotacast_proto::SigningKey;

use crate::web::{Token, TokenDigest};

/// What signs in to the dashboard.
const TOKEN: &str = "operator.token";

/// An opened folder, with keys made on the fly.
pub(super) struct Folder {
    path: PathBuf,
    broadcaster: SigningKey,
    identity: SigningKey,
    operator: SigningKey,
    token: TokenDigest,
}

impl Folder {
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let keys = path.join("keys");
        std::fs::create_dir_all(&keys).with_context(|| format!("cannot create {}", keys.display()))?;
        Ok(Self {
            broadcaster: key(&keys, "broadcaster")?,
            identity: key(&keys, "identity")?,
            operator: key(&keys, "operator")?,
            token: token(&keys.join(TOKEN))?,
            path: path.to_owned(),
        })
    }

    /// Signs states and replies.
    pub(super) fn broadcaster(&self) -> &SigningKey {
        &self.broadcaster
    }

    /// Signs for every service.
    pub(super) fn identity(&self) -> &SigningKey {
        &self.identity
    }

    /// Signs orders.
    pub(super) fn operator(&self) -> &SigningKey {
        &self.operator
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

    /// For somebody who has just started it for the first time.
    #[allow(clippy::print_stdout)]
    pub(super) fn print_what_next(&self, address: SocketAddr) {
        let keys = self.path.join("keys");
        let keys = keys.display();
        println!(
            "Rotacast is running on {address}, with its data in {}.

Write a secret's first version, then rotate it:

    printf 'first value' | rotacast put demo/token
    rotacast rotate demo/token
    rotacast status
    rotacast why demo/token        # what it waits for, and who

Let a service use it:

    export ROTACAST_CLUSTER=dev ROTACAST_IDENTITY={keys}/identity.key ROTACAST_TRUST={keys}/broadcaster.pub
    Subscriber::builder().service(\"my-service\").connect(\"grpc://{address}\")

Watch it at http://{address}/ in a browser; to act there, sign in with the token in {keys}/{TOKEN}.
Or see all of it at work: rotacast dev --demo
Stop with Ctrl-C.",
            self.path.display()
        );
    }
}

/// Reads the token's digest, or makes a token.
fn token(file: &Path) -> anyhow::Result<TokenDigest> {
    if !file.exists() {
        Token::generate().create_file(file).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Token::digest_of_file(file).with_context(|| format!("cannot read {}", file.display()))
}

/// Reads a key, or makes it, with its public half beside it.
fn key(folder: &Path, name: &str) -> anyhow::Result<SigningKey> {
    let file = folder.join(format!("{name}.key"));
    let key = if file.exists() {
        SigningKey::read_file(&file)?
    } else {
        let key = SigningKey::generate();
        key.create_file(&file)?;
        key
    };
    let public = folder.join(format!("{name}.pub"));
    std::fs::write(&public, format!("{}\n", key.public().to_text()))
        .with_context(|| format!("cannot write {}", public.display()))?;
    Ok(key)
}
