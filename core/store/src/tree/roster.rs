//! The roster: every incarnation that may have a lease. Only the leader writes it, and before the first lease.

use std::collections::BTreeSet;

use rotacast_proto::SecretValue;
use rotacast_protocol::record::Unknown;
use rotacast_protocol::{Epoch, InstanceKey, SecretName};
use serde::{Deserialize, Serialize};

use super::SecretTree;
use crate::{Committed, Entry, Key, MAX_COMMIT_BYTES, MAX_COMMIT_OPS, StoreError, Write};

/// The newest format this code writes and reads.
const FORMAT: u32 = 1;

/// One incarnation in the roster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RosterEntry {
    /// Which one.
    pub key: InstanceKey,
    /// Its platform runs at most one process at a time under its instance name.
    pub exclusive: bool,
    /// The secrets that it uses. `None`: the entry cannot be read, so it may be any.
    pub secrets: Option<BTreeSet<SecretName>>,
    /// What a later minor version wrote.
    pub unknown: Unknown,
}

/// The whole roster, as of one moment.
pub struct Roster {
    /// One for each incarnation, sorted by its key's text.
    pub entries: Vec<RosterEntry>,
    /// Keys below `roster/` that are no incarnation's, and entries that cannot be read, with the reason.
    pub strangers: Vec<(Key, String)>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    exclusive: bool,
    secrets: BTreeSet<String>,
    #[serde(flatten)]
    unknown: Unknown,
}

impl RosterEntry {
    fn encode(&self) -> Vec<u8> {
        let secrets = self.secrets.iter().flatten().map(ToString::to_string).collect();
        let stored = Stored { format: FORMAT, exclusive: self.exclusive, secrets, unknown: self.unknown.clone() };
        serde_json::to_vec(&stored).expect("names and numbers are JSON")
    }
}

fn decode(key: InstanceKey, entry: &Entry) -> Result<RosterEntry, String> {
    let stored: Stored = serde_json::from_slice(entry.value.expose()).map_err(|problem| problem.to_string())?;
    if stored.format != FORMAT {
        return Err(format!("format {}, expected {FORMAT}: written by a newer rotacast?", stored.format));
    }
    let secrets = stored.secrets.into_iter().map(SecretName::new).collect::<Result<_, _>>();
    let secrets = Some(secrets.map_err(|problem| problem.to_string())?);
    Ok(RosterEntry { key, exclusive: stored.exclusive, secrets, unknown: stored.unknown })
}

impl SecretTree {
    /// The whole roster, linearizably: it names everyone who may have a lease of any earlier leader.
    ///
    /// # Errors
    /// What the store says.
    pub async fn load_roster(&self) -> Result<Roster, StoreError> {
        let folder = self.folder("roster");
        let mut roster = Roster { entries: Vec::new(), strangers: Vec::new() };
        for entry in self.store.list(&folder).await?.entries {
            let Some(key) = entry.key.below(&folder).and_then(InstanceKey::of_full_name) else {
                let problem = "it is not of the form service/instance/incarnation".to_owned();
                roster.strangers.push((entry.key, problem));
                continue;
            };
            roster.entries.push(decode(key.clone(), &entry).unwrap_or_else(|problem| {
                roster.strangers.push((entry.key, problem));
                RosterEntry { key, exclusive: false, secrets: None, unknown: Unknown::new() }
            }));
        }
        Ok(roster)
    }

    /// Whether an incarnation is in the roster. The read is linearizable.
    ///
    /// # Errors
    /// What the store says.
    pub async fn is_in_roster(&self, key: &InstanceKey) -> Result<bool, StoreError> {
        Ok(self.store.get(&self.folder("roster").child(key.full_name())).await?.is_some())
    }

    /// Writes entries, if `epoch` still leads, in as many commits as they need. Returns how many of them are durable: fewer than
    /// all when the leadership is over.
    ///
    /// # Errors
    /// What the store says. After a transient error, write all of them again.
    pub async fn enter_roster(&self, entries: &[RosterEntry], epoch: Epoch) -> Result<usize, StoreError> {
        let writes = entries.iter().map(|entry| {
            let key = self.folder("roster").child(entry.key.full_name());
            Write::Put(key, SecretValue::new(entry.encode()))
        });
        self.write_roster(writes.collect(), epoch).await
    }

    /// Takes incarnations out that are over for good, as [`SecretTree::enter_roster`] writes.
    ///
    /// # Errors
    /// What the store says.
    pub async fn leave_roster(&self, keys: &[InstanceKey], epoch: Epoch) -> Result<usize, StoreError> {
        let writes = keys.iter().map(|key| Write::Delete(self.folder("roster").child(key.full_name())));
        self.write_roster(writes.collect(), epoch).await
    }

    async fn write_roster(&self, writes: Vec<Write>, epoch: Epoch) -> Result<usize, StoreError> {
        let mut writes = writes.into_iter().peekable();
        let mut done = 0;
        while writes.peek().is_some() {
            let (mut batch, mut bytes) = (Vec::new(), 0);
            while let Some(write) = writes.next_if(|write| {
                bytes += if let Write::Put(_, value) = write { value.len() } else { 0 };
                batch.is_empty() || batch.len() < MAX_COMMIT_OPS && bytes <= MAX_COMMIT_BYTES
            }) {
                batch.push(write);
            }
            let count = batch.len();
            match self.commit(vec![self.leads(epoch)], batch).await? {
                Committed::Done(_) => done += count,
                Committed::Conflict => break,
            }
        }
        Ok(done)
    }
}
