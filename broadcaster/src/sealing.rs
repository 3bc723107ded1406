//! Whom values are sealed for, as configured.

use std::sync::Arc;

use rotacast_proto::Level;
use rotacast_protocol::SecretName;
use rotacast_seal::{MAX_READERS, Reader, ReaderName, ReaderSet, SealingPublicKey};
use rotacast_store::Readers;

use crate::findings::{Findings, Topic};
use crate::identities::Identities;

/// How many services that are left out are named.
const NAMED: usize = 5;

/// The broadcasters, by the first of their keys, and the services that may use a secret. A reload of the configuration counts at once.
pub struct ConfiguredReaders {
    ours: SealingPublicKey,
    identities: Arc<Identities>,
    findings: Findings,
}

impl ConfiguredReaders {
    /// The broadcasters' key, and the services. A set that is too large is a finding.
    #[must_use]
    pub fn new(ours: SealingPublicKey, identities: Arc<Identities>, findings: Findings) -> Self {
        Self { ours, identities, findings }
    }
}

impl Readers for ConfiguredReaders {
    fn readers(&self, secret: &SecretName) -> ReaderSet {
        let ours = Reader { name: ReaderName::Broadcasters, key: self.ours.clone() };
        let readers = ReaderSet::new([ours].into_iter().chain(self.identities.sealing_readers(secret)));
        note_left_out(&self.findings, secret, readers.left_out());
        readers
    }
}

/// Raises the finding about readers that values are not sealed for, if there are any. Whether there are.
pub(crate) fn note_left_out(findings: &Findings, secret: &SecretName, left_out: &[ReaderName]) -> bool {
    if left_out.is_empty() {
        return false;
    }
    let mut names: Vec<String> = left_out.iter().take(NAMED).map(ToString::to_string).collect();
    if left_out.len() > NAMED {
        names.push(format!("{} more", left_out.len() - NAMED));
    }
    let text = format!(
        "more services with a sealing key may use it than a value has room for ({MAX_READERS} keys, the broadcasters' among \
         them): its values are not sealed for {}",
        names.join(", ")
    );
    let fix = "let fewer services with a sealing key use it (`secrets` under [services.NAME]); until then, those that are left out \
               get its values from broadcasters alone, not from the store";
    // A value that does not open is worse: that finding stays until it is over.
    if !findings.has_error(Topic::Sealing, secret.as_str()) {
        findings.raise(Topic::Sealing, secret.as_str(), Level::Warning, text, fix);
    }
    true
}
