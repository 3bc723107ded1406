//! Reads what bus and store know after the seal.

use rotacast_protocol::coordinator::Input;
use rotacast_protocol::{Revision, Version};

use super::super::Environment;
use super::Effect;

impl Effect {
    /// Reads the roster up to its end as it stands after the seal, and the versions, linearizably.
    pub(super) async fn pass_barrier(&self, version: Version, revision: Revision) -> anyhow::Result<Vec<Input>> {
        let Environment { bus, tree, identities, .. } = &self.environment;
        let mut inputs = Vec::new();
        for envelope in bus.read_roster().await? {
            // A registration that does not verify was counted and logged; it stands for no instance.
            let Ok(registration) = identities.registration(&envelope) else { continue };
            if registration.secrets.contains(self.secret()) {
                inputs.push(if registration.left {
                    Input::Left { key: registration.key }
                } else {
                    Input::Registered { key: registration.key, exclusive: registration.exclusive, live: false }
                });
            }
        }
        for listed in tree.list_versions(self.secret()).await?.into_iter().map(|stamp| stamp.version) {
            if Some(listed) > self.record.last_version {
                inputs.push(Input::VersionSeen { version: listed });
            }
        }
        inputs.push(Input::BarrierPassed { version, revision });
        Ok(inputs)
    }
}
