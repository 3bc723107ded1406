//! What no event of the store reports: that a key with a strange name is gone, and that a pattern matches no secret.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rotacast_proto::Level;
use rotacast_store::Key;
use tracing::debug;

use super::Term;
use super::records::MEND_EVERY;
use crate::findings::Topic;

impl Term {
    /// Looks again and again, for as long as the term lasts.
    pub(super) async fn look_for_strays(self: Arc<Self>) -> anyhow::Result<()> {
        loop {
            tokio::time::sleep(MEND_EVERY).await;
            self.clear_keys_that_are_gone().await;
            // Before, a secret may only not be known yet.
            if self.versions_read.load(Ordering::Acquire) {
                self.note_patterns_without_secrets();
            }
        }
    }

    async fn clear_keys_that_are_gone(&self) {
        let findings = &self.environment.findings;
        let strange = findings.standing().into_iter().filter(|standing| standing.topic == Topic::StrangeKey);
        for subject in strange.map(|standing| standing.subject) {
            // Its name is not text, so it cannot be asked for: it stays until the term ends.
            if subject.contains(char::REPLACEMENT_CHARACTER) {
                continue;
            }
            match self.environment.tree.store().get(&Key::new(subject.as_str())).await {
                Ok(None) => findings.clear(Topic::StrangeKey, &subject),
                Ok(Some(_)) => {}
                // Which says nothing about the key; it is looked at again.
                Err(problem) => debug!(key = subject, %problem, "cannot look whether it is still there"),
            }
        }
    }

    /// A misspelled pattern applies to nothing, and the secrets that it was meant for get the defaults.
    fn note_patterns_without_secrets(&self) {
        let findings = &self.environment.findings;
        let mut secrets: Vec<_> = self.secrets.all().into_iter().map(|(secret, _)| secret).collect();
        secrets.extend(self.secrets.unserved_names());
        let patterns = match secrets.is_empty() {
            // Nothing can match yet.
            true => Vec::new(),
            false => self.environment.settings.patterns(),
        };
        let unmatched: Vec<String> = patterns
            .into_iter()
            .filter(|(_, pattern)| !secrets.iter().any(|secret| pattern.matches(secret)))
            .map(|(place, pattern)| format!("{place} {pattern:?}"))
            .collect();
        let standing = findings.standing().into_iter().filter(|standing| standing.topic == Topic::Pattern);
        for subject in standing.map(|standing| standing.subject).filter(|subject| !unmatched.contains(subject)) {
            findings.clear(Topic::Pattern, &subject);
        }
        for subject in unmatched {
            let text = "no secret has such a name, so it applies to nothing".to_owned();
            let fix =
                "correct the name (`rotacast status` lists the secrets), or remove it; then reload the configuration";
            findings.raise(Topic::Pattern, subject, Level::Warning, text, fix);
        }
    }
}
