//! The systems around the cores: the store, the roster, the provider and the audit log. Each carries out a request in
//! one moment. The network decides how long the request and the answer take.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use rotacast_protocol::message::{Registration, SecretState};
use rotacast_protocol::record::SecretRecord;
use rotacast_protocol::{Epoch, InstanceKey, Revision, Version};

/// The leader, as the store knows it.
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
    /// The roster in the store then: a backup has both.
    pub roster: Rc<Roster>,
}

/// Who is in the roster, and whether its name is exclusive.
pub type Roster = BTreeMap<InstanceKey, bool>;

/// An entry of the audit log: the intent to retire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Intent {
    /// Which version.
    pub version: Version,
    /// The retirement: the revision from which on the version was unwanted.
    pub unwanted_since: Option<Revision>,
}

/// The outside world.
#[derive(Default, Debug)]
pub struct Outside {
    /// The record.
    pub stored: Option<Stored>,
    /// The record that some reads show under a mutant, and that a backup has.
    pub earlier: Vec<Stored>,
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
    /// Managed credentials whose value is in the journal.
    pub journal: BTreeMap<Version, u64>,
    /// The credentials that the provider made, by version.
    pub made: BTreeMap<Version, BTreeSet<u64>>,
    /// Credentials that no longer work, and since when.
    pub disabled: BTreeMap<Version, u64>,
    /// Credentials that were disabled in part: a login may still work.
    pub half_disabled: BTreeSet<Version>,
    /// Removed at the provider.
    pub destroyed: BTreeSet<Version>,
    /// Credentials that another client deleted at the provider.
    pub deleted: BTreeSet<Version>,
    /// The roster, in the store.
    pub roster: Rc<Roster>,
    /// Registrations and leaves, on the bus.
    pub registrations: Vec<Registration>,
    /// Broadcasters hear of no registration, and cannot list the roster, until then.
    pub roster_late: u64,
    /// Who ever registered.
    pub ever_registered: BTreeSet<InstanceKey>,
    /// States as they were published.
    pub states: Vec<SecretState>,
    /// Durable intents to retire.
    pub audit: Vec<Intent>,
    /// The audit log accepts nothing until then.
    pub audit_full: u64,
    /// The audit log is slow until then.
    pub audit_slow: u64,
    /// The store accepts no writes until then.
    pub read_only: u64,
    /// The store was restored from a backup, and no broadcaster has heard of it yet.
    pub restored: bool,
    /// The store was restored at least once.
    pub ever_restored: bool,
    /// It was restored while broadcasters ran.
    pub restored_running: bool,
    /// How often it was restored.
    pub restores: u64,
    /// When it was restored first.
    pub restored_at: u64,
    /// The version that the operator wrote because of the restoration.
    pub rescue: Option<Version>,
    /// The provider refuses logins with restored versions until then, whether or not they work.
    pub no_logins: u64,
    /// The operator leaves safe mode without a look. Where logins show what works, that must do no harm.
    pub hasty: bool,
    /// For how many looks in a row instances have been staying.
    pub staying: u32,
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

    /// The retirement of a version that is stored now.
    #[must_use]
    pub fn unwanted_since(&self, version: Version) -> Option<Revision> {
        Some(self.stored.as_ref()?.record.retirements.get(&version)?.unwanted_since)
    }
}
