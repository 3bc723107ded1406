//! What is outside of both sides: the store, the roster, the provider and the audit log. Each carries out a request in
//! one moment; getting there and back is the network's business.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use rotacast_protocol::message::Registration;
use rotacast_protocol::record::SecretRecord;
use rotacast_protocol::{Epoch, Version};

/// Who leads, as the store knows it.
#[derive(Clone, Debug)]
pub struct Lock {
    /// Which broadcaster.
    pub node: usize,
    /// Its term.
    pub epoch: Epoch,
    /// When it ends unless it is renewed.
    pub expires: u64,
}

/// A record as stored.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The bytes.
    pub bytes: Rc<Vec<u8>>,
    /// What they say.
    pub record: Rc<SecretRecord>,
    /// How often it was written.
    pub cursor: u64,
}

/// The outside world.
#[derive(Default, Debug)]
pub struct Outside {
    /// The record.
    pub stored: Option<Stored>,
    /// The leader's key.
    pub lock: Option<Lock>,
    /// The last term.
    pub epoch: u64,
    /// The highest version written.
    pub last_version: u64,
    /// Versions that were written.
    pub written: BTreeSet<Version>,
    /// Versions whose values were erased.
    pub erased: BTreeSet<Version>,
    /// Versions whose test login fails.
    pub bad: BTreeSet<Version>,
    /// Credentials that no longer work, and since when.
    pub disabled: BTreeMap<Version, u64>,
    /// The roster.
    pub roster: Vec<Registration>,
    /// Durable intents to retire.
    pub audit: Vec<Version>,
}

impl Outside {
    /// Whether a term still holds the leader's key.
    #[must_use]
    pub fn leads(&self, node: usize, epoch: Epoch, now: u64) -> bool {
        self.lock.as_ref().is_some_and(|lock| lock.node == node && lock.epoch == epoch && lock.expires > now)
    }

    /// Writes the next version.
    pub fn put(&mut self, bad: bool) -> Version {
        let taken = self.stored.as_ref().and_then(|stored| stored.record.last_version).map_or(0, Version::get);
        self.last_version = self.last_version.max(taken) + 1;
        let version = Version::new(self.last_version).expect("counted from 1");
        self.written.insert(version);
        if bad {
            self.bad.insert(version);
        }
        version
    }
}
