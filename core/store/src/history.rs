//! Whether a store is still the one it was, and has not gone back in time.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::StoreError;

/// That a store went back in time, as one handle of it found: see `Store::setback`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Setback {
    /// How many this handle has found.
    pub count: u64,
    /// What was expected and found at the newest.
    pub problem: String,
}

/// What one handle has seen of its store. Shared by its calls and watches.
///
/// A store that went back is reported once by each call and watch that was under way, and from then on its present
/// is the history that counts: what is checked against it can be committed, so that a broadcaster can record that it
/// stopped. What happened stays visible in [`History::setback`].
#[derive(Default)]
pub(crate) struct History {
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    identity: Option<u64>,
    position: u64,
    setback: Option<Setback>,
}

/// What an answer must show at least. Taken before the call: answers to concurrent calls may arrive in any order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Floor {
    position: u64,
    setbacks: u64,
}

#[cfg_attr(
    not(all(feature = "consul", feature = "embedded", feature = "etcd")),
    allow(dead_code, reason = "stores differ in what they can show of their history")
)]
impl Floor {
    pub(crate) fn position(self) -> u64 {
        self.position
    }
}

#[cfg_attr(
    not(all(feature = "consul", feature = "embedded", feature = "etcd")),
    allow(dead_code, reason = "stores differ in what they can show of their history")
)]
impl History {
    /// For a linearizable call that is sent from now on.
    pub(crate) fn floor(&self) -> Floor {
        let seen = self.lock();
        Floor { position: seen.position, setbacks: setbacks(&seen) }
    }

    /// Takes note of the answer to a linearizable call that was sent when the floor was `floor`.
    pub(crate) fn answered(
        &self,
        name: &str,
        floor: Floor,
        identity: Option<u64>,
        position: u64,
    ) -> Result<(), StoreError> {
        let mut seen = self.lock();
        same_history(&seen, name, floor)?;
        if let Some(problem) = other_identity(&mut seen, identity) {
            return Err(went_backwards(&mut seen, name, problem, identity, position));
        }
        if position < floor.position {
            let problem = format!(
                "its position is {position}, expected at least {}: was it restored from a backup?",
                floor.position
            );
            return Err(went_backwards(&mut seen, name, problem, identity, position));
        }
        seen.position = seen.position.max(position);
        Ok(())
    }

    /// Takes note of an answer that tells the identity but need not be up to date.
    pub(crate) fn same_store(&self, name: &str, floor: Floor, identity: u64, position: u64) -> Result<(), StoreError> {
        let mut seen = self.lock();
        same_history(&seen, name, floor)?;
        match other_identity(&mut seen, Some(identity)) {
            Some(problem) => Err(went_backwards(&mut seen, name, problem, Some(identity), position)),
            None => Ok(()),
        }
    }

    /// Takes note of a position that is certainly reached, though perhaps not the newest.
    pub(crate) fn reached(&self, name: &str, floor: Floor, position: u64) -> Result<(), StoreError> {
        let mut seen = self.lock();
        same_history(&seen, name, floor)?;
        seen.position = seen.position.max(position);
        Ok(())
    }

    /// Notes that the store went back, as seen by who knew the history of `floor`; its position is `position` now.
    pub(crate) fn went_backwards(&self, name: &str, floor: Floor, problem: String, position: u64) -> StoreError {
        let mut seen = self.lock();
        match same_history(&seen, name, floor) {
            Err(known) => known,
            Ok(()) => {
                let identity = seen.identity;
                went_backwards(&mut seen, name, problem, identity, position)
            }
        }
    }

    #[cfg(any(feature = "leader", test))]
    pub(crate) fn setback(&self) -> Option<Setback> {
        self.lock().setback.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        // Every field is whole at any moment, even if a thread panicked while it held the lock.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn setbacks(seen: &Seen) -> u64 {
    seen.setback.as_ref().map_or(0, |setback| setback.count)
}

/// A call that began before a setback was found gets that error too, without its being counted again.
fn same_history(seen: &Seen, name: &str, floor: Floor) -> Result<(), StoreError> {
    match &seen.setback {
        Some(setback) if setback.count != floor.setbacks => {
            Err(StoreError::WentBackwards { endpoint: name.into(), problem: setback.problem.clone() })
        }
        _ => Ok(()),
    }
}

fn other_identity(seen: &mut Seen, found: Option<u64>) -> Option<String> {
    let found = found?;
    let expected = *seen.identity.get_or_insert(found);
    (expected != found).then(|| format!("its cluster id is {found:x}, expected {expected:x}"))
}

fn went_backwards(seen: &mut Seen, name: &str, problem: String, identity: Option<u64>, position: u64) -> StoreError {
    let count = setbacks(seen) + 1;
    *seen = Seen { identity, position, setback: Some(Setback { count, problem: problem.clone() }) };
    StoreError::WentBackwards { endpoint: name.into(), problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setback_is_told_to_all_who_were_under_way_and_counted_once() {
        let history = History::default();
        let first = history.floor();
        history.answered("s", first, Some(1), 10).unwrap();
        let (one, other) = (history.floor(), history.floor());
        assert!(matches!(history.answered("s", one, Some(1), 4), Err(StoreError::WentBackwards { .. })));
        assert!(matches!(history.answered("s", other, Some(1), 4), Err(StoreError::WentBackwards { .. })));
        assert!(matches!(history.reached("s", other, 20), Err(StoreError::WentBackwards { .. })));
        assert_eq!(history.setback().unwrap().count, 1);
        // A call that begins now works from the present state.
        let now = history.floor();
        assert_eq!(now.position(), 4);
        history.answered("s", now, Some(1), 5).unwrap();
        assert!(history.same_store("s", history.floor(), 2, 9).is_err());
        assert_eq!(history.setback().unwrap().count, 2);
        history.answered("s", history.floor(), Some(2), 9).unwrap();
    }
}
