//! What applies to each secret.

use std::sync::Arc;

use rotacast_protocol::record::SecretRecord;
use rotacast_protocol::schedule::Schedule;
use rotacast_protocol::status::Configured;
use rotacast_protocol::{Policy, SecretName, WallTime};
use rotacast_provider::Provider;

use crate::config::SecretPattern;

/// Who has started a scheduled rotation, in the record and the audit log. No operator may be called that: see the
/// configuration's reserved names.
pub(crate) const SCHEDULE: &str = "schedule";

/// What applies to one secret.
#[derive(Clone)]
pub struct SecretSettings {
    /// Its policy.
    pub policy: Policy,
    /// What makes, tests and retires its credentials.
    pub provider: Arc<dyn Provider>,
    /// When it is rotated without an order; none: never.
    pub schedule: Option<Schedule>,
}

impl SecretSettings {
    /// What a status says of them at this time.
    #[must_use]
    pub fn shown(&self, record: &SecretRecord, now: WallTime) -> Configured {
        Configured {
            provider: self.provider.describe(),
            next_rotation_at: self.schedule.and_then(|schedule| schedule.next(record, now)),
        }
    }
}

/// Where a driver finds what applies to a secret. Every secret has settings; those without a section get the defaults.
pub trait Settings: Send + Sync + 'static {
    /// What applies to a secret.
    fn of(&self, secret: &SecretName) -> SecretSettings;
    /// The secrets named in the configuration: they can be rotated before they have a version.
    fn configured(&self) -> Vec<SecretName>;
    /// Every place of the configuration that means secrets, with the pattern it has for them.
    fn patterns(&self) -> Vec<(String, SecretPattern)> {
        Vec::new()
    }
}
