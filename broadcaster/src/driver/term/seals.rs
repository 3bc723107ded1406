//! Sees to it that every reader can open the stored values, and that they open.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rotacast_proto::Level;
use rotacast_protocol::{SecretName, Version};
use rotacast_seal::SealError;
use rotacast_store::{Rewrapped, StoreError};
use tokio::time::Instant;
use tracing::{debug, info};

use super::Term;
use super::records::MEND_EVERY;
use crate::findings::Topic;
use crate::sealing::note_left_out;

/// How often all stored values are opened: another client of the store may damage one at any time, and reading all of them
/// costs the store two listings for each secret.
const LOOK_EVERY: Duration = Duration::from_secs(3600);

impl Term {
    /// At the beginning of the term, after each reload of the configuration, and every [`LOOK_EVERY`]. Each step is idempotent: a
    /// leader that crashes in the middle leaves the rest to its successor.
    pub(super) async fn keep_sealed(self: Arc<Self>) -> anyhow::Result<()> {
        let mut reloads = self.environment.identities.changes();
        // Until then, it is not known which secrets there are.
        while !self.versions_read.load(Ordering::Acquire) {
            tokio::time::sleep(MEND_EVERY.min(Duration::from_secs(1))).await;
        }
        loop {
            let mut troubled = self.look_at_seals(self.sealed_secrets()).await;
            let next = Instant::now() + LOOK_EVERY;
            loop {
                tokio::select! {
                    changed = reloads.changed() => match changed {
                        Ok(()) => break,
                        Err(_) => tokio::time::sleep_until(next).await,
                    },
                    () = tokio::time::sleep_until(next) => break,
                    () = tokio::time::sleep(MEND_EVERY), if !troubled.is_empty() => {
                        troubled = self.look_at_seals(troubled).await;
                    }
                }
            }
        }
    }

    fn sealed_secrets(&self) -> BTreeSet<SecretName> {
        let served = self.secrets.all().into_iter().map(|(secret, _)| secret);
        served.chain(self.secrets.unserved_names()).collect()
    }

    /// Those that are to be looked at again soon.
    async fn look_at_seals(&self, secrets: BTreeSet<SecretName>) -> BTreeSet<SecretName> {
        let mut troubled = BTreeSet::new();
        for secret in secrets {
            let outcomes = match self.environment.tree.rewrap_all(&secret).await {
                Ok(outcomes) => outcomes,
                Err(problem) => {
                    debug!(%secret, %problem, "cannot look whether its values open; trying again");
                    troubled.insert(secret);
                    continue;
                }
            };
            if !self.note_seals(&secret, outcomes) {
                troubled.insert(secret);
            }
        }
        troubled
    }

    /// Whether all of a secret's values open, for all of its readers.
    fn note_seals(&self, secret: &SecretName, outcomes: Vec<(Version, Result<Rewrapped, StoreError>)>) -> bool {
        let (mut closed, mut unknown) = (Vec::new(), false);
        let mut fix = "";
        for (version, outcome) in outcomes {
            match outcome {
                Ok(Rewrapped::Added(readers)) => info!(%secret, %version, readers, "wrapped its key for more readers"),
                Ok(Rewrapped::Nothing | Rewrapped::Plain | Rewrapped::Gone) => {}
                Err(StoreError::Sealed { problem, .. }) => {
                    fix = way_out(&problem);
                    closed.push(format!("version {version}: {problem}"));
                }
                Err(problem) => {
                    debug!(%secret, %version, %problem, "cannot look whether it opens; trying again");
                    unknown = true;
                }
            }
        }
        let findings = &self.environment.findings;
        if !closed.is_empty() {
            findings.raise(Topic::Sealing, secret.as_str(), Level::Error, closed.join("; "), fix);
            return false;
        }
        if !unknown {
            let left_out = self.environment.tree.left_out(secret);
            if left_out.is_empty() || findings.has_error(Topic::Sealing, secret.as_str()) {
                findings.clear(Topic::Sealing, secret.as_str());
            }
            note_left_out(findings, secret, &left_out);
        }
        !unknown
    }
}

fn way_out(problem: &SealError) -> &'static str {
    match problem {
        SealError::NoKey { .. } => {
            "put the sealing key that is named into this broadcaster's key file, behind the one in use (`keys.sealing_key`, or \
             `keys.signing_key` without it), and restart it; if that key is lost, so is the value: put or rotate a new version"
        }
        SealError::DataKey { .. }
        | SealError::Ciphertext
        | SealError::Malformed { .. }
        | SealError::TooManyReaders { .. } => {
            "instances that have the value keep it; restore this key of the store from a backup, or put or rotate a new version; \
             and see who else may write below Rotacast's prefix"
        }
        SealError::Format { .. } => "use the release of Rotacast that wrote it, or a later one",
    }
}
