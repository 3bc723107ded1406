//! The entry that stands where entries are lost, once an operator has accepted it.

use rotacast_protocol::{OperatorName, WallTime};
use serde::Deserialize;
use serde_json::json;

use super::entry::{Entry, Recorded};
use super::line::{Hash, Head};

/// The action of the entry.
pub(super) const ACTION: &str = "loss_accepted";

/// Most entries that a log may be ahead of its head in the store. The numbers that a loss may have used are not used
/// again, so the entry behind a loss jumps over as many. The store learns the head within a second: thousands of
/// entries a second, or a store that is away, come here.
pub(super) const MAX_AHEAD: u64 = 10_000;

/// Entries that are lost.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Loss {
    /// The last entry that the store knew of.
    pub known: Head,
    /// The entry that says so.
    pub sequence: u64,
    pub by: String,
    pub reason: String,
    pub time: WallTime,
}

#[derive(Deserialize)]
struct Known {
    sequence: u64,
    hash: String,
}

/// The entry of an operator who accepts that what `found` says is lost. `known` is where the log ended as far as the
/// store knows.
pub(super) fn entry(by: &OperatorName, known: Head, found: &str, reason: &str) -> Entry {
    Entry::new(by.as_str(), ACTION)
        .detail("known", json!({ "sequence": known.sequence, "hash": known.hash.to_string() }))
        .detail("found", found)
        .detail("reason", reason)
}

/// What the entry of an accepted loss follows: the numbers that may have been used are left out.
pub(super) fn before(known: Head) -> Head {
    Head { sequence: known.sequence + MAX_AHEAD, hash: known.hash }
}

impl Loss {
    pub(super) fn read(entry: &Recorded) -> Result<Self, String> {
        let known = entry.details.get("known").cloned().unwrap_or_default();
        let known: Known = serde_json::from_value(known).map_err(|error| format!("details.known: {error}"))?;
        let reason = entry.details.get("reason").and_then(serde_json::Value::as_str).unwrap_or_default();
        Ok(Self {
            known: Head { sequence: known.sequence, hash: known.hash.parse()? },
            sequence: entry.sequence,
            by: entry.actor.clone(),
            reason: reason.to_owned(),
            time: WallTime(entry.time_ms),
        })
    }

    /// Whether it stands where it may, behind an entry `head` that is there.
    pub(super) fn follows(&self, sequence: u64, prev: Hash, head: Head) -> Result<(), String> {
        let expected = before(self.known);
        if sequence != expected.sequence + 1 || prev != expected.hash {
            return Err(format!(
                "entry {sequence} accepts a loss behind entry {}, but does not follow it",
                self.known.sequence
            ));
        }
        // The file begins with it.
        if head == expected {
            return Ok(());
        }
        let contradicts = self.known.sequence == head.sequence && self.known.hash != head.hash;
        if self.known.sequence < head.sequence || contradicts {
            return Err(format!(
                "entry {sequence} accepts the loss of what followed entry {}, but entry {} ({}) is before it",
                self.known.sequence, head.sequence, head.hash
            ));
        }
        Ok(())
    }
}
