//! Who may use what.

use std::collections::BTreeMap;

use rotacast_proto::VerifyingKey;
use rotacast_protocol::{SecretName, ServiceName};
use rotacast_seal::SealingPublicKey;

use super::pattern::SecretPattern;
use super::reader::Section;

/// One service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServiceConfig {
    /// Signs its instances' messages.
    pub key: VerifyingKey,
    /// Values that it may use are sealed for it; none: it gets them from broadcasters alone.
    pub sealing_key: Option<SealingPublicKey>,
    /// Which secrets it may use.
    pub secrets: Vec<SecretPattern>,
}

impl ServiceConfig {
    /// Whether it may use a secret.
    #[must_use]
    pub fn may_use(&self, secret: &SecretName) -> bool {
        self.secrets.iter().any(|pattern| pattern.matches(secret))
    }
}

/// The services by name, and what stands for all others.
pub(super) fn read_services(
    section: &Section<'_, '_>,
) -> (BTreeMap<ServiceName, ServiceConfig>, Option<ServiceConfig>) {
    let mut services = BTreeMap::new();
    let mut any = None;
    for (name, section) in section.named_sections() {
        let key = match section.required_text("key", "the public key that `rotacast keygen` printed") {
            Some(text) => VerifyingKey::parse(&text).map_err(|error| section.problem("key", error.to_string())).ok(),
            None => None,
        };
        let sealing_key = section.text("sealing_key").and_then(|text| {
            SealingPublicKey::parse(&text).map_err(|error| section.problem("sealing_key", error.to_string())).ok()
        });
        let secrets = section.texts("secrets");
        if secrets.is_none() {
            section.problem("secrets", "is missing; expected such as [\"payments/*\"]".into());
        }
        let mut patterns = Vec::new();
        for text in secrets.into_iter().flatten() {
            match text.parse() {
                Ok(pattern) => patterns.push(pattern),
                Err(error) => section.problem("secrets", format!("{error}")),
            }
        }
        section.finish();
        let Some(key) = key else { continue };
        let service = ServiceConfig { key, sealing_key, secrets: patterns };
        if name == "*" {
            any = Some(service);
            continue;
        }
        match ServiceName::new(name) {
            Ok(name) => {
                services.insert(name, service);
            }
            Err(error) => section.problem_here(error.to_string()),
        }
    }
    (services, any)
}
