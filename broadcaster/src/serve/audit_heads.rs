//! What the store knows of the audit logs, for `rotacast audit verify`: read without a broadcaster.

use anyhow::Context as _;
use rotacast_proto::VerifyingKey;
use rotacast_store::{AuditHead, Prefix, SecretTree};

use super::backend;
use crate::config::{Config, StoreConfig};

/// What the store knows of the audit logs.
pub struct KnownLogs {
    /// The head of each replica's log.
    pub heads: Vec<AuditHead>,
    /// The keys that broadcasters have signed with.
    pub signers: Vec<VerifyingKey>,
}

/// Reads it from the store that the configuration names. Nothing is written.
///
/// # Errors
/// What the store says, in words.
pub async fn known_logs(config: &Config) -> anyhow::Result<KnownLogs> {
    if let StoreConfig::Embedded { file, .. } = &config.store {
        // Opening would make it.
        anyhow::ensure!(file.exists(), "store.file: {} does not exist", file.display());
    }
    let prefix = Prefix::new(config.store.prefix()).context("store.prefix")?;
    let tree = SecretTree::new(backend::store(&config.store).await?, prefix);
    let heads = tree.audit_heads().await.context("store")?.heads.into_iter().map(|stored| stored.head).collect();
    let signers = tree.owner().await.context("store")?.map(|owner| owner.keys).unwrap_or_default();
    Ok(KnownLogs { heads, signers })
}
