//! What applies to each secret.

use std::sync::Arc;

use rotacast_protocol::record::{ProviderId, SecretRecord};
use rotacast_protocol::schedule::Schedule;
use rotacast_protocol::status::Configured;
use rotacast_protocol::{Policy, SecretName, WallTime};
use rotacast_provider::Provider;

use crate::config::SecretPattern;

/// Who has started a scheduled rotation, in the record and the audit log. No operator may be called that: see the
/// configuration's reserved names.
pub(crate) const SCHEDULE: &str = "schedule";

/// What a status says in place of a provider.
const NO_PROVIDER: &str = "none: only followed";

/// What applies to one secret.
#[derive(Clone)]
pub struct SecretSettings {
    /// Its policy, which names the provider of versions to come.
    pub policy: Policy,
    /// When it is rotated without an order; none: never.
    pub schedule: Option<Schedule>,
}

impl SecretSettings {
    /// What a status says of them at this time.
    #[must_use]
    pub fn shown(&self, record: &SecretRecord, now: WallTime) -> Configured {
        Configured {
            provider: self.policy.provider.as_ref().map_or_else(|| NO_PROVIDER.to_owned(), ToString::to_string),
            next_rotation_at: self.schedule.and_then(|schedule| schedule.next(record, now)),
        }
    }
}

/// Where a driver finds what applies to a secret, and the providers. Every secret has settings; those without a section get the
/// defaults and no provider.
pub trait Settings: Send + Sync + 'static {
    /// What applies to a secret.
    fn of(&self, secret: &SecretName) -> SecretSettings;
    /// The provider that can end what this one made, whatever it is called now. `None`: the configuration has none of its kind
    /// and system.
    fn provider(&self, id: &ProviderId) -> Option<Arc<dyn Provider>>;
    /// The secrets named in the configuration: they can be rotated before they have a version.
    fn configured(&self) -> Vec<SecretName>;
    /// Every place of the configuration that means secrets, with the pattern it has for them.
    fn patterns(&self) -> Vec<(String, SecretPattern)> {
        Vec::new()
    }
}
