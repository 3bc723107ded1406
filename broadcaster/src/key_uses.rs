//! Which keys are used, by which live instances: what says when a key may be dropped.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rotacast_proto::KeyId;
use rotacast_protocol::{InstanceKey, ServiceName};

/// How long an instance counts as live after it was last heard: three of the longest Sync intervals.
pub const LIVE: Duration = Duration::from_secs(180);

/// Most instances that are kept: as many as one secret may have members. Those beyond it are not shown.
const MOST_INSTANCES: usize = 200_000;

/// Most keys whose refused use is kept until it is on record. Those beyond it are counted in the log alone.
const MOST_REFUSED: usize = 64;

/// What one instance last said, and how.
#[derive(Clone, Debug)]
pub struct InstanceUse {
    /// The service's key that attests it.
    pub attested_by: KeyId,
    /// The broadcasters' keys that it trusts by its settings.
    pub trusted: Vec<KeyId>,
    /// Those that it trusts only because they were announced.
    pub announced: Vec<KeyId>,
    /// When it was heard.
    pub heard: Instant,
}

/// Why what a service's key attests does not count.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum RefusedUse {
    /// The key is revoked.
    Revoked,
    /// The key attests no new instance any more.
    Former,
}

/// Refused uses of one key that are not on record yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// The newest instance that showed it.
    pub instance: InstanceKey,
    /// How many messages.
    pub times: u64,
}

/// Refused uses by service, key and reason.
pub type RefusedUses = BTreeMap<(ServiceName, KeyId, RefusedUse), Refused>;

#[derive(Debug, Default)]
struct Inner {
    instances: HashMap<InstanceKey, InstanceUse>,
    refused: RefusedUses,
}

/// What this broadcaster has seen of keys. Syncs go to the leader alone, so it alone knows all instances.
#[derive(Debug, Default)]
pub struct KeyUses(Mutex<Inner>);

impl KeyUses {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Whole after every call on it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An instance that is registered sent a Sync.
    pub(crate) fn note(&self, key: &InstanceKey, used: InstanceUse) {
        let mut inner = self.inner();
        if inner.instances.len() >= MOST_INSTANCES && !inner.instances.contains_key(key) {
            let now = used.heard;
            inner.instances.retain(|_, used| now.saturating_duration_since(used.heard) < LIVE);
            if inner.instances.len() >= MOST_INSTANCES {
                return;
            }
        }
        inner.instances.insert(key.clone(), used);
    }

    /// It has left.
    pub(crate) fn forget(&self, key: &InstanceKey) {
        self.inner().instances.remove(key);
    }

    /// A key that is known, and does not count, has attested an instance.
    pub(crate) fn note_refused(&self, key: &KeyId, why: RefusedUse, instance: &InstanceKey) {
        let mut inner = self.inner();
        let of = (instance.service.clone(), key.clone(), why);
        if inner.refused.len() >= MOST_REFUSED && !inner.refused.contains_key(&of) {
            return;
        }
        let refused = inner.refused.entry(of).or_insert_with(|| Refused { instance: instance.clone(), times: 0 });
        refused.instance = instance.clone();
        refused.times += 1;
    }

    /// What was refused since the last call.
    pub(crate) fn take_refused(&self) -> RefusedUses {
        std::mem::take(&mut self.inner().refused)
    }

    /// The live instances.
    #[must_use]
    pub fn live(&self, now: Instant) -> Vec<(InstanceKey, InstanceUse)> {
        let mut inner = self.inner();
        inner.instances.retain(|_, used| now.saturating_duration_since(used.heard) < LIVE);
        let mut live: Vec<_> = inner.instances.iter().map(|(key, used)| (key.clone(), used.clone())).collect();
        drop(inner);
        live.sort_by(|(one, _), (other, _)| one.cmp(other));
        live
    }
}

#[cfg(test)]
mod tests {
    use rotacast_protocol::Incarnation;

    use super::*;

    fn instance(number: u128) -> InstanceKey {
        InstanceKey::new("api".parse().unwrap(), "one".parse().unwrap(), Incarnation(number))
    }

    #[test]
    fn an_instance_is_live_until_it_is_silent_or_leaves() {
        let uses = KeyUses::default();
        let began = Instant::now();
        let used =
            |heard| InstanceUse { attested_by: KeyId::of(&[1; 32]), trusted: Vec::new(), announced: Vec::new(), heard };
        uses.note(&instance(1), used(began));
        uses.note(&instance(2), used(began + LIVE / 2));
        uses.note(&instance(3), used(began + LIVE / 2));
        uses.forget(&instance(3));
        assert_eq!(uses.live(began + LIVE / 2).len(), 2);
        let live = uses.live(began + LIVE);
        assert_eq!(live.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(), [instance(2)]);
    }

    #[test]
    fn refused_uses_are_counted_by_key_and_bounded() {
        let uses = KeyUses::default();
        for number in 0..=255 {
            uses.note_refused(&KeyId::of(&[number; 32]), RefusedUse::Revoked, &instance(1));
            uses.note_refused(&KeyId::of(&[0; 32]), RefusedUse::Revoked, &instance(2));
        }
        let refused = uses.take_refused();
        assert_eq!(refused.len(), MOST_REFUSED);
        let first = &refused[&("api".parse().unwrap(), KeyId::of(&[0; 32]), RefusedUse::Revoked)];
        assert_eq!(*first, Refused { instance: instance(2), times: 257 });
        assert!(uses.take_refused().is_empty());
    }
}
