//! Versions whose provider the configuration has no more: a standing finding.

use std::collections::BTreeMap;

use rotacast_proto::Level;
use rotacast_protocol::coordinator::Reason;

use super::super::effect::missing;
use super::SecretTask;
use crate::findings::Topic;

impl SecretTask {
    /// Looks for the provider of each version that may still be valid.
    pub(super) fn look_for_providers(&self) {
        let record = self.machine.coordinator().record();
        let mut without: BTreeMap<_, Vec<String>> = BTreeMap::new();
        for version in record.live_versions() {
            if let Some(id) = record.versions.get(&version).and_then(|version| version.provider.as_ref())
                && self.environment.settings.provider(id).is_none()
            {
                without.entry(id).or_default().push(version.to_string());
            }
        }
        let (findings, secret) = (&self.environment.findings, self.secret.as_str());
        if without.is_empty() {
            return findings.clear(Topic::Provider, secret);
        }
        let texts = without.iter().map(|(id, versions)| format!("version {}: {}", versions.join(", "), missing(id)));
        let text = format!("{}; until then it is neither tested nor retired", texts.collect::<Vec<_>>().join("; "));
        let fix = format!(
            "put the section back; or, for a version on its way out that was revoked by hand, `rotacast abandon {secret} \
             VERSION --reason '{}'`, which records that nothing proves its end",
            Reason::PLACEHOLDER
        );
        let level = if record.retirements.is_empty() { Level::Warning } else { Level::Error };
        findings.raise(Topic::Provider, secret, level, text, &fix);
    }
}
