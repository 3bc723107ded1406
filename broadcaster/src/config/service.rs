//! Who may use what.

use std::collections::{BTreeMap, BTreeSet};

use rotacast_proto::VerifyingKey;
use rotacast_protocol::{SecretName, ServiceName};
use rotacast_seal::{MAX_READERS, SealingPublicKey};

use super::SecretConfig;
use super::pattern::SecretPattern;
use super::reader::Section;
use crate::identities::ServiceKeys;

/// One service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServiceConfig {
    /// The keys that attest its instances.
    pub keys: ServiceKeys,
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

/// Refuses more services with a sealing key for one named secret than a value has room for.
pub(super) fn check_readers(
    root: &Section<'_, '_>,
    secrets: &BTreeMap<SecretPattern, SecretConfig>,
    services: &BTreeMap<ServiceName, ServiceConfig>,
    any: Option<&ServiceConfig>,
) {
    let all = || services.values().chain(any);
    let of_services = all().flat_map(|service| &service.secrets);
    let named: BTreeSet<SecretName> = secrets.keys().chain(of_services).filter_map(SecretPattern::name).collect();
    for secret in named {
        let using = all().filter(|service| service.may_use(&secret));
        let keys: BTreeSet<String> =
            using.filter_map(|service| Some(service.sealing_key.as_ref()?.to_text())).collect();
        if keys.len() >= MAX_READERS {
            root.problem(
                "services",
                format!(
                    "{} services with a sealing key of their own may use {secret}, expected at most {}, which is what a sealed \
                     value has room for: take it out of the `secrets` of some, or leave out the sealing_key of those that get \
                     values from broadcasters",
                    keys.len(),
                    MAX_READERS - 1
                ),
            );
        }
    }
}

fn read_keys(section: &Section<'_, '_>) -> ServiceKeys {
    let list = |key: &'static str| {
        let texts = section.texts(key).unwrap_or_default();
        let parse =
            |text: &String| VerifyingKey::parse(text).map_err(|error| section.problem(key, error.to_string())).ok();
        texts.iter().filter_map(parse).collect::<Vec<_>>()
    };
    let keys = ServiceKeys { trusted: list("keys"), former: list("former_keys"), revoked: list("revoked_keys") };
    if keys.trusted.is_empty() && section.texts("keys").is_none_or(|texts| texts.is_empty()) {
        section.problem("keys", "is missing; expected a list of public keys that `rotacast keygen` printed".into());
    }
    let mut seen = BTreeSet::new();
    for (key, _) in keys.iter() {
        if !seen.insert(key.id().clone()) {
            section.problem("keys", format!("key {} is named twice in keys, former_keys and revoked_keys", key.id()));
        }
    }
    keys
}

/// The services by name, and what stands for all others.
pub(super) fn read_services(
    section: &Section<'_, '_>,
) -> (BTreeMap<ServiceName, ServiceConfig>, Option<ServiceConfig>) {
    let mut services = BTreeMap::new();
    let mut any = None;
    for (name, section) in section.named_sections() {
        let keys = read_keys(&section);
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
        let service = ServiceConfig { keys, sealing_key, secrets: patterns };
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
