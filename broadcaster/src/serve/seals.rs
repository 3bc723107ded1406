//! Who can open what the store holds, for `rotacast seal status` and `rotacast seal rewrap`: read without a broadcaster.

use std::sync::Arc;

use anyhow::Context as _;
use rotacast_proto::KeyId;
use rotacast_protocol::{SecretName, Version};
use rotacast_seal::{ReaderName, SealingKeys};
use rotacast_store::{Prefix, Readers as _, Rewrapped, SealState, SecretTree, StoreError};

use super::{backend, rehearsal, sealed, services};
use crate::config::{Config, StoreConfig};
use crate::findings::Findings;
use crate::identities::Identities;
use crate::sealing::ConfiguredReaders;

/// A reader and its key.
pub type ReaderKey = (ReaderName, KeyId);

/// Who can open one stored version.
pub struct VersionSeal {
    /// Of which secret.
    pub secret: SecretName,
    /// Which version.
    pub version: Version,
    /// What was found.
    pub found: Found,
}

/// What was found of a stored version.
pub enum Found {
    /// The value itself.
    Plain,
    /// It is sealed.
    Sealed {
        /// For whom.
        readers: Vec<ReaderKey>,
        /// Those of them that the configuration has no more: what they could open, they have had.
        former: Vec<ReaderKey>,
        /// How many more former readers there are, whose entries made way for others.
        made_way: u64,
        /// Those of the configuration that cannot open it yet.
        missing: Vec<ReaderKey>,
        /// Why it does not open with the broadcaster's keys.
        problem: Option<String>,
    },
    /// It cannot be read at all.
    Broken(String),
}

struct Opened {
    tree: SecretTree,
    readers: Option<ConfiguredReaders>,
}

/// With the configured keys, or with these.
async fn open(config: &Config, keys: Option<SealingKeys>) -> anyhow::Result<Opened> {
    if let StoreConfig::Embedded { file, .. } = &config.store {
        // Opening would make it.
        anyhow::ensure!(file.exists(), "store.file: {} does not exist", file.display());
    }
    let prefix = Prefix::new(config.store.prefix()).context("store.prefix")?;
    let tree = SecretTree::new(backend::store(&config.store).await?, prefix);
    let keys = match keys {
        Some(keys) => keys,
        None => rehearsal::read_sealing_keys(config)?,
    };
    let identities = Arc::new(Identities::new(config.cluster.clone(), services(config)));
    let ours = keys.first().map(|key| key.public().clone());
    let findings = Findings::default();
    let readers = ours.map(|ours| ConfiguredReaders::new(ours, Arc::clone(&identities), findings.clone()));
    Ok(Opened { tree: sealed(tree, config, keys, &identities, &findings), readers })
}

/// Looks at every version in the store that the configuration names. Nothing is written.
///
/// # Errors
/// What the store says, in words.
pub async fn seal_status(config: &Config) -> anyhow::Result<Vec<VersionSeal>> {
    let Opened { tree, readers } = open(config, None).await?;
    let mut all = Vec::new();
    for secret in tree.stored_secrets().await.context("store")? {
        let wanted: Vec<ReaderKey> = readers.as_ref().map_or_else(Vec::new, |readers| {
            let readers = readers.readers(&secret);
            readers.readers().iter().map(|reader| (reader.name.clone(), reader.key.id().clone())).collect()
        });
        for stamp in tree.list_versions(&secret).await.context("store")? {
            let version = stamp.version;
            let found = match tree.seal_state(&secret, version).await {
                Ok(None) => continue,
                Ok(Some(SealState::Plain)) => Found::Plain,
                Ok(Some(SealState::Sealed { readers, made_way })) => {
                    let lacks = |all: &[ReaderKey], (_, key): &ReaderKey| !all.iter().any(|(_, known)| known == key);
                    // Without a key of the broadcasters, it is not known who is a reader.
                    let known = !wanted.is_empty();
                    let former = readers.iter().filter(|reader| known && lacks(&wanted, reader)).cloned().collect();
                    let missing = wanted.iter().filter(|reader| lacks(&readers, reader)).cloned().collect();
                    let problem = match tree.read_version(&secret, version).await {
                        Ok(_) => None,
                        Err(StoreError::Sealed { problem, .. }) => Some(problem.to_string()),
                        Err(problem) => return Err(problem).context("store"),
                    };
                    Found::Sealed { readers, former, made_way, missing, problem }
                }
                Err(StoreError::Sealed { problem, .. }) => Found::Broken(problem.to_string()),
                Err(problem) => return Err(problem).context("store"),
            };
            all.push(VersionSeal { secret: secret.clone(), version, found });
        }
    }
    Ok(all)
}

/// Wraps the data keys of every stored version for the readers that the configuration has and that cannot open it yet: what the
/// leader does by itself.
///
/// # Errors
/// What the store says, in words.
pub async fn rewrap(config: &Config) -> anyhow::Result<Vec<(SecretName, Version, Result<Rewrapped, StoreError>)>> {
    let Opened { tree, readers } = open(config, None).await?;
    anyhow::ensure!(readers.is_some(), "there is no sealing key, so there is nothing to wrap");
    let mut all = Vec::new();
    for secret in tree.stored_secrets().await.context("store")? {
        let outcomes = tree.rewrap_all(&secret).await.context("store")?;
        all.extend(outcomes.into_iter().map(|(version, outcome)| (secret.clone(), version, outcome)));
    }
    Ok(all)
}

/// What would be lost without a sealing key: stored versions, and journalled values of versions to come, that it opens and that
/// none of the `others` does.
///
/// # Errors
/// What the store says, in words.
pub async fn needs(config: &Config, key: &KeyId, others: SealingKeys) -> anyhow::Result<Vec<(SecretName, Version)>> {
    let Opened { tree, .. } = open(config, Some(others)).await?;
    let mut needed = Vec::new();
    for secret in tree.stored_secrets().await.context("store")? {
        for stamp in tree.list_versions(&secret).await.context("store")? {
            let version = stamp.version;
            let state = tree.seal_state(&secret, version).await;
            let Ok(Some(SealState::Sealed { readers, .. })) = state else { continue };
            if readers.iter().any(|(_, reader)| reader == key)
                && closed(tree.read_version(&secret, version).await.map(drop))?
            {
                needed.push((secret.clone(), version));
            }
        }
        for (version, keys) in tree.journal_keys(&secret).await.context("store")? {
            if keys.contains(key) && closed(tree.read_journal(&secret, version).await.map(drop))? {
                needed.push((secret.clone(), version));
            }
        }
    }
    Ok(needed)
}

/// Whether it does not open.
fn closed(read: Result<(), StoreError>) -> anyhow::Result<bool> {
    match read {
        Ok(()) => Ok(false),
        Err(StoreError::Sealed { .. }) => Ok(true),
        Err(problem) => Err(problem).context("store"),
    }
}
